//! What is asked of a strong key, what is answered, and what nodes say to each other for that.
//!
//! An operation is decided once, by the holder of its key's home; what is replicated is the state it leaves, never the
//! operation, so replicas compute nothing and cannot differ.
//!
//! An answer says one of three things: done; *refused*, and then surely nothing was or will be changed; or *unknown*:
//! the write was begun and its outcome is not known here. It may have happened, and may still happen unless the key is
//! written again. Nothing else may be concluded from it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::id::NodeId;
use crate::base::limits;
use crate::replica::{StrongEntry, StrongVersion};

/// When a value expires. The holder's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expires {
    /// Never.
    Never,
    /// In so many milliseconds.
    In(u64),
    /// At that many milliseconds of Unix time.
    At(u64),
}

impl Expires {
    /// As an entry has it.
    fn at_ms(self, now_ms: u64) -> u64 {
        match self {
            Expires::Never => 0,
            Expires::In(ms) => now_ms.saturating_add(ms).max(1),
            Expires::At(unix_ms) => unix_ms.max(1),
        }
    }
}

/// What is asked of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrongOp {
    /// Its value.
    Read,
    /// Its value, and everything there is to know about it.
    Look,
    /// That it have this value.
    Set(Vec<u8>, Expires),
    /// That it have this value, if it has none.
    Add(Vec<u8>, Expires),
    /// That it have this value (or none), if nobody has written it since it was looked at.
    Replace {
        /// The version that was seen.
        seen: StrongVersion,
        /// What it shall hold.
        new: Option<(Vec<u8>, Expires)>,
    },
    /// That it have none.
    Delete,
    /// That it have the new value (or none) if it has the expected one (or none). It does not expire.
    CompareAndSet {
        /// What it must hold.
        expected: Option<Vec<u8>>,
        /// What it shall hold.
        new: Option<Vec<u8>>,
    },
    /// That its value, a decimal integer (none counts as 0), be greater by this. It expires when it would have.
    Increment(i64),
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrongReply {
    /// To a read: the value.
    Value(Option<Vec<u8>>),
    /// To a look: what there is, and the holder's time in milliseconds since 1970.
    Seen(StrongEntry, u64),
    /// A write is done: a majority has it.
    Done,
    /// A deletion is done, or a comparison was made: whether there was something to delete, whether it was equal.
    Was(bool),
    /// An increment is done, and this is the sum.
    Sum(i64),
    /// Surely nothing was changed.
    Refused(StrongRefused),
    /// It may have been done or not, or be done later.
    Unknown,
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrongRefused {
    /// The node asked does not hold the key's home, or is not sure that it still does.
    NotHolder,
    /// It holds the home and has yet to find out what was acknowledged before.
    NotReady,
    /// Nobody holds the home, or whoever does cannot be reached: the region has lost its majority, or is electing.
    Unreachable,
    /// Too many writes are under way, or too many operations wait for this key: try later.
    Busy,
    /// The store is full: delete something.
    Full,
    /// Key or value is longer than a strong entry's may be.
    TooLarge,
    /// The value is no decimal integer of 64 bits.
    NotAnInteger,
    /// The sum has more than 64 bits.
    Overflow,
    /// Whoever asks is no node of this region.
    Stranger,
}

/// What one node asks another for a home it holds, or for an operation it cannot do itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrongRequest {
    /// Keep this entry.
    Replicate {
        /// The home.
        home: u8,
        /// The sender's token for it.
        token: u64,
        /// The key.
        key: Vec<u8>,
        /// What it holds.
        entry: StrongEntry,
        /// Every voter has the same up to here.
        settled: StrongVersion,
    },
    /// Show what you have, and listen to no older token from now on.
    Collect {
        /// The home.
        home: u8,
        /// The sender's token for it.
        token: u64,
        /// What is settled at the sender: entries after that are wanted, and those after what is settled at the receiver.
        level: StrongVersion,
        /// Where the last page ended; none for the first.
        from: Option<StrongVersion>,
        /// With their values.
        values: bool,
    },
    /// These are the entries that differ; none for a key that should not be there.
    Sync {
        /// The home.
        home: u8,
        /// The sender's token for it.
        token: u64,
        /// Keys and what they hold.
        entries: Vec<(Vec<u8>, Option<StrongEntry>)>,
        /// With these the receiver has what the sender has, and this is settled there.
        done: Option<StrongVersion>,
    },
    /// Do this as the holder of the key's home.
    Execute {
        /// The key.
        key: Vec<u8>,
        /// What is asked.
        op: StrongOp,
    },
    /// The sender has lost its memory of these homes; their holder does not know, as long as it writes nothing.
    Lost {
        /// The homes.
        homes: Vec<u8>,
    },
    /// Let go of a home, for another node to take.
    Release {
        /// The home.
        home: u8,
        /// The token it is held under.
        token: u64,
    },
}

