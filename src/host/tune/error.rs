//! Why nothing, or nothing more, was done to a machine.

use std::fmt;
use std::path::PathBuf;

use crate::host::process::effective_user;
use crate::host::tune::journal::JournalError;

/// Why nothing was done.
#[derive(Debug)]
pub enum TuneError {
    /// Not one setting may be written by this user.
    Permission(String),
    /// The machine does not say which boot it is, so that nothing could be put back: the file that should.
    NoBootId(PathBuf),
    /// The journal cannot be used.
    Journal(JournalError),
}

impl TuneError {
    /// Whether another user could.
    pub fn is_permission(&self) -> bool {
        match self {
            TuneError::Permission(_) => true,
            TuneError::Journal(error) if error.is_hidden() => true,
            TuneError::Journal(JournalError::Open { .. }) => effective_user() != 0,
            TuneError::Journal(_) | TuneError::NoBootId(_) => false,
        }
    }
}

impl fmt::Display for TuneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TuneError::Permission(reason) => f.write_str(reason),
            TuneError::NoBootId(path) => write!(
                f,
                "{} cannot be read, and without it undo would not know this boot's values from another's. Nothing was \
                 changed: mount /proc, or put such a file below --root",
                path.display()
            ),
            TuneError::Journal(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for TuneError {}

impl From<JournalError> for TuneError {
    fn from(error: JournalError) -> TuneError {
        TuneError::Journal(error)
    }
}
