//! Sockets of one shard: bytes in, bytes out.
//!
//! Not for: protocols. Whoever drives a network implements [`Handler`] and is called with what
//! arrived; replies are appended to the connection's output, and one coalesced send a batch takes
//! them away.
//!
//!   listener -> accept -> | connection | -> received(bytes, &mut out) -> Flow
//!                                ^ out -> one send in flight
//!
//! - `connections`: the table of connections and what each has still to send
//! - `socket`: listening sockets
//! - `buffers`: receive buffers lent to the kernel
//! - `ring`: the network on a raw io_uring
//! - `epoll`: its twin for kernels and containers that refuse io_uring
//! - `shm`: connections through shared memory beside the sockets of either
//! - `greeting`: how a program gets such a connection
//! - `wake`: how one thread wakes another's sleeping network

mod buffers;
mod connections;
mod epoll;
pub mod greeting;
mod ring;
pub mod shm;
pub mod socket;
mod wake;

use std::io;
use std::net::TcpListener;
use std::os::fd::{BorrowedFd, OwnedFd};

pub use epoll::EpollNetwork;
pub use ring::RingNetwork;
pub use shm::WithShm;
pub use wake::{WakeTarget, Waker};

use crate::base::id::ConnectionId;
use crate::base::time::Instant;

/// What a driver of connections is told. Calls come from [`Network::poll`] only.
pub trait Handler {
    /// A peer has connected, to the listener that was given as number `listener`.
    fn opened(&mut self, id: ConnectionId, listener: usize);
    /// Its socket, for whoever wants to know who the peer is.
    fn met(&mut self, _id: ConnectionId, _socket: BorrowedFd<'_>) {}
    /// Bytes have arrived. What is to be answered is appended to `out`.
    fn received(&mut self, id: ConnectionId, bytes: &[u8], out: &mut Vec<u8>) -> Flow;
    /// The peer has sent its last byte. `Flow::Close` sends what is in the output and closes;
    /// `Flow::Pause` keeps the connection until [`Network::close`].
    fn ended(&mut self, id: ConnectionId) -> Flow;
    /// So many bytes of output have left.
    fn sent(&mut self, id: ConnectionId, bytes: usize);
    /// The connection is gone; so many bytes of output were never sent.
    fn closed(&mut self, id: ConnectionId, unsent: usize);
    /// The connection's socket, after [`Flow::Detach`]. The id means nothing here any more.
    fn detached(&mut self, id: ConnectionId, socket: OwnedFd);
}

/// How a connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Read on.
    Continue,
    /// Read nothing until [`Network::resume`].
    Pause,
    /// Send what is in the output, then close.
    Close,
    /// Stop reading and hand the socket out by [`Handler::detached`].
    Detach,
}

/// How busy a network is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Most events that one poll has found since this was last asked.
    pub depth: u64,
    /// Times a receive found no buffer free, since the beginning.
    pub buffers_exhausted: u64,
}

/// The sockets of one shard, driven by one thread.
pub trait Network {
    /// Whether [`Network::poll`] makes a system call even if nothing has happened.
    const ASKING_COSTS: bool;

    /// Takes no more connections than this.
    fn set_connection_count_max(&mut self, most: usize);
    /// From now on polls the cards of its connections itself, for so many microseconds at most, whenever nothing else
    /// is to be done. The error says that this kernel or this kind of network cannot.
    fn set_busy_poll(&mut self, us: u32) -> io::Result<()>;
    /// Accepts connections from `listener` from now on.
    fn listen(&mut self, listener: TcpListener) -> io::Result<()>;
    /// Stops accepting and closes the listeners.
    fn stop_listening(&mut self);
    /// Takes over a connected socket. `None` if the table is full: the socket is closed.
    fn adopt(&mut self, socket: OwnedFd, now: Instant) -> Option<ConnectionId>;
    /// Handles what has happened, sends what is due. Answers whether there was anything.
    fn poll(&mut self, handler: &mut impl Handler, now: Instant) -> io::Result<bool>;
    /// Whether there is output, or another change, that waits for the next poll.
    fn has_output(&self) -> bool;
    /// Whether [`Network::poll`] would find something, as far as that can be told without a system call.
    fn is_ready(&mut self) -> bool;
    /// The output of a connection, to append to; what is in it goes out with the next poll.
    fn output(&mut self, id: ConnectionId) -> Option<&mut Vec<u8>>;
    /// Reads from a paused connection again.
    fn resume(&mut self, id: ConnectionId);
    /// Sends what is in the output, then closes.
    fn close(&mut self, id: ConnectionId);
    /// Closes at once; what is in the output is not sent.
    fn abort(&mut self, id: ConnectionId);
    /// Closes connections whose peer has taken nothing of its output since `since`. Looks at `looks` of them,
    /// where the last call stopped. Answers how many it closed.
    fn close_stalled(&mut self, since: Instant, looks: usize) -> usize;
    /// How busy it is.
    fn load(&mut self) -> Load;
    /// Connections in the table.
    fn connection_count(&self) -> usize;
    /// Prepares to sleep: from now on the wake event fires when something happens. Answers `false`
    /// if something already has, in which case there is nothing to prepare.
    fn arm(&mut self) -> bool;
    /// The opposite of [`Network::arm`].
    fn disarm(&mut self);
}
