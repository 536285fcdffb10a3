//! What one load run measured, and its three plain faces: JSON for programs, a table for the
//! terminal, and HdrHistogram's percentile text for the plotters people already trust.
//!
//! Latencies are whole histograms until the moment they are printed: percentiles can be read off
//! a histogram but never averaged or merged afterwards.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Everything one load run measured.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Where the load went, as given: `native://127.0.0.1:7700`.
    pub target: String,
    /// Seed of the keys and of the arrivals; the same seed sends the same requests.
    pub seed: u64,
    /// Measured seconds, warm-up left out.
    pub duration_s: f64,
    /// Requests per second the schedule asked for; `None` = as fast as possible.
    pub offered_rps: Option<f64>,
    /// Requests per second that were answered.
    pub achieved_rps: f64,
    /// Requests answered, errors included.
    pub requests: u64,
    /// Requests answered with an error, or not at all.
    pub errors: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// `misses / (hits + misses)`, 0 to 1.
    pub miss_ratio: f64,
    /// Latencies by operation name: `get`, `set`.
    pub operations: BTreeMap<String, Operation>,
    /// The run second by second, in order.
    pub seconds: Vec<Second>,
    /// Cost of one clock read in nanoseconds: what every latency contains and no server caused.
    pub timer_ns: u64,
}

/// One kind of request.
#[derive(Debug, Clone)]
pub struct Operation {
    /// Requests of this kind.
    pub count: u64,
    /// Nanoseconds from the moment a request was due until its answer was read.
    pub latency: Histogram<u64>,
}

/// One second of a run, all operations together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Second {
    /// Seconds since the measurement began.
    pub second: u32,
    /// Requests answered within it; 0 = a stall, and its latencies mean nothing.
    pub requests: u64,
    /// Errors within it.
    pub errors: u64,
    /// Median latency in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile in nanoseconds.
    pub p99_ns: u64,
    /// Slowest request in nanoseconds.
    pub max_ns: u64,
}

impl Outcome {
    /// The run as JSON, latencies in nanoseconds. An operation that never ran prints zeros, a run
    /// without a schedule prints `"offered_rps": null`.
    pub fn to_json(&self) -> Value {
        let operations: serde_json::Map<String, Value> = self
            .operations
            .iter()
            .map(|(name, operation)| {
                let latency = &operation.latency;
                let at = |quantile| latency.value_at_quantile(quantile);
                let latency_ns = json!({
                    "min": latency.min(), "mean": finite(latency.mean()), "p50": at(0.5), "p90": at(0.9),
                    "p99": at(0.99), "p999": at(0.999), "p9999": at(0.9999), "max": latency.max(),
                });
                (name.clone(), json!({ "count": operation.count, "latency_ns": latency_ns }))
            })
            .collect();
        let seconds: Vec<Value> = self
            .seconds
            .iter()
            .map(|s| {
                json!({
                    "second": s.second, "requests": s.requests, "errors": s.errors,
                    "p50_ns": s.p50_ns, "p99_ns": s.p99_ns, "max_ns": s.max_ns,
                })
            })
            .collect();
        json!({
            "target": self.target,
            "seed": self.seed,
            "duration_s": finite(self.duration_s),
            "offered_rps": self.offered_rps.map(finite),
            "achieved_rps": finite(self.achieved_rps),
            "requests": self.requests,
            "errors": self.errors,
            "hits": self.hits,
            "misses": self.misses,
            "miss_ratio": finite(self.miss_ratio),
            "operations": operations,
            "timer_ns": self.timer_ns,
            "seconds": seconds,
        })
    }

