//! A shard without sockets: bytes in, bytes out, on the caller's thread.
//!
//! For what wants the request path itself, from the bytes of requests to the bytes of replies, and
//! nothing around it: instruction counts, fuzzing, tests. The code between is the server's own.

use std::ops::DerefMut;
use std::sync::Arc;

use crate::base::hash::HashSeed;
use crate::base::id::{ConnectionId, ShardId};
use crate::cache::Store;
use crate::engine::core::{Core, Parts};
use crate::engine::executor::unix_ms;
use crate::engine::memcached::MemcachedShared;
use crate::engine::post;
use crate::engine::region_map::RegionMapBytes;
use crate::engine::replica::Replication;
use crate::engine::resp::config::RespShared;
use crate::engine::session::Protocol;
use crate::engine::shard::Shared;
use crate::net::{Flow, Handler};
use crate::observe::ShardCounters;
use crate::observe::calls::Calls;
use crate::observe::hot::PublishedHotKeys;
use crate::observe::{Counter, EvictedIdle, ServiceTimes};
use crate::wire::resp::commands::COMMANDS;

/// One shard with one connection.
pub struct Direct<M> {
    core: Core<M>,
    protocol: Protocol,
    id: ConnectionId,
    out: Vec<u8>,
}

impl<M: DerefMut<Target = [u8]>> Direct<M> {
    /// A shard around `store`, whose key hash has seed `seed`; its connection speaks `protocol`.
    pub fn new(store: Store<M>, seed: HashSeed, protocol: Protocol) -> Direct<M> {
        Direct::replicated(store, seed, protocol, None)
    }

    /// The same, of a cluster if it has an end of replication.
    pub fn replicated(
        store: Store<M>,
        seed: HashSeed,
        protocol: Protocol,
        replication: Option<Box<Replication>>,
    ) -> Direct<M> {
        let shared = Arc::new(Shared {
            counters: vec![ShardCounters::default()],
            times: vec![ServiceTimes::default()],
            evicted_idle: vec![EvictedIdle::default()],
            hot_keys: vec![PublishedHotKeys::default()],
            beats_ms: vec![Counter::default()],
            tenants: Vec::new(),
            calls: vec![Calls::new(COMMANDS.len())],
            seed,
            started: std::time::Instant::now(),
            resp: RespShared::new(unix_ms(), seed.0, CONNECTION_BYTES, store.item_bytes_max()),
            memcached: MemcachedShared::default(),
            region_map: RegionMapBytes::default(),
        });
        // Nobody is on the other end: there is nothing to control.
        let (_, control) = crossbeam::channel::bounded(1);
        let core = Core::new(Parts {
            id: ShardId(0),
            shared,
            store,
            l0: None,
            replication,
            post: post::connect(1).pop().unwrap_or_default(),
            neighbours: Vec::new(),
            control,
            protocols: vec![Protocol::Native, Protocol::Resp, Protocol::Resp3, Protocol::Memcached],
            connection_bytes: CONNECTION_BYTES,
        });
        let mut direct = Direct { core, protocol, id: ConnectionId::default(), out: Vec::new() };
        direct.open();
        direct
    }

    /// Gives the connection `bytes` and returns what it is answered, and whether it stays open; if
    /// not, a fresh connection takes its place.
    pub fn exchange(&mut self, bytes: &[u8]) -> (&[u8], bool) {
        self.out.clear();
        self.core.begin_turn();
        // The read that is looked at once a millisecond is no part of what a request takes.
        self.core.hot_sampled = self.core.now;
        self.core.heed_others();
        self.core.turn += 1;
        let mut flow = self.core.received(self.id, bytes, &mut self.out);
        // What the connection's share of a turn has left over is served in the next ones.
        while self.core.takes_another_turn(self.id) {
            self.core.turn += 1;
            flow = self.core.received(self.id, &[], &mut self.out);
        }
        self.core.sent(self.id, self.out.len());
        self.core.held.clear();
        let open = flow != Flow::Close && flow != Flow::Detach;
        if !open {
            self.core.closed(self.id, 0);
            self.open();
        }
        (&self.out, open)
    }

    /// A turn's share of replication. Answers whether there was anything to do.
    pub fn replicate(&mut self) -> bool {
        self.core.begin_turn();
        self.core.replicate()
    }

    fn open(&mut self) {
        self.id.generation += 1;
        self.core.opened(self.id, self.protocol as usize);
    }
}

