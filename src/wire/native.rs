#![doc = include_str!("native.md")]

use crate::base::limits;
use crate::wire::codec::{Codec, Decoded, Refusal};
use crate::wire::request::{Command, Mode, Reply, Request, Status};

/// Bytes of a header, either way.
pub const HEADER_BYTES: usize = 24;
/// First byte of a request.
pub const REQUEST_MAGIC: u8 = 0x5b;
/// First byte of a reply.
pub const REPLY_MAGIC: u8 = 0xb5;
/// The protocol version spoken.
pub const VERSION: u8 = 1;

/// The protocol, for listeners.
pub struct Native;

impl Codec for Native {
    #[inline]
    fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
        decode(bytes, value_bytes_max)
    }

    fn busy(bytes: &[u8], needed: usize) -> Refusal {
        // A frame too large to be kept is known as such only once its header is there.
        let (id, opcode) = bytes.first_chunk::<HEADER_BYTES>().map_or((0, 0), |header| (u32_at(header, 12), header[2]));
        Refusal { id, opcode, status: Status::Busy, frame_bytes: needed as u64 }
    }

    #[inline]
    fn encode_reply(request: &Request<'_>, reply: &Reply<'_>, out: &mut Vec<u8>) {
        encode_reply(request.id, opcode_of(&request.command), reply, out);
    }

    fn encode_refusal(refusal: &Refusal, text: &str, out: &mut Vec<u8>) {
        let reply = Reply { status: refusal.status, value: text.as_bytes(), number: 0 };
        encode_reply(refusal.id, refusal.opcode, &reply, out);
    }
}

/// Decodes the first request of `bytes`. `value_bytes_max` is the server's own limit.
///
/// Nothing is copied and nothing is reserved: a header that promises gigabytes is refused on sight.
#[inline]
pub fn decode(bytes: &[u8], value_bytes_max: usize) -> Decoded<'_> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else {
        // A wrong first byte is refused at once, not after 23 more that may never come.
        return match bytes {
            [REQUEST_MAGIC, ..] | [] => Decoded::Incomplete(HEADER_BYTES),
            _ => refuse(0, 0, Status::Malformed, 0),
        };
    };
    let [magic, version, opcode, flags, ..] = *header;
    let key_len = u16_at(header, 4) as usize;
    let reserved = u16_at(header, 6);
    let value_len = u32_at(header, 8) as usize;
    let id = u32_at(header, 12);
    let argument = u64_at(header, 16);
    let frame_bytes = HEADER_BYTES + key_len + value_len;
    if magic != REQUEST_MAGIC || reserved != 0 {
        return refuse(id, opcode, Status::Malformed, frame_bytes);
    }
    if version != VERSION {
        return refuse(id, opcode, Status::UnsupportedVersion, frame_bytes);
    }
    let Some(shape) = Shape::of(opcode) else {
        return refuse(id, opcode, Status::Unsupported, frame_bytes);
    };
    // A near cache keeps values, and a version is for who writes next: nobody has needed both yet.
    if flags & !shape.flags != 0 || (opcode == OPCODE_GET && argument != 0 && flags != 0) {
        return refuse(id, opcode, Status::Unsupported, frame_bytes);
    }
    if shape.has_key != (key_len > 0) || key_len > limits::KEY_BYTES_MAX {
        return refuse(id, opcode, if shape.has_key { Status::KeyLength } else { Status::Malformed }, frame_bytes);
    }
    let stored_len = if opcode == OPCODE_CAS { value_len.saturating_sub(8) } else { value_len };
    if shape.stores && stored_len > value_bytes_max {
        return refuse(id, opcode, Status::ValueTooLarge, frame_bytes);
    }
    if !shape.stores && value_len > shape.value_len_max || value_len < shape.value_len_min {
        return refuse(id, opcode, Status::Malformed, frame_bytes);
    }
    if bytes.len() < frame_bytes {
        return Decoded::Incomplete(frame_bytes);
    }
    let key = &bytes[HEADER_BYTES..HEADER_BYTES + key_len];
    let value = &bytes[HEADER_BYTES + key_len..frame_bytes];
    let command = match opcode {
        OPCODE_GET if argument == 0 => Command::Get { key },
        OPCODE_GET => Command::GetTracked { key, token: argument },
        OPCODE_SET => Command::Set { key, value, ttl_ms: argument, mode: Mode::Set },
        OPCODE_ADD => Command::Set { key, value, ttl_ms: argument, mode: Mode::Add },
        OPCODE_REPLACE => Command::Set { key, value, ttl_ms: argument, mode: Mode::Replace },
        OPCODE_CAS => {
            let mode = Mode::CompareAndSet(u64_at(value, 0));
            Command::Set { key, value: &value[8..], ttl_ms: argument, mode }
        }
        OPCODE_DELETE => Command::Delete { key },
        OPCODE_INCREMENT => {
            if value_len != 8 && value_len != 16 {
                return refuse(id, opcode, Status::Malformed, frame_bytes);
            }
            let initial = (value_len == 16).then(|| u64_at(value, 8) as i64);
            Command::Increment { key, delta: u64_at(value, 0) as i64, initial, ttl_ms: argument }
        }
        OPCODE_TOUCH => Command::Touch { key, ttl_ms: argument },
        OPCODE_TTL => Command::Ttl { key },
        OPCODE_HELLO => {
            let shard = argument.checked_sub(1).map(|shard| shard.min(u64::from(u16::MAX)) as u16);
            Command::Hello { shard }
        }
        OPCODE_NOOP => Command::Noop,
        OPCODE_STATS => Command::Stats,
        OPCODE_FLUSH => Command::Flush,
        OPCODE_SUBSCRIBE | OPCODE_MAP if argument != 0 => return refuse(id, opcode, Status::Malformed, frame_bytes),
        OPCODE_SUBSCRIBE => Command::Subscribe,
        OPCODE_MAP => Command::Map,
        _ => return refuse(id, opcode, Status::Unsupported, frame_bytes),
    };
    Decoded::Request(Request { id, want_version: flags & FLAG_WANT_VERSION != 0, command }, frame_bytes)
}

