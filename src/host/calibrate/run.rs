//! The run: what is measured on which core, for how long, in which order.
//!
//! ```text
//!   |  prepare  | round 1 | round 2 | …  | round 9 |          the budget, in seconds
//!                  └ clock 4 % │ chase 26 % │ pairs 14 % │ calls 6 % │ wake 10 % │ jitter the rest
//! ```
//!
//! Shares are of the round's time, so that a short budget makes each figure noisier and none of them wrong; rounds stay
//! nine, because their number decides how often two runs agree. What overruns its share (a pair of cores that others keep
//! apart) takes the time from the jitter; once the whole budget is spent, the run ends after the round it is in, as
//! long as five are done.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base::limits;
use crate::host::calibrate::calls::Calls;
use crate::host::calibrate::chase::{Bounds, Ladder, sets};
use crate::host::calibrate::clock::{self, Clock};
use crate::host::calibrate::counter::Counter;
use crate::host::calibrate::jitter::Jitter;
use crate::host::calibrate::pairs::{Pairs, relation};
use crate::host::calibrate::wake::Wake;
use crate::host::calibration::{Calibration, CallFigures, Machine, Relation};
use crate::host::process::{Limits, keep_to_cores};
use crate::host::topology::{Cache, Core, Topology, format_cpu_list};

/// What to do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// How long it may take; bounded by `limits::CALIBRATE_SECONDS_MIN` and `_MAX`.
    pub seconds: u64,
    /// Cores to measure; none named is all that this process may use.
    pub cores: Vec<usize>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// The round that begins, from 1; 0 while working sets are laid out.
    pub round: usize,
    /// How many there will be.
    pub rounds: usize,
}

/// Measures this machine. Errors name what to change: a core that this process may not use, a budget out of bounds.
pub fn run(plan: &Plan, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Calibration, String> {
    let bounds = limits::CALIBRATE_SECONDS_MIN..=limits::CALIBRATE_SECONDS_MAX;
    if !bounds.contains(&plan.seconds) {
        return Err(format!("{} seconds: give {} to {}", plan.seconds, bounds.start(), bounds.end()));
    }
    let topology = Topology::detect(Path::new("/"))?;
    let cores = cores(&plan.cores, &Limits::read().allowed_cores)?;
    // A thread of its own: the caller's stays on the cores it was on.
    let measured =
        thread::scope(|scope| scope.spawn(|| Run::prepare(plan, &topology, cores, progress)?.finish(progress)).join());
    measured.unwrap_or_else(|_| Err("the measuring thread broke off: its panic stands above".to_owned()))
}

/// Load average of the last minute.
pub fn load_average() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

/// The cores wished, all of them allowed; or all that are.
fn cores(wished: &[usize], allowed: &[usize]) -> Result<Vec<usize>, String> {
    let mut cores = if wished.is_empty() { allowed.to_vec() } else { wished.to_vec() };
    cores.sort_unstable();
    cores.dedup();
    let forbidden: Vec<usize> = cores.iter().copied().filter(|core| !allowed.contains(core)).collect();
    if !forbidden.is_empty() {
        return Err(format!(
            "cores {} are not among those this process may use, {}: name some of these",
            format_cpu_list(&forbidden),
            format_cpu_list(allowed)
        ));
    }
    if cores.is_empty() {
        return Err("this process may use no core that it knows of: is procfs mounted?".to_owned());
    }
    Ok(cores)
}

/// All subjects of a run, prepared.
struct Run<'t> {
    topology: &'t Topology,
    cores: Vec<usize>,
    measuring_core: usize,
    load_average: Option<f64>,
    started: Instant,
    budget: Duration,
    round: Duration,
    clock: Clock,
    ladder: Ladder,
    pairs: Pairs,
    calls: Calls,
    wake: Wake,
    jitter: Jitter,
    notes: Vec<String>,
}

impl<'t> Run<'t> {
    fn prepare(
        plan: &Plan,
        topology: &'t Topology,
        cores: Vec<usize>,
        progress: &mut (dyn FnMut(Progress) + Send),
    ) -> Result<Run<'t>, String> {
        progress(Progress { round: 0, rounds: limits::CALIBRATE_ROUNDS });
        let (started, load_average) = (Instant::now(), load_average());
        let measuring_core = *cores.last().ok_or("no core to measure")?;
        keep_to_cores(&[measuring_core]).map_err(|error| {
            format!("core {measuring_core} cannot be pinned to ({error}): name others with --cores")
        })?;
        let counter = Counter::calibrate();
        let clock_ns = clock::clock_ns(Duration::ZERO);
        let budget = Duration::from_secs(plan.seconds);
        let (ladder, mut notes) = ladder(topology, measuring_core, plan.seconds, clock_ns);
        let left = budget.saturating_sub(started.elapsed()).saturating_sub(TAIL);
        let round = left / limits::CALIBRATE_ROUNDS as u32;

