//! What a run consists of.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::base::units::parse_duration;
use crate::client::Endpoint;
use crate::load::dialect::Dialect;
use crate::load::keys::Distribution;
use crate::trace::Trace;

/// A load to put on a server.
#[derive(Clone)]
pub struct Plan {
    /// Where the server is reached.
    pub endpoint: Endpoint,
    /// The socket where its L0 tables are given out, if the load reads in shared memory.
    pub l0: Option<PathBuf>,
    /// What it speaks.
    pub dialect: Dialect,
    /// What to call it in the outcome.
    pub target: String,
    /// Connections, over all threads.
    pub connections: usize,
    /// Most requests under way on each.
    pub pipeline: usize,
    /// Requests that one more connection sends in one burst after the other, uncounted: a neighbour with a
    /// deep pipeline. 0 for none.
    pub deep: usize,
    /// Requests a second, or as fast as answers come.
    pub rate: Option<f64>,
    /// How requests of a given rate are spaced.
    pub arrivals: Arrivals,
    /// How long to measure; a trace may end earlier.
    pub duration: Option<Duration>,
    /// How long to run before measuring.
    pub warmup: Duration,
    /// Distinct keys.
    pub keys: u64,
    /// Bytes of a key.
    pub key_bytes: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Share of GETs; the rest are SETs.
    pub gets: f64,
    /// Which keys.
    pub distribution: Distribution,
    /// Rows to replay in place of a distribution.
    pub trace: Option<Arc<Trace>>,
    /// Write every key before.
    pub fill: bool,
    /// Write what a GET did not find.
    pub set_on_miss: bool,
    /// Time to live of what is written, 0 for none.
    pub ttl_ms: u64,
    /// Every value carries its key and version, every answer is checked.
    pub verify: bool,
    /// Which connection a request takes.
    pub route: Route,
    /// The seed of every choice.
    pub seed: u64,
    /// Cores to run on, one thread each; empty for one thread anywhere.
    pub cores: Vec<usize>,
    /// Counts keys as the fill writes them, for whoever draws a progress bar.
    pub filled: Arc<AtomicU64>,
}

/// How requests of a given rate are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Uniform,
    /// As independent users would come: exponential gaps.
    Poisson,
}

/// Which connection a request takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// One of the shard that owns the key, as the native client does.
    Owner,
    /// Any: the server forwards.
    Any,
}

/// `p99<200us`: what a rate must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Between 0 and 1.
    pub quantile: f64,
    /// Nanoseconds.
    pub latency_ns: u64,
}

impl Objective {
    /// Reads the command line's form: `p50`, `p99`, `p999` (99.9 %), … `<` duration.
    pub fn parse(text: &str) -> Result<Objective, String> {
        let complaint = || format!("'{text}' is no objective: write a percentile and a bound, like p99<200us");
        let (percentile, bound) = text.split_once('<').ok_or_else(complaint)?;
        let digits = percentile.strip_prefix('p').filter(|digits| digits.len() >= 2).ok_or_else(complaint)?;
        let number: f64 = digits.parse::<u32>().map_err(|_| complaint())?.into();
        let quantile = number / 10f64.powi(digits.len() as i32);
        Ok(Objective { quantile, latency_ns: parse_duration(bound)?.as_nanos() as u64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objectives_are_read_and_refused() {
        assert_eq!(Objective::parse("p99<200us"), Ok(Objective { quantile: 0.99, latency_ns: 200_000 }));
        assert_eq!(Objective::parse("p9999<1ms"), Ok(Objective { quantile: 0.9999, latency_ns: 1_000_000 }));
        for text in ["p99", "p9<1ms", "99<1ms", "p99<fast", "pxx<1ms"] {
            assert!(Objective::parse(text).is_err(), "{text}");
        }
    }
}
