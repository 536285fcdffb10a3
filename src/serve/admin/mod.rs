//! The admin listener: what the appliance tells of itself, over HTTP, on the housekeeping cores.
//!
//!   shards ── counters, histograms ──> sample ──┬── metrics ── /metrics
//!                                               ├── ticks ──── /events ── dashboard, top
//!                                               └── hlog ───── /debug/hdr
//!
//! One thread with a tokio runtime of its own does all of it. It reads what shards have written and asks them nothing,
//! so whatever comes in here, however slow or hostile, costs a data core at most the line that is read while it is
//! written.
//!
//! - `sample`: everything at one moment
//! - `metrics`: a sample as a page for Prometheus
//! - `ticks`: two samples as a line of JSON, ten times a second
//! - `hub`: those lines for whoever reads them, and for those who come back
//! - `hlog`: all histograms as an HdrHistogram log
//! - `http`: who may ask, what is answered, and for how long

mod hlog;
mod http;
mod hub;
mod metrics;
mod sample;
mod ticks;

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use crate::base::limits;
use crate::base::time::unix_ms;
use crate::engine::Shared;
use crate::host::vitals::{MemoryVitals, Vitals};
use crate::net::socket::bound_unread;
use crate::serve::settle::{Failure, Settled};
use crate::serve::token::Token;

pub use sample::{ClusterFigures, Facts};

/// What may change while the listener is open; it looks here with every request.
#[derive(Debug, Default)]
pub struct Live {
    settings: RwLock<(Option<Token>, bool)>,
    /// How often they have changed.
    generation: AtomicU64,
}

/// An open admin listener. It stays open as long as the process lives.
pub struct Admin {
    state: Arc<State>,
}

/// What all its connections share.
struct State {
    /// What is told of; nothing as long as the appliance starts.
    served: OnceLock<Served>,
    live: Arc<Live>,
    is_stopping: AtomicBool,
    hub: hub::Hub,
    refused: [AtomicU64; REFUSALS.len()],
}

/// An appliance that serves.
struct Served {
    shared: Arc<Shared>,
    facts: Facts,
    started_unix_ms: u64,
    sources: Mutex<sample::Sources>,
    /// The last sample, for as long as it is as good as a new one.
    sample: Mutex<Option<Arc<sample::Sample>>>,
}

/// Why a request was refused, as it is counted.
#[derive(Clone, Copy)]
enum Refusal {
    /// There are connections enough.
    Connections,
    /// The wrong secret.
    Token,
    /// None, where one is demanded: every browser's first request.
    NoToken,
    /// Not something that is answered here.
    Request,
    /// It came from a page of another site.
    Origin,
}

impl Live {
    /// As it was settled.
    pub fn new(settled: &Settled) -> Live {
        let live = Live::default();
        live.set(settled);
        live
    }

    /// As it is now.
    pub fn set(&self, settled: &Settled) {
        let wanted = (settled.admin_token.clone(), settled.admin_show_keys);
        let mut held = self.settings.write().unwrap_or_else(PoisonError::into_inner);
        if *held != wanted {
            *held = wanted;
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// The secret that is demanded; without one everybody is let in, who is on this host then.
    fn token(&self) -> Option<Token> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    /// Whether hot keys are told by name, and not by a hash.
    fn show_keys(&self) -> bool {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Another number than before, if anything has changed.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

/// Takes the address, so that a start that cannot have it fails before anything runs.
pub fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    // Connections have it from their listener.
    bound_unread(&listener, limits::ADMIN_UNREAD_BYTES)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Admin {
    /// Begins to answer at `listener`, at first that the appliance is starting.
    pub fn open(listener: TcpListener, live: Arc<Live>) -> Result<Admin, Failure> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(failed)?;
        let state = Arc::new(State {
            served: OnceLock::new(),
            live,
            is_stopping: AtomicBool::new(false),
            hub: hub::Hub::new(),
            refused: Default::default(),
        });
        let served = state.clone();
        let serve = move || runtime.block_on(http::serve(listener, served));
        std::thread::Builder::new().name("admin".into()).spawn(serve).map_err(failed)?;
        Ok(Admin { state })
    }

    /// From now on it tells of an appliance that serves.
    pub fn serving(&self, shared: Arc<Shared>, facts: Facts) -> Result<(), Failure> {
        let vitals = Vitals::of_this_process();
        let memory = Arc::new(Mutex::new(MemoryVitals::default()));
        let sources = sample::Sources::new(shared.clone(), facts.clone(), vitals.clone(), memory.clone());
        let started_unix_ms = unix_ms().saturating_sub(shared.started.elapsed().as_millis() as u64);
        let served = Served { shared, facts, started_unix_ms, sources: Mutex::new(sources), sample: Mutex::new(None) };
        // Only the first counts, and there is no other.
        let _ = self.state.served.set(served);
        // Walking the page tables of a large process takes its time: in a thread that nobody waits for.
        let look = move || {
            loop {
                let read = vitals.memory();
                *locked(&memory) = read;
                std::thread::sleep(MEMORY_READ_EVERY);
            }
        };
        std::thread::Builder::new().name("admin-memory".into()).spawn(look).map_err(failed)?;
        Ok(())
    }

    /// From now on it says that the appliance is not ready.
    pub fn stopping(&self) {
        self.state.is_stopping.store(true, Ordering::Relaxed);
    }
}

/// Whether every shard takes turns; otherwise which does not. For whoever watches over the process.
pub fn all_take_turns(shared: &Shared) -> Result<(), String> {
    let ages = sample::turn_ages(shared, shared.started.elapsed());
    let late = ages.iter().enumerate().filter(|(_, age)| **age > Duration::from_millis(limits::TURN_AGE_MS_MAX));
    let late: Vec<String> =
        late.map(|(shard, age)| format!("shard {shard} took none for {:.1} s", age.as_secs_f64())).collect();
    if late.is_empty() { Ok(()) } else { Err(late.join(", ")) }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::failed(format!("no thread for --admin: {error}"))
}

impl Served {
    /// Everything as it is now, or was a moment ago: whoever asks all the time must not read shards' lines all the time.
    fn sample(&self) -> Arc<sample::Sample> {
        let mut kept = locked(&self.sample);
        let now = self.shared.started.elapsed();
        match &*kept {
            Some(sample) if now.saturating_sub(sample.at) < SAMPLE_KEPT => sample.clone(),
            _ => kept.insert(Arc::new(locked(&self.sources).sample())).clone(),
        }
    }
}

impl State {
    fn refuse(&self, refusal: Refusal) {
        self.refused[refusal as usize].fetch_add(1, Ordering::Relaxed);
    }

    fn figures(&self) -> metrics::AdminFigures {
        let mut refused = [("", 0); REFUSALS.len()];
        for ((place, name), count) in refused.iter_mut().zip(REFUSALS).zip(&self.refused) {
            *place = (name, count.load(Ordering::Relaxed));
        }
        let (readers, dropped) = self.hub.readers();
        metrics::AdminFigures { readers, dropped, refused }
    }
}

/// What a lock protects; whoever panicked while holding it left it usable, for it is only ever replaced whole.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As labels spell why a request was refused.
const REFUSALS: [&str; 5] = ["connections", "token", "no_token", "request", "origin"];
/// How long a sample is as good as a new one.
const SAMPLE_KEPT: Duration = Duration::from_millis(20);
/// How often memory is looked at.
const MEMORY_READ_EVERY: Duration = Duration::from_secs(60);
