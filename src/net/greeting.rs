//! How a program gets a connection through shared memory: the greeting over the Unix socket.
//!
//!   client -> server   | "spinshm1" | shard wanted u16, 0xffff any | 0 u16 | 0 u32 |           16 bytes
//!   server -> client   | "spinshm1" | shard u16 | shards u16 | bytes of a ring u32 |           16 bytes + the file
//!   refused            | "spinshm1" | 0 | 0 | 0 |  then words until the end

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::base::limits::SHM_RING_BYTES;
use crate::net::shm::{End, Rings, create_file};
use crate::net::socket::{receive_with_descriptors, send_with_descriptors};

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// The shard it wants to be served by.
    pub shard: Option<u16>,
}

/// A client's end of a fresh connection.
pub struct Greeted {
    /// Says whether the server lives, and carries wake-ups.
    pub socket: UnixStream,
    /// The rings.
    pub rings: Rings,
    /// The shard at the other end, and how many there are.
    pub shard: u16,
    /// See `shard`.
    pub shard_count: u16,
}

/// Connects to the server at `path`.
pub fn connect(path: &Path, shard: Option<u16>, timeout: Duration) -> io::Result<Greeted> {
    let mut socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let mut hello = [0u8; GREETING_BYTES];
    hello[..8].copy_from_slice(MAGIC);
    hello[8..10].copy_from_slice(&shard.unwrap_or(ANY_SHARD).to_le_bytes());
    socket.write_all(&hello)?;
    let mut reply = [0u8; GREETING_BYTES];
    let (count, files) = receive_with_descriptors(&socket, &mut reply)?;
    if count != GREETING_BYTES || reply[..8] != *MAGIC {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the peer gives no shared-memory connections"));
    }
    let number = |at: usize| u16::from_le_bytes([reply[at], reply[at + 1]]);
    let ring_bytes = u32::from_le_bytes([reply[12], reply[13], reply[14], reply[15]]);
    let Some(file) = files.into_iter().next() else {
        let mut words = String::new();
        // Whatever part of the reason arrives is better than none.
        let _ = (&socket).take(WORDS_BYTES_MAX).read_to_string(&mut words);
        return Err(io::Error::other(if words.is_empty() { "refused".to_string() } else { words }));
    };
    if ring_bytes as usize != SHM_RING_BYTES {
        let text = format!("the server's rings have {ring_bytes} bytes, this version's {SHM_RING_BYTES}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(Greeted { rings: Rings::map(file.as_fd(), End::Client)?, socket, shard: number(8), shard_count: number(10) })
}

/// Reads what a fresh client wants.
pub fn read_wish(socket: &mut UnixStream, timeout: Duration) -> io::Result<Wish> {
    socket.set_read_timeout(Some(timeout))?;
    socket.set_write_timeout(Some(timeout))?;
    let mut hello = [0u8; GREETING_BYTES];
    socket.read_exact(&mut hello)?;
    if hello[..8] != *MAGIC {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let shard = u16::from_le_bytes([hello[8], hello[9]]);
    Ok(Wish { shard: (shard != ANY_SHARD).then_some(shard) })
}

/// Gives a client its connection; the server's end of it.
pub fn grant(socket: &UnixStream, shard: u16, shard_count: u16) -> io::Result<Rings> {
    let file: OwnedFd = create_file()?;
    let rings = Rings::map(file.as_fd(), End::Server)?;
    let mut reply = [0u8; GREETING_BYTES];
    reply[..8].copy_from_slice(MAGIC);
    reply[8..10].copy_from_slice(&shard.to_le_bytes());
    reply[10..12].copy_from_slice(&shard_count.to_le_bytes());
    reply[12..16].copy_from_slice(&(SHM_RING_BYTES as u32).to_le_bytes());
    send_with_descriptors(socket, &reply, &[file.as_fd()])?;
    Ok(rings)
}

/// Tells a client why it gets none.
pub fn refuse(mut socket: UnixStream, words: &str) {
    let mut reply = [0u8; GREETING_BYTES];
    reply[..8].copy_from_slice(MAGIC);
    // Nobody is left to tell if this fails.
    let _ = socket.write_all(&reply).and_then(|()| socket.write_all(words.as_bytes()));
}

const MAGIC: &[u8; 8] = b"spinshm1";
const GREETING_BYTES: usize = 16;
const ANY_SHARD: u16 = u16::MAX;
/// Longest reason that is read.
const WORDS_BYTES_MAX: u64 = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn listener(name: &str) -> (UnixListener, std::path::PathBuf) {
        let path = std::env::temp_dir().join(format!("spinetail-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        (UnixListener::bind(&path).unwrap(), path)
    }

    #[test]
    fn a_client_gets_rings_that_the_server_reads() {
        let (listener, path) = listener("greeting");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let wish = read_wish(&mut socket, Duration::from_secs(5)).unwrap();
            (wish, grant(&socket, 1, 4).unwrap(), socket)
        });
        let mut client = connect(&path, Some(1), Duration::from_secs(5)).unwrap();
        let (wish, mut rings, _socket) = server.join().unwrap();
        assert_eq!((wish.shard, client.shard, client.shard_count), (Some(1), 1, 4));
        client.rings.write(b"hello").unwrap();
        let mut got = Vec::new();
        rings.read_into(&mut got, 100).unwrap();
        assert_eq!(got, b"hello");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_refused_client_hears_why() {
        let (listener, path) = listener("refusal");
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let wish = read_wish(&mut socket, Duration::from_secs(5)).unwrap();
            refuse(socket, "no more of them");
            wish
        });
        let error = connect(&path, None, Duration::from_secs(5)).err().unwrap();
        assert_eq!(server.join().unwrap().shard, None);
        assert!(error.to_string().contains("no more of them"), "{error}");
        std::fs::remove_file(path).unwrap();
    }
}