/// What is answered to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StrongResponse {
    /// It is kept. An answer of a node that has lost its memory since it last promised something counts for nothing.
    Kept {
        /// It has not.
        is_intact: bool,
    },
    /// What the node has.
    Page {
        /// What is settled there.
        settled: StrongVersion,
        /// It has not lost its memory.
        is_intact: bool,
        /// Entries, in the order of their versions; values only if they were asked for.
        entries: Vec<(Vec<u8>, StrongEntry)>,
        /// There are further ones.
        has_more: bool,
    },
    /// It listens to a later token.
    Fenced {
        /// That one.
        token: u64,
    },
    /// It has no room.
    Full,
    /// What came of the operation.
    Executed(StrongReply),
    /// The home is released.
    Released,
    /// Refused: the sender is no voter of the region, or the message makes no sense.
    Refused,
}

/// What an operation comes to, given what its key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing changes.
    Answer(StrongReply),
    /// The key shall hold this and expire then, and once it does the answer is that.
    Write(Option<Vec<u8>>, u64, StrongReply),
}

impl StrongOp {
    /// What it comes to at this time when the key has this entry, if any, and the next one gets the version `next`.
    pub fn decide(&self, held: Option<&StrongEntry>, next: StrongVersion, now_ms: u64) -> Decision {
        match held.filter(|held| held.is_due(now_ms)) {
            None => self.decide_on(held, now_ms),
            // Whoever is told that it is gone has to find it gone ever after.
            Some(_) => {
                let gone = StrongEntry { version: next, value: None, expires_ms: 0 };
                match self.decide_on(Some(&gone), now_ms) {
                    Decision::Answer(reply) => Decision::Write(None, 0, reply),
                    write => write,
                }
            }
        }
    }

