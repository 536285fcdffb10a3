//! What was measured of this machine: the value that `host::calibrate` makes and everybody else reads.
//!
//!   Calibration ─── clock ─ ladder ─ pairs ─ calls ─ jitter ─── whole, as JSON, in the state folder
//!        └ figures() ──→ Figures: fifteen numbers, for profiles, logs and reports
//!
//! **What a figure claims.** Each is a [`Measured`]: the median of its rounds, and from `low` to `high` the noise that it
//! reports. A second run on the same machine agrees if the two intervals overlap, and it should practically always. That
//! decides how the interval is made:
//!
//! - From the *range* of the rounds, not from a standard error. An error of the mean says how well the mean of *this* half
//!   minute is known, and supposes that rounds are independent draws of one bell curve. On a virtual machine they are not:
//!   a neighbour comes, a clock steps up, a page lies elsewhere. The range supposes only that the rounds of two runs could
//!   be exchanged for one another. Then two ranges of n rounds are disjoint only if all of one run lie above all of the
//!   other: 2 · (n!)² / (2n)! of all orders. That is 1 in 126 for five rounds, and with some thirty figures one run in four
//!   would contradict the one before. For nine rounds it is 1 in 24,310; hence [`limits::CALIBRATE_ROUNDS`].
//! - Rounds can be exchanged only if they are spread over the whole run and drawn anew: subjects take turns, round by
//!   round, and what a round finds by chance (which physical pages a small working set gets, which line two cores pass to
//!   and fro) is drawn again in the next.
//! - Widened by the timer's resolution, spread over the operations of a batch: below that equal is all that can be said.
//! - Widened by a share of itself for what no round of one run can see, because it changes more slowly than a run lasts:
//!   [`limits::CALIBRATE_DRIFT_SHARE`], measured, see there. The counter's rate has a smaller one.
//!
//! `rounds` below nine says that some of them gave no figure (two cores that others kept busy never met).

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::base::limits;
use crate::base::time::civil_from_days;
use crate::base::units::format_bytes;
use crate::host::topology::Topology;

/// A figure with the noise it reports.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Median of the rounds.
    pub median: f64,
    /// Lowest round, widened.
    pub low: f64,
    /// Highest round, widened.
    pub high: f64,
    /// Rounds that gave a figure.
    pub rounds: u32,
}

/// Everything that was measured. The unit is the end of each name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibration {
    /// Version of this layout; a file of another one is measured anew.
    pub version: u32,
    /// When it was taken, in seconds of Unix time.
    pub taken_unix_s: u64,
    /// How long that took.
    pub took_s: f64,
    /// What was measured: figures of one machine say nothing about another.
    pub machine: Machine,
    /// Cores that took part, ascending.
    pub cores: Vec<usize>,
    /// The core that everything ran on for which one is enough.
    pub measuring_core: usize,
    /// Load average of the last minute before it began; above a half somebody else wanted the cores.
    pub load_average: Option<f64>,
    /// Counter and clock.
    pub clock: ClockFigures,
    /// Dependent loads, by working set, pages and node.
    pub ladder: Vec<Rung>,
    /// Lines passed from core to core.
    pub pairs: PairFigures,
    /// What the kernel takes for a call.
    pub calls: CallFigures,
    /// What takes time from a thread that has a core to itself.
    pub jitter: JitterFigures,
    /// What could not be measured or not as it should, each with the reason.
    pub notes: Vec<String>,
}

/// The machine's fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Model name of the processor.
    pub cpu_model: String,
    /// Cores online.
    pub cores: usize,
    /// Kernel release.
    pub kernel: String,
}

