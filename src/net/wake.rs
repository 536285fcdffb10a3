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

/// On lines of its own: others look at the flag when they have sent something, and nobody else shares it.
#[repr(align(128))]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_of_two_shards_share_no_cache_line() {
        assert_eq!((align_of::<Inner>(), size_of::<Inner>() % 128), (128, 0));
    }

    #[test]
    fn only_a_sleeper_is_woken() {
        let target = WakeTarget::new().unwrap();
        let waker = target.waker();
        let fired = |target: &WakeTarget| {
            let before = std::time::Instant::now();
            crate::net::socket::wait_readable(&target.event(), std::time::Duration::from_millis(50)).unwrap();
            before.elapsed() < std::time::Duration::from_millis(40)
        };
        waker.wake();
        assert!(!fired(&target));
        target.fall_asleep();
        waker.wake();
        assert!(fired(&target));
    }
}
