//! Connections through shared memory: for programs on the same host, no system call a request.
//!
//! A connection is a Unix socket and a memory file that came over it. Bytes travel through two rings
//! in the file, the same bytes as over TCP; the socket only says that the peer still lives, and wakes
//! it when it sleeps.
//!
//!   file:   | constants | request tail | request head | reply tail | reply head | server sleeps | client sleeps |
//!           | request ring … | reply ring … |                              each counter on a line of its own
//!
//!   client: copy into ring, tail.store(Release)  ->  server: tail.load(Acquire), copy out, head.store
//!
//! Counters only grow; the difference is what is in a ring, its low bits are the place. Each end trusts
//! the other with nothing but the bytes: a counter that promises more than a ring holds closes the
//! connection, and bytes are copied out before they are looked at, so that a peer that changes them
//! meanwhile garbles its own request. The file is sealed: nobody can shrink it under the other.
//!
//! [`WithShm`] puts such connections beside the sockets of any [`Network`]: same ids, same handler.

#![expect(unsafe_code, reason = "memory shared with another process, reached by raw pointers and atomics")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use memmap2::{MmapOptions, MmapRaw};

use crate::base::id::ConnectionId;
use crate::base::limits::SHM_RING_BYTES;
use crate::base::time::Instant;
use crate::net::{Flow, Handler, Load, Network};

/// Which end of a connection this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Reads requests, writes replies.
    Server,
    /// Writes requests, reads replies.
    Client,
}

/// One end of a pair of rings.
pub struct Rings {
    memory: MmapRaw,
    end: End,
    /// How far we have read, and how far we have written.
    read: u64,
    written: u64,
    /// The other end's reading position when we last looked.
    written_head_seen: u64,
}

/// A peer that breaks the rules of the rings.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken;

/// Bytes of the file.
pub const FILE_BYTES: usize = RINGS_AT + 2 * SHM_RING_BYTES;