/// The processor's counter and the kernel's clock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClockFigures {
    /// Which counter: `tsc`, `cntvct`, or `none` where the clock stands in for it.
    pub counter: String,
    /// It runs at one rate, whatever the core's clock does and however deep it sleeps; `None` where nobody says.
    pub invariant: Option<bool>,
    /// The kernel's clock source.
    pub clocksource: Option<String>,
    /// Rate of the counter.
    pub counter_mhz: Measured,
    /// One reading of the counter among others.
    pub counter_ns: Measured,
    /// One `Instant::now()` among others.
    pub clock_ns: Measured,
}

/// One working set of the pointer chase.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rung {
    /// Where the working set should lie: `L1`, `L2`, `L3` or `DRAM`.
    pub level: String,
    /// Bytes of the working set.
    pub bytes: u64,
    /// Bytes of the cache it should lie in, or must not fit (DRAM: the last level), where the machine says.
    pub cache_bytes: Option<u64>,
    /// Pages that were got: `4KiB`, `transparent` (2 MiB by the kernel) or `2MiB` (set aside).
    pub pages: String,
    /// Share of it that lies in huge pages.
    pub huge_share: f64,
    /// Node whose memory it is, where there are several.
    pub node: Option<usize>,
    /// Another node than that of the measuring core.
    pub remote: bool,
    /// One dependent load.
    pub load_ns: Measured,
}

/// Lines passed between cores.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PairFigures {
    /// Pairs that there are among the cores that took part.
    pub pairs_total: usize,
    /// How those measured were chosen.
    pub sample: String,
    /// Those measured, nearest relation first.
    pub pairs: Vec<Pair>,
}

/// Two cores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pair {
    /// The lower number.
    pub first: usize,
    /// The higher one.
    pub second: usize,
    /// What they share.
    pub relation: Relation,
    /// Half a round trip of a cache line.
    pub one_way_ns: Measured,
}

/// What two cores share, from near to far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Relation {
    /// Hardware threads of one core.
    Sibling,
    /// A last-level cache.
    Complex,
    /// A die.
    Die,
    /// A socket.
    Socket,
    /// Nothing but the machine.
    OtherSocket,
}

/// What the kernel takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallFigures {
    /// A system call that does next to nothing (`getppid`).
    pub syscall_ns: Measured,
    /// A NOP through a ring set up like a shard's, submitted and waited for in one call.
    pub ring_ns: Option<Measured>,
    /// Why there is no such figure.
    pub ring_refusal: Option<String>,
    /// From the wake-up call until the sleeper runs, the middle one.
    pub wake_p50_us: Option<Measured>,
    /// The same, one in a hundred is slower.
    pub wake_p99_us: Option<Measured>,
    /// Sleeper and waker had a core each.
    pub wake_across_cores: bool,
    /// A byte there and back through TCP on loopback, two blocking threads.
    pub loopback_us: Option<Measured>,
}

/// Gaps in the time of a thread that does nothing but read the counter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JitterFigures {
    /// Gaps above this are hiccups.
    pub threshold_ns: f64,
    /// Seconds that each core was watched.
    pub watched_s: f64,
    /// Share of the time that hiccups took, all cores together.
    pub lost_share: Measured,
    /// Middle hiccup of a round.
    pub hiccup_p50_us: Measured,
    /// 99th percentile of a round.
    pub hiccup_p99_us: Measured,
    /// 99.9th percentile of a round.
    pub hiccup_p999_us: Measured,
    /// Longest of a round.
    pub hiccup_max_us: Measured,
    /// All rounds and cores in one histogram.
    pub pooled: Hiccups,
    /// The same counted by size.
    pub sizes: Vec<SizeCount>,
    /// Core by core, all rounds together.
    pub cores: Vec<CoreJitter>,
}

/// Percentiles of hiccups that were counted together; zeros where there was none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hiccups {
    /// How many.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Longest.
    pub max_us: f64,
}

/// Hiccups of a size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SizeCount {
    /// From this on.
    pub from_us: f64,
    /// To below this.
    pub below_us: f64,
    /// How many.
    pub count: u64,
}

