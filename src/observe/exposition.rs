//! Numbers as Prometheus reads them: the text format 0.0.4, or OpenMetrics 1.0.
//!
//! The two differ in where a counter's `_total` stands, in `# UNIT`, exemplars and the mark at the end, so one writer does
//! both (`promtool check metrics` and older scrapers read the first, Prometheus itself asks for the second). No library
//! writes both from a snapshot; that is what these hundred lines are for.
//!
//!   # HELP spinetail_requests Requests answered.           OpenMetrics: the family
//!   # TYPE spinetail_requests counter
//!   spinetail_requests_total{shard="0",operation="get"} 7   both: the sample
//!
//! (1) prometheus.io/docs/instrumenting/exposition_formats  (2) OpenMetrics 1.0

use std::fmt::Write;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

/// What a family's samples are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A number that only grows; its samples end in `_total`.
    Counter,
    /// A number.
    Gauge,
    /// Counts up to bounds.
    Histogram,
}

/// A sample's value, written so that nothing of it is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// Anything else.
    Float(f64),
}

/// Where a slow value came from, for a bucket of OpenMetrics.
#[derive(Clone, Copy, Debug)]
pub struct Exemplar<'a> {
    /// One label.
    pub label: (&'a str, &'a str),
    /// The value itself.
    pub value: f64,
    /// Seconds of Unix time.
    pub at: f64,
}

/// A page of metrics that is being written.
pub struct Exposition {
    format: Format,
    out: String,
}

/// One family, to which samples are added.
pub struct Family<'a> {
    page: &'a mut Exposition,
    name: &'a str,
    kind: Kind,
}

impl Format {
    /// The one that the `Accept` header of a scraper asks for.
    pub fn accepted(accept: &str) -> Format {
        match accept.contains("application/openmetrics-text") {
            true => Format::OpenMetrics,
            false => Format::Text,
        }
    }

    /// What it is called in `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

impl From<u64> for Number {
    fn from(value: u64) -> Number {
        Number::Whole(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number::Float(value)
    }
}

impl Exposition {
    /// An empty page.
    pub fn new(format: Format) -> Exposition {
        Exposition { format, out: String::with_capacity(PAGE_BYTES) }
    }

    /// Begins a family. `name` has no `_total`, and ends in its unit if it has one.
    pub fn family<'a>(&'a mut self, kind: Kind, name: &'a str, help: &str) -> Family<'a> {
        let suffix = if kind == Kind::Counter && self.format == Format::Text { "_total" } else { "" };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let mut help = help.replace('\\', "\\\\").replace('\n', "\\n");
        if self.format == Format::OpenMetrics {
            help = help.replace('"', "\\\"");
        }
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.out, "# HELP {name}{suffix} {help}");
        let _ = writeln!(self.out, "# TYPE {name}{suffix} {word}");
        if self.format == Format::OpenMetrics
            && let Some(unit) = ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit))
        {
            let _ = writeln!(self.out, "# UNIT {name} {unit}");
        }
        Family { page: self, name, kind }
    }

    /// The whole page.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
        self.out
    }
}

impl Family<'_> {
    /// Adds a sample.
    pub fn add(&mut self, labels: &[(&str, &str)], value: impl Into<Number>) {
        let suffix = if self.kind == Kind::Counter { "_total" } else { "" };
        self.sample(suffix, labels, None, value.into());
        self.page.out.push('\n');
    }

    /// Adds a histogram: how many values were at most each of `bounds`, all of them, and their sum.
    pub fn add_histogram(
        &mut self,
        labels: &[(&str, &str)],
        within: &[(f64, u64)],
        count: u64,
        sum: f64,
        exemplar: Option<Exemplar<'_>>,
    ) {
        let mut exemplar = exemplar.filter(|_| self.page.format == Format::OpenMetrics);
        for (bound, within) in within.iter().copied().chain([(f64::INFINITY, count)]) {
            self.sample("_bucket", labels, Some(bound), Number::Whole(within));
            if let Some(Exemplar { label, value, at }) = exemplar.take_if(|exemplar| exemplar.value <= bound) {
                let _ = write!(self.page.out, " # {{{}=\"", label.0);
                escape(label.1, &mut self.page.out);
                let _ = write!(self.page.out, "\"}} {} {at:.3}", Shown(Number::Float(value)));
            }
            self.page.out.push('\n');
        }
        for (suffix, value) in [("_sum", Number::Float(sum)), ("_count", Number::Whole(count))] {
            self.sample(suffix, labels, None, value);
            self.page.out.push('\n');
        }
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<f64>, value: Number) {
        let out = &mut self.page.out;
        out.push_str(self.name);
        out.push_str(suffix);
        let mut before = '{';
        for (name, text) in labels {
            out.push(before);
            before = ',';
            out.push_str(name);
            out.push_str("=\"");
            escape(text, out);
            out.push('"');
        }
        if let Some(bound) = bound {
            let _ = write!(out, "{before}le=\"{}\"", Shown(Number::Float(bound)));
            before = ',';
        }
        if before == ',' {
            out.push('}');
        }
        let _ = write!(out, " {}", Shown(value));
    }
}