/// Makes the memory file of one connection, sealed against growing and shrinking.
pub fn create_file() -> io::Result<OwnedFd> {
    // SAFETY: a constant, terminated name is passed.
    let fd = unsafe { libc::memfd_create(c"spinetail-shm".as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours alone.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    let file = File::from(fd);
    file.set_len(FILE_BYTES as u64)?;
    let fd = OwnedFd::from(file);
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
    // SAFETY: no memory is passed.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

impl Rings {
    /// Maps a connection's file. Fails if it is not of the size and kind that [`create_file`] makes.
    pub fn map(file: BorrowedFd<'_>, end: End) -> io::Result<Rings> {
        let file = File::from(file.try_clone_to_owned()?);
        let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("the shared memory {what}"));
        if file.metadata()?.len() != FILE_BYTES as u64 {
            return Err(wrong("has another size than this version's"));
        }
        // SAFETY: no memory is passed.
        let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
        if seals < 0 || seals & libc::F_SEAL_SHRINK == 0 {
            return Err(wrong("is not sealed: its owner could shrink it under us"));
        }
        let memory = MmapOptions::new().len(FILE_BYTES).map_raw(&file)?;
        Ok(Rings { memory, end, read: 0, written: 0, written_head_seen: 0 })
    }

    #[inline]
    fn counter(&self, line: usize) -> &AtomicU64 {
        // SAFETY: 1. line numbers are below LINES, so the place is inside the mapping, and aligned.
        // 2. both ends touch it by atomic operations only.
        unsafe { &*self.memory.as_ptr().add(line * LINE_BYTES).cast::<AtomicU64>() }
    }

    #[inline]
    fn flag(&self, line: usize) -> &AtomicU32 {
        // SAFETY: as in `counter`.
        unsafe { &*self.memory.as_ptr().add(line * LINE_BYTES).cast::<AtomicU32>() }
    }

    /// Lines of the counters we read from and those we write to: (tail, head, ring number).
    #[inline]
    fn incoming(&self) -> (usize, usize, usize) {
        if self.end == End::Server { (REQUEST_TAIL, REQUEST_HEAD, 0) } else { (REPLY_TAIL, REPLY_HEAD, 1) }
    }

    #[inline]
    fn outgoing(&self) -> (usize, usize, usize) {
        if self.end == End::Server { (REPLY_TAIL, REPLY_HEAD, 1) } else { (REQUEST_TAIL, REQUEST_HEAD, 0) }
    }

    /// Whether there is something to read.
    #[inline]
    pub fn has_bytes(&self) -> bool {
        self.counter(self.incoming().0).load(Ordering::Relaxed) != self.read
    }

    /// Whether there is room to write.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.written - self.counter(self.outgoing().1).load(Ordering::Relaxed).min(self.written) < SHM_RING_BYTES as u64
    }

    /// Copies what is there, at most `most` bytes, into `to`, replacing what was in it.
    #[inline]
    pub fn read_into(&mut self, to: &mut Vec<u8>, most: usize) -> Result<(), Broken> {
        let (tail, head, ring) = self.incoming();
        let available = self.counter(tail).load(Ordering::Acquire).wrapping_sub(self.read);
        if available > SHM_RING_BYTES as u64 {
            return Err(Broken);
        }
        let count = (available as usize).min(most);
        to.clear();
        to.reserve(count);
        let from = (self.read as usize) & (SHM_RING_BYTES - 1);
        let first = count.min(SHM_RING_BYTES - from);
        // SAFETY: 1. both pieces lie inside their ring: `from` is below its size and the second piece
        // begins at its start; 2. `to` has room for `count`; 3. the peer may write meanwhile only if it
        // breaks the rules, and then the bytes are arbitrary, which is all that bytes can be.
        unsafe {
            let base = self.ring(ring);
            std::ptr::copy_nonoverlapping(base.add(from), to.as_mut_ptr(), first);
            std::ptr::copy_nonoverlapping(base, to.as_mut_ptr().add(first), count - first);
            to.set_len(count);
        }
        self.read += count as u64;
        self.counter(head).store(self.read, Ordering::Release);
        Ok(())
    }

    /// Copies as much of `bytes` into the ring as there is room for, and shows it. Answers how much.
    #[inline]
    pub fn write(&mut self, bytes: &[u8]) -> Result<usize, Broken> {
        let (tail, head, ring) = self.outgoing();
        let mut room = SHM_RING_BYTES as u64 - (self.written - self.written_head_seen);
        if room < bytes.len() as u64 {
            // The line is the peer's: it is fetched only when what we remember is not enough.
            let seen = self.counter(head).load(Ordering::Acquire);
            let unread = self.written.wrapping_sub(seen);
            if unread > SHM_RING_BYTES as u64 {
                return Err(Broken);
            }
            self.written_head_seen = seen;
            room = SHM_RING_BYTES as u64 - unread;
        }
        let count = bytes.len().min(room as usize);
        if count == 0 {
            return Ok(0);
        }
        let at = (self.written as usize) & (SHM_RING_BYTES - 1);
        let first = count.min(SHM_RING_BYTES - at);
        // SAFETY: 1. both pieces lie inside the ring, as in `read_into`; 2. `count` bytes are readable;
        // 3. the reader has given this room back and does not look at it before the tail says so.
        unsafe {
            let base = self.ring(ring);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), base.add(at), first);
            std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), base, count - first);
        }
        self.written += count as u64;
        self.counter(tail).store(self.written, Ordering::Release);
        Ok(count)
    }

    fn ring(&self, number: usize) -> *mut u8 {
        // SAFETY: both rings lie inside the mapping.
        unsafe { self.memory.as_mut_ptr().add(RINGS_AT + number * SHM_RING_BYTES) }
    }

    /// Says that we are about to sleep, or are awake. After saying so, look once more.
    pub fn set_asleep(&self, asleep: bool) {
        let line = if self.end == End::Server { SERVER_SLEEPS } else { CLIENT_SLEEPS };
        self.flag(line).store(u32::from(asleep), Ordering::Relaxed);
        if asleep {
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the peer sleeps and must be woken for what has been written. Only one call in a row
    /// says so.
    #[inline]
    pub fn must_wake_peer(&self) -> bool {
        fence(Ordering::SeqCst);
        let flag = self.flag(if self.end == End::Server { CLIENT_SLEEPS } else { SERVER_SLEEPS });
        flag.load(Ordering::Relaxed) != 0 && flag.swap(0, Ordering::Relaxed) != 0
    }
}

/// A connection through shared memory beside its socket.
struct Port {
    id: ConnectionId,
    rings: Rings,
    /// Replies (or requests) on their way into the ring.
    out: Vec<u8>,
    out_from: usize,
    paused: bool,
    /// Read no more, close once the output is in the ring.
    closing: bool,
    /// The socket has been told.
    closed: bool,
    /// When the peer last took anything, or there was nothing to take.
    progress: Instant,
}

/// A network with shared-memory connections beside its sockets.
pub struct WithShm<N> {
    inner: N,
    ports: Vec<Port>,
    scratch: Vec<u8>,
    polls: u32,
}

impl<N: Network> WithShm<N> {
    /// Puts shared memory beside `inner`; none is attached yet.
    pub fn new(inner: N) -> WithShm<N> {
        WithShm { inner, ports: Vec::new(), scratch: Vec::new(), polls: 0 }
    }

    /// The network of the sockets.
    pub fn inner_mut(&mut self) -> &mut N {
        &mut self.inner
    }

    /// Takes over a connection: its socket and its rings. `None` if the table is full.
    pub fn attach(&mut self, socket: OwnedFd, rings: Rings, now: Instant) -> Option<ConnectionId> {
        let id = self.inner.adopt(socket, now)?;
        self.ports.push(Port {
            id,
            rings,
            out: Vec::new(),
            out_from: 0,
            paused: false,
            closing: false,
            closed: false,
            progress: now,
        });
        Some(id)
    }

    /// Connections through shared memory.
    pub fn port_count(&self) -> usize {
        self.ports.len()
    }

    /// Whether there are any.
    #[inline]
    pub fn has_ports(&self) -> bool {
        !self.ports.is_empty()
    }

    /// Whether a ring has something to read.
    #[inline]
    pub fn is_answered(&self) -> bool {
        self.ports.iter().any(|port| port.rings.has_bytes())
    }

    fn port(&mut self, id: ConnectionId) -> Option<&mut Port> {
        self.ports.iter_mut().find(|port| port.id == id)
    }

    /// Reads and answers what is in the rings. Answers whether there was anything.
    #[inline]
    fn poll_ports(&mut self, handler: &mut impl Handler, now: Instant) -> bool {
        let mut worked = false;
        for port in &mut self.ports {
            let mut broken = false;
            if !port.paused && !port.closing && port.rings.has_bytes() {
                worked = true;
                broken |= port.rings.read_into(&mut self.scratch, READ_BYTES).is_err();
                match handler.received(port.id, &self.scratch, &mut port.out) {
                    Flow::Continue => {}
                    Flow::Pause => port.paused = true,
                    Flow::Close | Flow::Detach => port.closing = true,
                }
            }
            if !port.out.is_empty() {
                broken |= port.flush(handler, &mut self.inner, now, &mut worked).is_err();
            }
            if (broken || (port.closing && port.out.is_empty())) && !port.closed {
                (port.closing, port.closed) = (true, true);
                self.inner.close(port.id);
            }
        }
        worked
    }
}

impl Port {
    /// Moves output into the ring and wakes the peer if it sleeps.
    #[inline]
    fn flush(
        &mut self,
        handler: &mut impl Handler,
        inner: &mut impl Network,
        now: Instant,
        worked: &mut bool,
    ) -> Result<(), Broken> {
        let count = self.rings.write(&self.out[self.out_from..])?;
        if count == 0 {
            return Ok(());
        }
        *worked = true;
        self.progress = now;
        self.out_from += count;
        if self.out_from == self.out.len() {
            if self.out.capacity() > KEPT_CAPACITY {
                self.out = Vec::new()
            } else {
                self.out.clear()
            }
            self.out_from = 0;
        }
        if self.rings.must_wake_peer()
            && let Some(doorbell) = inner.output(self.id)
        {
            doorbell.push(DOORBELL);
        }
        handler.sent(self.id, count);
        Ok(())
    }
}

/// Keeps the sockets of ports away from the handler: what arrives there only wakes.
struct SocketHandler<'a, H> {
    handler: &'a mut H,
    ports: &'a mut Vec<Port>,
}

