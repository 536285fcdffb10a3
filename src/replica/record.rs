//! One key's state as it travels.
//!
//!   gone     | kind, fields | version | id | regions | (key) |
//!   value    | kind, fields | version | (expiry) (flags) (marks) (epoch) | key | value |
//!   counter  | kind, fields | epoch version | (expiry) (flags) (epoch) | base | shares | key |
//!
//! A record says what is so, not what was done: applying it twice, late or out of order changes nothing. What a field's
//! bit does not announce takes no bytes. Lengths are checked against their bounds before anything is taken from them,
//! and nothing that a peer writes can make the reader panic or reserve memory.

use uhlc::NTP64;

use crate::base::id::{NodeId, SiteId};
use crate::base::limits;
use crate::replica::clock::Version;
use crate::replica::counter::{Counter, Share};
use crate::replica::table::KeyId;

/// One key's state.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    /// Nothing is stored under a key any more. It goes by its name, because whoever sends it may have forgotten the key.
    Gone {
        /// The key, where it is known.
        key: Option<&'a [u8]>,
        /// The key's name.
        id: KeyId,
        /// What the write is called.
        version: Version,
        /// The regions that may know of it; none named means all.
        regions: Vec<SiteId>,
    },
    /// A value is stored.
    Value {
        /// The key.
        key: &'a [u8],
        /// What is stored.
        found: Found<'a>,
        /// What the write is called.
        version: Version,
        /// The namespace's epoch in which it was written.
        epoch: u64,
    },
    /// Several sites count.
    Counter {
        /// The key.
        key: &'a [u8],
        /// The state, as far as the sender knows.
        counter: Counter,
        /// The namespace's epoch.
        epoch: u64,
    },
}

/// What is stored under a key, as far as other sites are to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found<'a> {
    /// The value.
    pub value: &'a [u8],
    /// When it ends, in Unix milliseconds.
    pub expires_ms: Option<u64>,
    /// Opaque bits of memcached's clients.
    pub client_flags: u32,
    /// Marks of memcached's meta commands.
    pub marks: u8,
}

/// Bytes that are no record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

