//! Arbitrary bytes as native frames, see `frames`.
#![no_main]

mod frames;

use libfuzzer_sys::fuzz_target;
use spinetail::wire::native::Native;

fuzz_target!(|bytes: &[u8]| frames::check::<Native>(bytes, |_| {}));