/// Appends a request to `out`.
pub fn encode_request(request: &Request<'_>, out: &mut Vec<u8>) {
    let key = request.command.key().unwrap_or_default();
    let mut prefix = [0u8; 16];
    let (opcode, argument, prefix_len, value): (u8, u64, usize, &[u8]) = match request.command {
        Command::Hello { shard } => (OPCODE_HELLO, shard.map_or(0, |shard| u64::from(shard) + 1), 0, &[]),
        Command::Noop => (OPCODE_NOOP, 0, 0, &[]),
        Command::Stats => (OPCODE_STATS, 0, 0, &[]),
        Command::Flush => (OPCODE_FLUSH, 0, 0, &[]),
        Command::Subscribe => (OPCODE_SUBSCRIBE, 0, 0, &[]),
        Command::Map => (OPCODE_MAP, 0, 0, &[]),
        Command::Get { .. } => (OPCODE_GET, 0, 0, &[]),
        Command::GetTracked { token, .. } => (OPCODE_GET, token, 0, &[]),
        Command::Set { value, ttl_ms, mode, .. } => match mode {
            Mode::Set => (OPCODE_SET, ttl_ms, 0, value),
            Mode::Add => (OPCODE_ADD, ttl_ms, 0, value),
            Mode::Replace => (OPCODE_REPLACE, ttl_ms, 0, value),
            Mode::CompareAndSet(version) => {
                prefix[..8].copy_from_slice(&version.to_le_bytes());
                (OPCODE_CAS, ttl_ms, 8, value)
            }
        },
        Command::Delete { .. } => (OPCODE_DELETE, 0, 0, &[]),
        Command::Increment { delta, initial, ttl_ms, .. } => {
            prefix[..8].copy_from_slice(&delta.to_le_bytes());
            prefix[8..].copy_from_slice(&initial.unwrap_or(0).to_le_bytes());
            (OPCODE_INCREMENT, ttl_ms, if initial.is_some() { 16 } else { 8 }, &[])
        }
        Command::Touch { ttl_ms, .. } => (OPCODE_TOUCH, ttl_ms, 0, &[]),
        Command::Ttl { .. } => (OPCODE_TTL, 0, 0, &[]),
        Command::Edit { .. } | Command::Memcached { .. } => unreachable!("only the text protocols have it"),
    };
    let flags = if request.want_version { FLAG_WANT_VERSION } else { 0 };
    let mut header = [0u8; HEADER_BYTES];
    header[..4].copy_from_slice(&[REQUEST_MAGIC, VERSION, opcode, flags]);
    header[4..6].copy_from_slice(&(key.len() as u16).to_le_bytes());
    header[8..12].copy_from_slice(&((prefix_len + value.len()) as u32).to_le_bytes());
    header[12..16].copy_from_slice(&request.id.to_le_bytes());
    header[16..].copy_from_slice(&argument.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(key);
    out.extend_from_slice(&prefix[..prefix_len]);
    out.extend_from_slice(value);
}

/// The opcode a command is sent with.
pub fn opcode_of(command: &Command<'_>) -> u8 {
    match command {
        Command::Hello { .. } => OPCODE_HELLO,
        Command::Noop => OPCODE_NOOP,
        Command::Stats => OPCODE_STATS,
        Command::Flush => OPCODE_FLUSH,
        Command::Subscribe => OPCODE_SUBSCRIBE,
        Command::Map => OPCODE_MAP,
        Command::Get { .. } | Command::GetTracked { .. } => OPCODE_GET,
        Command::Set { mode: Mode::Set, .. } => OPCODE_SET,
        Command::Set { mode: Mode::Add, .. } => OPCODE_ADD,
        Command::Set { mode: Mode::Replace, .. } => OPCODE_REPLACE,
        Command::Set { mode: Mode::CompareAndSet(_), .. } => OPCODE_CAS,
        Command::Delete { .. } => OPCODE_DELETE,
        Command::Increment { .. } => OPCODE_INCREMENT,
        Command::Touch { .. } => OPCODE_TOUCH,
        Command::Ttl { .. } => OPCODE_TTL,
        Command::Edit { .. } | Command::Memcached { .. } => unreachable!("only the text protocols have it"),
    }
}

/// Appends the reply to request `id` of `opcode` to `out`.
#[inline]
pub fn encode_reply(id: u32, opcode: u8, reply: &Reply<'_>, out: &mut Vec<u8>) {
    let mut header = [0u8; HEADER_BYTES];
    header[..4].copy_from_slice(&[REPLY_MAGIC, VERSION, opcode, 0]);
    header[6..8].copy_from_slice(&(reply.status as u16).to_le_bytes());
    header[8..12].copy_from_slice(&(reply.value.len() as u32).to_le_bytes());
    header[12..16].copy_from_slice(&id.to_le_bytes());
    header[16..].copy_from_slice(&reply.number.to_le_bytes());
    out.extend_from_slice(&header);
    out.extend_from_slice(reply.value);
}

/// A reply as a client reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFrame<'a> {
    /// The request's id.
    pub id: u32,
    /// The request's opcode.
    pub opcode: u8,
    /// The answer.
    pub reply: Reply<'a>,
}