        let relation = |first, second| relation(topology, first, second);
        let pairs = Pairs::prepare(&cores, relation, round.mul_f64(PAIRS_SHARE), clock_ns);
        let others = cores.iter().copied().filter(|&core| core != measuring_core);
        // The nearest that is a core of its own, as a server and whoever wakes it would be placed.
        let partner = others.min_by_key(|&core| {
            let relation = relation(core, measuring_core);
            (relation == Relation::Sibling, relation)
        });
        if let Some(quota) = topology.control_group.cpu_cores.filter(|&quota| quota < cores.len() as f64) {
            notes.push(format!(
                "the control group allows {quota:.2} cores: whoever uses up that time waits, which shows as hiccups"
            ));
        }
        Ok(Run {
            topology,
            measuring_core,
            load_average,
            started,
            budget,
            round,
            clock: Clock::prepare(clock_ns),
            ladder,
            pairs,
            calls: Calls::prepare(clock_ns),
            wake: Wake::prepare(measuring_core, partner.unwrap_or(measuring_core), clock_ns),
            jitter: Jitter::prepare(&cores, counter),
            cores,
            notes,
        })
    }

    fn finish(mut self, progress: &mut (dyn FnMut(Progress) + Send)) -> Result<Calibration, String> {
        let began = Instant::now();
        for round in 1..=limits::CALIBRATE_ROUNDS {
            if round > ROUNDS_MIN && self.started.elapsed() > self.budget {
                let done = round - 1;
                self.notes.push(format!(
                    "only {done} of {} rounds fitted the time: others wanted the cores, or --seconds is small for so many",
                    limits::CALIBRATE_ROUNDS
                ));
                break;
            }
            progress(Progress { round, rounds: limits::CALIBRATE_ROUNDS });
            self.clock.round(self.round.mul_f64(CLOCK_SHARE));
            self.ladder.round(self.round.mul_f64(CHASE_SHARE));
            self.pairs.round(self.round.mul_f64(PAIRS_SHARE));
            self.calls.round(self.round.mul_f64(CALLS_SHARE));
            self.wake.round(self.round.mul_f64(WAKE_SHARE));
            self.jitter.round(began + self.round * round as u32);
        }
        self.calibration()
            .ok_or_else(|| "some of what every machine can measure gave no figure: is a core offline?".into())
    }

    fn calibration(self) -> Option<Calibration> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let (pairs, apart) = self.pairs.figures();
        let (wake_p50_us, wake_p99_us) = self.wake.wake_up_us();
        let ring = self.calls.ring();
        let mut notes = self.notes;
        notes.extend(self.ladder.notes().iter().cloned().chain(apart));
        notes.extend(self.wake.complaint().map(str::to_owned));
        notes.extend(ring.as_ref().err().map(|refusal| format!("the ring was not measured: {refusal}")));
        Some(Calibration {
            version: Calibration::VERSION,
            taken_unix_s: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
            took_s: (self.started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
            machine: Machine::of(self.topology),
            cores: self.cores,
            measuring_core: self.measuring_core,
            load_average: self.load_average,
            clock: self.clock.figures(&cpuinfo, self.topology.clocksource.clone())?,
            ladder: self.ladder.rungs(),
            pairs,
            calls: CallFigures {
                syscall_ns: self.calls.syscall()?,
                ring_ns: ring.clone().ok().flatten(),
                ring_refusal: ring.err(),
                wake_p50_us,
                wake_p99_us,
                wake_across_cores: self.wake.is_across_cores(),
                loopback_us: self.wake.loopback_us(),
            },
            jitter: self.jitter.figures()?,
            notes,
        })
    }
}

/// The working sets for this machine, laid out.
fn ladder(topology: &Topology, core: usize, seconds: u64, clock_ns: f64) -> (Ladder, Vec<String>) {
    let here = topology.core(core).map(|core| core.node);
    let several = topology.nodes.len() > 1;
    let far: Vec<usize> = topology
        .nodes
        .iter()
        .filter(|node| Some(node.id) != here && node.memory_bytes != Some(0))
        .map(|node| node.id)
        .collect();
    let remote = spread(&far, REMOTE_NODES_MAX);
    let smallest_node = topology.nodes.iter().filter_map(|node| node.memory_bytes).filter(|&bytes| bytes > 0).min();
    let available = topology.memory_available_bytes.unwrap_or(MEMORY_UNTOLD_BYTES);
    let used = control_group_bytes(Path::new("/"));
    let group = topology.control_group.memory_bytes.map_or(u64::MAX, |limit| limit.saturating_sub(used));
    let copies = 2 * (1 + remote.len() as u64);
    let per_node = smallest_node.map_or(u64::MAX, |bytes| bytes / NODE_PART);
    let bounds = Bounds {
        memory_bytes: available.min(group) / limits::CALIBRATE_MEMORY_SHARE,
        set_bytes: (seconds * limits::CALIBRATE_DRAM_BYTES_PER_SECOND / copies * 2).min(per_node),
        copies,
    };
    let caches: Vec<&Cache> = topology.core(core).into_iter().flat_map(Core::data_caches).collect();
    let (sets, mut notes) = sets(&caches, bounds);
    if remote.len() < far.len() {
        notes.push(format!(
            "remote memory was measured on nodes {} of {}: each takes a working set of its own",
            format_cpu_list(&remote),
            format_cpu_list(&far)
        ));
    }
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    (Ladder::prepare(&sets, here.filter(|_| several), &remote, clock_ns, seed), notes)
}