    /// The terminal table: a row per operation, then one line about the whole run.
    pub fn table(&self) -> String {
        let header = ["operation", "count", "min", "p50", "p90", "p99", "p99.9", "p99.99", "max"].map(String::from);
        let rows = self.operations.iter().map(|(name, operation)| {
            let [p50, p90, p99, p999, p9999, max] = percentiles(&operation.latency).map(duration);
            [name.clone(), grouped(operation.count), duration(operation.latency.min()), p50, p90, p99, p999, p9999, max]
        });
        let rows: Vec<[String; 9]> = std::iter::once(header).chain(rows).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 9] = std::array::from_fn(width);
        let mut table = String::new();
        for row in &rows {
            let _ = write!(table, "{:<width$}", row[0], width = widths[0]);
            for (cell, width) in row.iter().zip(widths).skip(1) {
                let _ = write!(table, "  {cell:>width$}");
            }
            table.push('\n');
        }
        let offered =
            self.offered_rps.map_or("as fast as possible".to_string(), |rps| format!("{} offered", rate(rps)));
        let _ = writeln!(
            table,
            "requests {} | rps {} achieved, {offered} | errors {} | hits {} | misses {} | miss ratio {:.4}",
            grouped(self.requests),
            rate(self.achieved_rps),
            grouped(self.errors),
            grouped(self.hits),
            grouped(self.misses),
            finite(self.miss_ratio),
        );
        let _ = writeln!(table, "timer {} ns, which every latency contains", self.timer_ns);
        table
    }

    /// All operations merged, in HdrHistogram's percentile text (`.hgrm`), values in microseconds.
    ///
    /// Columns and footer are those of the Java and C printers with five ticks per half distance.
    /// Like theirs, the last row has no fourth column: 1/(1-1) is no number.
    pub fn hgrm(&self) -> String {
        let merged = self.merged();
        let mut text =
            format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
        let mut total = 0;
        for step in merged.iter_quantiles(HGRM_TICKS_PER_HALF_DISTANCE) {
            total += step.count_since_last_iteration();
            let (value, quantile) = (step.value_iterated_to() as f64 / NS_PER_US, step.quantile_iterated_to());
            let _ = write!(text, "{value:>12.3} {quantile:>14.12} {total:>10}");
            if quantile < 1.0 {
                let _ = write!(text, " {:>14.2}", 1.0 / (1.0 - quantile));
            }
            text.push('\n');
        }
        let [mean, deviation, max] =
            [merged.mean(), merged.stdev(), merged.max() as f64].map(|ns| finite(ns) / NS_PER_US);
        let sub_buckets = (2 * 10_u64.pow(u32::from(merged.sigfig()))).next_power_of_two();
        let _ = writeln!(text, "#[Mean    = {mean:>12.3}, StdDeviation   = {deviation:>12.3}]");
        let _ = writeln!(text, "#[Max     = {max:>12.3}, Total count    = {:>12}]", merged.len());
        let _ = writeln!(text, "#[Buckets = {:>12}, SubBuckets     = {sub_buckets:>12}]", merged.buckets());
        text
    }

    /// One histogram of every operation, as precise as the most precise of them.
    fn merged(&self) -> Histogram<u64> {
        let mut histograms = self.operations.values().map(|operation| &operation.latency);
        let Some(finest) = histograms.clone().max_by_key(|histogram| histogram.sigfig()) else {
            return Histogram::new(3).expect("3 digits lie within the 0 to 5 the library allows");
        };
        let mut merged = Histogram::new_from(finest);
        merged.auto(true);
        histograms.try_for_each(|h| merged.add(h)).expect("a resizing histogram has room for any value");
        merged
    }
}

/// `latency` over log10(1/(1-p)), from the fastest request to the slowest; at
/// least 1 ns, for logarithms, and no deeper than `depth_max`.
pub(crate) fn percentile_points(latency: &Histogram<u64>, depth_max: f64) -> Vec<(f64, f64)> {
    let depth = (latency.len().max(1) as f64).log10().min(depth_max);
    let steps = (depth * POINTS_PER_DECADE).ceil();
    let mut points: Vec<(f64, f64)> = Vec::new();
    for step in 0..=steps as u32 {
        let at = if steps > 0.0 { depth * f64::from(step) / steps } else { 0.0 };
        let value = latency.value_at_quantile(1.0 - 10_f64.powf(-at)).max(1) as f64;
        // Of a flat run only its ends are needed.
        if let [.., (_, before), (_, last)] = points[..]
            && before == value
            && last == value
        {
            points.pop();
        }
        points.push((at, value));
    }
    points.push((depth, latency.max().max(1) as f64));
    points
}

/// Some whole seconds of the run, drawn as one point.
pub(crate) struct Span {
    pub(crate) middle: f64,  // in seconds, like the next
    pub(crate) covered: f64, // shorter than the others at the end of a run
    pub(crate) rps: f64,
    pub(crate) errors: u64,
    pub(crate) latency: Option<[u64; 3]>, // p50, p99, max in ns; `None` = nothing was answered
}