impl<H: Handler> Handler for SocketHandler<'_, H> {
    fn opened(&mut self, id: ConnectionId, listener: usize) {
        self.handler.opened(id, listener);
    }

    fn met(&mut self, id: ConnectionId, socket: BorrowedFd<'_>) {
        self.handler.met(id, socket);
    }

    #[inline]
    fn received(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Flow {
        if !self.ports.is_empty() && self.ports.iter().any(|port| port.id == id) {
            return Flow::Continue;
        }
        self.handler.received(id, bytes, out)
    }

    fn ended(&mut self, id: ConnectionId) -> Flow {
        // A program that is gone reads no answers: its rings end with it.
        if self.ports.iter().any(|port| port.id == id) { Flow::Close } else { self.handler.ended(id) }
    }

    #[inline]
    fn sent(&mut self, id: ConnectionId, bytes: usize) {
        if self.ports.is_empty() || !self.ports.iter().any(|port| port.id == id) {
            self.handler.sent(id, bytes);
        }
    }

    fn closed(&mut self, id: ConnectionId, unsent: usize) {
        match self.ports.iter().position(|port| port.id == id) {
            Some(number) => {
                let port = self.ports.swap_remove(number);
                self.handler.closed(id, port.out.len() - port.out_from);
            }
            None => self.handler.closed(id, unsent),
        }
    }

    fn detached(&mut self, id: ConnectionId, socket: OwnedFd) {
        self.handler.detached(id, socket);
    }
}

