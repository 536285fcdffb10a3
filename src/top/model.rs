//! What was heard: the last window of ticks, the last ten minutes, how the link is. Times of this side arrive as
//! arguments, counted from any moment.
//!
//! A tick's rates are those of a tenth of a second and jump; what is shown is their mean over the window, which is
//! also what its latencies are over.

use std::collections::VecDeque;
use std::time::Duration;

use crate::base::limits;
use crate::top::message::{Hello, Latency, Rates, Shard, Tick};

/// How the link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// Nothing was heard yet.
    Connecting,
    /// Events come.
    Live,
    /// They do not, for a reason; it is tried again.
    Lost(String),
}

/// One second of the past.
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "the names say it; `None` where there was nothing to measure")]
pub struct Second {
    /// When it ended.
    pub unix_ms: u64,
    pub requests: f64,
    pub hit_share: Option<f64>,
    pub evicted: f64,
    pub get_p50_ns: Option<f64>,
    pub get_p99_ns: Option<f64>,
    pub get_p999_ns: Option<f64>,
    pub set_p99_ns: Option<f64>,
}

/// What of a latency is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// All of it.
    Total,
    /// The core's work.
    Service,
    /// Waiting.
    Queue,
}

impl Stage {
    /// In the order in which they are shown.
    pub const ALL: [Stage; 3] = [Stage::Total, Stage::Service, Stage::Queue];

    /// As the schema calls it.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Total => "total",
            Stage::Service => "service",
            Stage::Queue => "queue",
        }
    }

    /// This stage of `latency`.
    pub fn of(self, latency: &Latency) -> &[u64] {
        match self {
            Stage::Total => &latency.total,
            Stage::Service => &latency.service,
            Stage::Queue => &latency.queue,
        }
    }
}

/// What was heard.
#[derive(Clone, Debug)]
pub struct Model {
    hello: Option<Hello>,
    ticks: VecDeque<Tick>,
    seconds: VecDeque<Second>,
    open: OpenSecond,
    link: Link,
    heard_at: Duration,
}

/// The second that is still being added up.
#[derive(Clone, Debug, Default)]
struct OpenSecond {
    number: u64,
    rates: Rates,
    ticks: u32,
}

impl Model {
    /// Nothing heard at `now`.
    pub fn new(now: Duration) -> Model {
        Model {
            hello: None,
            ticks: VecDeque::new(),
            seconds: VecDeque::new(),
            open: OpenSecond::default(),
            link: Link::Connecting,
            heard_at: now,
        }
    }

    /// A connection begins, to the same server as before or to another.
    pub fn hear_hello(&mut self, hello: Hello, now: Duration) {
        self.seconds = seconds_of(&hello);
        self.open = OpenSecond::default();
        if self.hello.as_ref().is_none_or(|before| before.started_unix_ms != hello.started_unix_ms) {
            self.ticks.clear();
        }
        self.hello = Some(hello);
        self.link = Link::Live;
        self.heard_at = now;
    }

    /// A tenth of a second more.
    pub fn hear_tick(&mut self, tick: Tick, now: Duration) {
        self.link = Link::Live;
        self.heard_at = now;
        self.add_to_seconds(&tick);
        self.ticks.push_back(tick);
        while self.ticks.len() > self.window_ticks() {
            self.ticks.pop_front();
        }
    }

    /// The link broke, or could not be had again.
    pub fn lose(&mut self, reason: String) {
        self.link = Link::Lost(reason);
    }

    /// What the server said of itself.
    pub fn hello(&self) -> Option<&Hello> {
        self.hello.as_ref()
    }

    /// The last tick.
    pub fn tick(&self) -> Option<&Tick> {
        self.ticks.back()
    }

    /// How the link is.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The last ten minutes at most, oldest first.
    pub fn seconds(&self) -> &VecDeque<Second> {
        &self.seconds
    }