/// Decodes the first reply of `bytes`: the reply and its length, `None` if more bytes are needed.
#[inline]
pub fn decode_reply(bytes: &[u8]) -> Result<Option<(ReplyFrame<'_>, usize)>, String> {
    let Some(header) = bytes.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let [magic, version, opcode, ..] = *header;
    if magic != REPLY_MAGIC || version != VERSION {
        return Err(format!(
            "the peer does not speak the native protocol (its reply begins {magic:#04x} {version:#04x})"
        ));
    }
    let status = u16_at(header, 6);
    let status =
        Status::from_number(status).ok_or_else(|| format!("the server answered with unknown status {status}"))?;
    let end = HEADER_BYTES + u32_at(header, 8) as usize;
    if bytes.len() < end {
        return Ok(None);
    }
    let reply = Reply { status, value: &bytes[HEADER_BYTES..end], number: u64_at(header, 16) };
    Ok(Some((ReplyFrame { id: u32_at(header, 12), opcode, reply }, end)))
}

/// What HELLO's reply says of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerHello {
    /// Shards of the server.
    pub shard_count: u16,
    /// The shard that serves this connection.
    pub shard: u16,
    /// Longest key.
    pub key_bytes_max: u32,
    /// Largest value.
    pub value_bytes_max: u32,
    /// What it can do beyond the first version: [`FEATURE_MAP`] or nothing.
    pub features: u32,
    /// Seed of the key hash.
    pub hash_seed: u64,
    /// Name and version of the server, for people.
    pub server: String,
}

