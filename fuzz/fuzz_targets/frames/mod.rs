//! What holds for the frames of every codec: no frame is longer than what is there, none that was whole is incomplete
//! with more bytes, and a frame reads the same whatever follows it.

use spinetail::wire::{Codec, Decoded};

const VALUE_BYTES_MAX: usize = 4096;

/// Checks the frame that `bytes` begins with; `front` looks at one that is left to the engine.
pub fn check<C: Codec>(bytes: &[u8], front: impl FnOnce(&[u8])) {
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
            front(&bytes[..length]);
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
