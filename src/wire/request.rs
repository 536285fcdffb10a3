//! What can be asked of a shard and what it answers, whatever the protocol.

use std::fmt;

use crate::wire::memcached::Ask;

/// One request, borrowed from the bytes it arrived in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's own number, returned with the reply.
    pub id: u32,
    /// Whether the reply shall carry the item's version.
    pub want_version: bool,
    /// What is asked.
    pub command: Command<'a>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Introduces the client; `shard` asks to be served by that shard from now on.
    Hello {
        /// The shard this connection wants to be moved to.
        shard: Option<u16>,
    },
    /// Nothing: answered when everything before it has been.
    Noop,
    /// The server's counters as text.
    Stats,
    /// Removes every entry of every shard.
    Flush,
    /// Reads a value.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Reads a value for a near cache, which is to hear when it changes.
    GetTracked {
        /// The key.
        key: &'a [u8],
        /// The subscription of the near cache at the key's shard, never 0.
        token: u64,
    },
    /// Asks for the region map that the server passes on.
    Map,
    /// Asks the shard that serves this connection to push what changes of what is read with the token it answers.
    Subscribe,
    /// Stores a value.
    Set {
        /// The key.
        key: &'a [u8],
        /// The value.
        value: &'a [u8],
        /// Milliseconds until it expires, 0 for never.
        ttl_ms: u64,
        /// When to store it.
        mode: Mode,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Adds to the decimal integer stored under a key.
    Increment {
        /// The key.
        key: &'a [u8],
        /// What to add.
        delta: i64,
        /// What to store if there is nothing yet.
        initial: Option<i64>,
        /// Milliseconds until a new entry expires, 0 for never.
        ttl_ms: u64,
    },
    /// Changes when a key expires.
    Touch {
        /// The key.
        key: &'a [u8],
        /// Milliseconds until it expires, 0 for never.
        ttl_ms: u64,
    },
    /// Asks how long a key has left.
    Ttl {
        /// The key.
        key: &'a [u8],
    },
    /// What memcached's protocol asks of a key.
    Memcached {
        /// The key.
        key: &'a [u8],
        /// What.
        ask: Ask<'a>,
    },
    /// What the text protocols ask of a key beyond that.
    Edit {
        /// The key.
        key: &'a [u8],
        /// What to do with it.
        edit: Edit<'a>,
    },
}

/// What the text protocols ask of one key beyond what the native protocol has. Each is one step of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit<'a> {
    /// Stores a value with everything that can be said about it.
    Store {
        /// The value.
        value: &'a [u8],
        /// When it expires.
        expiry: Expiry,
        /// When to store it.
        mode: Mode,
        /// Whether what was stored before is the answer, and not how it went.
        old: bool,
    },
    /// Reads a value and changes when it expires.
    Read {
        /// When it expires from now on.
        expiry: Expiry,
    },
    /// Reads a value and removes it.
    Take,
    /// Adds bytes behind a value, or stores them.
    Append {
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Overwrites bytes of a value from `at` on, with zeroes before if it is shorter.
    Splice {
        /// Where.
        at: u32,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Sets one bit of a value, which grows with zeroes if it is shorter.
    SetBit {
        /// Which, from the highest of the first byte on.
        at: u32,
        /// To what.
        to: bool,
    },
    /// Adds to the decimal number stored under a key.
    AddFloat {
        /// What to add, a decimal number as it was sent.
        delta: &'a [u8],
    },
    /// Changes when a key expires.
    Expire {
        /// When.
        expiry: Expiry,
        /// On which condition.
        when: When,
    },
    /// Asks about a key and changes nothing.
    Look {
        /// What is asked.
        want: Want,
    },
    /// Does something if the value is the expected one: what the scripts of lock libraries do.
    IfEqual {
        /// The expected value; without one it is enough that the key is stored.
        expected: Option<&'a [u8]>,
        /// What is done.
        then: Then,
    },
}

/// When a key expires.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Expiry {
    /// As before.
    Keep,
    /// Never.
    #[default]
    Never,
    /// In so many milliseconds.
    In(u64),
    /// At this many milliseconds of Unix time; negative numbers have passed too.
    At(i64),
    /// What was sent makes no sense, which is told where it matters: it is no number, or one out of range.
    Senseless {
        /// It is a number.
        is_number: bool,
    },
}

/// On which condition an expiry is changed. A key that never expires counts as later than any other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// If it never expires yet.
    pub none_yet: bool,
    /// If it does already.
    pub some_already: bool,
    /// If the new moment is later.
    pub later: bool,
    /// If the new moment is earlier.
    pub earlier: bool,
    /// If it expires at all: what PERSIST answers by.
    pub persist: bool,
}

/// What is asked about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// Whether it is stored.
    Presence,
    /// The same, and it counts as used.
    Touch,
    /// The length of its value.
    Length,
    /// Part of its value, ends included, negative numbers counted from the end.
    Range(i64, i64),
    /// One bit of its value.
    Bit(u32),
    /// Milliseconds it has left.
    Left,
    /// Milliseconds of Unix time at which it expires.
    ExpiresAt,
    /// What kind of value it is.
    Encoding,
    /// Milliseconds since it was used.
    Idle,
    /// How often it was used, of a few times.
    Frequency,
    /// Bytes of memory it takes.
    Memory,
    /// Everything needed to store it elsewhere: the value, and in `number` when it expires.
    Whole,
}

