//! Arbitrary bytes as memcached frames: no panic, no frame longer than what is there, nothing whole that was incomplete with
//! more bytes missing, and a frame reads the same whatever follows it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinetail::wire::memcached::Memcached;
use spinetail::wire::{Codec, Decoded};

const VALUE_BYTES_MAX: usize = 4096;

fn check<C: Codec>(bytes: &[u8]) {
    match C::decode(bytes, VALUE_BYTES_MAX) {
        Decoded::Request(request, length) => {
            assert!(length > 0 && length <= bytes.len());
            let alone = C::decode(&bytes[..length], VALUE_BYTES_MAX);
            assert_eq!(alone, Decoded::Request(request, length), "what follows a frame changes it");
            cut::<C>(&bytes[..length]);
        }
        Decoded::Front(length) => {
            assert!(length > 0 && length <= bytes.len());
            assert_eq!(C::decode(&bytes[..length], VALUE_BYTES_MAX), Decoded::Front(length));
            cut::<C>(&bytes[..length]);
        }
        Decoded::Incomplete(needed) => assert!(needed > bytes.len(), "as much as is needed is there"),
        Decoded::Refused(refusal) => {
            let mut out = Vec::new();
            C::encode_refusal(&refusal, "refused", &mut out);
        }
    }
}

/// A frame without its last byte is incomplete.
fn cut<C: Codec>(frame: &[u8]) {
    let cut = C::decode(&frame[..frame.len() - 1], VALUE_BYTES_MAX);
    assert!(matches!(cut, Decoded::Incomplete(needed) if needed <= frame.len()), "{cut:?}");
}

fuzz_target!(|bytes: &[u8]| {
    check::<Memcached>(bytes);
});
