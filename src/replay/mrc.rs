//! Miss-ratio curves: what every capacity would miss, from one pass over a sample of the keys.
//!
//! Keys are sampled by hash, so that a sampled key is seen at all its accesses, and a cache of `rate`
//! times the capacity sees `rate` of the requests: its miss ratio estimates the real one (1). That
//! holds for any policy, by running it in miniature (2), so the curve is the appliance's own and not
//! LRU's. One pass feeds miniatures of all capacities at once. A few hot keys fall into the sample or
//! do not; dividing by the requests expected in it rather than by those found there takes most of
//! that error away (1, "SHARDS-adj").
//!
//! (1) Waldspurger, Park, Garthwaite & Ahmad, "Efficient MRC construction with SHARDS", FAST 2015
//! (2) Waldspurger, Saemundsson, Ahmad & Park, "Cache modeling and optimization using miniature
//!     simulations", USENIX ATC 2017

use serde::Serialize;

use crate::base::prng::mix;
use crate::replay::run::{Capacity, Charge, Policy, new_cache, replay};
use crate::trace::Trace;

/// Miss ratios by capacity.
#[derive(Clone, Debug, Serialize)]
pub struct Curve {
    /// The trace's name.
    pub trace: String,
    /// The policy's name.
    pub policy: &'static str,
    /// Share of the keys that were simulated.
    pub sample_rate: f64,
    /// Requests of the trace, and how many of them were simulated.
    pub requests: u64,
    /// See `requests`.
    pub sampled_requests: u64,
    /// In rising order of capacity.
    pub points: Vec<Point>,
    /// Mean of the points' absolute errors, where exact ratios were asked for.
    pub mean_absolute_error: Option<f64>,
}

/// One capacity.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// Share of the footprint.
    pub share: f64,
    /// In the trace's unit: bytes, or objects.
    pub capacity: u64,
    /// Estimated from the sample.
    pub miss_ratio: f64,
    /// By a full replay at this capacity, where it was asked for.
    pub exact_miss_ratio: Option<f64>,
}

/// Estimates the curve of `policy` in one pass; with `exact` also replays the trace in full at every point.
pub fn curve(name: &str, trace: &Trace, policy: Policy, exact: bool) -> Result<Curve, String> {
    let rate = (SAMPLED_KEYS / trace.unique as f64).clamp(SAMPLE_RATE_MIN, 1.0);
    let threshold = (rate * u64::MAX as f64) as u64;
    let mut points = Vec::new();
    for share in SHARES {
        let capacity = Capacity::Share(share).units(trace, Charge::Payload)?;
        let miniature = (capacity as f64 * rate).round() as u64;
        // Fewer objects than this say nothing.
        let objects = miniature as f64 * trace.unique as f64 / trace.footprint() as f64;
        if objects >= MINIATURE_OBJECTS_MIN {
            points.push((share, capacity, new_cache(policy, Charge::Payload, miniature, trace)?, 0u64));
        }
    }
    if points.is_empty() {
        return Err(format!("{name}: {} objects are too few for a curve; replay it in full", trace.unique));
    }
    let mut sampled_requests = 0;
    for request in &trace.requests {
        if mix(request.key ^ SAMPLE_SALT) <= threshold {
            sampled_requests += 1;
            for (_, _, cache, misses) in &mut points {
                *misses += u64::from(!cache.read(request.key, request.size, request.second));
            }
        }
    }
    let expected = trace.requests.len() as f64 * rate;
    let mut curve = Curve {
        trace: name.to_string(),
        policy: policy.name(),
        sample_rate: rate,
        requests: trace.requests.len() as u64,
        sampled_requests,
        points: Vec::new(),
        mean_absolute_error: None,
    };
    for (share, capacity, _, misses) in points {
        let exact_miss_ratio = match exact {
            true => Some(replay(name, trace, Capacity::Share(share), policy, Charge::Payload)?.miss_ratio),
            false => None,
        };
        let miss_ratio = (misses as f64 / expected).min(1.0);
        curve.points.push(Point { share, capacity, miss_ratio, exact_miss_ratio });
    }
    if exact {
        let errors = curve.points.iter().filter_map(|point| Some((point.exact_miss_ratio? - point.miss_ratio).abs()));
        curve.mean_absolute_error = Some(errors.sum::<f64>() / curve.points.len() as f64);
    }
    Ok(curve)
}

/// Capacities, as shares of the footprint.
const SHARES: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0];
/// Keys to simulate. At 64 thousand the mean error over the published traces is below 0.01 and a pass
/// over twelve capacities costs as much as one or two full replays.
const SAMPLED_KEYS: f64 = 65_536.0;
const SAMPLE_RATE_MIN: f64 = 0.001;
/// Smallest miniature, in mean objects.
const MINIATURE_OBJECTS_MIN: f64 = 32.0;
/// Sampling must not be the store's own hash.
const SAMPLE_SALT: u64 = 0x6d72_6320_7361_6c74;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::prng::Prng;
    use crate::trace::TraceRequest;

    #[test]
    fn a_sample_estimates_what_full_replays_find() {
        let mut prng = Prng::new(4);
        let unique = 200_000;
        let requests = (0..600_000)
            .map(|_| {
                // Squares of a uniform number: skewed, no key dominates.
                let key = (prng.unit().powi(2) * unique as f64) as u64;
                TraceRequest { second: 0, key, size: 1 }
            })
            .collect();
        let trace = Trace { requests, unique, is_unsized: true, footprint_bytes: unique };
        let curve = curve("cubes", &trace, Policy::Lru, true).unwrap();
        assert!(curve.sample_rate < 0.4 && curve.points.len() > 8);
        assert!(curve.mean_absolute_error.unwrap() < 0.01, "{curve:#?}");
        assert!(curve.points.is_sorted_by(|a, b| a.miss_ratio >= b.miss_ratio));
    }
}