impl<N: Network> Network for WithShm<N> {
    const ASKING_COSTS: bool = N::ASKING_COSTS;

    fn set_connection_count_max(&mut self, most: usize) {
        self.inner.set_connection_count_max(most);
    }

    fn set_busy_poll(&mut self, us: u32) -> std::io::Result<()> {
        self.inner.set_busy_poll(us)
    }

    fn listen(&mut self, listener: std::net::TcpListener) -> io::Result<()> {
        self.inner.listen(listener)
    }

    fn stop_listening(&mut self) {
        self.inner.stop_listening();
    }

    fn adopt(&mut self, socket: OwnedFd, now: Instant) -> Option<ConnectionId> {
        self.inner.adopt(socket, now)
    }

    #[inline]
    fn poll(&mut self, handler: &mut impl Handler, now: Instant) -> io::Result<bool> {
        let mut worked = false;
        if !self.ports.is_empty() {
            worked = self.poll_ports(handler, now);
            // Sockets that only a system call can ask are asked now and then while rings are busy.
            self.polls = self.polls.wrapping_add(1);
            if N::ASKING_COSTS && !self.polls.is_multiple_of(POLLS_PER_ASKING) && !self.inner.has_output() {
                return Ok(worked);
            }
        }
        let mut sockets = SocketHandler { handler, ports: &mut self.ports };
        Ok(worked | self.inner.poll(&mut sockets, now)?)
    }

    #[inline]
    fn is_ready(&mut self) -> bool {
        let port_is_ready = |port: &Port| {
            (!port.paused && !port.closing && port.rings.has_bytes())
                || (!port.out.is_empty() && port.rings.has_room())
                || (port.closing && !port.closed)
        };
        self.inner.is_ready() || self.ports.iter().any(port_is_ready)
    }

    fn has_output(&self) -> bool {
        self.inner.has_output()
    }

    fn output(&mut self, id: ConnectionId) -> Option<&mut Vec<u8>> {
        match self.ports.iter().position(|port| port.id == id) {
            Some(number) => Some(&mut self.ports[number].out),
            None => self.inner.output(id),
        }
    }

    fn resume(&mut self, id: ConnectionId) {
        match self.port(id) {
            Some(port) => port.paused = false,
            None => self.inner.resume(id),
        }
    }

    fn close(&mut self, id: ConnectionId) {
        match self.port(id) {
            Some(port) => port.closing = true,
            None => self.inner.close(id),
        }
    }

    fn abort(&mut self, id: ConnectionId) {
        self.close(id);
        self.inner.abort(id);
    }

    fn close_stalled(&mut self, since: Instant, looks: usize) -> usize {
        let mut count = 0;
        for port in &mut self.ports {
            if !port.closed && !port.out.is_empty() && port.progress < since {
                (port.closing, port.closed) = (true, true);
                self.inner.close(port.id);
                count += 1;
            }
        }
        count + self.inner.close_stalled(since, looks)
    }

    fn load(&mut self) -> Load {
        self.inner.load()
    }

    fn connection_count(&self) -> usize {
        self.inner.connection_count()
    }

    fn arm(&mut self) -> bool {
        self.ports.iter().for_each(|port| port.rings.set_asleep(true));
        if self.ports.iter().any(|port| port.rings.has_bytes() && !port.paused) || !self.inner.arm() {
            self.ports.iter().for_each(|port| port.rings.set_asleep(false));
            return false;
        }
        true
    }