impl<'a> Record<'a> {
    /// The version that decides which of two stays; of a counter, that of its epoch.
    pub fn version(&self) -> Version {
        match self {
            Record::Gone { version, .. } | Record::Value { version, .. } => *version,
            Record::Counter { counter, .. } => counter.epoch,
        }
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Record::Gone { key, id, version, regions } => {
                out.push(GONE | if key.is_some() { HAS_KEY } else { 0 });
                put_version(*version, out);
                out.extend_from_slice(&id.hash.to_le_bytes());
                out.extend_from_slice(&id.check.to_le_bytes());
                out.push(regions.len() as u8);
                out.extend(regions.iter().map(|region| region.0));
                if let Some(key) = key {
                    out.extend_from_slice(&(key.len() as u16).to_le_bytes());
                    out.extend_from_slice(key);
                }
            }
            Record::Value { key, found, version, epoch } => {
                let mut kind = VALUE;
                kind |= if found.expires_ms.is_some() { HAS_EXPIRY } else { 0 };
                kind |= if found.client_flags != 0 { HAS_FLAGS } else { 0 };
                kind |= if found.marks != 0 { HAS_MARKS } else { 0 };
                kind |= if *epoch != 0 { HAS_EPOCH } else { 0 };
                out.reserve(HEAD_BYTES_MAX + key.len() + found.value.len());
                out.push(kind);
                put_version(*version, out);
                if let Some(expires_ms) = found.expires_ms {
                    out.extend_from_slice(&expires_ms.to_le_bytes());
                }
                if found.client_flags != 0 {
                    out.extend_from_slice(&found.client_flags.to_le_bytes());
                }
                if found.marks != 0 {
                    out.push(found.marks);
                }
                if *epoch != 0 {
                    out.extend_from_slice(&epoch.to_le_bytes());
                }
                out.extend_from_slice(&(key.len() as u16).to_le_bytes());
                out.extend_from_slice(&(found.value.len() as u32).to_le_bytes());
                out.extend_from_slice(key);
                out.extend_from_slice(found.value);
            }
            Record::Counter { key, counter, epoch } => {
                let (said, expires_ms) = counter.expiry;
                let mut kind = COUNTER;
                kind |= if said != Version::ORPHAN { HAS_EXPIRY } else { 0 };
                kind |= if counter.client_flags != 0 { HAS_FLAGS } else { 0 };
                kind |= if counter.base.is_some() { HAS_BASE } else { 0 };
                kind |= if *epoch != 0 { HAS_EPOCH } else { 0 };
                out.push(kind);
                put_version(counter.epoch, out);
                if said != Version::ORPHAN {
                    put_version(said, out);
                    out.extend_from_slice(&expires_ms.map_or(0, |at| at.max(1)).to_le_bytes());
                }
                if counter.client_flags != 0 {
                    out.extend_from_slice(&counter.client_flags.to_le_bytes());
                }
                if *epoch != 0 {
                    out.extend_from_slice(&epoch.to_le_bytes());
                }
                if let Some(base) = counter.base {
                    out.extend_from_slice(&base.to_le_bytes());
                }
                out.push(counter.shares.len() as u8);
                for share in &counter.shares {
                    out.extend_from_slice(&share.node.0.to_le_bytes());
                    for number in [share.incarnation, share.plus, share.minus] {
                        out.extend_from_slice(&number.to_le_bytes());
                    }
                }
                out.extend_from_slice(&(key.len() as u16).to_le_bytes());
                out.extend_from_slice(key);
            }
        }
    }

    /// Takes the first record from `bytes`.
    pub fn decode(bytes: &mut &'a [u8]) -> Result<Record<'a>, Malformed> {
        let mut from = Reader(bytes);
        let kind = from.u8()?;
        let version = from.version()?;
        let has = |field: u8| kind & field != 0;
        let record = match kind & KIND {
            GONE => {
                let id = KeyId { hash: from.u64()?, check: from.u64()? };
                let count = from.u8()?;
                let regions = from.take(count as usize)?.iter().map(|region| SiteId(*region)).collect();
                let key_bytes = if has(HAS_KEY) { from.u16()? as usize } else { 0 };
                let key = if has(HAS_KEY) { Some(from.key(key_bytes)?) } else { None };
                Record::Gone { key, id, version, regions }
            }
            VALUE => {
                let expires_ms = if has(HAS_EXPIRY) { Some(from.u64()?) } else { None };
                let client_flags = if has(HAS_FLAGS) { from.u32()? } else { 0 };
                let marks = if has(HAS_MARKS) { from.u8()? & MARKS } else { 0 };
                let epoch = if has(HAS_EPOCH) { from.u64()? } else { 0 };
                let key_bytes = from.u16()? as usize;
                let value_bytes = from.u32()? as usize;
                if value_bytes > limits::VALUE_BYTES_MAX {
                    return Err(Malformed("a value larger than any may be"));
                }
                let key = from.key(key_bytes)?;
                let value = from.take(value_bytes)?;
                Record::Value { key, found: Found { value, expires_ms, client_flags, marks }, version, epoch }
            }
            COUNTER => {
                let expiry = match has(HAS_EXPIRY) {
                    true => match (from.version()?, from.u64()?) {
                        (Version::ORPHAN, _) => return Err(Malformed("an expiry that nobody has said")),
                        (said, at) => (said, Some(at).filter(|at| *at != 0)),
                    },
                    false => (Version::ORPHAN, None),
                };
                let client_flags = if has(HAS_FLAGS) { from.u32()? } else { 0 };
                let epoch = if has(HAS_EPOCH) { from.u64()? } else { 0 };
                let base = if has(HAS_BASE) { Some(i128::from_le_bytes(from.array()?)) } else { None };
                if base.is_some_and(|base| i64::try_from(base).is_err() && u64::try_from(base).is_err()) {
                    return Err(Malformed("a counter that begins beyond 64 bits"));
                }
                let count = from.u8()? as usize;
                if count > limits::REPLICATION_SHARES_MAX {
                    return Err(Malformed("more shares than a counter may have"));
                }
                let mut shares: Vec<Share> = Vec::with_capacity(count);
                for _ in 0..count {
                    let node = NodeId(from.u16()?);
                    let share = Share { node, incarnation: from.u64()?, plus: from.u64()?, minus: from.u64()? };
                    // They are found by halving: in order, and each node's incarnation once.
                    let is_next = shares
                        .last()
                        .is_none_or(|last| (last.node, last.incarnation) < (share.node, share.incarnation));
                    if !is_next {
                        return Err(Malformed("the shares of a counter are out of order"));
                    }
                    shares.push(share);
                }
                let key_bytes = from.u16()? as usize;
                let key = from.key(key_bytes)?;
                let counter = Counter { epoch: version, base, shares, expiry, client_flags };
                Record::Counter { key, counter, epoch }
            }
            _ => return Err(Malformed("a record of an unknown kind")),
        };
        *bytes = from.0;
        Ok(record)
    }
}

/// The records in `bytes`, up to the first that is none.
pub fn records(bytes: &[u8]) -> impl Iterator<Item = Result<Record<'_>, Malformed>> {
    let mut left = bytes;
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let record = Record::decode(&mut left);
        if record.is_err() {
            left = &[];
        }
        Some(record)
    })
}

fn put_version(version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(&version.time.0.to_le_bytes());
    out.extend_from_slice(&version.node.0.to_le_bytes());
}

