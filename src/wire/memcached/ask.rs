//! What memcached's protocol asks of one key.

use crate::base::limits;
use crate::wire::request::Expiry;

/// What is asked of one key. Everything quiet is answered with nothing when it goes as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask<'a> {
    /// GET, GETS, GAT, GATS.
    Read {
        /// When it expires from now on, if that changes.
        exptime: Option<Exptime>,
        /// The reply names the item's version.
        with_cas: bool,
        /// `END` follows: it is all that was asked for.
        ends: bool,
    },
    /// SET, ADD, REPLACE, APPEND, PREPEND, CAS.
    Store {
        /// The value.
        value: &'a [u8],
        /// What the client keeps with it.
        flags: u32,
        /// When it expires.
        exptime: Exptime,
        /// When and how it is stored.
        how: Storing,
        /// Nobody waits for an answer.
        is_quiet: bool,
    },
    /// DELETE.
    Delete {
        /// Nobody waits for an answer.
        is_quiet: bool,
    },
    /// TOUCH.
    Touch {
        /// When it expires from now on.
        exptime: Exptime,
        /// Nobody waits for an answer.
        is_quiet: bool,
    },
    /// INCR, DECR.
    Count {
        /// How much.
        by: u64,
        /// Whether it is taken away.
        is_down: bool,
        /// Nobody waits for an answer.
        is_quiet: bool,
    },
    /// MG, MS, MD, MA, ME.
    Meta {
        /// Which.
        verb: Verb,
        /// The words behind the key, or behind the length of the value.
        flags: &'a [u8],
        /// The value, of MS.
        value: &'a [u8],
        /// The key was sent in base64.
        is_encoded: bool,
    },
}

/// When and how a value is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storing {
    /// In any case.
    Set,
    /// If the key is not stored.
    Add,
    /// If it is.
    Replace,
    /// Behind the present value.
    Append,
    /// Before it.
    Prepend,
    /// If the present value has this version.
    Cas(u64),
}

/// The meta commands about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Verb {
    /// MG.
    Get = b'g',
    /// MS.
    Set = b's',
    /// MD.
    Delete = b'd',
    /// MA.
    Arithmetic = b'a',
    /// ME.
    Debug = b'e',
}

/// A time as it is sent: 0 for never, seconds up to thirty days, Unix time beyond; negative numbers have passed. Like
/// memcached this takes the lower 32 bits of a larger number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exptime(pub i32);

impl Exptime {
    /// What it means.
    #[inline]
    pub fn expiry(self) -> Expiry {
        match self.0 {
            0 => Expiry::Never,
            1..=limits::MEMCACHED_RELATIVE_S_MAX => Expiry::In(self.0 as u64 * 1000),
            ..0 => Expiry::At(i64::MIN),
            seconds => Expiry::At(i64::from(seconds) * 1000),
        }
    }
}

impl<'a> Ask<'a> {
    /// Completes what is followed by a value.
    #[inline]
    pub fn set_value(&mut self, block: &'a [u8]) {
        if let Ask::Store { value, .. } | Ask::Meta { value, .. } = self {
            *value = block;
        }
    }

    /// Whether nobody waits for an answer, as far as a classic command says so.
    pub fn is_quiet(&self) -> bool {
        match *self {
            Ask::Store { is_quiet, .. }
            | Ask::Delete { is_quiet }
            | Ask::Touch { is_quiet, .. }
            | Ask::Count { is_quiet, .. } => is_quiet,
            Ask::Read { .. } | Ask::Meta { .. } => false,
        }
    }

    /// Whether it is a meta command.
    pub fn is_meta(&self) -> bool {
        matches!(self, Ask::Meta { .. })
    }

    /// Whether it reads a value.
    #[inline]
    pub fn is_read(&self) -> bool {
        matches!(self, Ask::Read { .. } | Ask::Meta { verb: Verb::Get, .. })
    }

    /// Whether it stores a value that was sent.
    #[inline]
    pub fn is_store(&self) -> bool {
        matches!(self, Ask::Store { .. } | Ask::Meta { verb: Verb::Set, .. })
    }
}

impl Verb {
    /// The verb of `m` and this letter.
    pub fn of(letter: u8) -> Option<Verb> {
        Some(match letter {
            b'g' => Verb::Get,
            b's' => Verb::Set,
            b'd' => Verb::Delete,
            b'a' => Verb::Arithmetic,
            b'e' => Verb::Debug,
            _ => return None,
        })
    }
}