/// The run cut into at most `SPANS_MAX` spans, and the seconds in each. A second that is missing
/// from the record answered nothing, and is drawn so.
pub(crate) fn spans(seconds: &[Second]) -> (Vec<Span>, f64) {
    let first = seconds.iter().map(|s| s.second).min().unwrap_or(0);
    let last = seconds.iter().map(|s| s.second).max().unwrap_or(0);
    let count = u64::from(last - first) + 1;
    let width = count.div_ceil(SPANS_MAX);
    let mut members: Vec<Vec<&Second>> = vec![Vec::new(); count.div_ceil(width) as usize];
    for second in seconds {
        members[(u64::from(second.second - first) / width) as usize].push(second);
    }
    let span = |(index, members): (usize, Vec<&Second>)| {
        let start = index as u64 * width;
        let covered = width.min(count - start) as f64;
        let mut busy: Vec<&Second> = members.iter().copied().filter(|s| s.requests > 0).collect();
        busy.sort_unstable_by_key(|s| s.p50_ns);
        let highest = |of: fn(&Second) -> u64| busy.iter().map(|s| of(s)).max().unwrap_or(0);
        Span {
            middle: f64::from(first) + start as f64 + covered / 2.0,
            covered,
            rps: members.iter().map(|s| s.requests as f64).sum::<f64>() / covered,
            errors: members.iter().map(|s| s.errors).sum(),
            latency: busy
                .get(busy.len() / 2)
                .map(|median| [median.p50_ns, highest(|s| s.p99_ns), highest(|s| s.max_ns)]),
        }
    };
    (members.into_iter().enumerate().map(span).collect(), width as f64)
}

/// p50, p90, p99, p99.9, p99.99 and max of `latency`, in nanoseconds; zeros when it is empty.
pub(crate) fn percentiles(latency: &Histogram<u64>) -> [u64; 6] {
    [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0].map(|quantile| latency.value_at_quantile(quantile))
}

/// `ns` for people: three significant digits and the unit that keeps the number under 1000.
pub(crate) fn duration(ns: u64) -> String {
    let mut value = ns as f64;
    let mut unit = "ns";
    for larger in ["µs", "ms", "s"] {
        // 999.5 would print as 1000 once rounded to three digits.
        if value < 999.5 {
            break;
        }
        value /= 1000.0;
        unit = larger;
    }
    let decimals = match value {
        _ if unit == "ns" => 0,
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// `count` with its thousands set apart by commas.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A rate as a whole number per second, or with one decimal below ten.
pub(crate) fn rate(rps: f64) -> String {
    let rps = finite(rps).max(0.0);
    if rps < 9.95 && rps.fract() != 0.0 { format!("{rps:.1}") } else { grouped(rps.round() as u64) }
}

/// `value`, or 0 for what a division by no requests leaves behind: JSON and pictures know no NaN.
pub(crate) fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 0.0 }
}

