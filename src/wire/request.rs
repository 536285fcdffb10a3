//! What can be asked of a shard and what it answers, whatever the protocol.

use std::fmt;

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
}

/// When a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// In any case.
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
            | Command::Ttl { key } => Some(key),
            Command::Hello { .. } | Command::Noop | Command::Stats | Command::Flush | Command::Subscribe => None,
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
            16 => Status::KeyLength,
            17 => Status::ValueTooLarge,
            32 => Status::Malformed,
            33 => Status::UnsupportedVersion,
            34 => Status::Unsupported,
            48 => Status::Busy,
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
            Status::KeyLength => "key length",
            Status::ValueTooLarge => "value too large",
            Status::Malformed => "malformed",
            Status::UnsupportedVersion => "unsupported version",
            Status::Unsupported => "unsupported",
            Status::Busy => "busy",
        })
    }
}
