//! Arbitrary bytes from a client, in arbitrary pieces, in each protocol: no panic, and the same answers
//! as to the whole stream at once, as long as the connection stays open.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spinetail::base::hash::HashSeed;
use spinetail::cache::{Accounting, Config, Store};
use spinetail::engine::Protocol;
use spinetail::engine::direct::Direct;

const SEGMENT_BYTES: usize = 4096;
/// Words of commands and replies that tell of time, of this connection, or of counters.
const VARYING: &[&[u8]] = &[
    b"_hits", b"info", b"time", b"client", b"hello", b"id", b"latency", b"randomkey", b"ttl", b"px", b"ex", b"stats", b"pid",
];

fn shard(protocol: Protocol) -> Direct<Vec<u8>> {
    let config = Config { segment_bytes: SEGMENT_BYTES, seed: HashSeed(1), accounting: Accounting::Memory };
    Direct::new(Store::new(vec![0; 20 * SEGMENT_BYTES], config), HashSeed(1), protocol)
}

fuzz_target!(|bytes: &[u8]| {
    let [choice, piece, stream @ ..] = bytes else { return };
    let protocol = match choice & 3 {
        0 => Protocol::Native,
        1 => Protocol::Memcached,
        2 => Protocol::Resp,
        _ => Protocol::Resp3,
    };
    let (whole, open) = {
        let mut shard = shard(protocol);
        let (replies, open) = shard.exchange(stream);
        (replies.to_vec(), open)
    };
    let mut shard = shard(protocol);
    let mut pieces = Vec::new();
    for piece in stream.chunks(1 + usize::from(*piece)) {
        let (replies, still_open) = shard.exchange(piece);
        pieces.extend_from_slice(replies);
        if !still_open {
            // What follows would be another connection's.
            assert!(!open, "the whole stream was taken, a piece of it closed the connection");
            return;
        }
    }
    // A frame that makes no sense is refused as soon as that is certain, before its id has arrived: the
    // last answer may differ where the connection is closed. Counters and times are as they are.
    let mut lower = stream.to_ascii_lowercase();
    lower.extend_from_slice(&whole.to_ascii_lowercase());
    let varies = VARYING.iter().any(|word| lower.windows(word.len()).any(|window| window == *word));
    if open && !varies {
        assert!(whole == pieces, "pieces are answered otherwise");
    }
});