impl ServerHello {
    /// The reply value.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BYTES + self.server.len());
        out.extend_from_slice(&self.shard_count.to_le_bytes());
        out.extend_from_slice(&self.shard.to_le_bytes());
        out.extend_from_slice(&self.key_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.value_bytes_max.to_le_bytes());
        out.extend_from_slice(&self.features.to_le_bytes());
        out.extend_from_slice(&self.hash_seed.to_le_bytes());
        out.extend_from_slice(self.server.as_bytes());
        out
    }

    /// Reads the reply value.
    pub fn decode(value: &[u8]) -> Result<ServerHello, String> {
        if value.len() < HELLO_BYTES {
            return Err(format!("the server's HELLO has {} bytes, {HELLO_BYTES} are needed", value.len()));
        }
        Ok(ServerHello {
            shard_count: u16_at(value, 0).max(1),
            shard: u16_at(value, 2),
            key_bytes_max: u32_at(value, 4),
            value_bytes_max: u32_at(value, 8),
            features: u32_at(value, 12),
            hash_seed: u64_at(value, 16),
            server: String::from_utf8_lossy(&value[HELLO_BYTES..]).into_owned(),
        })
    }
}

/// What a shard tells a near cache that has subscribed: buckets of its interest, and the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscribed {
    /// Buckets of the key hash, a power of two up to 65,536.
    pub bucket_count: u32,
    /// How long the near cache may serve without having heard from the shard.
    pub lease_ms: u32,
}

impl Subscribed {
    /// The reply value.
    pub fn encode(self) -> [u8; 8] {
        (u64::from(self.bucket_count) | u64::from(self.lease_ms) << 32).to_le_bytes()
    }

    /// Reads the reply value.
    pub fn decode(value: &[u8]) -> Result<Subscribed, String> {
        if value.len() < 8 {
            return Err(format!("the answer to SUBSCRIBE has {} bytes, 8 are needed", value.len()));
        }
        let (bucket_count, lease_ms) = (u32_at(value, 0), u32_at(value, 4));
        if !bucket_count.is_power_of_two() || bucket_count as usize > limits::NEAR_BUCKETS_MAX {
            return Err(format!("{bucket_count} buckets of interest are no power of two up to 65,536"));
        }
        Ok(Subscribed { bucket_count, lease_ms })
    }
}

/// Appends push number `sequence` about `buckets` to `out`: a frame like a reply, whose id counts pushes.
pub fn encode_push(sequence: u32, buckets: &[u32], out: &mut Vec<u8>) {
    encode_reply(sequence, OPCODE_PUSH, &Reply::status(Status::Ok), out);
    let length_at = out.len() - HEADER_BYTES + 8;
    out[length_at..length_at + 4].copy_from_slice(&(buckets.len() as u32 * 4).to_le_bytes());
    buckets.iter().for_each(|bucket| out.extend_from_slice(&bucket.to_le_bytes()));
}