const NS_PER_US: f64 = 1000.0;
const POINTS_PER_DECADE: f64 = 48.0;
const SPANS_MAX: u64 = 600; // finer than a screen shows along a time axis
const HGRM_TICKS_PER_HALF_DISTANCE: u32 = 5; // what the other printers default to

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn outcome(operations: &[(&str, &[u64])]) -> Outcome {
        let operations = operations.iter().map(|(name, values)| {
            let mut latency = Histogram::new(3).unwrap();
            values.iter().for_each(|&ns| latency.record(ns).unwrap());
            (name.to_string(), Operation { count: values.len() as u64, latency })
        });
        Outcome {
            target: "native://127.0.0.1:7700".into(),
            seed: 7,
            duration_s: 2.0,
            offered_rps: None,
            achieved_rps: 1234.5,
            requests: 2469,
            errors: 1,
            hits: 3,
            misses: 1,
            miss_ratio: 0.25,
            operations: operations.collect(),
            seconds: vec![second(0, 9)],
            timer_ns: 21,
        }
    }

    fn keys(value: &Value) -> Vec<&str> {
        value.as_object().unwrap().keys().map(String::as_str).collect()
    }

    #[test]
    fn json_has_exactly_the_promised_keys() {
        let json = outcome(&[("get", &[1000, 2000]), ("set", &[])]).to_json();
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names
        };
        let mut top = keys(&json);
        top.sort_unstable();
        let expected = "target seed duration_s offered_rps achieved_rps requests errors hits misses miss_ratio \
                        operations timer_ns seconds";
        assert_eq!(top, sorted(expected.split_whitespace().collect()));
        assert_eq!(keys(&json["operations"]), ["get", "set"]);
        let mut get = keys(&json["operations"]["get"]["latency_ns"]);
        get.sort_unstable();
        assert_eq!(get, sorted("min mean p50 p90 p99 p999 p9999 max".split(' ').collect()));
        assert_eq!(keys(&json["operations"]["get"]).len(), 2);
        assert!(json["offered_rps"].is_null());
        assert_eq!(json["seconds"][0]["max_ns"], 7);
        for (key, zero) in json["operations"]["set"]["latency_ns"].as_object().unwrap() {
            assert_eq!(zero.as_f64(), Some(0.0), "{key} of an empty histogram");
        }
    }

    #[test]
    fn hgrm_reads_back_as_the_same_percentiles() {
        let values: Vec<u64> = (1..=20_000).map(|n| n * n % 7_919_317 + 900).collect();
        let (gets, sets) = values.split_at(15_000);
        let run = outcome(&[("get", gets), ("set", sets)]);
        let (text, merged) = (run.hgrm(), run.merged());
        assert_eq!(merged.len(), 20_000);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|field| field.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 50);
        for row in &rows {
            // A rank that falls exactly on a border may round to either side of it.
            let (quantile, ns) = (row[1], (row[0] * 1000.0).round() as u64);
            let [low, high] = [-1e-9, 1e-9].map(|nudge| merged.value_at_quantile(quantile + nudge));
            assert!((low..=high).contains(&ns), "{quantile}: {ns} printed, {low} to {high} recorded");
            assert_eq!(merged.count_between(0, ns), row[2] as u64);
            assert!(row.len() == 3 || (row[3] * (1.0 - quantile) - 1.0).abs() < 0.01);
        }
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2], last.len()), (1.0, 20_000.0, 3));
        assert!(text.starts_with("       Value     Percentile TotalCount 1/(1-Percentile)\n\n"));
        assert!(text.contains("SubBuckets     =         2048]"));
    }

    #[test]
    fn hgrm_of_nothing_is_header_and_footer() {
        for run in [outcome(&[]), outcome(&[("get", &[])])] {
            assert_eq!(run.hgrm().lines().count(), 5);
            assert!(!run.hgrm().contains("NaN"));
        }
    }

    #[test]
    fn histograms_of_unequal_reach_and_precision_merge() {
        let mut run = outcome(&[("get", &[u64::MAX / 4]), ("set", &[5])]);
        let mut coarse = Histogram::new_with_bounds(1, 1_000_000, 1).unwrap();
        coarse.record(77).unwrap();
        run.operations.insert("delete".into(), Operation { count: 1, latency: coarse });
        assert_eq!((run.merged().len(), run.merged().sigfig()), (3, 3));
    }

    #[test]
    fn durations_keep_three_digits_across_unit_borders() {
        let shown =
            [0, 812, 999, 1000, 9_994, 9_996, 99_960, 999_499, 999_500, 12_345_678, 2_300_000_000].map(duration);
        let expected = "0 ns,812 ns,999 ns,1.00 µs,9.99 µs,10.0 µs,100 µs,999 µs,1.00 ms,12.3 ms,2.30 s";
        assert_eq!(shown.join(","), expected);
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((rate(f64::NAN), rate(2.5), rate(999.6)), ("0".into(), "2.5".into(), "1,000".into()));
    }

    #[test]
    fn table_columns_line_up() {
        let table = outcome(&[("get", &[800, 1_200_000]), ("set", &[15_000])]).table();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(lines[..3].iter().all(|line| line.chars().count() == lines[0].chars().count()), "{table}");
        assert!(lines[3].contains("as fast as possible") && lines[3].contains("miss ratio 0.2500"));
    }

    fn second(second: u32, requests: u64) -> Second {
        Second { second, requests, errors: 1, p50_ns: 5, p99_ns: 6, max_ns: 7 }
    }

    #[test]
    fn a_second_missing_from_the_record_answered_nothing() {
        let (spans, width) = spans(&[second(3, 10), second(5, 20)]);
        assert_eq!((spans.len(), width), (3, 1.0));
        assert!(spans[1].latency.is_none() && spans[1].rps == 0.0);
        assert_eq!(spans[2].latency, Some([5, 6, 7]));
    }

    #[test]
    fn a_long_run_keeps_its_worst_second() {
        let mut seconds: Vec<Second> = (0..5_000).map(|at| second(at, 100)).collect();
        seconds[4_321].max_ns = 77_000_000;
        let (spans, width) = spans(&seconds);
        assert!(spans.len() <= SPANS_MAX as usize && width > 1.0);
        assert_eq!(spans.iter().filter_map(|span| span.latency).map(|l| l[2]).max(), Some(77_000_000));
        assert!(spans.iter().all(|span| span.rps == 100.0));
    }
}
