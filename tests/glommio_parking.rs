//! glommio 0.9.0 can park with runnable tasks; our two remedies, and what happens without them.
//!
//! `run_task_queues` answers "nothing ran" when the preemption timer has fired before it looked at
//! the first queue. `run` takes that for "nothing to run" and parks until the next event. On a busy
//! machine a thread loses its core just there now and then; here the timer is made so short that it
//! happens within moments on any machine, and the same task is run with and without the remedies of
//! `engine/executor.rs`: a long timer, and a standing heartbeat.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};
use spinetail::base::limits;

/// A task that yields again and again, as a shard's loop does. It must never wait for anything.
fn run(preempt: Duration, heartbeat: Option<Duration>, yields: u64) -> Run {
    let done = Arc::new(AtomicU64::new(0));
    let progress = done.clone();
    LocalExecutorBuilder::new(Placement::Unbound)
        .preempt_timer(preempt)
        .io_memory(64 << 10)
        .ring_depth(32)
        .spawn(move || async move {
            let heart = heartbeat.map(|pause| {
                glommio::spawn_local(async move {
                    loop {
                        glommio::timer::sleep(pause).await;
                    }
                })
                .detach()
            });
            for _ in 0..yields {
                glommio::executor().yield_task_queue_now().await;
                progress.fetch_add(1, Ordering::Relaxed);
            }
            if let Some(heart) = heart {
                heart.cancel();
            }
        })
        .expect("an executor can be built: 512 KiB of locked memory and io_uring");
    Run { done, yields }
}

struct Run {
    done: Arc<AtomicU64>,
    yields: u64,
}

impl Run {
    /// Waits for the end; answers `false` if there was no progress at all for `patience`.
    fn ends(&self, patience: Duration) -> bool {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let now = self.done.load(Ordering::Relaxed);
            if now == self.yields {
                return true;
            }
            if now != seen {
                (seen, since) = (now, Instant::now());
            }
            if since.elapsed() > patience {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Far more than the heartbeat, far less than anybody's patience.
const PATIENCE: Duration = Duration::from_secs(3);
/// A timer that has fired before the executor looks at its queues.
const HOSTILE_TIMER: Duration = Duration::from_nanos(1);

#[test]
fn without_the_remedies_an_executor_parks_with_a_runnable_task() {
    // Should this fail one day, glommio has been mended and the heartbeat can go.
    let hung = (0..5).any(|_| !run(HOSTILE_TIMER, None, 100_000).ends(PATIENCE));
    assert!(hung, "glommio no longer parks with runnable tasks: read engine/executor.rs and simplify it");
}

#[test]
fn the_heartbeat_alone_is_no_cure_for_a_timer_that_always_fires_first() {
    // Each beat wakes the executor, and the timer is ahead again. Hence the timer of 200 ms, too.
    let heartbeat = Some(Duration::from_millis(limits::HEARTBEAT_MS));
    assert!(!run(HOSTILE_TIMER, heartbeat, 100_000).ends(PATIENCE));
}

#[test]
fn with_both_remedies_no_executor_hangs_on_a_loaded_machine() {
    // Twice as many spinning threads as cores: the executors lose their core all the time.
    let stop = Arc::new(AtomicU64::new(0));
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let load: Vec<_> = (0..2 * cores)
        .map(|_| {
            let stop = stop.clone();
            std::thread::spawn(move || while stop.load(Ordering::Relaxed) == 0 {})
        })
        .collect();
    let timer = Duration::from_millis(limits::PREEMPT_TIMER_MS);
    let heartbeat = Some(Duration::from_millis(limits::HEARTBEAT_MS));
    let runs: Vec<Run> = (0..12).map(|_| run(timer, heartbeat, 500_000)).collect();
    let ended = runs.iter().filter(|run| run.ends(Duration::from_secs(20))).count();
    stop.store(1, Ordering::Relaxed);
    load.into_iter().for_each(|thread| thread.join().expect("a spinning thread does not panic"));
    assert_eq!(ended, 12, "an executor stood still");
}