struct Shown(Number);

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Number::Whole(value) => write!(f, "{value}"),
            Number::Float(value) if value == f64::INFINITY => f.write_str("+Inf"),
            Number::Float(value) if value == value.trunc() && value.abs() < 1e15 => write!(f, "{value:.1}"),
            Number::Float(value) => write!(f, "{value}"),
        }
    }
}

/// A label's value between its quotes: whatever it holds, it stays there.
fn escape(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            other => out.push(other),
        }
    }
}

/// What a page is expected to hold.
const PAGE_BYTES: usize = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn page(format: Format) -> String {
        let mut page = Exposition::new(format);
        let mut family = page.family(Kind::Counter, "spinetail_requests", "Requests\nanswered.");
        family.add(&[("shard", "0"), ("tenant", "a\"b\\c\nd} 5")], 7u64);
        page.family(Kind::Gauge, "spinetail_up_seconds", "Time.").add(&[], 1.5);
        let mut family = page.family(Kind::Histogram, "spinetail_request_duration_seconds", "Latency.");
        let exemplar = Exemplar { label: ("shard", "3"), value: 0.0004, at: 12.0 };
        family.add_histogram(&[("operation", "get")], &[(0.000001, 1), (0.001, 4)], 5, 2.0, Some(exemplar));
        page.finish()
    }

    #[test]
    fn prometheus_text_is_as_its_specification_says() {
        assert_eq!(
            page(Format::Text),
            r#"# HELP spinetail_requests_total Requests\nanswered.
# TYPE spinetail_requests_total counter
spinetail_requests_total{shard="0",tenant="a\"b\\c\nd} 5"} 7
# HELP spinetail_up_seconds Time.
# TYPE spinetail_up_seconds gauge
spinetail_up_seconds 1.5
# HELP spinetail_request_duration_seconds Latency.
# TYPE spinetail_request_duration_seconds histogram
spinetail_request_duration_seconds_bucket{operation="get",le="0.000001"} 1
spinetail_request_duration_seconds_bucket{operation="get",le="0.001"} 4
spinetail_request_duration_seconds_bucket{operation="get",le="+Inf"} 5
spinetail_request_duration_seconds_sum{operation="get"} 2.0
spinetail_request_duration_seconds_count{operation="get"} 5
"#
        );
    }

    #[test]
    fn open_metrics_has_units_exemplars_and_an_end() {
        let page = page(Format::OpenMetrics);
        assert!(page.starts_with("# HELP spinetail_requests Requests"), "{page}");
        assert!(page.contains("\n# UNIT spinetail_up_seconds seconds\n") && page.ends_with("\n# EOF\n"), "{page}");
        assert!(page.contains("le=\"0.001\"} 4 # {shard=\"3\"} 0.0004 12.000\n"), "{page}");
        assert_eq!(page.matches('#').count(), 3 * 2 + 2 + 1 + 1);
    }

    #[test]
    fn the_format_is_what_is_accepted() {
        assert_eq!(Format::accepted("*/*"), Format::Text);
        assert_eq!(
            Format::accepted("application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"),
            Format::OpenMetrics
        );
    }
}
