//! Arbitrary bytes as RESP frames, see `frames`; a command is as long when it is read as when it was measured.
#![no_main]

mod frames;

use libfuzzer_sys::fuzz_target;
use spinetail::wire::resp::{self, Resp, Resp3, RespFront};

fn read(frame: &[u8]) {
    if frame[0] == b'*' {
        let mut words = Vec::new();
        assert_eq!(resp::words(frame, &mut words), frame.len(), "measured and read differ");
    } else {
        let _ = resp::inline_words(frame);
    }
}

fuzz_target!(|bytes: &[u8]| {
    frames::check::<Resp>(bytes, read);
    frames::check::<Resp3>(bytes, read);
    frames::check::<RespFront>(bytes, read);
});
