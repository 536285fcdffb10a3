//! Commands cut into parts, each for the shard that owns its key.

use crate::base::hash::{HashSeed, KeyHash};
use crate::base::id::ShardId;
use crate::base::limits;
use crate::engine::resp::clients;
use crate::engine::resp::gather::Merge;
use crate::engine::resp::parts;
use crate::wire::resp::commands::Cmd;
use crate::wire::resp::encode_words;
use crate::wire::resp::single::{self, Problem};

/// What is to be done for one command.
#[derive(Debug)]
pub enum Task {
    /// Parts that do not depend on each other.
    Plain {
        merge: Merge,
        /// The part for each shard, as a command.
        parts: Vec<(ShardId, Vec<u8>)>,
    },
    /// Something about the connection or the server, done when its turn has come.
    Local(Vec<Vec<u8>>),
    /// Store all, if none of the keys is there (MSETNX).
    StoreAll(Vec<(Vec<u8>, Vec<u8>)>),
    /// Give a value another key (RENAME, RENAMENX, COPY).
    Move(Move),
    /// Begin to watch keys.
    Watch(Vec<Vec<u8>>),
}

/// A value that gets another key.
#[derive(Debug)]
pub struct Move {
    pub from: Vec<u8>,
    pub to: Vec<u8>,
    /// Whatever is stored there goes.
    pub replaces: bool,
    /// It stays where it was as well.
    pub copies: bool,
    pub command: Cmd,
}

/// How keys are spread over the shards.
#[derive(Clone, Copy)]
pub struct Spread {
    pub seed: HashSeed,
    pub shards: u16,
    /// The shard that asks.
    pub home: ShardId,
    /// A number that differs from turn to turn.
    pub draw: u64,
    pub value_bytes_max: usize,
}

impl Spread {
    /// The hash and the shard of a key.
    pub fn of(&self, key: &[u8]) -> (KeyHash, ShardId) {
        let hash = self.seed.hash(key);
        (hash, hash.shard(self.shards))
    }

    /// All shards, the one that asks first.
    pub fn all(&self) -> impl Iterator<Item = ShardId> {
        let (shards, home) = (self.shards, self.home.0);
        (0..shards).map(move |step| ShardId((home + step) % shards))
    }

    /// What is to be done for the command of these words, whose number has been found right.
    pub fn task(&self, cmd: Cmd, words: &[&[u8]]) -> Result<Task, Problem> {
        match single::command(cmd, words, self.value_bytes_max) {
            Ok(command) => {
                let key = checked(command.key().unwrap_or_default())?;
                return Ok(Task::Plain { merge: Merge::One, parts: vec![(self.of(key).1, part(words))] });
            }
            Err(Problem::NotSingle) => {}
            Err(problem) => return Err(problem),
        }
        let keys = &words[1..];
        let owned = |words: &[&[u8]]| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>();
        Ok(match cmd {
            Cmd::MGet => self.each(Merge::Array, keys, |key| part(&[b"get", key]))?,
            Cmd::Del | Cmd::Unlink | Cmd::Exists | Cmd::Touch => {
                self.each(Merge::Sum, keys, |key| part(&[cmd.row().name.as_bytes(), key]))?
            }
            Cmd::MSet => {
                let pairs = self.pairs(cmd, keys)?;
                let parts = pairs.iter().map(|[key, value]| (self.of(key).1, part(&[b"set", key, value])));
                Task::Plain { merge: Merge::Ok, parts: parts.collect() }
            }
            Cmd::MSetNx => {
                let pairs = self.pairs(cmd, keys)?;
                Task::StoreAll(pairs.iter().map(|[key, value]| (key.to_vec(), value.to_vec())).collect())
            }
            Cmd::Rename | Cmd::RenameNx => Task::Move(Move {
                from: checked(keys[0])?.to_vec(),
                to: checked(keys[1])?.to_vec(),
                replaces: cmd == Cmd::Rename,
                copies: false,
                command: cmd,
            }),
            Cmd::Copy => self.copy(keys)?,
            Cmd::DbSize => self.everywhere(Merge::Sum, words),
            Cmd::FlushAll | Cmd::FlushDb => match keys {
                [] => self.everywhere(Merge::Ok, &[parts::FLUSH]),
                [how] if how.eq_ignore_ascii_case(b"ASYNC") || how.eq_ignore_ascii_case(b"SYNC") => {
                    self.everywhere(Merge::Ok, &[parts::FLUSH])
                }
                _ => return Err(Problem::Syntax),
            },
            Cmd::Keys => self.everywhere(Merge::Union, words),
            Cmd::RandomKey => {
                // The first shard that has one answers; which is first changes.
                let first = (self.draw % u64::from(self.shards)) as u16;
                let shards = (0..self.shards).map(|step| ShardId((first + step) % self.shards));
                Task::Plain { merge: Merge::First, parts: shards.map(|shard| (shard, part(words))).collect() }
            }
            Cmd::Scan => {
                let cursor = std::str::from_utf8(keys[0]).ok().and_then(|text| text.parse::<u64>().ok());
                let shard = cursor.ok_or(Problem::Other("invalid cursor"))? >> 32;
                let shard = ShardId((shard as u16).min(self.shards - 1));
                Task::Plain { merge: Merge::One, parts: vec![(shard, part(words))] }
            }
            Cmd::Publish => self.everywhere(Merge::Sum, words),
            Cmd::PubSub => {
                let merge = match keys[0].to_ascii_uppercase().as_slice() {
                    b"CHANNELS" if keys.len() <= 2 => Merge::Union,
                    b"NUMSUB" => Merge::SumPairs,
                    b"NUMPAT" if keys.len() == 1 => Merge::CountUnion,
                    b"SHARDCHANNELS" | b"SHARDNUMSUB" => Merge::First,
                    _ => return Ok(Task::Local(owned(words))),
                };
                self.everywhere(merge, words)
            }
            Cmd::Client => match clients::everywhere(cmd, keys)? {
                Some(merge) => self.everywhere(merge, words),
                None => Task::Local(owned(words)),
            },
            Cmd::Watch => {
                for key in keys {
                    checked(key)?;
                }
                Task::Watch(owned(keys))
            }
            _ => Task::Local(owned(words)),
        })
    }