    /// Since when the figures are old, if they are: the link is lost, or nothing came for two seconds.
    pub fn stale(&self, now: Duration) -> Option<Duration> {
        let since = now.saturating_sub(self.heard_at);
        (matches!(self.link, Link::Lost(_)) || since >= STALE).then_some(since)
    }

    /// Whether the ticks heard cover a window.
    pub fn covers_window(&self) -> bool {
        self.hello.is_some() && self.ticks.len() >= self.window_ticks()
    }

    /// Rates over the window.
    pub fn rates(&self) -> Rates {
        let mut mean = Rates::default();
        for tick in &self.ticks {
            mean.add(&tick.rates, 1.0 / self.ticks.len() as f64);
        }
        mean
    }

    /// Shards, what is a rate in them over the window.
    pub fn shards(&self) -> Vec<Shard> {
        let Some(last) = self.ticks.back() else { return Vec::new() };
        let mut shards = last.shards.clone();
        for (place, shard) in shards.iter_mut().enumerate() {
            let mut sums = [0.0; 5];
            let mut count = 0.0;
            for tick in &self.ticks {
                // A shard keeps its place; ticks of another server were dropped with its hello.
                let Some(then) = tick.shards.get(place).filter(|then| then.shard == shard.shard) else { continue };
                count += 1.0;
                let values = [then.busy, then.requests, then.steal, then.switches, then.buffers_exhausted];
                sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            // The last tick itself is among them: `count` is at least one.
            [shard.busy, shard.requests, shard.steal, shard.switches, shard.buffers_exhausted] =
                sums.map(|sum| sum / count);
        }
        shards
    }

    /// A percentile of one stage of `operation` over the last window, in nanoseconds.
    pub fn latency_ns(&self, operation: &str, stage: Stage, percentile: f64) -> Option<u64> {
        let place = self.hello.as_ref()?.percentiles.iter().position(|&known| known == percentile)?;
        stage.of(self.tick()?.latency.get(operation)?).get(place).copied()
    }

    fn window_ticks(&self) -> usize {
        let Some(hello) = &self.hello else { return 1 };
        let ticks = (hello.window_s / hello.interval_s).round();
        if ticks.is_finite() { (ticks.max(1.0) as usize).min(limits::TOP_WINDOW_TICKS_MAX) } else { 1 }
    }

    fn add_to_seconds(&mut self, tick: &Tick) {
        let newest = self.seconds.back().map_or(0, |second| second.unix_ms);
        if tick.unix_ms <= newest {
            // Missed ticks come after a hello whose history has them already. No such tick is older than what the
            // server remembers: then its clock was set back, and what was is no longer comparable.
            if newest - tick.unix_ms > limits::TOP_REPLAY_MS_MAX {
                self.seconds.clear();
                self.open = OpenSecond::default();
            }
            return;
        }
        let number = (tick.unix_ms - 1) / 1000;
        if number != self.open.number && self.open.ticks > 0 {
            self.close_second();
        }
        self.open.number = number;
        self.open.ticks += 1;
        self.open.rates.add(&tick.rates, 1.0);
        if tick.unix_ms.is_multiple_of(1000) {
            // The window that ends here is this second's; with it the second is complete.
            let latencies = self.latencies_of(tick);
            self.push_second(latencies);
        }
    }

    fn close_second(&mut self) {
        let latencies = self.tick().map(|tick| self.latencies_of(tick)).unwrap_or_default();
        self.push_second(latencies);
    }

    fn push_second(&mut self, latencies: [Option<f64>; 4]) {
        let open = std::mem::take(&mut self.open);
        let mut rates = Rates::default();
        rates.add(&open.rates, 1.0 / f64::from(open.ticks.max(1)));
        let [get_p50_ns, get_p99_ns, get_p999_ns, set_p99_ns] = latencies;
        self.seconds.push_back(Second {
            unix_ms: open.number.saturating_add(1).saturating_mul(1000),
            requests: rates.requests,
            hit_share: rates.tiers().map(|[l0, l1, _]| l0 + l1),
            evicted: rates.evicted,
            get_p50_ns,
            get_p99_ns,
            get_p999_ns,
            set_p99_ns,
        });
        while self.seconds.len() > limits::TOP_SECONDS_MAX {
            self.seconds.pop_front();
        }
    }

    fn latencies_of(&self, tick: &Tick) -> [Option<f64>; 4] {
        [("get", 50.0), ("get", 99.0), ("get", 99.9), ("set", 99.0)].map(|(operation, percentile)| {
            let place = self.hello.as_ref()?.percentiles.iter().position(|&known| known == percentile)?;
            Some(*tick.latency.get(operation)?.total.get(place)? as f64)
        })
    }
}

/// The seconds of a hello's history. Columns are found by their names.
fn seconds_of(hello: &Hello) -> VecDeque<Second> {
    let history = &hello.history;
    let interval_s = if history.interval_s > 0.0 { history.interval_s } else { 1.0 };
    let place = |name: &str| history.columns.iter().position(|column| column == name);
    let names = [
        "unix_ms",
        "requests",
        "hits_l0",
        "hits_l1",
        "misses",
        "evicted",
        "get_p50_ns",
        "get_p99_ns",
        "get_p999_ns",
        "set_p99_ns",
    ];
    let places = names.map(place);
    let first = history.rows.len().saturating_sub(limits::TOP_SECONDS_MAX);
    let mut seconds = VecDeque::new();
    for row in &history.rows[first..] {
        let [unix_ms, requests, l0, l1, misses, evicted, p50, p99, p999, set_p99] =
            places.map(|place| *row.get(place?)?);
        let (Some(unix_ms), Some(requests)) = (unix_ms, requests) else { continue };
        let hits = l0.unwrap_or(0.0) + l1.unwrap_or(0.0);
        let reads = hits + misses.unwrap_or(0.0);
        let second = Second {
            unix_ms: unix_ms as u64,
            requests: requests / interval_s,
            hit_share: (reads > 0.0).then(|| hits / reads),
            evicted: evicted.unwrap_or(0.0) / interval_s,
            get_p50_ns: p50,
            get_p99_ns: p99,
            get_p999_ns: p999,
            set_p99_ns: set_p99,
        };
        // Time goes on from row to row, or the row is not believed: charts look for rows by time.
        if seconds.back().is_none_or(|before: &Second| before.unix_ms < second.unix_ms) {
            seconds.push_back(second);
        }
    }
    seconds
}

/// Twenty ticks that did not come.
const STALE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::message::examples;

