//! The bytes of an item.
//!
//!   short  | kind 5, value 3 | key - 1 | value |                  3 B: key to 256 B, value to 2047 B
//!            bits, its high    8 bits    8 bits, its low
//!   long   | kind 5, marks 3 | key - 1 : 10, value : 22 bits |    5 B: any
//!
//!   then   | [expiry] | [version] | [client flags] | [charge] | key | value |
//!              6 B        8 B         4 B              4 B
//!
//! Fields in brackets are there when their bit in `kind` is set, so what a workload does not use
//! it does not pay for: most entries carry three bytes. A version in particular is given to an item
//! only when a client asks for one; an item without it has by definition not the version that some
//! client remembers. Marks are so rare that an item which has one is simply written long.

use crate::base::limits;
use crate::base::time::Instant;
use crate::cache::bytes::{read_u32, read_u64, write_u32, write_u64};

/// An item, borrowed from the arena or about to be written to it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Item<'a> {
    /// The key, 1 to [`limits::KEY_BYTES_MAX`] bytes.
    pub key: &'a [u8],
    /// The value.
    pub value: &'a [u8],
    /// When the item stops being served.
    pub expires: Option<Instant>,
    /// The version a client was told, if one ever asked.
    pub version: Option<u64>,
    /// Opaque bits that memcached clients keep with a value; zero costs nothing.
    pub client_flags: u32,
    /// What the item counts for in [`Accounting::Payload`](crate::cache::Accounting) replays.
    pub charge: Option<u32>,
    /// What memcached's meta commands note about a value, [`MARK_STALE`] and [`MARK_WON`]; none costs nothing.
    pub marks: u8,
}