/// One core's hiccups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CoreJitter {
    /// The core.
    pub core: usize,
    /// Share of the time lost.
    pub lost_share: f64,
    /// Share of the time that the hypervisor says it gave to others (`/proc/stat`, in hundredths of a second).
    pub steal_share: f64,
    /// Its hiccups.
    pub hiccups: Hiccups,
}

/// The figures that others print: flat, and `None` where there is none.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Figures {
    /// When they were taken, as RFC 3339 says it.
    pub taken: String,
    /// Where: processor, cores, kernel.
    pub machine: String,
    /// One reading of the processor's counter.
    pub counter_ns: Option<f64>,
    /// One reading of the kernel's clock.
    pub clock_ns: Option<f64>,
    /// A dependent load from the first cache.
    pub l1_ns: Option<f64>,
    /// From the second.
    pub l2_ns: Option<f64>,
    /// From the third: of the small working set.
    pub l3_ns: Option<f64>,
    /// From memory, in the largest pages that were granted.
    pub dram_ns: Option<f64>,
    /// From the farthest other node's memory.
    pub dram_remote_ns: Option<f64>,
    /// A line from core to core, the nearest pair of different cores (siblings only where there are no others).
    pub ping_pong_ns: Option<f64>,
    /// The farthest pair.
    pub ping_pong_far_ns: Option<f64>,
    /// A system call.
    pub syscall_ns: Option<f64>,
    /// A NOP through a ring.
    pub ring_ns: Option<f64>,
    /// A wake-up, the middle one.
    pub wake_us: Option<f64>,
    /// One hiccup in a thousand is longer.
    pub hiccup_p999_us: Option<f64>,
    /// The longest.
    pub hiccup_max_us: Option<f64>,
    /// Share of the time that hiccups took.
    pub lost_share: Option<f64>,
}

impl Measured {
    /// The figure of these rounds, if there are any, widened by the timer's `resolution` (same unit) and by a share of
    /// itself for drift.
    pub fn of_rounds(rounds: &[f64], resolution: f64, drift_share: f64) -> Option<Measured> {
        let median = median(rounds)?;
        let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rounds.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let (low, high) = (lowest * (1.0 - drift_share) - resolution, highest * (1.0 + drift_share) + resolution);
        // Nothing that is measured here can be negative.
        Some(Measured { median, low: low.max(0.0), high, rounds: rounds.len() as u32 }.per(1.0))
    }

    /// The two say nothing against each other.
    pub fn agrees(&self, other: &Measured) -> bool {
        self.low <= other.high && other.low <= self.high
    }

    /// The same in a unit `factor` times as large: nanoseconds as microseconds with 1,000.
    #[must_use]
    pub fn per(self, factor: f64) -> Measured {
        let scaled = |figure: f64| digits(figure / factor, DIGITS);
        Measured { median: scaled(self.median), low: scaled(self.low), high: scaled(self.high), ..self }
    }
}

impl Calibration {
    /// The layout that this program writes and reads.
    pub const VERSION: u32 = 1;