    fn each(&self, merge: Merge, keys: &[&[u8]], part: impl Fn(&[u8]) -> Vec<u8>) -> Result<Task, Problem> {
        let parts: Result<Vec<_>, Problem> = keys.iter().map(|key| Ok((self.of(checked(key)?).1, part(key)))).collect();
        Ok(Task::Plain { merge, parts: parts? })
    }

    fn everywhere(&self, merge: Merge, words: &[&[u8]]) -> Task {
        Task::Plain { merge, parts: self.all().map(|shard| (shard, part(words))).collect() }
    }

    fn pairs<'a>(&self, cmd: Cmd, words: &[&'a [u8]]) -> Result<Vec<[&'a [u8]; 2]>, Problem> {
        if !words.len().is_multiple_of(2) {
            return Err(Problem::Arity(cmd));
        }
        let pairs: Vec<[&[u8]; 2]> = words.chunks_exact(2).map(|pair| [pair[0], pair[1]]).collect();
        for [key, value] in &pairs {
            checked(key)?;
            if value.len() > self.value_bytes_max {
                return Err(Problem::Value);
            }
        }
        Ok(pairs)
    }

    fn copy(&self, words: &[&[u8]]) -> Result<Task, Problem> {
        let mut replaces = false;
        let mut options = words[2..].iter();
        while let Some(option) = options.next() {
            match option.to_ascii_uppercase().as_slice() {
                b"REPLACE" => replaces = true,
                b"DB" => {
                    let number = single::integer(options.next().ok_or(Problem::Syntax)?)?;
                    if number != 0 {
                        return Err(Problem::Other("DB index is out of range"));
                    }
                }
                _ => return Err(Problem::Syntax),
            }
        }
        let (from, to) = (checked(words[0])?.to_vec(), checked(words[1])?.to_vec());
        if from == to {
            return Err(Problem::Other("source and destination objects are the same"));
        }
        Ok(Task::Move(Move { from, to, replaces, copies: true, command: Cmd::Copy }))
    }
}

/// A part as it travels.
pub fn part(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_words(words.iter().copied(), &mut out);
    out
}

fn checked(key: &[u8]) -> Result<&[u8], Problem> {
    if (1..=limits::KEY_BYTES_MAX).contains(&key.len()) { Ok(key) } else { Err(Problem::Key) }
}