    const NOW: Duration = Duration::from_secs(100);

    fn ticks_until(model: &mut Model, from_ms: u64, count: u64, change: impl Fn(u64, &mut Tick)) {
        for number in 0..count {
            let mut tick = examples::tick();
            tick.unix_ms = from_ms + number * 100;
            change(number, &mut tick);
            model.hear_tick(tick, NOW);
        }
    }

    #[test]
    fn the_pages_examples_make_a_model() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        assert_eq!(model.seconds().len(), 1);
        let second = &model.seconds()[0];
        assert_eq!((second.requests, second.hit_share, second.get_p99_ns), (120_000.0, Some(0.9), Some(9800.0)));
        model.hear_tick(examples::tick(), NOW);
        assert_eq!(model.latency_ns("get", Stage::Total, 99.0), Some(8000));
        assert_eq!(model.latency_ns("get", Stage::Queue, 100.0), Some(41_000));
        assert_eq!(model.latency_ns("set", Stage::Total, 99.0), None);
        assert_eq!(model.latency_ns("get", Stage::Total, 98.0), None);
        assert!(!model.covers_window());
    }

    #[test]
    fn rates_are_means_over_the_window() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        ticks_until(&mut model, 1_764_140_002_100, 15, |number, tick| {
            tick.rates.requests = number as f64;
            tick.shards[0].busy = number as f64 / 100.0;
        });
        assert!(model.covers_window());
        assert!((model.rates().requests - 9.5).abs() < 1e-9); // of 5 to 14
        assert!((model.shards()[0].busy - 0.095).abs() < 1e-9);
    }

    #[test]
    fn ticks_become_seconds() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        // The history ends at …1000; ten ticks end at …2000, ten more at …3000.
        ticks_until(&mut model, 1_764_140_001_100, 20, |number, tick| tick.rates.requests = number as f64);
        let seconds: Vec<_> = model.seconds().iter().map(|second| (second.unix_ms, second.requests)).collect();
        let expected = [(1_764_140_001_000, 120_000.0), (1_764_140_002_000, 4.5), (1_764_140_003_000, 14.5)];
        assert_eq!(seconds, expected);
        assert_eq!(model.seconds()[2].get_p99_ns, Some(8000.0));
    }

    #[test]
    fn ticks_off_the_full_second_become_seconds_too() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        ticks_until(&mut model, 1_764_140_001_137, 25, |_, _| {});
        let seconds: Vec<_> = model.seconds().iter().map(|second| second.unix_ms % 100_000).collect();
        assert_eq!(seconds, [1000, 2000, 3000]);
    }

    #[test]
    fn missed_ticks_do_not_count_twice() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        ticks_until(&mut model, 1_764_139_990_000, 110, |_, _| {}); // up to the row of the history
        assert_eq!(model.seconds().len(), 1);
    }

    #[test]
    fn a_clock_set_back_begins_anew() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        ticks_until(&mut model, 1_764_000_000_000, 31, |_, _| {});
        assert_eq!(model.seconds().len(), 3);
    }

    #[test]
    fn the_past_is_bounded() {
        let mut model = Model::new(NOW);
        let mut hello = examples::hello();
        let row = hello.history.rows[0].clone();
        hello.history.rows = (0..2000)
            .map(|number| {
                let mut row = row.clone();
                row[0] = Some(number as f64 * 1000.0);
                row
            })
            .collect();
        model.hear_hello(hello, NOW);
        assert_eq!(model.seconds().len(), limits::TOP_SECONDS_MAX);
        ticks_until(&mut model, 3_000_000, 5000, |_, _| {});
        assert_eq!(model.seconds().len(), limits::TOP_SECONDS_MAX);
    }

    #[test]
    fn nonsense_in_a_hello_is_survived() {
        let mut model = Model::new(NOW);
        let mut hello = examples::hello();
        (hello.interval_s, hello.window_s) = (0.0, 0.0);
        hello.history.columns.truncate(3);
        hello.history.rows.push(vec![None]);
        hello.history.rows.push(vec![Some(-1.0), Some(f64::MAX)]);
        model.hear_hello(hello, NOW);
        ticks_until(&mut model, u64::MAX - 10_000, 20, |_, tick| tick.shards.clear());
        assert!(model.shards().is_empty() && model.covers_window());
    }

    #[test]
    fn staleness_is_counted_from_the_last_sign() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        model.hear_tick(examples::tick(), NOW);
        assert_eq!(model.stale(NOW + Duration::from_millis(1900)), None);
        assert_eq!(model.stale(NOW + Duration::from_secs(3)), Some(Duration::from_secs(3)));
        model.lose("gone".to_string());
        assert_eq!(model.stale(NOW + Duration::from_secs(1)), Some(Duration::from_secs(1)));
        model.hear_tick(examples::tick(), NOW + Duration::from_secs(9));
        assert_eq!(model.stale(NOW + Duration::from_secs(9)), None);
    }

    #[test]
    fn another_server_is_not_averaged_with_the_one_before() {
        let mut model = Model::new(NOW);
        model.hear_hello(examples::hello(), NOW);
        model.hear_tick(examples::tick(), NOW);
        let mut hello = examples::hello();
        model.hear_hello(hello.clone(), NOW);
        assert!(model.tick().is_some());
        hello.started_unix_ms += 1;
        model.hear_hello(hello, NOW);
        assert!(model.tick().is_none());
    }
}