    /// The flat summary.
    pub fn figures(&self) -> Figures {
        let local = |level: &str| {
            let rungs = || self.ladder.iter().filter(|rung| rung.level == level && !rung.remote);
            // Of the third cache the small set: what a virtual machine has of a cache is less than it is told.
            let smallest = rungs().map(|rung| rung.bytes).min()?;
            // What a server gets: the largest pages granted.
            let found = rungs().filter(|rung| rung.bytes == smallest);
            found.max_by(|a, b| a.huge_share.total_cmp(&b.huge_share)).map(|rung| rung.load_ns.median)
        };
        let remote = self.ladder.iter().filter(|rung| rung.remote).map(|rung| rung.load_ns.median);
        let one_way = |far: bool| {
            let pairs = &self.pairs.pairs;
            let apart = pairs.iter().any(|pair| pair.relation != Relation::Sibling);
            let eligible = pairs.iter().filter(|pair| !apart || pair.relation != Relation::Sibling);
            let medians = eligible.map(|pair| pair.one_way_ns.median);
            if far { medians.max_by(f64::total_cmp) } else { medians.min_by(f64::total_cmp) }
        };
        let (calls, jitter) = (&self.calls, &self.jitter);
        let middle = |figure: Option<Measured>| figure.map(|figure| figure.median);
        Figures {
            taken: rfc3339(self.taken_unix_s),
            machine: self.machine.describe(),
            counter_ns: rounded(Some(self.clock.counter_ns.median)),
            clock_ns: rounded(Some(self.clock.clock_ns.median)),
            l1_ns: rounded(local("L1")),
            l2_ns: rounded(local("L2")),
            l3_ns: rounded(local("L3")),
            dram_ns: rounded(local("DRAM")),
            dram_remote_ns: rounded(remote.max_by(f64::total_cmp)),
            ping_pong_ns: rounded(one_way(false)),
            ping_pong_far_ns: rounded(one_way(true)),
            syscall_ns: rounded(Some(calls.syscall_ns.median)),
            ring_ns: rounded(middle(calls.ring_ns)),
            wake_us: rounded(middle(calls.wake_p50_us)),
            hiccup_p999_us: rounded(Some(jitter.pooled.p999_us)),
            hiccup_max_us: rounded(Some(jitter.pooled.max_us)),
            lost_share: rounded(Some(jitter.lost_share.median)),
        }
    }

    /// Every figure that reports its noise, under a name that two runs on one machine have in common.
    pub fn measured(&self) -> Vec<(String, Measured)> {
        let (clock, calls, jitter) = (&self.clock, &self.calls, &self.jitter);
        let mut all = vec![
            ("counter_mhz".to_owned(), clock.counter_mhz),
            ("counter_ns".to_owned(), clock.counter_ns),
            ("clock_ns".to_owned(), clock.clock_ns),
        ];
        for rung in &self.ladder {
            let node = rung.node.map_or(String::new(), |node| format!(", node {node}"));
            let (level, bytes, pages) = (&rung.level, format_bytes(rung.bytes), &rung.pages);
            all.push((format!("load_ns {level} {bytes} in {pages}{node}"), rung.load_ns));
        }
        for pair in &self.pairs.pairs {
            all.push((format!("one_way_ns {}-{}", pair.first, pair.second), pair.one_way_ns));
        }
        all.push(("syscall_ns".to_owned(), calls.syscall_ns));
        let optional = [
            ("ring_ns", calls.ring_ns),
            ("wake_p50_us", calls.wake_p50_us),
            ("wake_p99_us", calls.wake_p99_us),
            ("loopback_us", calls.loopback_us),
        ];
        all.extend(optional.iter().filter_map(|(name, figure)| Some(((*name).to_owned(), (*figure)?))));
        all.extend([
            ("lost_share".to_owned(), jitter.lost_share),
            ("hiccup_p50_us".to_owned(), jitter.hiccup_p50_us),
            ("hiccup_p99_us".to_owned(), jitter.hiccup_p99_us),
            ("hiccup_p999_us".to_owned(), jitter.hiccup_p999_us),
            ("hiccup_max_us".to_owned(), jitter.hiccup_max_us),
        ]);
        all
    }

    /// What this run and another one contradict each other in; a figure that only one of them has is none.
    pub fn disagreements(&self, other: &Calibration) -> Vec<String> {
        let others = other.measured();
        let contradicted = |(name, mine): (String, Measured)| {
            let (_, theirs) = others.iter().find(|(other, _)| *other == name)?;
            let told = |m: &Measured| format!("{:.3} ({:.3} to {:.3})", m.median, m.low, m.high);
            (!mine.agrees(theirs)).then(|| format!("{name}: {} and {}", told(&mine), told(theirs)))
        };
        self.measured().into_iter().filter_map(contradicted).collect()
    }
}