    fn disarm(&mut self) {
        self.ports.iter().for_each(|port| port.rings.set_asleep(false));
        self.inner.disarm();
    }
}

/// What is written to a sleeper's socket; its value means nothing.
const DOORBELL: u8 = 1;
/// Bytes read from a ring at once.
const READ_BYTES: usize = 16 << 10;
/// Capacity that a port keeps after a burst.
const KEPT_CAPACITY: usize = 64 << 10;
/// Looks at the rings between two system calls that ask the sockets.
const POLLS_PER_ASKING: u32 = 256;
const LINE_BYTES: usize = 128;
const REQUEST_TAIL: usize = 1;
const REQUEST_HEAD: usize = 2;
const REPLY_TAIL: usize = 3;
const REPLY_HEAD: usize = 4;
const SERVER_SLEEPS: usize = 5;
const CLIENT_SLEEPS: usize = 6;
const LINES: usize = 7;
/// Where the rings begin: the next page.
const RINGS_AT: usize = 4096;

const _: () = assert!(LINES * LINE_BYTES <= RINGS_AT);
const _: () = assert!(SHM_RING_BYTES.is_power_of_two() && SHM_RING_BYTES.is_multiple_of(4096));

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::base::prng::Prng;

    fn pair() -> (Rings, Rings) {
        let file = create_file().unwrap();
        (Rings::map(file.as_fd(), End::Server).unwrap(), Rings::map(file.as_fd(), End::Client).unwrap())
    }

    #[test]
    fn bytes_arrive_in_order_whatever_the_pieces() {
        let (mut server, mut client) = pair();
        let mut prng = Prng::new(5);
        let stream: Vec<u8> = (0..40 * SHM_RING_BYTES).map(|_| prng.next_u64() as u8).collect();
        let (mut sent, mut got, mut piece) = (0, Vec::new(), Vec::new());
        while got.len() < stream.len() {
            let end = (sent + prng.below(2 * SHM_RING_BYTES as u64) as usize).min(stream.len());
            sent += client.write(&stream[sent..end]).unwrap();
            server.read_into(&mut piece, 1 + prng.below(SHM_RING_BYTES as u64) as usize).unwrap();
            got.extend_from_slice(&piece);
        }
        assert!(got == stream);
        assert!(!server.has_bytes() && client.has_room());
    }

    #[test]
    fn a_full_ring_takes_nothing_until_it_is_read() {
        let (mut server, mut client) = pair();
        assert_eq!(server.write(&vec![7; SHM_RING_BYTES + 10]), Ok(SHM_RING_BYTES));
        assert_eq!((server.write(&[1]), server.has_room()), (Ok(0), false));
        let mut piece = Vec::new();
        client.read_into(&mut piece, 100).unwrap();
        assert_eq!((server.has_room(), server.write(&[1; 200])), (true, Ok(100)));
    }

    #[test]
    fn a_peer_that_promises_more_than_a_ring_holds_is_found_out() {
        let (mut server, client) = pair();
        client.counter(REQUEST_TAIL).store(SHM_RING_BYTES as u64 + 1, Ordering::Relaxed);
        assert_eq!(server.read_into(&mut Vec::new(), 10), Err(Broken));
        client.counter(REPLY_HEAD).store(99, Ordering::Relaxed);
        server.written_head_seen = 0;
        assert_eq!(server.write(&vec![0; SHM_RING_BYTES + 1]), Err(Broken));
    }

    #[test]
    fn whoever_sleeps_is_woken_once() {
        let (server, client) = pair();
        assert!(!client.must_wake_peer());
        server.set_asleep(true);
        assert_eq!((client.must_wake_peer(), client.must_wake_peer()), (true, false));
        client.set_asleep(true);
        client.set_asleep(false);
        assert!(!server.must_wake_peer());
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused() {
        let path = std::env::temp_dir().join(format!("spinetail-shm-test-{}", std::process::id()));
        let file = File::create_new(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(Rings::map(file.as_fd(), End::Client).is_err(), "wrong size");
        file.set_len(FILE_BYTES as u64).unwrap();
        assert!(Rings::map(file.as_fd(), End::Client).is_err(), "not sealed");
    }
}
