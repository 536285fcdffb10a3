//! One blocking connection that speaks the native protocol.
//!
//! `send` only writes to a buffer and `receive` flushes it first, so a caller may have any number of
//! requests under way; replies come in the order of requests.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::client::transport::{Endpoint, Transport};
use crate::wire::native::{self, ReplyFrame, ServerHello};
use crate::wire::{Command, Request, Status};

/// Why a request has no answer.
#[derive(Debug)]
pub enum Error {
    /// The connection failed; requests under way may or may not have been applied.
    Io(io::Error),
    /// The peer does not speak the protocol, or breaks it.
    Protocol(String),
    /// The server refused.
    Refused {
        /// Its status.
        status: Status,
        /// Its words.
        text: String,
    },
}

/// A connection.
pub struct Connection {
    transport: Transport,
    hello: ServerHello,
    sending: Vec<u8>,
    received: Vec<u8>,
    used: usize,
    next_id: u32,
}

impl Connection {
    /// Connects, and says hello; to `shard`, if one is named.
    pub fn open(to: impl Into<Endpoint>, shard: Option<u16>, timeout: Duration) -> Result<Connection, Error> {
        let endpoint = to.into();
        let transport = Transport::open(&endpoint, shard, timeout)?;
        let hello = ServerHello {
            shard_count: 1,
            shard: 0,
            key_bytes_max: 0,
            value_bytes_max: 0,
            features: 0,
            hash_seed: 0,
            server: String::new(),
        };
        let mut connection =
            Connection { transport, hello, sending: Vec::new(), received: Vec::new(), used: 0, next_id: 0 };
        // Shared memory leads to the shard that was asked for at once.
        let shard = shard.filter(|_| matches!(endpoint, Endpoint::Tcp(_)));
        connection.send(Command::Hello { shard }, false);
        let value = connection.receive()?.reply.value.to_vec();
        connection.hello = ServerHello::decode(&value).map_err(Error::Protocol)?;
        Ok(connection)
    }

    /// What the server said of itself.
    pub fn hello(&self) -> &ServerHello {
        &self.hello
    }

    /// Queues a request; its id.
    pub fn send(&mut self, command: Command<'_>, want_version: bool) -> u32 {
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1);
        native::encode_request(&Request { id, want_version, command }, &mut self.sending);
        id
    }

    /// The next reply. Sends what is queued first. A refusal is an [`Error::Refused`]; whether a key was
    /// found, existed or differed is an ordinary answer.
    pub fn receive(&mut self) -> Result<ReplyFrame<'_>, Error> {
        self.flush()?;
        self.received.drain(..self.used);
        self.used = 0;
        loop {
            // Decoded twice when complete: once for the length, once for the borrow the caller gets.
            if let Some((_, length)) = native::decode_reply(&self.received).map_err(Error::Protocol)? {
                self.used = length;
                break;
            }
            self.transport.read_more(&mut self.received)?;
        }
        match native::decode_reply(&self.received).map_err(Error::Protocol)? {
            Some((frame, _)) if frame.reply.status as u16 >= Status::KeyLength as u16 => Err(Error::Refused {
                status: frame.reply.status,
                text: String::from_utf8_lossy(frame.reply.value).into_owned(),
            }),
            Some((frame, _)) => Ok(frame),
            None => Err(Error::Protocol("a reply came and went".to_string())),
        }
    }

    /// Sends what is queued. If that fails, nobody knows how much of it has left: the connection is of no use any more.
    pub fn flush(&mut self) -> Result<(), Error> {
        if !self.sending.is_empty() {
            self.transport.write_all(&self.sending)?;
            self.sending.clear();
        }
        Ok(())
    }

    /// Whether the server is known to have left: what is sent now would be lost. Never waits.
    pub fn is_closed(&mut self) -> bool {
        self.transport.is_closed()
    }

    /// One request, one reply.
    pub fn call(&mut self, command: Command<'_>, want_version: bool) -> Result<ReplyFrame<'_>, Error> {
        let id = self.send(command, want_version);
        let frame = self.receive()?;
        if frame.id != id {
            return Err(Error::Protocol(format!("reply {} to request {id}", frame.id)));
        }
        Ok(frame)
    }

    /// How long [`Connection::receive`] waits from now on. One that waited in vain may be called again.
    pub fn set_read_timeout(&mut self, timeout: Duration) -> Result<(), Error> {
        Ok(self.transport.set_read_timeout(timeout)?)
    }

    /// What carries the bytes, for a driver that waits for many.
    pub fn into_transport(self) -> Transport {
        self.transport
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Error {
        Error::Io(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(f, "nobody listens there; start one with 'spinetail serve'")
            }
            Error::Io(error) => write!(f, "the connection failed: {error}"),
            Error::Protocol(text) => write!(f, "{text}"),
            Error::Refused { status, text } if text.is_empty() => write!(f, "refused: {status}"),
            Error::Refused { status, text } => write!(f, "refused: {status}: {text}"),
        }
    }
}

impl std::error::Error for Error {}
