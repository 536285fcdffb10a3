//! The signed map of regions, from its file.
//!
//! The server only passes it on and has no keys to check it with: clients do. What is looked at here is that it is such
//! a map at all, so that a mistake in a path is told to whoever made it.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::base::limits;
use crate::cluster::route::SignedMap;
use crate::serve::settle::Failure;

/// Reads the map in a file.
pub fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let refuse = |reason: String| {
        Failure::configuration(format!(
            "--region-map {}: {reason}: name a file that 'spinetail cluster map' wrote",
            path.display()
        ))
    };
    // Not blocking: a named pipe that nobody writes would keep the start waiting for ever.
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|error| refuse(format!("cannot be read ({error})")))?;
    if !file.metadata().is_ok_and(|found| found.is_file()) {
        return Err(refuse("is no regular file".to_string()));
    }
    let mut bytes = Vec::new();
    file.take(limits::ROUTE_MAP_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(format!("cannot be read ({error})")))?;
    SignedMap::decode(&bytes).map_err(|refused| refuse(refused.to_string()))?;
    Ok(bytes)
}