    fn decide_on(&self, held: Option<&StrongEntry>, now_ms: u64) -> Decision {
        use Decision::Answer;
        let write = |value, reply| Decision::Write(value, 0, reply);
        let put = |value: &Vec<u8>, expires: Expires, reply| {
            Decision::Write(Some(value.clone()), expires.at_ms(now_ms), reply)
        };
        let current = held.and_then(|held| held.value.as_deref());
        match self {
            StrongOp::Read => Answer(StrongReply::Value(current.map(<[u8]>::to_vec))),
            StrongOp::Look => Answer(StrongReply::Seen(held.cloned().unwrap_or_default(), now_ms)),
            StrongOp::Set(value, expires) => put(value, *expires, StrongReply::Done),
            StrongOp::Add(..) if current.is_some() => Answer(StrongReply::Was(false)),
            StrongOp::Add(value, expires) => put(value, *expires, StrongReply::Was(true)),
            StrongOp::Replace { seen, .. } if held.map_or(StrongVersion::default(), |held| held.version) != *seen => {
                Answer(StrongReply::Was(false))
            }
            StrongOp::Replace { new: Some((value, expires)), .. } => put(value, *expires, StrongReply::Was(true)),
            StrongOp::Replace { new: None, .. } => write(None, StrongReply::Was(true)),
            StrongOp::Delete if current.is_none() => Answer(StrongReply::Was(false)),
            StrongOp::Delete => write(None, StrongReply::Was(true)),
            StrongOp::CompareAndSet { expected, .. } if expected.as_deref() != current => {
                Answer(StrongReply::Was(false))
            }
            StrongOp::CompareAndSet { new, .. } => write(new.clone(), StrongReply::Was(true)),
            StrongOp::Increment(by) => {
                let number = match current {
                    None => Some(0),
                    Some(bytes) => std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok()),
                };
                match number.map(|number| number.checked_add(*by)) {
                    None => Answer(StrongReply::Refused(StrongRefused::NotAnInteger)),
                    Some(None) => Answer(StrongReply::Refused(StrongRefused::Overflow)),
                    Some(Some(sum)) => {
                        let expires_ms = held.map_or(0, |held| held.expires_ms);
                        Decision::Write(Some(sum.to_string().into_bytes()), expires_ms, StrongReply::Sum(sum))
                    }
                }
            }
        }
    }

    /// Whether it may change something.
    pub fn is_write(&self) -> bool {
        !matches!(self, StrongOp::Read | StrongOp::Look)
    }

    /// Whether key and value are within their limits.
    pub fn fits(&self, key: &[u8]) -> bool {
        let value = match self {
            StrongOp::Set(value, _) | StrongOp::Add(value, _) | StrongOp::Replace { new: Some((value, _)), .. } => {
                value.len()
            }
            StrongOp::CompareAndSet { expected, new } => {
                expected.as_ref().map_or(0, Vec::len).max(new.as_ref().map_or(0, Vec::len))
            }
            StrongOp::Read | StrongOp::Look | StrongOp::Delete | StrongOp::Increment(_) => 0,
            StrongOp::Replace { new: None, .. } => 0,
        };
        key.len() <= limits::KEY_BYTES_MAX && value <= limits::STRONG_VALUE_BYTES_MAX
    }
}

/// A writer that was refused because a later one had been heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FencedOff {
    /// Who came with an old token.
    pub writer: NodeId,
    /// For which home.
    pub home: u8,
    /// The old token.
    pub token: u64,
    /// The token known here.
    pub known: u64,
}

impl fmt::Display for FencedOff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FencedOff { writer, home, token, known } = self;
        write!(f, "node {writer} wrote home {home} under token {token}, which {known} has replaced: refused")
    }
}

