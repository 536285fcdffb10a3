//! A client that keeps one connection to each shard and asks the owner of a key directly.
//!
//! ```no_run
//! use spinetail::client::Client;
//! let mut client = Client::connect("127.0.0.1:7700".parse::<std::net::SocketAddr>().unwrap())?;
//! client.set(b"user:7", b"Ada", Some(std::time::Duration::from_secs(60)))?;
//! assert_eq!(client.get(b"user:7")?.unwrap().bytes, b"Ada");
//! # Ok::<(), spinetail::client::Error>(())
//! ```

use std::time::Duration;

use crate::base::hash::HashSeed;
use crate::client::connection::{Connection, Error};
use crate::client::transport::Endpoint;
use crate::wire::{Command, Mode, Status};

/// A client of one server, for one thread.
pub struct Client {
    shards: Vec<Connection>,
    seed: HashSeed,
}

/// A value, and its version if it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// The bytes stored.
    pub bytes: Vec<u8>,
    /// The version, 0 if not asked for.
    pub version: u64,
}

/// How a compare-and-set went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompareAndSet {
    /// Stored, with this version.
    Stored(u64),
    /// The key is stored with another version.
    Differs,
    /// The key is not stored.
    NotFound,
}

impl Client {
    /// Connects to every shard of a server: at an address, or through shared memory.
    pub fn connect(to: impl Into<Endpoint>) -> Result<Client, Error> {
        let endpoint = to.into();
        let first = Connection::open(endpoint.clone(), Some(0), TIMEOUT)?;
        let (count, seed) = (first.hello().shard_count, HashSeed(first.hello().hash_seed));
        let mut shards = vec![first];
        for shard in 1..count {
            shards.push(Connection::open(endpoint.clone(), Some(shard), TIMEOUT)?);
        }
        Ok(Client { shards, seed })
    }

    /// Reads a value.
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.read(key, false)
    }

    /// Reads a value with a version to compare against later.
    pub fn get_versioned(&mut self, key: &[u8]) -> Result<Option<Value>, Error> {
        self.read(key, true)
    }

    /// Stores a value, for `ttl` or until it is evicted.
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
        self.store(key, value, ttl, Mode::Set).map(|_| ())
    }

    /// Stores a value if the key is not stored. Answers whether it was.
    pub fn add(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        Ok(self.store(key, value, ttl, Mode::Add)?.0 == Status::Ok)
    }

    /// Stores a value if the key is stored. Answers whether it was.
    pub fn replace(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        Ok(self.store(key, value, ttl, Mode::Replace)?.0 == Status::Ok)
    }

    /// Stores a value if the key still has `version`.
    pub fn compare_and_set(
        &mut self,
        key: &[u8],
        version: u64,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<CompareAndSet, Error> {
        let command = Command::Set { key, value, ttl_ms: milliseconds(ttl), mode: Mode::CompareAndSet(version) };
        let reply = self.owner(key).call(command, true)?.reply;
        match reply.status {
            Status::Ok => Ok(CompareAndSet::Stored(reply.number)),
            Status::VersionDiffers => Ok(CompareAndSet::Differs),
            Status::NotFound => Ok(CompareAndSet::NotFound),
            other => Err(Error::Protocol(format!("'{other}' is no answer to a compare-and-set"))),
        }
    }

    /// Removes a key. Answers whether it was stored.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, Error> {
        Ok(self.owner(key).call(Command::Delete { key }, false)?.reply.status == Status::Ok)
    }

    /// Adds to a counter, starting at `initial` if there is none. `None`: there is none and no start.
    pub fn increment(&mut self, key: &[u8], delta: i64, initial: Option<i64>) -> Result<Option<i64>, Error> {
        let reply = self.owner(key).call(Command::Increment { key, delta, initial, ttl_ms: 0 }, false)?.reply;
        match reply.status {
            Status::Ok => Ok(Some(reply.number as i64)),
            Status::NotFound => Ok(None),
            status => Err(Error::Refused { status, text: String::new() }),
        }
    }

    /// Changes when a key expires. Answers whether it is stored.
    pub fn touch(&mut self, key: &[u8], ttl: Option<Duration>) -> Result<bool, Error> {
        let command = Command::Touch { key, ttl_ms: milliseconds(ttl) };
        Ok(self.owner(key).call(command, false)?.reply.status == Status::Ok)
    }

    /// How long a key has left: `None` if it is not stored, `Some(None)` if it does not expire.
    pub fn ttl(&mut self, key: &[u8]) -> Result<Option<Option<Duration>>, Error> {
        let reply = self.owner(key).call(Command::Ttl { key }, false)?.reply;
        Ok(match (reply.status, reply.number) {
            (Status::Ok, u64::MAX) => Some(None),
            (Status::Ok, left) => Some(Some(Duration::from_millis(left))),
            _ => None,
        })
    }

    /// The server's counters, as lines of `name value`.
    pub fn stats(&mut self) -> Result<String, Error> {
        let reply = self.shards[0].call(Command::Stats, false)?.reply;
        Ok(String::from_utf8_lossy(reply.value).into_owned())
    }

    /// Removes every entry.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.shards[0].call(Command::Flush, false).map(|_| ())
    }

    /// Shards of the server.
    pub fn shard_count(&self) -> usize {
        self.shards.len()
    }

    fn owner(&mut self, key: &[u8]) -> &mut Connection {
        let shard = self.seed.hash(key).shard(self.shards.len() as u16);
        &mut self.shards[shard.0 as usize]
    }

    /// Reads a value for the near cache that the key's shard knows by `token`, 0 for none, and what the shard says
    /// of it: milliseconds left, 0 if it does not watch the key.
    pub(super) fn get_tracked(&mut self, key: &[u8], token: u64) -> Result<Option<(Vec<u8>, u64)>, Error> {
        let command = if token == 0 { Command::Get { key } } else { Command::GetTracked { key, token } };
        let reply = self.owner(key).call(command, false)?.reply;
        Ok((reply.status == Status::Ok).then(|| (reply.value.to_vec(), reply.number)))
    }

    fn read(&mut self, key: &[u8], want_version: bool) -> Result<Option<Value>, Error> {
        let reply = self.owner(key).call(Command::Get { key }, want_version)?.reply;
        Ok((reply.status == Status::Ok).then(|| Value { bytes: reply.value.to_vec(), version: reply.number }))
    }

    fn store(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>, mode: Mode) -> Result<(Status, u64), Error> {
        let command = Command::Set { key, value, ttl_ms: milliseconds(ttl), mode };
        let reply = self.owner(key).call(command, false)?.reply;
        Ok((reply.status, reply.number))
    }
}

/// A time to live on the wire. What is shorter than a millisecond lives one: 0 would mean forever.
pub(super) fn milliseconds(ttl: Option<Duration>) -> u64 {
    ttl.map_or(0, |ttl| (ttl.as_millis() as u64).max(1))
}

/// How long a connection, a request or a reply may take.
const TIMEOUT: Duration = Duration::from_secs(5);
