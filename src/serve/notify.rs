//! What the service manager is told: ready, reloading, stopping, alive, and a line for `systemctl status`.
//!
//! The words are systemd's (sd_notify(3)); without `NOTIFY_SOCKET` in the environment nothing is said and no thread
//! made. The socket blocks when nobody empties it, which a wrapper that wants only READY may well do, so a thread
//! of its own talks there and the others put what is to be said into a short queue: a word that finds it full is not said.
//! A watchdog that goes unheard for that reason is the manager's own fault.

use std::io;
use std::time::Duration;

use crossbeam::channel::{Sender, bounded};
use sd_notify::NotifyState;

use crate::base::limits;
use crate::serve::log::{Line, Log};

/// Tells the service manager, if there is one.
pub struct Notifier {
    queue: Option<Sender<Word>>,
    watchdog: Option<Duration>,
}

enum Word {
    Ready(String),
    Reloading,
    Stopping,
    Watchdog,
    Status(String),
    /// Answered when all before it is said.
    Flush(Sender<()>),
}

impl Notifier {
    /// Looks for a service manager in the environment.
    pub fn from_environment(log: &Log) -> io::Result<Notifier> {
        if std::env::var_os("NOTIFY_SOCKET").is_none() {
            return Ok(Notifier { queue: None, watchdog: None });
        }
        let (queue, words) = bounded(limits::NOTIFY_WORDS_MAX);
        let log = log.clone();
        std::thread::Builder::new().name("notify".into()).spawn(move || {
            for word in words {
                if let Err(error) = say(word) {
                    log.write(&Line::warn("the service manager was not told").with("reason", error.to_string()));
                }
            }
        })?;
        // Half of the time it waits, so that one beat may come late.
        let watchdog = sd_notify::watchdog_enabled().map(|whole| whole / 2).filter(|half| *half >= WATCHDOG_MIN);
        Ok(Notifier { queue: Some(queue), watchdog })
    }

    /// How often it wants to hear that we are alive, if it does.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Serving, again or for the first time.
    pub fn ready(&self, status: String) {
        self.put(Word::Ready(status));
    }

    /// Reading the configuration; [`Notifier::ready`] follows.
    pub fn reloading(&self) {
        self.put(Word::Reloading);
    }

    /// Leaving.
    pub fn stopping(&self) {
        self.put(Word::Stopping);
    }

    /// Alive.
    pub fn beat(&self) {
        self.put(Word::Watchdog);
    }

    /// A line for people.
    pub fn status(&self, status: String) {
        self.put(Word::Status(status));
    }

    /// Waits until all is said, but not long.
    pub fn flush(&self) {
        let at_most = Duration::from_millis(limits::LOG_FLUSH_MS);
        let (done, is_done) = bounded(1);
        if self.queue.as_ref().is_some_and(|queue| queue.send_timeout(Word::Flush(done), at_most).is_ok()) {
            let _ = is_done.recv_timeout(at_most);
        }
    }

    fn put(&self, word: Word) {
        if let Some(queue) = &self.queue {
            // Full: the manager is not listening.
            let _ = queue.try_send(word);
        }
    }
}

fn say(word: Word) -> io::Result<()> {
    match word {
        Word::Ready(status) => sd_notify::notify(&[NotifyState::Ready, NotifyState::Status(&status)]),
        // `Type=notify-reload` wants to know when, to tell this reload from the one before.
        Word::Reloading => sd_notify::notify(&[NotifyState::Reloading, NotifyState::monotonic_usec_now()?]),
        Word::Stopping => sd_notify::notify(&[NotifyState::Stopping]),
        Word::Watchdog => sd_notify::notify(&[NotifyState::Watchdog]),
        Word::Status(status) => sd_notify::notify(&[NotifyState::Status(&status)]),
        Word::Flush(done) => {
            let _ = done.try_send(());
            Ok(())
        }
    }
}

/// A watchdog that wants more than a hundred beats a second is a mistake.
const WATCHDOG_MIN: Duration = Duration::from_millis(10);