impl fmt::Display for StrongRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            StrongRefused::NotHolder => "this node does not hold the key's home: ask the one that does",
            StrongRefused::NotReady => "the key's home has just changed hands: try again",
            StrongRefused::Unreachable => "nobody who may serve the key's home can be reached: try again",
            StrongRefused::Busy => "too much is under way: try again",
            StrongRefused::Full => "the strong store is full: delete something or give it more memory",
            StrongRefused::TooLarge => "key or value is longer than a strong entry's may be",
            StrongRefused::NotAnInteger => "the value is not an integer of 64 bits",
            StrongRefused::Overflow => "the sum does not fit 64 bits",
            StrongRefused::Stranger => "only nodes of this region are served",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_is_decided_by_what_the_key_holds() {
        let cas = |expected: Option<&str>, new: Option<&str>| StrongOp::CompareAndSet {
            expected: expected.map(|text| text.into()),
            new: new.map(|text| text.into()),
        };
        let entry = |value: &str, expires_ms| StrongEntry {
            version: StrongVersion { token: 1, sequence: 7 },
            value: Some(value.into()),
            expires_ms,
        };
        let next = StrongVersion { token: 1, sequence: 8 };
        let decide = |op: &StrongOp, held: Option<StrongEntry>| op.decide(held.as_ref(), next, 1_000);
        let answer = Decision::Answer;
        let a = || Some(entry("a", 0));
        assert_eq!(decide(&cas(None, Some("b")), a()), answer(StrongReply::Was(false)));
        assert_eq!(decide(&cas(Some("a"), None), a()), Decision::Write(None, 0, StrongReply::Was(true)));
        assert_eq!(decide(&StrongOp::Delete, None), answer(StrongReply::Was(false)));
        let sum = Decision::Write(Some("-2".into()), 0, StrongReply::Sum(-2));
        assert_eq!(decide(&StrongOp::Increment(-2), None), sum);
        let refused = |why| answer(StrongReply::Refused(why));
        assert_eq!(decide(&StrongOp::Increment(1), Some(entry("x", 0))), refused(StrongRefused::NotAnInteger));
        let most = Some(entry(&i64::MAX.to_string(), 0));
        assert_eq!(decide(&StrongOp::Increment(1), most), refused(StrongRefused::Overflow));

        let add = StrongOp::Add("b".into(), Expires::In(50));
        assert_eq!(decide(&add, a()), answer(StrongReply::Was(false)));
        assert_eq!(decide(&add, None), Decision::Write(Some("b".into()), 1_050, StrongReply::Was(true)));
        let replace = |seen| StrongOp::Replace { seen, new: Some(("c".into(), Expires::At(9_000))) };
        let replaced = Decision::Write(Some("c".into()), 9_000, StrongReply::Was(true));
        assert_eq!(decide(&replace(a().unwrap().version), a()), replaced);
        assert_eq!(decide(&replace(StrongVersion::default()), None), replaced);
        assert_eq!(decide(&replace(next), a()), answer(StrongReply::Was(false)), "somebody was faster");
    }

    #[test]
    fn whoever_sees_that_a_value_has_expired_writes_that_it_is_gone() {
        let version = StrongVersion { token: 1, sequence: 7 };
        let next = StrongVersion { token: 1, sequence: 8 };
        let held = StrongEntry { version, value: Some(b"5".to_vec()), expires_ms: 1_000 };
        let decide = |op: StrongOp, now_ms| op.decide(Some(&held), next, now_ms);
        assert_eq!(decide(StrongOp::Read, 999), Decision::Answer(StrongReply::Value(Some(b"5".to_vec()))));
        assert_eq!(decide(StrongOp::Read, 1_000), Decision::Write(None, 0, StrongReply::Value(None)));
        assert_eq!(decide(StrongOp::Delete, 1_000), Decision::Write(None, 0, StrongReply::Was(false)));
        let gone = StrongEntry { version: next, value: None, expires_ms: 0 };
        assert_eq!(decide(StrongOp::Look, 1_000), Decision::Write(None, 0, StrongReply::Seen(gone, 1_000)));
        assert_eq!(decide(StrongOp::Increment(1), 999), Decision::Write(Some("6".into()), 1_000, StrongReply::Sum(6)));
        assert_eq!(decide(StrongOp::Increment(1), 1_000), Decision::Write(Some("1".into()), 0, StrongReply::Sum(1)));
        let was = StrongReply::Was(true);
        let add = StrongOp::Add(b"b".to_vec(), Expires::Never);
        assert_eq!(decide(add, 1_000), Decision::Write(Some(b"b".to_vec()), 0, was));
        let replace = StrongOp::Replace { seen: version, new: None };
        assert_eq!(decide(replace, 1_000), Decision::Write(None, 0, StrongReply::Was(false)), "what was seen is gone");
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_and_no_panic() {
        let mut random = crate::base::prng::Prng::new(3);
        let entry =
            StrongEntry { version: StrongVersion { token: 1, sequence: 2 }, value: Some(vec![7; 40]), expires_ms: 0 };
        let message = StrongRequest::Sync { home: 1, token: 2, entries: vec![(vec![1], Some(entry))], done: None };
        let good = postcard::to_allocvec(&message).unwrap();
        assert_eq!(postcard::from_bytes::<StrongRequest>(&good).unwrap(), message);
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            bytes.truncate(random.below(good.len() as u64 + 1) as usize);
            for _ in 0..random.below(4) {
                if let Some(byte) = (!bytes.is_empty()).then(|| random.below(bytes.len() as u64) as usize) {
                    bytes[byte] = random.next_u64() as u8;
                }
            }
            let _ = postcard::from_bytes::<StrongRequest>(&bytes);
            let _ = postcard::from_bytes::<StrongResponse>(&bytes);
        }
    }
}
