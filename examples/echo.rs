//! A bare echo server: the floor under every server loop on this machine.
//!
//! One thread spins on `epoll_wait` with timeout 0 and returns what it receives, one `recv` and one
//! `send` for each readable connection. Nothing is decoded, nothing stored. On SIGUSR1 it prints the
//! time its thread has spent in turns that had work, which is what a server's own loop is compared by.
//!
//!   echo [--core N] [--listen ADDR]    ->  ready echo=ADDR, on SIGUSR1 busy_ns=N
//!
//! The floor under shared memory is a cache line that two cores hand to and fro:
//!
//!   echo --ping-pong CORE CORE         ->  p50_ns=N p99_ns=N

#![allow(unsafe_code, reason = "epoll has no name in std")]

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

fn main() -> std::io::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let value =
        |flag: &str| arguments.iter().position(|argument| argument == flag).and_then(|at| arguments.get(at + 1));
    if let Some(at) = arguments.iter().position(|argument| argument == "--ping-pong") {
        let core = |at: usize| arguments.get(at).and_then(|core| core.parse().ok()).expect("--ping-pong CORE CORE");
        ping_pong(core(at + 1), core(at + 2));
        return Ok(());
    }
    if let Some(core) = value("--core").and_then(|core| core.parse().ok()) {
        pin(core);
    }
    let listener = TcpListener::bind(value("--listen").map_or("127.0.0.1:0", String::as_str))?;
    listener.set_nonblocking(true)?;
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGTERM, stop.clone())?;
    let asked = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, asked.clone())?;
    // SAFETY: no memory is passed.
    let epoll = unsafe { libc::epoll_create1(0) };
    let add = |fd: i32, token: u64| {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
        // SAFETY: one live epoll_event is passed.
        unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) };
    };
    add(listener.as_raw_fd(), u64::MAX);
    println!("ready echo={}", listener.local_addr()?);

    let mut peers: Vec<Option<TcpStream>> = Vec::new();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    let mut buffer = vec![0u8; 64 << 10];
    let mut busy_ns = 0u64;
    let mut began = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        // SAFETY: a live array is passed with its length.
        let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), events.len() as i32, 0) };
        for event in &events[..count.max(0) as usize] {
            let token = event.u64;
            if token == u64::MAX {
                let (peer, _) = listener.accept()?;
                peer.set_nodelay(true)?;
                peer.set_nonblocking(true)?;
                add(peer.as_raw_fd(), peers.len() as u64);
                peers.push(Some(peer));
                continue;
            }
            let Some(peer) = peers[token as usize].as_mut() else { continue };
            match peer.read(&mut buffer) {
                Ok(0) => peers[token as usize] = None,
                Ok(length) => {
                    let mut rest = &buffer[..length];
                    while !rest.is_empty() {
                        match peer.write(rest) {
                            Ok(sent) => rest = &rest[sent..],
                            Err(error) if error.kind() == ErrorKind::WouldBlock => std::hint::spin_loop(),
                            Err(_) => break,
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => peers[token as usize] = None,
            }
        }
        let now = Instant::now();
        if count > 0 {
            busy_ns += (now - began).as_nanos() as u64;
        }
        began = now;
        if asked.load(Ordering::Relaxed) {
            asked.store(false, Ordering::Relaxed);
            println!("busy_ns={busy_ns}");
        }
    }
    Ok(())
}

fn pin(core: usize) {
    assert!(core_affinity::set_for_current(core_affinity::CoreId { id: core }), "core {core} cannot be pinned");
}

/// Each on a line of its own, and not on a neighbour that is fetched with it.
#[repr(align(128))]
struct Line(AtomicU64);

fn ping_pong(one: usize, other: usize) {
    let lines = Arc::new([Line(AtomicU64::new(0)), Line(AtomicU64::new(0))]);
    let far = lines.clone();
    let answerer = std::thread::spawn(move || {
        pin(other);
        for number in 1..=ROUND_TRIPS {
            while far[0].0.load(Ordering::Acquire) != number {}
            far[1].0.store(number, Ordering::Release);
        }
    });
    pin(one);
    let mut times = Vec::new();
    for number in 1..=ROUND_TRIPS {
        let began = Instant::now();
        lines[0].0.store(number, Ordering::Release);
        while lines[1].0.load(Ordering::Acquire) != number {}
        times.push(began.elapsed().as_nanos());
    }
    answerer.join().expect("the answerer ends");
    times.sort_unstable();
    println!("p50_ns={} p99_ns={}", times[times.len() / 2], times[times.len() / 100 * 99]);
}

const ROUND_TRIPS: u64 = 1_000_000;