impl<'a> Item<'a> {
    /// Reads the item at `offset`.
    #[inline]
    pub fn read(memory: &'a [u8], offset: usize) -> Item<'a> {
        // Three bytes of header and a byte of key: four are always there.
        let first = read_u32(memory, offset);
        let kind = first as u8;
        let (key_len, value_len, mut at, marks) = if kind & IS_LONG == 0 {
            (
                (first >> 8 & 0xff) as usize + 1,
                (first >> 16 & 0xff | u32::from(kind >> KIND_BITS) << 8) as usize,
                offset + SHORT_BYTES,
                0,
            )
        } else {
            let lengths = read_u32(memory, offset + 1);
            let (key_len, value_len) = ((lengths & KEY_MASK) as usize + 1, (lengths >> KEY_BITS) as usize);
            (key_len, value_len, offset + LONG_BYTES, kind >> KIND_BITS)
        };
        let mut item = Item { marks, ..Item::default() };
        // One test for the common item that has none of the four.
        if kind & HAS_ANY != 0 {
            if kind & HAS_EXPIRY != 0 {
                let low = u64::from(read_u32(memory, at));
                let high = u64::from(u16::from_le_bytes([memory[at + 4], memory[at + 5]]));
                item.expires = Some(Instant::from_ms(high << 32 | low));
                at += EXPIRY_BYTES;
            }
            if kind & HAS_VERSION != 0 {
                item.version = Some(read_u64(memory, at));
                at += VERSION_BYTES;
            }
            if kind & HAS_CLIENT_FLAGS != 0 {
                item.client_flags = read_u32(memory, at);
                at += CLIENT_FLAGS_BYTES;
            }
            if kind & HAS_CHARGE != 0 {
                item.charge = Some(read_u32(memory, at));
                at += CHARGE_BYTES;
            }
        }
        (item.key, item.value) = memory[at..at + key_len + value_len].split_at(key_len);
        item
    }

    /// Whether the item at `offset` has this key: what a look-up needs to know before it reads the rest.
    #[inline]
    pub fn has_key(memory: &[u8], offset: usize, key: &[u8]) -> bool {
        let first = read_u32(memory, offset);
        let kind = first as u8;
        let key_len = if kind & IS_LONG == 0 {
            (first >> 8 & 0xff) as usize + 1
        } else {
            (read_u32(memory, offset + 1) & KEY_MASK) as usize + 1
        };
        let at = offset + usize::from(KEY_OFFSETS[usize::from(kind & (IS_LONG | HAS_ANY))]);
        key_len == key.len() && is_equal(&memory[at..at + key_len], key)
    }

    /// When the item at `offset` expires, if it does.
    #[inline]
    pub fn expiry_at(memory: &[u8], offset: usize) -> Option<Instant> {
        if memory[offset] & HAS_EXPIRY != 0 { Item::read(memory, offset).expires } else { None }
    }

    /// The kind of the item at `offset`.
    #[inline]
    pub fn kind_at(memory: &[u8], offset: usize) -> u8 {
        memory[offset] & KIND_MASK
    }

    /// Writes the item at `offset`; the caller has made sure of [`Item::bytes`] bytes there.
    pub fn write(&self, memory: &mut [u8], offset: usize) {
        assert!((1..=limits::KEY_BYTES_MAX).contains(&self.key.len()), "the codec refuses other keys");
        assert!(self.value.len() <= limits::VALUE_BYTES_MAX, "the store refuses larger values");
        let (key, value) = (self.key.len() as u32 - 1, self.value.len() as u32);
        let (fields, mut at) = (self.fields(), offset + self.header_bytes());
        if self.is_short() {
            let bytes = [fields | (value >> 8 << KIND_BITS) as u8, key as u8, value as u8];
            memory[offset..offset + SHORT_BYTES].copy_from_slice(&bytes);
        } else {
            assert!(self.marks <= MARKS_MAX, "a mark that no item has room for");
            memory[offset] = fields | IS_LONG | self.marks << KIND_BITS;
            write_u32(memory, offset + 1, key | value << KEY_BITS);
        }
        if let Some(expires) = self.expires {
            memory[at..at + EXPIRY_BYTES].copy_from_slice(&expires.ms.to_le_bytes()[..EXPIRY_BYTES]);
            at += EXPIRY_BYTES;
        }
        if let Some(version) = self.version {
            write_u64(memory, at, version);
            at += VERSION_BYTES;
        }
        if self.client_flags != 0 {
            write_u32(memory, at, self.client_flags);
            at += CLIENT_FLAGS_BYTES;
        }
        if let Some(charge) = self.charge {
            write_u32(memory, at, charge);
            at += CHARGE_BYTES;
        }
        memory[at..at + self.key.len()].copy_from_slice(self.key);
        at += self.key.len();
        memory[at..at + self.value.len()].copy_from_slice(self.value);
    }

    /// Overwrites the expiry of the item at `offset`, which must carry one.
    pub fn write_expiry(memory: &mut [u8], offset: usize, expires: Instant) {
        let kind = memory[offset];
        assert!(kind & HAS_EXPIRY != 0, "the item has no room for an expiry");
        let at = offset + if kind & IS_LONG == 0 { SHORT_BYTES } else { LONG_BYTES };
        memory[at..at + EXPIRY_BYTES].copy_from_slice(&expires.ms.to_le_bytes()[..EXPIRY_BYTES]);
    }

    /// Overwrites the marks of the item at `offset`, which must be laid out long and stay so.
    pub fn write_marks(memory: &mut [u8], offset: usize, marks: u8) {
        let kind = memory[offset];
        assert!(kind & IS_LONG != 0 && marks <= MARKS_MAX, "the item has no room for marks");
        memory[offset] = kind & KIND_MASK | marks << KIND_BITS;
    }

    /// The same item with another key and value: its own, copied out of the arena, before it is written anew.
    pub fn with_payload<'b>(&self, key: &'b [u8], value: &'b [u8]) -> Item<'b> {
        let &Item { expires, version, client_flags, charge, marks, .. } = self;
        Item { key, value, expires, version, client_flags, charge, marks }
    }

    /// Bytes the item occupies, everything included.
    #[inline]
    pub fn bytes(&self) -> usize {
        let fields = self.fields();
        let mut bytes = self.header_bytes() + self.key.len() + self.value.len();
        if fields != 0 {
            bytes += (fields & HAS_EXPIRY != 0) as usize * EXPIRY_BYTES
                + (fields & HAS_VERSION != 0) as usize * VERSION_BYTES
                + (fields & HAS_CLIENT_FLAGS != 0) as usize * CLIENT_FLAGS_BYTES
                + (fields & HAS_CHARGE != 0) as usize * CHARGE_BYTES;
        }
        bytes
    }

    /// Whether the item is no longer to be served at `now`.
    #[inline]
    pub fn is_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    fn is_short(&self) -> bool {
        self.key.len() <= SHORT_KEY_MAX && self.value.len() <= SHORT_VALUE_MAX && self.marks == 0
    }

    #[inline]
    fn header_bytes(&self) -> usize {
        if self.is_short() { SHORT_BYTES } else { LONG_BYTES }
    }

    /// Which header and optional fields it has; two items of one kind and equal lengths are laid out alike.
    #[inline]
    pub fn kind(&self) -> u8 {
        self.fields() | if self.is_short() { 0 } else { IS_LONG }
    }

    #[inline]
    fn fields(&self) -> u8 {
        (self.expires.is_some() as u8 * HAS_EXPIRY)
            | (self.version.is_some() as u8 * HAS_VERSION)
            | ((self.client_flags != 0) as u8 * HAS_CLIENT_FLAGS)
            | (self.charge.is_some() as u8 * HAS_CHARGE)
    }
}

/// Equality of two slices of one length. Most keys have 8 to 16 bytes: two words of each that may overlap
/// tell, and the call to compare memory is spared (3 ns of a hit's 25).
#[inline]
fn is_equal(a: &[u8], b: &[u8]) -> bool {
    let length = a.len();
    if (8..=16).contains(&length) && b.len() == length {
        return read_u64(a, 0) == read_u64(b, 0) && read_u64(a, length - 8) == read_u64(b, length - 8);
    }
    a == b
}

/// The value is out of date and served until somebody brings a new one.
pub const MARK_STALE: u8 = 1;
/// Somebody has been told to bring a new value.
pub const MARK_WON: u8 = 2;

/// Bytes of an item before its optional fields, at most.
pub const HEADER_BYTES_MAX: usize = LONG_BYTES;

const SHORT_BYTES: usize = 3;
const LONG_BYTES: usize = 5;
const SHORT_KEY_MAX: usize = 1 << 8;
const SHORT_VALUE_MAX: usize = (1 << 11) - 1;

const KEY_BITS: u32 = 10;
const KEY_MASK: u32 = (1 << KEY_BITS) - 1;
const HAS_EXPIRY: u8 = 1;
const HAS_VERSION: u8 = 2;
const HAS_CLIENT_FLAGS: u8 = 4;
const HAS_CHARGE: u8 = 8;
const HAS_ANY: u8 = 15;
const IS_LONG: u8 = 16;
/// Bits of the first byte that say how the item is laid out; the three above them are lengths or marks.
const KIND_BITS: u32 = 5;
const KIND_MASK: u8 = (1 << KIND_BITS) - 1;
const MARKS_MAX: u8 = u8::MAX >> KIND_BITS;
/// Where the key begins, by kind.
const KEY_OFFSETS: [u8; 32] = {
    let mut offsets = [0; 32];
    let mut kind = 0;
    while kind < 32 {
        let header = if kind & IS_LONG == 0 { SHORT_BYTES } else { LONG_BYTES };
        offsets[kind as usize] = (header
            + (kind & HAS_EXPIRY != 0) as usize * EXPIRY_BYTES
            + (kind & HAS_VERSION != 0) as usize * VERSION_BYTES
            + (kind & HAS_CLIENT_FLAGS != 0) as usize * CLIENT_FLAGS_BYTES
            + (kind & HAS_CHARGE != 0) as usize * CHARGE_BYTES) as u8;
        kind += 1;
    }
    offsets
};
const EXPIRY_BYTES: usize = 6;
const VERSION_BYTES: usize = 8;
const CLIENT_FLAGS_BYTES: usize = 4;
const CHARGE_BYTES: usize = 4;

const _: () = assert!(limits::KEY_BYTES_MAX == 1 << KEY_BITS);
const _: () = assert!(limits::VALUE_BYTES_MAX == (1 << (32 - KEY_BITS)) - 1);
const _: () = assert!(limits::EXPIRY_MS_MAX < 1 << (8 * EXPIRY_BYTES));
const _: () = assert!(MARK_STALE <= MARKS_MAX && MARK_WON <= MARKS_MAX && HAS_ANY | IS_LONG == KIND_MASK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_of_fields_reads_back() {
        for (fields, marks) in (0..16u8).flat_map(|fields| (0..=MARKS_MAX).map(move |marks| (fields, marks))) {
            let item = Item {
                key: b"key",
                value: b"value",
                expires: (fields & 1 != 0).then_some(Instant::from_ms(limits::EXPIRY_MS_MAX)),
                version: (fields & 2 != 0).then_some(u64::MAX),
                client_flags: if fields & 4 != 0 { 9 } else { 0 },
                charge: (fields & 8 != 0).then_some(77),
                marks,
            };
            let mut memory = vec![0xee; 64];
            item.write(&mut memory, 7);
            let back = Item::read(&memory, 7);
            assert_eq!((back.key, back.value), (item.key, item.value));
            assert_eq!((back.expires, back.version), (item.expires, item.version));
            assert_eq!((back.client_flags, back.charge, back.marks), (item.client_flags, item.charge, marks));
            assert_eq!((back.kind(), back.bytes()), (item.kind(), item.bytes()));
            assert_eq!(Item::kind_at(&memory, 7), item.kind());
            assert!(Item::has_key(&memory, 7, item.key) && !Item::has_key(&memory, 7, b"kez"), "fields {fields}");
            assert_eq!(Item::expiry_at(&memory, 7), item.expires);
            assert_eq!(memory[7 + item.bytes()], 0xee, "fields {fields}: wrote past its end");
            assert_eq!(memory[6 + item.bytes()], b'e', "fields {fields}: counts more than it wrote");
        }
    }

    #[test]
    fn marks_are_overwritten_where_they_stand_and_nothing_else_is() {
        let long = vec![7; SHORT_VALUE_MAX + 1];
        for (value, marks) in [(&b"value"[..], MARK_STALE), (&long, 0), (&long, MARK_STALE | MARK_WON)] {
            let expires = Some(Instant::from_ms(limits::EXPIRY_MS_MAX));
            let item = Item { key: b"key", value, expires, version: Some(u64::MAX), marks, ..Item::default() };
            let mut memory = vec![0xee; 3000];
            item.write(&mut memory, 7);
            let mut other = memory.clone();
            Item::write_marks(&mut memory, 7, MARK_WON);
            Item { marks: MARK_WON, ..item }.write(&mut other, 7);
            assert!(memory == other && Item::read(&memory, 7).marks == MARK_WON);
        }
    }

    #[test]
    #[should_panic = "no room for marks"]
    fn a_short_item_has_no_room_for_marks() {
        let mut memory = vec![0; 64];
        Item { key: b"key", value: b"value", ..Item::default() }.write(&mut memory, 0);
        Item::write_marks(&mut memory, 0, MARK_STALE);
    }

    #[test]
    fn keys_are_equal_only_if_every_byte_is() {
        for length in 1..40 {
            let key: Vec<u8> = (0..length).collect();
            assert!(is_equal(&key, &key.clone()));
            for at in 0..key.len() {
                let mut other = key.clone();
                other[at] ^= 0x80;
                assert!(!is_equal(&key, &other), "length {length}, byte {at}");
            }
        }
    }

    #[test]
    fn lengths_around_the_short_header_read_back() {
        let bytes = vec![7; SHORT_VALUE_MAX + 2];
        for (key, value) in [(1, 0), (256, 2047), (257, 2047), (256, 2048), (1, 255), (1, 256), (257, 0)] {
            let item = Item { key: &bytes[..key], value: &bytes[..value], ..Item::default() };
            let mut memory = vec![0xee; 3000];
            item.write(&mut memory, 2);
            let back = Item::read(&memory, 2);
            assert_eq!((back.key.len(), back.value.len()), (key, value));
            assert!(back.key.iter().chain(back.value).all(|&byte| byte == 7));
            assert!(Item::has_key(&memory, 2, item.key) && !Item::has_key(&memory, 2, b"kez"));
            assert_eq!(back.bytes(), item.bytes());
            let short = key <= 256 && value <= 2047;
            assert_eq!(item.bytes(), if short { 3 } else { 5 } + key + value);
        }
    }

    #[test]
    fn extreme_lengths_read_back() {
        let (key, value) = (vec![1; limits::KEY_BYTES_MAX], vec![2; limits::SEGMENT_BYTES_MAX]);
        let item = Item { key: &key, value: &value, ..Item::default() };
        let mut memory = vec![0; item.bytes()];
        item.write(&mut memory, 0);
        assert_eq!(Item::read(&memory, 0).key.len(), limits::KEY_BYTES_MAX);
        assert_eq!(Item::read(&memory, 0).value, &value[..]);
    }
}
