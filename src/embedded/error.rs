//! What can go wrong, who is at fault, and what to do about it.

use std::fmt;

use crate::base::limits;
use crate::base::units::format_bytes;

/// Why a cache could not be built.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildError {
    /// The capacity does not suffice for what was asked of it.
    CapacityTooSmall {
        /// What was given.
        capacity_bytes: usize,
        /// What is needed for so many stripes, with this L0 and entries of this length.
        needed_bytes: usize,
        /// Stripes.
        stripes: usize,
    },
    /// The number of stripes is no power of two, or too large.
    Stripes {
        /// What was given.
        stripes: usize,
    },
    /// A stripe would be larger than a store can address.
    StripeTooLarge {
        /// What each stripe's arena would take.
        arena_bytes: u64,
    },
    /// Entries may not be as long as this.
    EntryTooLarge {
        /// What was given.
        entry_bytes: usize,
    },
    /// The system did not grant the memory.
    Memory {
        /// Bytes asked for.
        bytes: usize,
        /// What it said.
        reason: String,
    },
}

/// Why an entry was not stored. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InsertError {
    /// A key has 1 to 1024 bytes.
    KeyLength {
        /// Bytes of the key.
        bytes: usize,
    },
    /// The entry is longer than a segment of this cache.
    TooLarge {
        /// Bytes that the entry would take, key and header included.
        bytes: usize,
        /// Bytes that it may take.
        bytes_max: usize,
    },
}

/// Why there is no loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The caller's own loader failed.
    Failed(E),
    /// The loader asked for the key that it is loading, which would wait for itself for ever.
    Recursive,
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = |bytes: usize| format_bytes(bytes as u64);
        match self {
            BuildError::CapacityTooSmall { capacity_bytes, needed_bytes, stripes } => write!(
                f,
                "{} is too little for {stripes} stripe(s): give at least {}, or fewer stripes, less L0 or shorter \
                 entries",
                size(*capacity_bytes),
                size(*needed_bytes)
            ),
            BuildError::Stripes { stripes } => write!(
                f,
                "{stripes} stripes: give a power of two up to {}, or leave the choice to the cache",
                limits::EMBEDDED_STRIPES_MAX
            ),
            BuildError::StripeTooLarge { arena_bytes } => write!(
                f,
                "a stripe of {} cannot be addressed: give more stripes, of at most {} each",
                format_bytes(*arena_bytes),
                format_bytes(limits::ARENA_BYTES_MAX)
            ),
            BuildError::EntryTooLarge { entry_bytes } => write!(
                f,
                "entries of {} cannot be stored: give entry_bytes_max at most {}",
                size(*entry_bytes),
                size(limits::SEGMENT_BYTES_MAX)
            ),
            BuildError::Memory { bytes, reason } => {
                write!(f, "{} of memory were not granted: {reason}; give a smaller capacity", size(*bytes))
            }
        }
    }
}

impl fmt::Display for InsertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InsertError::KeyLength { bytes } => {
                write!(f, "a key of {bytes} bytes: a key has 1 to {} bytes, hash longer ones", limits::KEY_BYTES_MAX)
            }
            InsertError::TooLarge { bytes, bytes_max } => write!(
                f,
                "the entry takes {bytes} bytes, this cache stores at most {bytes_max}: build it with a larger \
                 entry_bytes_max or capacity"
            ),
        }
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(error) => write!(f, "the loader failed: {error}"),
            LoadError::Recursive => write!(f, "a loader asked the cache for the key it is loading: let it not"),
        }
    }
}

impl std::error::Error for BuildError {}

impl std::error::Error for InsertError {}

impl<E: std::error::Error + 'static> std::error::Error for LoadError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            LoadError::Failed(error) => Some(error),
            LoadError::Recursive => None,
        }
    }
}