impl Machine {
    /// The one that `topology` describes.
    pub fn of(topology: &Topology) -> Machine {
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        Machine {
            cpu_model: or_unknown(&topology.cpu_model),
            cores: topology.cores.len(),
            kernel: or_unknown(&topology.kernel),
        }
    }

    /// The one this runs on.
    pub fn this() -> Result<Machine, String> {
        Topology::detect(Path::new("/")).map(|topology| Machine::of(&topology))
    }

    /// In one line.
    pub fn describe(&self) -> String {
        let cores = if self.cores == 1 { "1 core".to_owned() } else { format!("{} cores", self.cores) };
        format!("{}, {cores}, Linux {}", self.cpu_model, self.kernel)
    }
}

impl Relation {
    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Relation::Sibling => "hardware threads of one core",
            Relation::Complex => "one last-level cache",
            Relation::Die => "one die",
            Relation::Socket => "one socket",
            Relation::OtherSocket => "two sockets",
        }
    }
}

impl Figures {
    /// One short line for reports: `measured here: clock 21 ns, L1 1.6 ns, DRAM 96 ns, …`.
    pub fn line(&self) -> String {
        let figures = [
            ("clock", self.clock_ns, "ns"),
            ("L1", self.l1_ns, "ns"),
            ("L2", self.l2_ns, "ns"),
            ("L3", self.l3_ns, "ns"),
            ("DRAM", self.dram_ns, "ns"),
            ("remote DRAM", self.dram_remote_ns, "ns"),
            ("core to core", self.ping_pong_ns, "ns"),
            ("syscall", self.syscall_ns, "ns"),
            ("ring", self.ring_ns, "ns"),
            ("wake-up", self.wake_us, "µs"),
            ("hiccup p99.9", self.hiccup_p999_us, "µs"),
            ("max", self.hiccup_max_us, "µs"),
            ("lost", self.lost_share.map(|share| share * 100.0), "%"),
        ];
        let said =
            figures.iter().filter_map(|(name, figure, unit)| Some(format!("{name} {} {unit}", short((*figure)?))));
        format!("measured here: {}", said.collect::<Vec<_>>().join(", "))
    }
}

/// Three digits that say something: `0.84`, `21.3`, `318`, `12600`.
pub fn short(figure: f64) -> String {
    match figure.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.001 => format!("{figure:.5}"),
        size if size < 0.1 => format!("{figure:.3}"),
        size if size < 10.0 => format!("{figure:.2}"),
        size if size < 100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}

/// Seconds of Unix time as RFC 3339 writes them in UTC.
pub fn rfc3339(unix_s: u64) -> String {
    let (year, month, day) = civil_from_days(unix_s / 86_400);
    let (hour, minute, second) = (unix_s / 3_600 % 24, unix_s / 60 % 60, unix_s % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The median; of an even number the mean of the middle two.
pub(super) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// A figure for a summary: more digits would claim what nobody measured, and make every diff of a profile a long one.
fn rounded(figure: Option<f64>) -> Option<f64> {
    figure.filter(|figure| figure.is_finite()).map(|figure| digits(figure, DIGITS_OF_SUMMARY))
}

/// `figure` to so many decimal digits. What is rounded so is the same after it was written and read as JSON.
pub(super) fn digits(figure: f64, count: usize) -> f64 {
    format!("{figure:.*e}", count - 1).parse().unwrap_or(figure)
}

/// Decimal digits of a figure: a counter's rate is known to that many.
pub(super) const DIGITS: usize = 7;
const DIGITS_OF_SUMMARY: usize = 4;

const _: () = assert!(limits::CALIBRATE_ROUNDS >= 5, "fewer rounds contradict each other too often");

#[cfg(test)]
#[path = "calibration_tests.rs"]
mod tests;

#[cfg(test)]
pub(crate) use tests::example;
