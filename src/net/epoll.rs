//! The ring's twin on epoll, for kernels and containers that refuse io_uring.
//!
//! Level-triggered, polled with a timeout of zero while there is work. Receives go through one
//! buffer, sends go straight to the socket and wait for room only when it is full. A prototype of both
//! loops differed by less than a tenth in core time a request on loopback.

#![expect(unsafe_code, reason = "epoll_create1, epoll_ctl and epoll_wait have no name in std")]

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::base::id::ConnectionId;
use crate::base::limits;
use crate::base::time::Instant;
use crate::net::connections::Connections;
use crate::net::{Flow, Handler, Load, Network, WakeTarget, socket};

/// Sockets on epoll.
pub struct EpollNetwork {
    epoll: OwnedFd,
    connections: Connections,
    listeners: Vec<TcpListener>,
    retry_at: Option<Instant>,
    wake: WakeTarget,
    buffer: Vec<u8>,
    events: Vec<libc::epoll_event>,
    /// Most events at once since that was last asked.
    depth: u64,
}

impl EpollNetwork {
    /// An epoll instance without sockets.
    pub fn new(wake: WakeTarget) -> io::Result<EpollNetwork> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and ours alone.
        let epoll = unsafe { OwnedFd::from_raw_fd(fd) };
        let network = EpollNetwork {
            epoll,
            connections: Connections::default(),
            listeners: Vec::new(),
            retry_at: None,
            wake,
            buffer: vec![0; BUFFER_BYTES],
            events: vec![libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX],
            depth: 0,
        };
        network.control(libc::EPOLL_CTL_ADD, network.wake.event().as_raw_fd(), libc::EPOLLIN, TOKEN_WAKE)?;
        Ok(network)
    }

    /// Sleeps until something happens or the time is up. For the driver that has no executor.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        self.wait_events(timeout.as_millis().min(60_000) as i32).map(|_| ())
    }

    fn wait_events(&mut self, timeout_ms: i32) -> io::Result<usize> {
        // SAFETY: a live buffer of EVENTS_MAX entries is passed with that length.
        let count = unsafe {
            libc::epoll_wait(self.epoll.as_raw_fd(), self.events.as_mut_ptr(), EVENTS_MAX as i32, timeout_ms)
        };
        match count {
            0.. => Ok(count as usize),
            _ => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }

    fn control(&self, operation: i32, fd: RawFd, events: i32, token: u64) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        // SAFETY: one live epoll_event is passed.
        let result = unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn accept(&mut self, number: usize, handler: &mut impl Handler, now: Instant) {
        for _ in 0..ACCEPTS_PER_EVENT {
            let Some(listener) = self.listeners.get(number) else { return };
            match listener.accept() {
                Ok((stream, _)) => {
                    let socket = OwnedFd::from(stream);
                    socket::prepare(socket.as_raw_fd());
                    if let Some(id) = self.adopt(socket, now) {
                        handler.opened(id, number);
                        if let Some(connection) = self.connections.get(id) {
                            handler.met(id, connection.socket.as_fd());
                        }
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    // Out of descriptors, most likely: look again a little later, not a million times.
                    let fd = listener.as_raw_fd();
                    let _ = self.control(libc::EPOLL_CTL_MOD, fd, 0, TOKEN_LISTENER | number as u64);
                    self.retry_at = Some(now.after_ms(ACCEPT_RETRY_MS));
                    return;
                }
            }
        }
    }

    fn receive(&mut self, id: ConnectionId, handler: &mut impl Handler) {
        let Some(connection) = self.connections.get(id) else { return };
        if connection.paused || connection.closing || connection.detaching || connection.dead {
            return;
        }
        match socket::receive(&connection.socket, &mut self.buffer) {
            Ok(0) if handler.ended(id) == Flow::Pause => connection.paused = true,
            Ok(0) => connection.closing = true,
            Ok(count) => match handler.received(id, &self.buffer[..count], &mut connection.out) {
                Flow::Continue => {}
                Flow::Pause => connection.paused = true,
                Flow::Close => connection.closing = true,
                Flow::Detach => connection.detaching = true,
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => connection.dead = true,
        }
        self.connections.mark_dirty(id);
    }

    fn send(&mut self, id: ConnectionId, handler: &mut impl Handler, now: Instant) {
        let kept_capacity = self.connections.kept_capacity();
        let Some(connection) = self.connections.get(id) else { return };
        loop {
            if connection.unsent().is_empty() && (connection.dead || !connection.load(now)) {
                connection.sending = false;
                return;
            }
            match socket::send(&connection.socket, connection.unsent()) {
                Ok(count) => {
                    handler.sent(id, count);
                    connection.took(count, now, kept_capacity);
                    connection.sending = false;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    connection.sending = true;
                    return;
                }
                Err(_) => {
                    connection.sending = false;
                    connection.dead = true;
                    return;
                }
            }
        }
    }

    fn settle(&mut self, slot: u32, handler: &mut impl Handler, now: Instant) {
        let Some((id, connection)) = self.connections.in_slot(slot) else { return };
        connection.dirty = false;
        if !connection.dead && !connection.sending {
            self.send(id, handler, now);
        }
        let Some(connection) = self.connections.get(id) else { return };
        let idle = !connection.sending && connection.pending_bytes() == 0;
        if connection.dead || (connection.closing && idle) {
            let unsent = connection.pending_bytes();
            socket::shutdown(connection.socket.as_raw_fd());
            self.connections.remove(id); // closing the descriptor takes it off the epoll set
            handler.closed(id, unsent);
            return;
        }
        if connection.detaching && idle {
            let fd = connection.socket.as_raw_fd();
            let _ = self.control(libc::EPOLL_CTL_DEL, fd, 0, 0);
            if let Some(connection) = self.connections.remove(id) {
                handler.detached(id, connection.socket);
            }
            return;
        }
        let reads = !connection.paused && !connection.closing && !connection.detaching;
        let events = if reads { libc::EPOLLIN } else { 0 } | if connection.sending { libc::EPOLLOUT } else { 0 };
        let fd = connection.socket.as_raw_fd();
        // `receiving` remembers what epoll was told: 1 for reading alone, the common case.
        let usual = events == libc::EPOLLIN;
        if !(usual && connection.receiving) {
            connection.receiving = usual;
            if self.control(libc::EPOLL_CTL_MOD, fd, events, id.pack()).is_err() {
                let _ = self.control(libc::EPOLL_CTL_ADD, fd, events, id.pack());
            }
        }
    }
}

impl Network for EpollNetwork {
    const ASKING_COSTS: bool = true;

    fn set_connection_count_max(&mut self, most: usize) {
        self.connections.set_count_max(most);
    }

    fn set_busy_poll(&mut self, _: u32) -> io::Result<()> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "only a ring does"))
    }

    fn listen(&mut self, listener: TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let token = TOKEN_LISTENER | self.listeners.len() as u64;
        self.control(libc::EPOLL_CTL_ADD, listener.as_raw_fd(), libc::EPOLLIN, token)?;
        self.listeners.push(listener);
        Ok(())
    }

    fn stop_listening(&mut self) {
        self.listeners.clear();
    }

    fn adopt(&mut self, socket: OwnedFd, now: Instant) -> Option<ConnectionId> {
        let fd = socket.as_raw_fd();
        let id = self.connections.insert(socket, now)?;
        if self.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN, id.pack()).is_err() {
            self.connections.remove(id);
            return None;
        }
        if let Some(connection) = self.connections.get(id) {
            connection.receiving = true;
        }
        Some(id)
    }

    fn poll(&mut self, handler: &mut impl Handler, now: Instant) -> io::Result<bool> {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for (number, listener) in self.listeners.iter().enumerate() {
                self.control(libc::EPOLL_CTL_MOD, listener.as_raw_fd(), libc::EPOLLIN, TOKEN_LISTENER | number as u64)?;
            }
        }
        let count = self.wait_events(0)?;
        self.depth = self.depth.max(count as u64);
        let worked = count > 0 || !self.connections.dirty.is_empty();
        for index in 0..count {
            let libc::epoll_event { events, u64: token } = self.events[index];
            if token == TOKEN_WAKE {
                let mut counter = [0u8; 8];
                // The counter only has to be emptied; there is nobody else to read it.
                let _ = read_counter(self.wake.event().as_raw_fd(), &mut counter);
            } else if token & TOKEN_LISTENER != 0 {
                self.accept((token & !TOKEN_LISTENER) as usize, handler, now);
            } else {
                let id = ConnectionId::unpack(token);
                if events & libc::EPOLLOUT as u32 != 0 {
                    if let Some(connection) = self.connections.get(id) {
                        connection.sending = false;
                    }
                    self.connections.mark_dirty(id);
                }
                if events & (libc::EPOLLERR | libc::EPOLLHUP) as u32 != 0 && events & libc::EPOLLIN as u32 == 0 {
                    if let Some(connection) = self.connections.get(id) {
                        connection.dead = true;
                        self.connections.mark_dirty(id);
                    }
                } else if events & libc::EPOLLIN as u32 != 0 {
                    self.receive(id, handler);
                }
            }
        }
        while let Some(slot) = self.connections.dirty.pop() {
            self.settle(slot, handler, now);
        }
        Ok(worked)
    }

    fn has_output(&self) -> bool {
        !self.connections.dirty.is_empty()
    }

    fn is_ready(&mut self) -> bool {
        true // only the kernel knows
    }

    fn output(&mut self, id: ConnectionId) -> Option<&mut Vec<u8>> {
        self.connections.output(id)
    }

    fn resume(&mut self, id: ConnectionId) {
        self.connections.resume(id);
    }

    fn close(&mut self, id: ConnectionId) {
        self.connections.close(id);
    }

    fn abort(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get(id) {
            connection.dead = true;
            self.connections.mark_dirty(id);
        }
    }

    fn close_stalled(&mut self, since: Instant, looks: usize) -> usize {
        let stalled = self.connections.stalled(since, looks);
        stalled.iter().for_each(|&id| self.abort(id));
        stalled.len()
    }

    fn load(&mut self) -> Load {
        Load { depth: std::mem::take(&mut self.depth), buffers_exhausted: 0 }
    }

    fn connection_count(&self) -> usize {
        self.connections.count()
    }

    fn arm(&mut self) -> bool {
        self.wake.fall_asleep();
        let busy = !self.connections.dirty.is_empty();
        if busy {
            self.disarm();
        }
        !busy
    }

    fn disarm(&mut self) {
        self.wake.wake_up();
    }
}

fn read_counter(fd: RawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: a live mutable slice is passed with its length.
    let count = unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) };
    if count < 0 { Err(io::Error::last_os_error()) } else { Ok(count as usize) }
}

/// Bytes received at once from one connection.
const BUFFER_BYTES: usize = 64 << 10;
const EVENTS_MAX: usize = 256;
const ACCEPTS_PER_EVENT: usize = 64;
/// Pause before accepting again after a failure.
const ACCEPT_RETRY_MS: u64 = 100;
const TOKEN_WAKE: u64 = u64::MAX;
/// Set in the tokens of listeners; connection ids leave the upper eight bits free.
const TOKEN_LISTENER: u64 = 1 << 60;

const _: () = assert!(limits::CONNECTION_COUNT_MAX < 1 << 24);
