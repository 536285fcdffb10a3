//! How one thread wakes another's sleeping network: an eventfd and a flag.
//!
//! The sleeper raises the flag, then looks once more for work; a producer publishes its work, then
//! looks at the flag. With a full fence on both sides at least one of them sees the other, so no
//! work is left behind a sleeper, and a producer pays no system call while nobody sleeps.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

/// The sleeper's side.
#[derive(Clone)]
pub struct WakeTarget(Arc<Inner>);

/// A producer's side.
#[derive(Clone)]
pub struct Waker(Arc<Inner>);

struct Inner {
    event: OwnedFd,
    asleep: AtomicBool,
}

impl WakeTarget {
    /// A fresh eventfd, nobody asleep.
    pub fn new() -> io::Result<WakeTarget> {
        let event = crate::net::socket::eventfd()?;
        Ok(WakeTarget(Arc::new(Inner { event, asleep: AtomicBool::new(false) })))
    }

    /// The side to hand to producers.
    pub fn waker(&self) -> Waker {
        Waker(self.0.clone())
    }

    /// Says that the thread is about to sleep. It must look for work once more after this.
    pub fn fall_asleep(&self) {
        self.0.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Says that the thread is awake.
    pub fn wake_up(&self) {
        self.0.asleep.store(false, Ordering::Relaxed);
    }

    /// The eventfd itself.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl Waker {
    /// Wakes the thread if it sleeps. Publish the work before.
    pub fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.0.asleep.load(Ordering::Relaxed) {
            self.wake_always();
        }
    }

    /// Fires the event whether or not somebody sleeps.
    pub fn wake_always(&self) {
        crate::net::socket::fire(self.0.event.as_raw_fd());
    }
}
