//! Bytes to a server and back: TCP, or shared memory on the same host.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::net::greeting;
use crate::net::shm::Rings;
use crate::net::socket;

/// Where a server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// At an address.
    Tcp(SocketAddr),
    /// At the socket where it gives out shared-memory connections.
    Shm(PathBuf),
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Endpoint {
        Endpoint::Tcp(address)
    }
}

/// A connection's bytes.
pub enum Transport {
    /// A TCP socket.
    Tcp(TcpStream),
    /// Rings in shared memory, and the socket that says whether the server lives.
    Shm {
        /// The rings.
        rings: Rings,
        /// Carries wake-ups, ends when the server does.
        socket: std::os::unix::net::UnixStream,
        /// How long a read or write may wait.
        timeout: Duration,
    },
}

impl Transport {
    /// Connects; through shared memory to `shard`, if one is named.
    pub fn open(endpoint: &Endpoint, shard: Option<u16>, timeout: Duration) -> io::Result<Transport> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, timeout)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                Ok(Transport::Tcp(stream))
            }
            Endpoint::Shm(path) => {
                let greeted = greeting::connect(path, shard, timeout)?;
                greeted.socket.set_nonblocking(true)?;
                Ok(Transport::Shm { rings: greeted.rings, socket: greeted.socket, timeout })
            }
        }
    }

    /// How long a read waits from now on; through shared memory a write too.
    pub fn set_read_timeout(&mut self, most: Duration) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.set_read_timeout(Some(most)),
            Transport::Shm { timeout, .. } => {
                *timeout = most;
                Ok(())
            }
        }
    }

    /// Whether the other end is known to have left. Never waits; a server in shared memory tells by its socket when it is
    /// read from.
    pub fn is_closed(&mut self) -> bool {
        let Transport::Tcp(stream) = self else { return false };
        let mut byte = [0u8; 1];
        if stream.set_nonblocking(true).is_err() {
            return true;
        }
        let found = stream.peek(&mut byte);
        let is_closed = match found {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        stream.set_nonblocking(false).is_err() || is_closed
    }

    /// Writes all of `bytes`, waiting for room if need be.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Transport::Tcp(stream) => stream.write_all(bytes),
            Transport::Shm { rings, socket, timeout } => {
                let (mut rest, mut waits) = (bytes, Wait::new(*timeout));
                while !rest.is_empty() {
                    let written = rings.write(rest).map_err(|_| broken())?;
                    if written > 0 && rings.must_wake_peer() {
                        socket.write_all(&[1])?;
                    }
                    rest = &rest[written..];
                    if written == 0 {
                        waits.step(rings, socket, Rings::has_room)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// Appends at least one byte to `received`, waiting for it if need be.
    pub fn read_more(&mut self, received: &mut Vec<u8>) -> io::Result<()> {
        let mut chunk = Vec::new();
        match self {
            Transport::Tcp(stream) => {
                let at = received.len();
                received.resize(at + CHUNK_BYTES, 0);
                let read = stream.read(&mut received[at..]);
                received.truncate(at + *read.as_ref().unwrap_or(&0));
                if read? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
            }
            Transport::Shm { rings, socket, timeout } => {
                let mut waits = Wait::new(*timeout);
                while !rings.has_bytes() {
                    waits.step(rings, socket, Rings::has_bytes)?;
                }
                rings.read_into(&mut chunk, CHUNK_BYTES).map_err(|_| broken())?;
                received.extend_from_slice(&chunk);
                Ok(())
            }
        }
    }
}

/// Waiting for the other end of a pair of rings: looks for a while, then sleeps on the socket.
struct Wait {
    looks: u32,
    began: Option<Instant>,
    timeout: Duration,
}

impl Wait {
    fn new(timeout: Duration) -> Wait {
        Wait { looks: 0, began: None, timeout }
    }

    fn step(
        &mut self,
        rings: &Rings,
        socket: &mut std::os::unix::net::UnixStream,
        is_over: impl Fn(&Rings) -> bool,
    ) -> io::Result<()> {
        self.looks += 1;
        if self.looks < LOOKS_BEFORE_SLEEP {
            std::hint::spin_loop();
            return Ok(());
        }
        let began = *self.began.get_or_insert_with(Instant::now);
        rings.set_asleep(true);
        if !is_over(rings) {
            // Room in a ring rings no bell, hence the short sleeps.
            socket::wait_readable(socket, SLEEP)?;
        }
        rings.set_asleep(false);
        let mut bells = [0u8; 64];
        match socket.read(&mut bells) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ if began.elapsed() > self.timeout => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the server broke the rules of the rings")
}

const CHUNK_BYTES: usize = 16 << 10;
/// Looks at a ring before its reader sleeps: some ten microseconds.
const LOOKS_BEFORE_SLEEP: u32 = 1000;
/// Longest sleep between two looks.
const SLEEP: Duration = Duration::from_millis(10);
