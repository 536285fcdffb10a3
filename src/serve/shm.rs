//! The door for programs of this host: a Unix socket that gives out connections through shared memory.
//!
//! Its owner's user alone may connect (mode 0600). A greeting has a second; clients are greeted one
//! after the other, by a thread of their own that sleeps otherwise.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::engine::Attacher;
use crate::net::greeting::{grant, read_wish, refuse};
use crate::serve::door::Door;
use crate::serve::settle::Failure;

/// Opens the door at `path`.
pub fn open(path: &Path, attacher: Attacher) -> Result<Door, Failure> {
    let (door, listener) = Door::open("--shm", path, true)?;
    let greeter = std::thread::Builder::new().name("shm-door".into());
    let failed = |error: io::Error| Failure::failed(format!("no thread for --shm: {error}"));
    greeter.spawn(move || greet_all(&listener, attacher)).map_err(failed)?;
    Ok(door)
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
