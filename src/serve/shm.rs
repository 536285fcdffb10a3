//! The door for programs of this host: a Unix socket that gives out connections through shared memory.
//!
//! Its owner's user alone may connect (mode 0600). A greeting has a second; clients are greeted one
//! after the other, by a thread of their own that sleeps otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::Attacher;
use crate::net::greeting::{grant, read_wish, refuse};
use crate::serve::settle::Failure;

/// An open door. Dropping it removes the socket; connections stay.
pub struct Door {
    path: PathBuf,
    /// Which file it is: a successor may have put its own in its place.
    inode: u64,
}

/// Opens the door at `path`.
pub fn open(path: &Path, attacher: Attacher) -> Result<Door, Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot listen on --shm {}: {error}", path.display()));
    // What a killed server left behind is in the way; what a living one listens on is not ours to take.
    if path.exists() {
        if UnixStream::connect(path).is_ok() {
            return Err(Failure::failed(format!(
                "another program listens on --shm {}; stop it or give another path",
                path.display()
            )));
        }
        std::fs::remove_file(path).map_err(failed)?;
    }
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let greeter = std::thread::Builder::new().name("shm-door".into());
    greeter.spawn(move || greet_all(&listener, attacher)).map_err(failed)?;
    let inode = std::fs::metadata(path).map_err(failed)?.ino();
    Ok(Door { path: path.to_path_buf(), inode })
}

impl Door {
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

fn greet_all(listener: &UnixListener, mut attacher: Attacher) {
    for socket in listener.incoming() {
        match socket {
            // A client that breaks off its greeting is nobody's loss but its own.
            Ok(socket) => drop(greet(socket, &mut attacher)),
            // Out of descriptors: the next attempt would fail as fast.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

fn greet(mut socket: UnixStream, attacher: &mut Attacher) -> io::Result<()> {
    let wish = read_wish(&mut socket, GREETING_TIMEOUT)?;
    let Some(shard) = attacher.pick(wish.shard) else {
        refuse(socket, "this server has no such shard");
        return Ok(());
    };
    let rings = grant(&socket, shard, attacher.shard_count())?;
    socket.set_nonblocking(true)?;
    attacher.attach(shard, OwnedFd::from(socket), rings);
    Ok(())
}

/// How long a client may take for its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(1);