/// The buckets that a push is about.
pub fn pushed_buckets(value: &[u8]) -> impl Iterator<Item = u32> {
    value.chunks_exact(4).map(|bytes| u32_at(bytes, 0))
}

/// What lengths and flags an opcode allows.
struct Shape {
    flags: u8,
    has_key: bool,
    /// Whether the value goes into the store, hence under the store's limit.
    stores: bool,
    value_len_min: usize,
    value_len_max: usize,
}

impl Shape {
    #[inline]
    fn of(opcode: u8) -> Option<Shape> {
        let (has_key, stores, value_len_min, value_len_max) = match opcode {
            OPCODE_HELLO => (false, false, 0, HELLO_NAME_BYTES_MAX),
            OPCODE_NOOP | OPCODE_STATS | OPCODE_FLUSH | OPCODE_SUBSCRIBE | OPCODE_MAP => (false, false, 0, 0),
            OPCODE_GET | OPCODE_DELETE | OPCODE_TOUCH | OPCODE_TTL => (true, false, 0, 0),
            OPCODE_SET | OPCODE_ADD | OPCODE_REPLACE => (true, true, 0, 0),
            OPCODE_CAS => (true, true, 8, 0),
            OPCODE_INCREMENT => (true, false, 8, 16),
            _ => return None,
        };
        let flags = if matches!(opcode, OPCODE_SUBSCRIBE | OPCODE_MAP) { 0 } else { FLAG_WANT_VERSION };
        Some(Shape { flags, has_key, stores, value_len_min, value_len_max })
    }
}