/// Bytes that the control group of this process holds and would not give back: who asks for the rest is not killed.
fn control_group_bytes(root: &Path) -> u64 {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let groups = text("proc/self/cgroup");
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else { return 0 };
    let folder = format!("sys/fs/cgroup{}", group.trim_end_matches('/'));
    let held: u64 = text(&format!("{folder}/memory.current")).trim().parse().unwrap_or(0);
    let stat = text(&format!("{folder}/memory.stat"));
    // Pages of files that nobody has used for a while are dropped before anybody is killed.
    let spare = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.trim().parse().ok());
    held.saturating_sub(spare.unwrap_or(0))
}

/// At most `most` of `all`, first and last among them.
fn spread(all: &[usize], most: usize) -> Vec<usize> {
    if all.len() <= most {
        return all.to_vec();
    }
    (0..most).map(|number| all[number * (all.len() - 1) / (most - 1)]).collect()
}

/// Parts of a round. What is left is the jitter's.
const CLOCK_SHARE: f64 = 0.04;
const CHASE_SHARE: f64 = 0.26;
const PAIRS_SHARE: f64 = 0.14;
const CALLS_SHARE: f64 = 0.06;
const WAKE_SHARE: f64 = 0.10;

/// Fewest rounds of a figure.
const ROUNDS_MIN: usize = 5;

/// What is kept of the budget for unmapping memory and for the last batch that overruns.
const TAIL: Duration = Duration::from_millis(300);

/// Most other nodes whose memory is measured.
const REMOTE_NODES_MAX: usize = 3;

/// Part of a node's memory that a working set bound to it may take: what the node has free is not known, and binding to
/// a full one would have the kernel kill somebody.
const NODE_PART: u64 = 16;

/// Memory that is counted on where the machine does not say what is free.
const MEMORY_UNTOLD_BYTES: u64 = 768 << 20;

const _: () = assert!(ROUNDS_MIN <= limits::CALIBRATE_ROUNDS && REMOTE_NODES_MAX > 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_those_allowed_and_others_are_refused_by_number() {
        assert_eq!(cores(&[], &[0, 1, 5]), Ok(vec![0, 1, 5]));
        assert_eq!(cores(&[5, 0, 5], &[0, 1, 5]), Ok(vec![0, 5]));
        let complaint = cores(&[1, 2, 3], &[0, 1, 5]).unwrap_err();
        assert!(complaint.contains("cores 2-3") && complaint.contains("0-1,5"), "{complaint}");
        assert!(cores(&[], &[]).is_err());
    }

    #[test]
    fn of_many_nodes_the_nearest_and_the_farthest_are_among_those_measured() {
        assert_eq!(spread(&[1], 3), [1]);
        assert_eq!(spread(&[1, 2, 3, 4, 5, 6, 7], 3), [1, 4, 7]);
        assert!(spread(&[], 3).is_empty());
    }

    #[test]
    fn what_a_control_group_holds_is_counted_less_what_it_would_drop() {
        let root = std::env::temp_dir().join(format!("spinetail-group-{}", std::process::id()));
        let write = |path: &str, text: &str| {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), text).unwrap();
        };
        assert_eq!(control_group_bytes(&root), 0);
        write("proc/self/cgroup", "0::/a/b\n");
        write("sys/fs/cgroup/a/b/memory.current", "5000\n");
        assert_eq!(control_group_bytes(&root), 5000);
        write("sys/fs/cgroup/a/b/memory.stat", "anon 1\nactive_file 7\ninactive_file 1200\n");
        assert_eq!(control_group_bytes(&root), 3800);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_budget_out_of_bounds_is_refused() {
        for seconds in [0, limits::CALIBRATE_SECONDS_MAX + 1] {
            let complaint = run(&Plan { seconds, cores: Vec::new() }, &mut |_| ()).unwrap_err();
            assert!(complaint.contains("give 2 to 60"), "{complaint}");
        }
    }

    #[test]
    fn a_short_run_measures_everything_and_says_where_it_is() {
        let mut told = Vec::new();
        let started = Instant::now();
        let plan = Plan { seconds: limits::CALIBRATE_SECONDS_MIN, cores: Vec::new() };
        let taken = run(&plan, &mut |progress| told.push(progress.round)).unwrap();
        assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
        assert!(told.len() > ROUNDS_MIN && told.iter().enumerate().all(|(at, &round)| at == round), "{told:?}");
        for (name, measured) in taken.measured() {
            assert!(measured.low <= measured.median && measured.median <= measured.high, "{name}: {measured:?}");
            // Two cores that others keep apart may miss a round; nothing else may.
            let fewest = if name.starts_with("one_way") { 1 } else { ROUNDS_MIN as u32 };
            assert!(measured.rounds >= fewest, "{name}: {measured:?}");
        }
        assert!(taken.disagreements(&taken).is_empty());
    }
}
