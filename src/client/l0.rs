//! A client that reads hot entries in shared memory and asks the appliance for all else.
//!
//! ```no_run
//! use spinetail::client::L0Client;
//! let mut client = L0Client::connect("/run/spinetail/l0.sock", "")?;
//! client.set(b"user:7", b"Ada", None)?;
//! assert_eq!(client.get(b"user:7")?, Some(&b"Ada"[..])); // nanoseconds, once the appliance has found it hot
//! # Ok::<(), spinetail::client::Error>(())
//! ```
//!
//! When the server has ended, reads say so once by falling back; the client asks for a new table a few times a
//! second, at the same socket, and reads from the appliance meanwhile.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::client::connection::Error;
use crate::client::native::Client;
use crate::client::transport::Endpoint;
use crate::l0::greeting::{ANSWER_BYTES_MAX, Answer, Wish};
use crate::l0::layout::LAYOUT_VERSION;
use crate::l0::{Gone, OpenError, Reader};
use crate::net::socket::receive_with_descriptors;

/// A reader with a client behind it, for one thread.
pub struct L0Client {
    path: PathBuf,
    tenant: String,
    table: Option<Table>,
    client: Option<Client>,
    fallback: Option<Endpoint>,
    /// What the appliance answered last, for the caller to borrow.
    answered: Vec<u8>,
    counts: Counts,
    /// Why there is no table at the moment, and when it is asked for next.
    complaint: Option<String>,
    ask_again: Instant,
}

/// A table, and the socket whose end tells the server that nobody reads it any more.
pub struct Table {
    /// Reads it.
    pub reader: Reader,
    /// Where the appliance itself is asked.
    pub fallback: Endpoint,
    _socket: UnixStream,
}

/// Where answers came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hits in shared memory.
    pub l0_hits: u64,
    /// Keys the appliance was asked for, and had.
    pub l1_hits: u64,
    /// Keys nobody had.
    pub misses: u64,
    /// Times a table was lost.
    pub lost: u64,
}

impl Table {
    /// Asks the server at `path` for the table of `tenant`; the empty name means this user's.
    pub fn open(path: &Path, tenant: &str) -> Result<Table, Error> {
        let mut socket = UnixStream::connect(path)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        socket.write_all(&Wish { layout: LAYOUT_VERSION, tenant: tenant.to_string() }.encode())?;
        let mut bytes = [0; ANSWER_BYTES_MAX];
        let (count, files) = receive_with_descriptors(&socket, &mut bytes)?;
        let foreign = || Error::Protocol(format!("{} gives out no L0 tables", path.display()));
        let answer = Answer::decode(&bytes[..count]).ok_or_else(foreign)?;
        let Some(tables) = answer.tables else { return Err(Error::Protocol(answer.text)) };
        let mut files = files.into_iter();
        let (Some(alive), Some(reports)) = (files.next(), files.next()) else { return Err(foreign()) };
        let files: Vec<OwnedFd> = files.collect();
        if files.len() != usize::from(tables) {
            return Err(foreign());
        }
        let word = |name| answer.text.split_whitespace().find_map(|word| word.strip_prefix(name));
        let fallback = match (word("shm="), word("native=")) {
            (Some(path), _) => Endpoint::Shm(path.into()),
            (None, Some(address)) => Endpoint::Tcp(address.parse().map_err(|_| foreign())?),
            (None, None) => return Err(foreign()),
        };
        Ok(Table { reader: Reader::open(alive, reports, &files)?, fallback, _socket: socket })
    }
}

impl L0Client {
    /// Connects to the server whose `--l0-socket` is at `path`, as `tenant` or, if that is empty, as the tenant
    /// that has this user.
    pub fn connect(path: impl Into<PathBuf>, tenant: &str) -> Result<L0Client, Error> {
        let (path, tenant) = (path.into(), tenant.to_string());
        let table = Table::open(&path, &tenant)?;
        let fallback = Some(table.fallback.clone());
        let (client, table) = (Some(Client::connect(table.fallback.clone())?), Some(table));
        let answered = Vec::new();
        let (counts, complaint, ask_again) = (Counts::default(), None, Instant::now());
        Ok(L0Client { path, tenant, table, client, fallback, answered, counts, complaint, ask_again })
    }

    /// Reads a value: from shared memory, or else from the appliance.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Result<Option<&[u8]>, Error> {
        let mut is_gone = false;
        if let Some(table) = &mut self.table {
            match table.reader.get(key) {
                Ok(Some(value)) => {
                    self.counts.l0_hits += 1;
                    // Borrowed anew: the compiler does not see that this return ends the borrow on the other ways out.
                    let length = value.len();
                    return Ok(self.table.as_ref().map(|table| table.reader.last(length)));
                }
                Ok(None) => {}
                Err(Gone) => is_gone = true,
            }
        }
        self.ask(key, is_gone)
    }

    /// Reads a value in shared memory only; `None` says nothing about the appliance.
    #[inline]
    pub fn get_published(&mut self, key: &[u8]) -> Option<&[u8]> {
        self.table.as_mut()?.reader.get(key).ok().flatten()
    }

    /// The client behind it, for everything but reading.
    pub fn appliance(&mut self) -> Result<&mut Client, Error> {
        if self.client.is_none() {
            let fallback = self.fallback.clone().ok_or_else(|| Error::Protocol("no server is known".to_string()))?;
            self.client = Some(Client::connect(fallback)?);
        }
        self.client.as_mut().ok_or_else(|| Error::Protocol("no server is known".to_string()))
    }

    /// Stores a value. From its acknowledgement on no reader of this table is given the old one.
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Option<Duration>) -> Result<(), Error> {
        let stored = self.appliance()?.set(key, value, ttl);
        self.noted(stored)
    }

    /// Removes a key. Answers whether it was stored.
    pub fn delete(&mut self, key: &[u8]) -> Result<bool, Error> {
        let deleted = self.appliance()?.delete(key);
        self.noted(deleted)
    }

    /// Where answers came from so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Why nothing is read in shared memory at the moment, if nothing is.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_deref()
    }

    #[cold]
    fn ask(&mut self, key: &[u8], is_gone: bool) -> Result<Option<&[u8]>, Error> {
        if is_gone {
            // A successor may listen elsewhere: everything that belonged to the dead one goes.
            (self.table, self.client) = (None, None);
            self.counts.lost += 1;
            self.complaint = Some(Gone.to_string());
            self.ask_again = Instant::now();
        }
        if self.table.is_none() {
            self.try_again();
        }
        let found = self.appliance()?.get(key);
        let Some(value) = self.noted(found)? else {
            self.counts.misses += 1;
            return Ok(None);
        };
        self.counts.l1_hits += 1;
        self.answered = value.bytes;
        Ok(Some(&self.answered))
    }

    fn try_again(&mut self) {
        if Instant::now() < self.ask_again {
            return;
        }
        match Table::open(&self.path, &self.tenant) {
            Ok(table) => {
                self.fallback = Some(table.fallback.clone());
                (self.table, self.complaint, self.client) = (Some(table), None, None);
            }
            Err(error) => {
                self.complaint = Some(error.to_string());
                self.ask_again = Instant::now() + RETRY;
            }
        }
    }

    /// Lets go of a connection that has failed.
    fn noted<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if matches!(result, Err(Error::Io(_) | Error::Protocol(_))) {
            self.client = None;
        }
        result
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        match error {
            OpenError::Io(error) => Error::Io(error),
            other => Error::Protocol(other.to_string()),
        }
    }
}

/// How long the greeting may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long after a refusal the server is asked again.
const RETRY: Duration = Duration::from_millis(250);