fn refuse<'a>(id: u32, opcode: u8, status: Status, frame_bytes: usize) -> Decoded<'a> {
    Decoded::Refused(Refusal { id, opcode, status, frame_bytes: frame_bytes as u64 })
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[inline]
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Opcode of a push: the server speaks unasked, on connections that have subscribed.
pub const OPCODE_PUSH: u8 = 0x81;
/// The only bucket of a push that is about every key.
pub const PUSH_EVERYTHING: u32 = u32::MAX;
/// Feature of a server that answers MAP with a region map.
pub const FEATURE_MAP: u32 = 1;
const FLAG_WANT_VERSION: u8 = 1;
const HELLO_BYTES: usize = 24;
const HELLO_NAME_BYTES_MAX: usize = 64;
const OPCODE_HELLO: u8 = 0x01;
const OPCODE_NOOP: u8 = 0x02;
const OPCODE_STATS: u8 = 0x03;
const OPCODE_FLUSH: u8 = 0x04;
const OPCODE_SUBSCRIBE: u8 = 0x05;
const OPCODE_MAP: u8 = 0x06;
const OPCODE_GET: u8 = 0x10;
const OPCODE_SET: u8 = 0x11;
const OPCODE_ADD: u8 = 0x12;
const OPCODE_REPLACE: u8 = 0x13;
const OPCODE_CAS: u8 = 0x14;
const OPCODE_DELETE: u8 = 0x15;
const OPCODE_INCREMENT: u8 = 0x16;
const OPCODE_TOUCH: u8 = 0x17;
const OPCODE_TTL: u8 = 0x18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;

    const VALUE_BYTES_MAX: usize = 10_000;

    fn random_request<'a>(prng: &mut Prng, bytes: &'a [u8]) -> Request<'a> {
        let key = &bytes[..1 + prng.below(40) as usize];
        let value = &bytes[..prng.below(300) as usize];
        let ttl_ms = prng.next_u64() >> prng.below(64);
        let mut want_version = prng.below(2) == 0;
        let command = match prng.below(15) {
            0 => Command::Hello { shard: (prng.below(2) == 0).then_some(3) },
            1 => Command::Noop,
            2 => Command::Stats,
            3 => Command::Flush,
            4 => Command::Delete { key },
            5 => Command::Increment { key, delta: -5, initial: (prng.below(2) == 0).then_some(9), ttl_ms },
            6 => Command::Touch { key, ttl_ms },
            7 => Command::Ttl { key },
            8 => Command::Get { key },
            9 => Command::Set { key, value, ttl_ms, mode: Mode::CompareAndSet(prng.next_u64()) },
            10 => Command::Set { key, value, ttl_ms, mode: Mode::Add },
            11 => {
                want_version = false;
                Command::GetTracked { key, token: prng.next_u64() | 1 }
            }
            12 => {
                want_version = false;
                Command::Subscribe
            }
            13 => {
                want_version = false;
                Command::Map
            }
            _ => Command::Set { key, value, ttl_ms, mode: Mode::Set },
        };
        Request { id: prng.next_u64() as u32, want_version, command }
    }

    #[test]
    fn a_request_decodes_to_what_was_encoded() {
        let (mut prng, bytes) = (Prng::new(1), vec![7u8; 400]);
        for _ in 0..10_000 {
            let request = random_request(&mut prng, &bytes);
            let mut frame = Vec::new();
            encode_request(&request, &mut frame);
            assert_eq!(frame[2], opcode_of(&request.command));
            frame.push(REQUEST_MAGIC); // the next frame begins
            assert_eq!(decode(&frame, VALUE_BYTES_MAX), Decoded::Request(request, frame.len() - 1));
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_incomplete_and_never_something_else() {
        let (mut prng, bytes) = (Prng::new(2), vec![7u8; 400]);
        for _ in 0..300 {
            let request = random_request(&mut prng, &bytes);
            let mut frame = Vec::new();
            encode_request(&request, &mut frame);
            for cut in 0..frame.len() {
                match decode(&frame[..cut], VALUE_BYTES_MAX) {
                    Decoded::Incomplete(needed) => {
                        assert!(needed > cut && needed <= frame.len(), "cut {cut}: needs {needed}")
                    }
                    other => panic!("cut {cut}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn random_bytes_never_panic_and_hostile_lengths_are_refused() {
        let mut prng = Prng::new(3);
        for _ in 0..200_000 {
            let mut bytes: Vec<u8> = (0..prng.below(64)).map(|_| prng.next_u64() as u8).collect();
            for (byte, set) in bytes.iter_mut().zip([REQUEST_MAGIC, VERSION]) {
                if prng.below(8) > 0 {
                    *byte = set;
                }
            }
            if let Decoded::Incomplete(needed) = decode(&bytes, VALUE_BYTES_MAX) {
                assert!(needed <= HEADER_BYTES + limits::KEY_BYTES_MAX + VALUE_BYTES_MAX + 8);
            }
        }
    }

    #[test]
    fn each_kind_of_bad_frame_gets_its_own_status() {
        let frame = |bytes: [u8; 12]| [bytes.as_slice(), &[0; 12]].concat();
        let status = |bytes: [u8; 12]| match decode(&frame(bytes), VALUE_BYTES_MAX) {
            Decoded::Refused(refusal) => Some(refusal.status),
            _ => None,
        };
        assert_eq!(status([0x5b, 1, 0x10, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Status::KeyLength));
        assert_eq!(status([0x5b, 1, 0x10, 0, 1, 4, 0, 0, 0, 0, 0, 0]), Some(Status::KeyLength));
        assert_eq!(status([0x5b, 1, 0x11, 0, 1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Some(Status::ValueTooLarge));
        assert_eq!(status([0x5b, 1, 0x10, 0, 1, 0, 0, 0, 1, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x14, 0, 1, 0, 0, 0, 7, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x99, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Unsupported));
        assert_eq!(status([0x5b, 1, 0x10, 2, 1, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Unsupported));
        assert_eq!(status([0x5b, 1, 0x06, 0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x06, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Unsupported));
        assert_eq!(status([0x5b, 2, 0x10, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Some(Status::UnsupportedVersion));
        assert_eq!(status([0x5b, 1, 0x10, 0, 1, 0, 1, 0, 0, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x05, 0, 1, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x05, 0, 0, 0, 0, 0, 1, 0, 0, 0]), Some(Status::Malformed));
        assert_eq!(status([0x5b, 1, 0x05, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Unsupported));
        assert_eq!(status([0x5b, 1, 0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(Status::Unsupported), "only servers push");
        assert!(matches!(decode(b"GET /", 10), Decoded::Refused(Refusal { status: Status::Malformed, .. })));
    }

    #[test]
    fn what_a_near_cache_may_not_ask_is_refused() {
        let status = |flags: u8, opcode: u8, key: &[u8], argument: u64| {
            let mut frame =
                vec![REQUEST_MAGIC, VERSION, opcode, flags, key.len() as u8, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
            frame.extend_from_slice(&argument.to_le_bytes());
            frame.extend_from_slice(key);
            match decode(&frame, VALUE_BYTES_MAX) {
                Decoded::Refused(refusal) => Some(refusal.status),
                _ => None,
            }
        };
        assert_eq!(status(0, OPCODE_GET, b"k", 7), None);
        assert_eq!(status(FLAG_WANT_VERSION, OPCODE_GET, b"k", 0), None);
        assert_eq!(status(FLAG_WANT_VERSION, OPCODE_GET, b"k", 7), Some(Status::Unsupported), "a version and a token");
        assert_eq!(status(0, OPCODE_SUBSCRIBE, b"", 0), None);
        assert_eq!(status(0, OPCODE_SUBSCRIBE, b"", 1), Some(Status::Malformed), "its argument is reserved");
    }

    #[test]
    fn pushes_and_subscriptions_read_back() {
        let mut out = Vec::new();
        encode_push(7, &[1, 65_535, PUSH_EVERYTHING], &mut out);
        let (frame, length) = decode_reply(&out).unwrap().unwrap();
        assert_eq!((frame.id, frame.opcode, length), (7, OPCODE_PUSH, out.len()));
        assert_eq!(pushed_buckets(frame.reply.value).collect::<Vec<_>>(), [1, 65_535, PUSH_EVERYTHING]);
        let subscribed = Subscribed { bucket_count: 8192, lease_ms: 500 };
        assert_eq!(Subscribed::decode(&subscribed.encode()), Ok(subscribed));
        assert!(Subscribed::decode(&subscribed.encode()[..7]).is_err());
        for bucket_count in [0, 3, 1 << 17] {
            assert!(Subscribed::decode(&Subscribed { bucket_count, lease_ms: 1 }.encode()).is_err());
        }
    }

    #[test]
    fn replies_and_hello_read_back() {
        let hello = ServerHello {
            shard_count: 3,
            shard: 2,
            key_bytes_max: 1024,
            value_bytes_max: 99,
            features: FEATURE_MAP,
            hash_seed: u64::MAX - 1,
            server: "spinetail 0.1.0".into(),
        };
        let value = hello.encode();
        assert_eq!(ServerHello::decode(&value), Ok(hello));
        assert!(ServerHello::decode(&value[..23]).is_err());
        let reply = Reply { status: Status::Ok, value: &value, number: 77 };
        let mut out = Vec::new();
        encode_reply(5, OPCODE_HELLO, &reply, &mut out);
        for cut in 0..out.len() {
            assert_eq!(decode_reply(&out[..cut]), Ok(None));
        }
        assert_eq!(decode_reply(&out), Ok(Some((ReplyFrame { id: 5, opcode: OPCODE_HELLO, reply }, out.len()))));
        assert!(decode_reply(b"+PONG\r\n+PONG\r\n+PONG\r\n+PONG\r\n").is_err());
    }

    #[test]
    fn every_status_number_reads_back() {
        for number in 0..100 {
            if let Some(status) = Status::from_number(number) {
                assert_eq!(status as u16, number);
            }
        }
    }
}
