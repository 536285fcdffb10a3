//! A Unix socket at a path: opened over what a killed server left, removed at the end.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::serve::settle::Failure;

/// An open door. Dropping it removes the socket; connections stay.
pub struct Door {
    path: PathBuf,
    /// Which file it is: a successor may have put its own in its place.
    inode: u64,
}

impl Door {
    /// Opens the door that `flag` asked for, to programs of this user only or to everybody's.
    pub fn open(flag: &str, path: &Path, own_only: bool) -> Result<(Door, UnixListener), Failure> {
        let failed = |error: io::Error| Failure::failed(format!("cannot listen on {flag} {}: {error}", path.display()));
        // What a killed server left behind is in the way; what a living one listens on is not ours to take.
        if path.exists() {
            if UnixStream::connect(path).is_ok() {
                return Err(Failure::failed(format!(
                    "another program listens on {flag} {}; stop it or give another path",
                    path.display()
                )));
            }
            std::fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        let mode = if own_only { 0o600 } else { 0o666 };
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        let inode = std::fs::metadata(path).map_err(failed)?.ino();
        Ok((Door { path: path.to_path_buf(), inode }, listener))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if std::fs::metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
            // If it is gone by now, so much the better.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
