//! Sockets and eventfds: the few system calls that std has no name for.

#![expect(unsafe_code, reason = "setsockopt, eventfd, write: calls std does not offer, wrapped one by one")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use crate::base::limits;

/// Opens one listening socket for each of `count` shards on the same address; the kernel spreads
/// connections over them (SO_REUSEPORT). With port 0 the first picks, the others follow.
pub fn listen(address: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    // SO_REUSEPORT would let a second server of the same user slip in unnoticed and take half of the
    // connections. A plain bind beforehand finds out that the port is taken.
    if address.port() != 0 {
        drop(listen_one(address, false)?);
    }
    let first = listen_one(address, true)?;
    let bound = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count {
        listeners.push(listen_one(bound, true)?);
    }
    Ok(listeners)
}

/// Prepares an accepted socket: no Nagle's algorithm, since replies are coalesced already, and probes that
/// find out when the machine at the other end is gone.
pub fn prepare(socket: RawFd) {
    for (level, name, value) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, limits::KEEPALIVE_IDLE_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, limits::KEEPALIVE_INTERVAL_S),
        (libc::IPPROTO_TCP, libc::TCP_KEEPCNT, limits::KEEPALIVE_PROBES),
    ] {
        // A socket that cannot be set (already reset) is found out by its next read.
        let _ = set_option(socket, level, name, value);
    }
}

/// Ends both directions: a read under way completes, the peer sees the end.
pub fn shutdown(socket: RawFd) {
    // SAFETY: 1. no memory is passed. 2. a stale descriptor is answered with an error we ignore.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

/// A non-blocking eventfd.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an eventfd.
pub fn fire(event: RawFd) {
    let one = 1u64.to_ne_bytes();
    // SAFETY: eight readable bytes are passed. An eventfd's counter cannot overflow from ones.
    unsafe { libc::write(event, one.as_ptr().cast(), one.len()) };
}

fn listen_one(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and ours alone.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    if reuse_port {
        set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    }
    bind(fd, address)?;
    if reuse_port {
        // SAFETY: no memory is passed.
        if unsafe { libc::listen(fd, LISTEN_BACKLOG) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(TcpListener::from(socket))
}

fn bind(fd: RawFd, address: SocketAddr) -> io::Result<()> {
    let result = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: a whole sockaddr_in is passed with its size.
            unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) }
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: a whole sockaddr_in6 is passed with its size.
            unsafe { libc::bind(fd, (&raw const raw).cast(), size_of_val(&raw) as u32) }
        }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Bounds what the kernel keeps for those who connect to `listener` and do not read. By itself it grows with what the path
/// carries: on loopback to 2.6 MB for each.
pub fn bound_unread(listener: &impl AsRawFd, bytes: usize) -> io::Result<()> {
    set_option(listener.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, bytes as i32)
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: one readable int is passed with its size.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size_of::<i32>() as u32) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sends without blocking; how many bytes the kernel took.
pub(super) fn send(socket: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: a live slice is passed with its length.
    let sent = unsafe {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
}

/// Receives without blocking; how many bytes there were, 0 at the end.
pub(super) fn receive(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<usize> {
    // SAFETY: a live mutable slice is passed with its length.
    let received =
        unsafe { libc::recv(socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) };
    if received < 0 { Err(io::Error::last_os_error()) } else { Ok(received as usize) }
}

/// Sleeps until there is something to read, or the time is up.
pub fn wait_readable(socket: &impl AsRawFd, timeout: std::time::Duration) -> io::Result<()> {
    let mut entry = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one live pollfd is passed with that count.
    let result = unsafe { libc::poll(&raw mut entry, 1, timeout.as_millis().min(60_000) as i32) };
    match io::Error::last_os_error() {
        error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Sleeps until some of `sockets` have something to read or have ended. Answers which.
pub fn wait_any_readable(sockets: &[BorrowedFd<'_>]) -> io::Result<Vec<usize>> {
    let entry = |socket: &BorrowedFd<'_>| libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut entries: Vec<libc::pollfd> = sockets.iter().map(entry).collect();
    // SAFETY: live entries are passed with their count.
    let result = unsafe { libc::poll(entries.as_mut_ptr(), entries.len() as libc::nfds_t, -1) };
    match io::Error::last_os_error() {
        error if result < 0 && error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(entries.iter().enumerate().filter(|(_, entry)| entry.revents != 0).map(|(at, _)| at).collect()),
    }
}

/// The user of the process at the other end of a Unix socket, as the kernel knows it.
pub fn peer_user(socket: &impl AsRawFd) -> io::Result<u32> {
    let mut peer = libc::ucred { pid: 0, uid: u32::MAX, gid: 0 };
    let mut length = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: one live ucred is passed with its size.
    let result = unsafe {
        let (level, name) = (libc::SOL_SOCKET, libc::SO_PEERCRED);
        libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut peer).cast(), &raw mut length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(peer.uid) }
}

/// Sends `bytes` with descriptors over a Unix socket (SCM_RIGHTS).
///
/// # Panics
/// If there are more than [`DESCRIPTORS_MAX`], or none.
pub fn send_with_descriptors(socket: &impl AsRawFd, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    assert!((1..=DESCRIPTORS_MAX).contains(&descriptors.len()));
    let descriptors_bytes = descriptors.len() * size_of::<RawFd>();
    let mut piece = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: 1. all-zero is a message header without anything. 2. the pointers put into it outlive the
    // call. 3. the control buffer is aligned and has room for one header and so many descriptors, by
    // CONTROL_BYTES, so the first header exists and its data may be written.
    let sent = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_SPACE(descriptors_bytes as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(descriptors_bytes as u32) as usize;
        for (at, descriptor) in descriptors.iter().enumerate() {
            libc::CMSG_DATA(header).cast::<RawFd>().add(at).write_unaligned(descriptor.as_raw_fd());
        }
        libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL)
    };
    match sent {
        sent if sent < 0 => Err(io::Error::last_os_error()),
        sent if sent as usize == bytes.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

/// Receives bytes and the descriptors that came with them.
pub fn receive_with_descriptors(socket: &impl AsRawFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; CONTROL_BYTES]);
    // SAFETY: 1. and 2. as in `send_with_descriptors`. 3. the kernel fills the control buffer and says
    // how far; a header it reports of this type carries as many descriptors as its length says, new and ours alone.
    unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut piece;
        message.msg_iovlen = 1;
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES;
        let received = libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC);
        if received < 0 {
            return Err(io::Error::last_os_error());
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let are_descriptors =
            !header.is_null() && (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS;
        let count = match are_descriptors {
            true => ((*header).cmsg_len - libc::CMSG_LEN(0) as usize) / size_of::<RawFd>(),
            false => 0,
        };
        let descriptor = |at| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<RawFd>().add(at).read_unaligned());
        Ok((received as usize, (0..count).map(descriptor).collect()))
    }
}

/// Room for one control header and its descriptors, aligned as the kernel wants it.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

/// Descriptors that travel in one message.
pub const DESCRIPTORS_MAX: usize = 32;
const CONTROL_BYTES: usize = 32 + DESCRIPTORS_MAX * size_of::<RawFd>();

/// Connections that may wait to be accepted.
const LISTEN_BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_one_port_and_a_taken_port_is_refused() {
        let listeners = listen("127.0.0.1:0".parse().unwrap(), 3).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert!(listeners.iter().all(|listener| listener.local_addr().unwrap() == address));
        assert_eq!(listen(address, 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