/// Enough for any exchange a test makes.
const CONNECTION_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits;
    use crate::base::prng::Prng;
    use crate::cache::{Accounting, Config};
    use crate::wire::native;
    use crate::wire::{Command, Mode, Request, Status, memcached, resp};

    fn direct(protocol: Protocol) -> Direct<Vec<u8>> {
        let segment_bytes = 64 << 10;
        let config = Config { segment_bytes, seed: HashSeed(1), accounting: Accounting::Memory };
        Direct::new(Store::new(vec![0; 64 * segment_bytes], config), HashSeed(1), protocol)
    }

    fn frame(id: u32, command: Command<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        native::encode_request(&Request { id, want_version: false, command }, &mut out);
        out
    }

    #[test]
    fn a_pipeline_longer_than_a_turn_is_answered_whole_and_in_order() {
        let mut shard = direct(Protocol::Native);
        shard.exchange(&frame(0, Command::Set { key: b"k", value: b"v", ttl_ms: 0, mode: Mode::Set }));
        let count = 5 * limits::REQUESTS_PER_TURN as u32 + 7;
        let bytes: Vec<u8> = (0..count).flat_map(|id| frame(id, Command::Get { key: b"k" })).collect();
        let (mut replies, open) = shard.exchange(&bytes);
        assert!(open);
        for id in 0..count {
            let (reply, length) = native::decode_reply(replies).unwrap().unwrap();
            assert_eq!((reply.id, reply.reply.status, reply.reply.value), (id, Status::Ok, b"v".as_slice()));
            replies = &replies[length..];
        }
        assert!(replies.is_empty());
    }

    #[test]
    fn a_region_map_is_passed_on_once_there_is_one() {
        let mut shard = direct(Protocol::Native);
        let ask = |shard: &mut Direct<Vec<u8>>, command| {
            let (bytes, open) = shard.exchange(&frame(1, command));
            assert!(open);
            let reply = native::decode_reply(bytes).unwrap().unwrap().0.reply;
            (reply.status, reply.value.to_vec())
        };
        let features = |shard: &mut Direct<Vec<u8>>| {
            native::ServerHello::decode(&ask(shard, Command::Hello { shard: None }).1).unwrap().features
        };
        assert_eq!((ask(&mut shard, Command::Map).0, features(&mut shard)), (Status::Unsupported, 0));
        for map in [b"one".to_vec(), vec![7; limits::ROUTE_MAP_BYTES_MAX]] {
            shard.core.shared.region_map.set(Some(&map));
            assert_eq!(ask(&mut shard, Command::Map), (Status::Ok, map));
        }
        assert_eq!(features(&mut shard), native::FEATURE_MAP);
    }

    #[test]
    fn a_renewal_is_answered_behind_all_that_was_written_before_it() {
        let mut shard = direct(Protocol::Native);
        let set = |ttl_ms| Command::Set { key: b"k", value: b"v", ttl_ms, mode: Mode::Set };
        shard.exchange(&[frame(1, set(0)), frame(2, Command::GetTracked { key: b"k", token: 64 })].concat());
        let reply = native::decode_reply(shard.exchange(&frame(3, Command::Subscribe)).0).unwrap().unwrap().0.reply;
        let (token, subscribed) = (reply.number, native::Subscribed::decode(reply.value).unwrap());
        assert!(token != 0 && subscribed.lease_ms > 0 && subscribed.bucket_count.is_power_of_two());
        let get = |id| frame(id, Command::GetTracked { key: b"k", token });
        let stream = [
            get(1),
            frame(2, Command::Delete { key: b"other" }),
            frame(3, Command::Noop),
            frame(4, Command::Delete { key: b"k" }),
            frame(5, Command::Delete { key: b"k" }),
            frame(6, Command::Noop),
            get(7),
            frame(8, set(5_000)),
            get(9),
            frame(10, Command::Touch { key: b"k", ttl_ms: 0 }),
            frame(11, Command::Flush),
            frame(12, Command::Subscribe),
            frame(13, Command::Noop),
        ];
        let mut replies = shard.exchange(&stream.concat()).0;
        let mut said = Vec::new();
        while let Some((reply, length)) = native::decode_reply(replies).unwrap() {
            said.push((reply.id, reply.opcode, reply.reply.status, reply.reply.number, reply.reply.value.to_vec()));
            replies = &replies[length..];
        }
        let bucket = HashSeed(1).hash(b"k").near_bucket(subscribed.bucket_count);
        let push = |number, bucket: u32| (number, native::OPCODE_PUSH, Status::Ok, 0, bucket.to_le_bytes().to_vec());
        assert_eq!((said[0].3, said[0].4.as_slice()), (u64::MAX, b"v".as_slice()), "watched, and it never expires");
        assert_eq!((said[1].0, said[2].0), (2, 3), "nothing to push before the first renewal");
        assert_eq!((said[5].clone(), said[6].0), (push(1, bucket), 6), "the second DELETE found nobody interested");
        assert_eq!((said[7].2, said[7].3), (Status::NotFound, 0));
        assert!((4_000..=5_000).contains(&said[9].3), "{:?}", said[9]);
        assert_eq!((said[12].0, said[12].3), (12, token), "subscribed already");
        assert_eq!((said[13].clone(), said[14].0), (push(2, native::PUSH_EVERYTHING), 13));
        let stats = String::from_utf8(shard.exchange(&frame(14, Command::Stats)).0.to_vec());
        let stats = stats.unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        assert!(stats.contains("near_subscribers 1\nnear_pushes 2\nnear_invalidations 2\n"), "{stats}");
    }

    /// However a stream is cut into pieces, it is answered the same.
    #[test]
    fn a_stream_in_pieces_is_answered_like_the_whole() {
        let mut prng = Prng::new(9);
        for protocol in [Protocol::Native, Protocol::Resp, Protocol::Memcached] {
            for _ in 0..100 {
                let mut stream = Vec::new();
                for id in 0..40 {
                    let key = format!("key-{}", prng.below(5));
                    let value = vec![b'v'; prng.below(3000) as usize];
                    let command = match prng.below(3) {
                        0 => Command::Set { key: key.as_bytes(), value: &value, ttl_ms: 0, mode: Mode::Set },
                        _ => Command::Get { key: key.as_bytes() },
                    };
                    match protocol {
                        Protocol::Native => stream.extend(frame(id, command)),
                        Protocol::Memcached => memcached::encode_request(&command, &mut stream),
                        Protocol::Resp | Protocol::Resp3 => resp::client::encode_request(&command, &mut stream),
                    }
                }
                let whole = direct(protocol).exchange(&stream).0.to_vec();
                let (mut shard, mut pieces, mut at) = (direct(protocol), Vec::new(), 0);
                while at < stream.len() {
                    let end = (at + 1 + prng.below(5000) as usize).min(stream.len());
                    pieces.extend_from_slice(shard.exchange(&stream[at..end]).0);
                    at = end;
                }
                assert!(whole == pieces, "{protocol:?}");
            }
        }
    }

    #[test]
    fn resp_is_answered_by_the_same_store_in_its_own_forms() {
        let mut shard = direct(Protocol::Resp);
        let mut say = |text: &str| String::from_utf8_lossy(shard.exchange(text.as_bytes()).0).into_owned();
        assert_eq!(say("SET a 1\r\nINCR a\r\nGET a\r\nGET b\r\n"), "+OK\r\n:2\r\n$1\r\n2\r\n$-1\r\n");
        assert_eq!(say("SET a x NX\r\nDEL a\r\nDEL a\r\nTTL a\r\n"), "$-1\r\n:1\r\n:0\r\n:-2\r\n");
        assert_eq!(
            say("SET a x EX 100\r\nTTL a\r\nINCR a\r\nFLUSHALL\r\nEXISTS a\r\n"),
            "+OK\r\n:100\r\n-ERR value is not an integer or out of range\r\n+OK\r\n:0\r\n"
        );
        assert_eq!(say("*1\r\n$-3\r\n"), "-ERR Protocol error: invalid bulk length\r\n");
        assert_eq!(
            say("PING\r\n\r\nBOGUS x\r\n"),
            "+PONG\r\n-ERR unknown command 'BOGUS', with args beginning with: 'x' \r\n",
            "a fresh connection"
        );
        assert_eq!(say("PING\r\nQUIT\r\nPING\r\n"), "+PONG\r\n+OK\r\n");
        assert!(say("INFO\r\n").contains("\r\nkeyspace_hits:1\r\n"));
        assert_eq!(say("MSET a 1 b 2\r\nMGET a b c\r\n"), "+OK\r\n*3\r\n$1\r\n1\r\n$1\r\n2\r\n$-1\r\n");
        assert_eq!(say("MULTI\r\nINCR a\r\nGET b\r\nEXEC\r\n"), "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:2\r\n$1\r\n2\r\n");
        assert_eq!(say("MSETNX c 1 a 1\r\nRENAME a d\r\nCOPY d b\r\nGET d\r\n"), ":0\r\n+OK\r\n:0\r\n$1\r\n2\r\n");
        assert_eq!(say("WATCH d\r\nSET d 9\r\nMULTI\r\nGET d\r\nEXEC\r\n"), "+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n");
        assert_eq!(say("HELLO 3\r\nGET nothing\r\n").lines().last(), Some("_"));
    }
}
