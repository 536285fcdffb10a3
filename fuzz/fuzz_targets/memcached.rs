//! Arbitrary bytes as memcached frames, see `frames`.
#![no_main]

mod frames;

use libfuzzer_sys::fuzz_target;
use spinetail::wire::memcached::Memcached;

fuzz_target!(|bytes: &[u8]| frames::check::<Memcached>(bytes, |_| {}));