/// What is done when a value is the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Removes the key.
    Delete,
    /// Changes when it expires.
    Expire(Expiry),
    /// Adds milliseconds to what it has left.
    Extend(u64),
    /// Adds to the decimal integer.
    Increment {
        /// What to add.
        by: i64,
        /// Without the key the answer is nothing, and not zero.
        is_null_otherwise: bool,
    },
}

/// When a value is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// In any case.
    #[default]
    Set,
    /// If the key is not stored.
    Add,
    /// If the key is stored.
    Replace,
    /// If the key is stored with this version.
    CompareAndSet(u64),
}

/// What is answered. `number` is the version, the new count or the remaining time, by command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// How it went.
    pub status: Status,
    /// The value, or a text for people when something was refused.
    pub value: &'a [u8],
    /// The command's number.
    pub number: u64,
}

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    /// Done.
    Ok = 0,
    /// The key is not stored.
    NotFound = 1,
    /// The key is stored already.
    Exists = 2,
    /// The key is stored with another version.
    VersionDiffers = 3,
    /// The value is not a decimal 64-bit integer.
    NotANumber = 4,
    /// The result does not fit a 64-bit integer.
    Overflow = 5,
    /// The value is not a decimal number.
    NotAFloat = 6,
    /// The result is no finite number.
    NotFinite = 7,
    /// The result would be longer than the server stores.
    TooLong = 8,
    /// The time to live makes no sense.
    BadExpiry = 9,
    /// The key is longer than the server allows, or empty where one is needed.
    KeyLength = 16,
    /// The value is larger than the server stores.
    ValueTooLarge = 17,
    /// The frame makes no sense; the connection is closed after this reply.
    Malformed = 32,
    /// The frame is of a protocol version this server does not speak; closed after this reply.
    UnsupportedVersion = 33,
    /// The opcode or a flag is unknown; the frame was skipped.
    Unsupported = 34,
    /// The server has no buffer memory for this request now; it was skipped, try again.
    Busy = 48,
    /// A strong key whose holder cannot be reached, or that nobody holds just now: nothing was done, try again.
    NoPrimary = 49,
    /// A write of a strong key that may have been done or not, or be done later.
    OutcomeUnknown = 50,
}

impl<'a> Command<'a> {
    /// The key a command is about, if it is about one.
    #[inline]
    pub fn key(&self) -> Option<&'a [u8]> {
        match *self {
            Command::Get { key }
            | Command::GetTracked { key, .. }
            | Command::Set { key, .. }
            | Command::Delete { key }
            | Command::Increment { key, .. }
            | Command::Touch { key, .. }
            | Command::Ttl { key }
            | Command::Memcached { key, .. }
            | Command::Edit { key, .. } => Some(key),
            Command::Hello { .. }
            | Command::Noop
            | Command::Stats
            | Command::Flush
            | Command::Map
            | Command::Subscribe => None,
        }
    }
}

impl<'a> Reply<'a> {
    /// A reply of nothing but a status.
    pub fn status(status: Status) -> Reply<'a> {
        Reply { status, value: &[], number: 0 }
    }
}

impl Status {
    /// The status of that number, if there is one.
    pub fn from_number(number: u16) -> Option<Status> {
        Some(match number {
            0 => Status::Ok,
            1 => Status::NotFound,
            2 => Status::Exists,
            3 => Status::VersionDiffers,
            4 => Status::NotANumber,
            5 => Status::Overflow,
            6 => Status::NotAFloat,
            7 => Status::NotFinite,
            8 => Status::TooLong,
            9 => Status::BadExpiry,
            16 => Status::KeyLength,
            17 => Status::ValueTooLarge,
            32 => Status::Malformed,
            33 => Status::UnsupportedVersion,
            34 => Status::Unsupported,
            48 => Status::Busy,
            49 => Status::NoPrimary,
            50 => Status::OutcomeUnknown,
            _ => return None,
        })
    }

    /// Whether the server closes the connection after a reply with this status.
    pub fn closes(self) -> bool {
        matches!(self, Status::Malformed | Status::UnsupportedVersion)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Ok => "ok",
            Status::NotFound => "not found",
            Status::Exists => "exists",
            Status::VersionDiffers => "version differs",
            Status::NotANumber => "not a number",
            Status::Overflow => "overflow",
            Status::NotAFloat => "not a decimal number",
            Status::NotFinite => "not a finite number",
            Status::TooLong => "result too long",
            Status::BadExpiry => "invalid expire time",
            Status::KeyLength => "key length",
            Status::ValueTooLarge => "value too large",
            Status::Malformed => "malformed",
            Status::UnsupportedVersion => "unsupported version",
            Status::Unsupported => "unsupported",
            Status::Busy => "busy",
            Status::NoPrimary => "no primary",
            Status::OutcomeUnknown => "outcome unknown",
        })
    }
}