/// Takes fields from the front of bytes that anybody may have written.
pub(super) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, left) = self.0.split_at_checked(count).ok_or(Malformed("it ends too early"))?;
        self.0 = left;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, left) = self.0.split_first_chunk().ok_or(Malformed("it ends too early"))?;
        self.0 = left;
        Ok(*taken)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub fn u16(&mut self) -> Result<u16, Malformed> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    fn version(&mut self) -> Result<Version, Malformed> {
        Ok(Version { time: NTP64(self.u64()?), node: NodeId(self.u16()?) })
    }

    fn key(&mut self, bytes: usize) -> Result<&'a [u8], Malformed> {
        if bytes == 0 || bytes > limits::KEY_BYTES_MAX {
            return Err(Malformed("a key of no or of too many bytes"));
        }
        self.take(bytes)
    }
}

const GONE: u8 = 0;
const VALUE: u8 = 1;
const COUNTER: u8 = 2;
/// The bits of the kind itself; the others announce fields.
const KIND: u8 = 0b11;
const HAS_EXPIRY: u8 = 1 << 2;
const HAS_FLAGS: u8 = 1 << 3;
const HAS_MARKS: u8 = 1 << 4;
const HAS_EPOCH: u8 = 1 << 5;
const HAS_BASE: u8 = 1 << 6;
const HAS_KEY: u8 = 1 << 7;
/// An item has three bits of marks.
const MARKS: u8 = 0b111;
/// Of a value's record, all before key and value.
const HEAD_BYTES_MAX: usize = 1 + 10 + 8 + 4 + 1 + 8 + 2 + 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::replica::clock::ntp;

    fn samples() -> Vec<Record<'static>> {
        let version = Version { time: ntp(1_800_000_000_000), node: NodeId(7) };
        let mut counter = Counter::new(version, Some(-5));
        counter.add(NodeId(1), 9, 4).unwrap();
        counter.add(NodeId(2), 3, -4).unwrap();
        let ended = Counter { expiry: (version, Some(77)), client_flags: 3, ..counter.clone() };
        let kept = Counter { expiry: (version, None), base: None, ..counter.clone() };
        let found = Found { value: b"value", expires_ms: Some(5), client_flags: 6, marks: 2 };
        vec![
            Record::Gone { key: None, id: KeyId { hash: 1, check: 2 }, version, regions: vec![SiteId(3), SiteId(4)] },
            Record::Gone { key: Some(b"gone"), id: KeyId { hash: 1, check: 2 }, version, regions: vec![] },
            Record::Value { key: b"k", found, version, epoch: 9 },
            Record::Value { key: b"key", found: Found::default(), version, epoch: 0 },
            Record::Counter { key: b"n", counter, epoch: 0 },
            Record::Counter { key: b"n", counter: ended, epoch: 4 },
            Record::Counter { key: b"n", counter: kept, epoch: 4 },
        ]
    }

    fn encoded() -> Vec<u8> {
        let mut bytes = Vec::new();
        samples().iter().for_each(|record| record.encode(&mut bytes));
        bytes
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let bytes = encoded();
        assert_eq!(records(&bytes).collect::<Result<Vec<_>, _>>().unwrap(), samples());
    }

    #[test]
    fn a_record_that_ends_early_is_refused_wherever_it_ends() {
        for record in samples() {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            (0..bytes.len())
                .for_each(|end| assert!(Record::decode(&mut &bytes[..end]).is_err(), "{record:?} to {end}"));
        }
    }

    /// Whatever stands there, it is read or refused, and what is read can be written again.
    #[test]
    fn hostile_bytes_are_refused_without_harm() {
        let (mut prng, whole, mut read) = (Prng::new(17), encoded(), 0);
        for _ in 0..200_000 {
            let mut bytes = whole.clone();
            for _ in 0..=prng.below(4) {
                let at = prng.below(bytes.len() as u64) as usize;
                bytes[at] = prng.next_u64() as u8;
            }
            let from = prng.below(bytes.len() as u64) as usize;
            for record in records(&bytes[from..]).flatten() {
                let mut again = Vec::new();
                record.encode(&mut again);
                assert_eq!(Record::decode(&mut again.as_slice()), Ok(record));
                read += 1;
            }
        }
        assert!(read > 1_000, "{read} were read: the test sees nothing");
    }

    #[test]
    fn what_is_larger_than_its_bound_is_refused() {
        let version = Version::ZERO;
        let key = vec![b'k'; limits::KEY_BYTES_MAX + 1];
        for record in [
            Record::Value { key: &key, found: Found::default(), version, epoch: 0 },
            Record::Value { key: b"", found: Found::default(), version, epoch: 0 },
            Record::Counter { key: b"k", counter: Counter::new(version, Some(i128::MAX)), epoch: 0 },
        ] {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            assert!(Record::decode(&mut bytes.as_slice()).is_err());
        }
    }
}
