//! The report of load runs: one HTML file that opens offline, on a phone, in the dark and on paper.
//!
//!   summary table | overview of `get` | per section: facts, percentile curve, the run over time
//!
//! Pictures are inline SVG. Frame and labels stand in pixels and percent, so text keeps its size
//! on every screen; only the curves live in a stretched `viewBox` (strokes told not to stretch).
//! Each curve also carries its exact values in `data-points`, which report.js reads on hover; the
//! page says everything without it. For comparison the percentile axis is the same in every plot:
//! log10(1/(1-p)), one decade per further nine, to the depth of the largest histogram.

use crate::load::outcome::{Outcome, Span, duration, finite, grouped, percentile_points, percentiles, rate, spans};
use hdrhistogram::Histogram;
use std::fmt::Write;

/// One run in the report.
#[derive(Debug, Clone)]
pub struct Section {
    /// What was run: `native, 50 connections`.
    pub name: String,
    /// A sentence for the reader; may be empty.
    pub note: String,
    /// What it measured.
    pub outcome: Outcome,
}

/// The whole report as HTML. `host` is printed as given: fact and value, in order.
pub fn render(title: &str, host: &[(String, String)], sections: &[Section]) -> String {
    let histograms = sections.iter().flat_map(|section| section.outcome.operations.values());
    let deepest = histograms.map(|operation| operation.latency.len()).max().unwrap_or(0);
    let depth = (deepest.max(1) as f64).log10().ceil().clamp(DEPTH_MIN, DEPTH_MAX);
    let title = escape(title);
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n<style>\n{STYLE}</style>\n\
         </head>\n<body>\n<main>\n\
         <header>\n<h1>{title}</h1>\n<p class=\"lead\">{EXPLANATION}.</p>\n"
    );
    if !host.is_empty() {
        html.push_str("<table class=\"host\"><caption>Host</caption><tbody>\n");
        for (fact, value) in host {
            let _ = writeln!(html, "<tr><th scope=\"row\">{}</th><td>{}</td></tr>", escape(fact), escape(value));
        }
        html.push_str("</tbody></table>\n");
    }
    html.push_str("</header>\n");
    html.push_str(&summary(sections));
    if sections.len() > 1 {
        html.push_str(&overview(sections, depth));
    }
    for (index, section) in sections.iter().enumerate() {
        html.push_str(&section_html(index + 1, section, depth));
    }
    let _ = write!(
        html,
        "<footer><p>Percentiles come from HDR histograms and are never averaged. The raw results are inside this \
         file, as JSON in <code>script</code> elements <code>outcome-1</code>, <code>outcome-2</code>, …\
         </p></footer>\n\
         </main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
    );
    html
}

fn summary(sections: &[Section]) -> String {
    let mut html = String::from(
        "<section>\n<h2>Latency</h2>\n<div class=\"scroll\"><table class=\"summary\"><thead><tr>\
         <th scope=\"col\">run</th><th scope=\"col\">operation</th><th scope=\"col\">count</th>",
    );
    for name in ["p50", "p90", "p99", "p99.9", "p99.99", "max"] {
        let _ = write!(html, "<th scope=\"col\" class=\"ns\">{name}</th>");
    }
    html.push_str("</tr></thead>\n");
    for (index, section) in sections.iter().enumerate() {
        let (number, name, operations) = (index + 1, escape(&section.name), &section.outcome.operations);
        let rows = operations.len().max(1);
        let _ = write!(
            html,
            "<tbody><tr><th scope=\"rowgroup\" rowspan=\"{rows}\"><a href=\"#run-{number}\">{name}</a></th>"
        );
        for (row, (operation, measured)) in operations.iter().enumerate() {
            let next = if row > 0 { "<tr>" } else { "" };
            let _ =
                write!(html, "{next}<td class=\"op\">{}</td><td>{}</td>", escape(operation), grouped(measured.count));
            for ns in percentiles(&measured.latency) {
                // An operation that never ran has no latency; 0 ns would read as a very good one.
                let cell = if measured.latency.is_empty() { "–".to_string() } else { with_unit(ns) };
                let _ = write!(html, "<td class=\"ns\">{cell}</td>");
            }
            html.push_str("</tr>\n");
        }
        if operations.is_empty() {
            html.push_str("<td class=\"op\" colspan=\"8\">no operation ran</td></tr>\n");
        }
        html.push_str("</tbody>\n");
    }
    html.push_str("</table></div>\n</section>\n");
    html
}

fn overview(sections: &[Section], depth: f64) -> String {
    let gets = sections.iter().filter_map(|s| Some((s.name.as_str(), &s.outcome.operations.get("get")?.latency)));
    let plot = percentile_figure("get, every run", gets, depth);
    if plot.is_empty() { plot } else { format!("<section>\n<h2>Overview</h2>\n{plot}</section>\n") }
}

fn section_html(number: usize, section: &Section, depth: f64) -> String {
    let outcome = &section.outcome;
    let mut html = format!("<section class=\"run\" id=\"run-{number}\">\n<h2>{}</h2>\n", escape(&section.name));
    if !section.note.is_empty() {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(&section.note));
    }
    html.push_str(&facts(outcome));
    let histograms = outcome.operations.iter().map(|(name, operation)| (name.as_str(), &operation.latency));
    let curve = percentile_figure("Latency by percentile", histograms, depth);
    html.push_str(if curve.is_empty() { "<p class=\"empty\">No request was measured.</p>\n" } else { &curve });
    html.push_str(&time_figure(outcome));
    // Every `<` leaves as an escape: neither `</script>` nor `<!--` can then end the element early.
    let json = outcome.to_json().to_string().replace('<', "\\u003c");
    let _ = writeln!(html, "<script type=\"application/json\" id=\"outcome-{number}\">{json}</script>\n</section>");
    html
}

fn facts(outcome: &Outcome) -> String {
    let reads = outcome.hits + outcome.misses;
    let behind = outcome.offered_rps.is_some_and(|offered| outcome.achieved_rps < offered * KEPT_UP_SHARE);
    let offered =
        outcome.offered_rps.map_or("as fast as possible, no schedule".into(), |rps| format!("{}/s", rate(rps)));
    let achieved = format!("{}/s{}", rate(outcome.achieved_rps), if behind { ", fell behind" } else { "" });
    let percent = finite(outcome.miss_ratio) * 100.0;
    let facts = [
        ("offered", offered, false),
        ("achieved", achieved, behind),
        ("requests", grouped(outcome.requests), false),
        ("errors", grouped(outcome.errors), outcome.errors > 0),
        ("miss ratio", format!("{percent:.2} % of {} reads", grouped(reads)), false),
        ("measured for", format!("{:.1} s", finite(outcome.duration_s)), false),
        ("seed", outcome.seed.to_string(), false),
        ("clock read", format!("{} ns", outcome.timer_ns), false),
        ("target", outcome.target.clone(), false),
    ];
    let mut html = String::from("<dl class=\"facts\">\n");
    for (name, value, bad) in facts {
        let class = if bad { " class=\"bad\"" } else { "" };
        let _ = writeln!(html, "<div{class}><dt>{name}</dt><dd>{}</dd></div>", escape(&value));
    }
    html.push_str("</dl>\n");
    html
}

/// The percentile curves of `histograms`; empty when none of them holds a value.
fn percentile_figure<'a>(
    name: &str,
    histograms: impl Iterator<Item = (&'a str, &'a Histogram<u64>)>,
    depth: f64,
) -> String {
    let curve = |(style, (name, latency)): (usize, (&str, &Histogram<u64>))| {
        let max = format!("max {}", duration(latency.max()));
        let points = percentile_points(latency, depth).into_iter().map(|(at, ns)| (at, Some(ns))).collect();
        Curve { name: name.to_string(), aside: max, style, points, dot: true }
    };
    let curves: Vec<Curve> = histograms.filter(|(_, h)| !h.is_empty()).enumerate().map(curve).collect();
    if curves.is_empty() {
        return String::new();
    }
    let ticks = std::iter::once((0.0, "0".to_string())).chain([(2_f64.log10(), "50".to_string())]);
    let ticks = ticks.chain((1..=depth as usize).map(|nines| (nines as f64, nines_label(nines))));
    let x = Axis { low: 0.0, high: depth, log: false, ticks: ticks.collect() };
    let y = Axis::of_latency(&curves);
    let plot = Plot { what: "latency", height: 300.0, x: &x, y: &y, curves: &curves, failed: &[] };
    figure(name, "percentile", 0.0, &[plot])
}

/// Latency and throughput over the run, one above the other; empty when no second was measured.
fn time_figure(outcome: &Outcome) -> String {
    let Some(first) = outcome.seconds.iter().map(|s| s.second).min() else { return String::new() };
    let (spans, width) = spans(&outcome.seconds);
    let line = |name: &str, style, of: fn(&Span) -> Option<f64>| Curve {
        name: name.to_string(),
        aside: String::new(),
        style,
        points: spans.iter().map(|span| (span.middle, of(span))).collect(),
        dot: false,
    };
    let latency = [
        line("max", 2, |span| Some(span.latency?[2] as f64)),
        line("p99", 1, |span| Some(span.latency?[1] as f64)),
        line("p50", 0, |span| Some(span.latency?[0] as f64)),
    ];
    let (start, end) = (f64::from(first), spans.last().map_or(1.0, |span| span.middle + span.covered / 2.0));
    let mut throughput = vec![line("answered per second", 15, |span| Some(span.rps))];
    if let Some(offered) = outcome.offered_rps.map(finite) {
        let whole = std::iter::once(start).chain(spans.iter().map(|span| span.middle)).chain([end]);
        let points = whole.map(|at| (at, Some(offered))).collect();
        throughput.push(Curve { name: "offered".into(), aside: String::new(), style: 4, points, dot: false });
    }
    let failed: Vec<f64> = spans.iter().filter(|span| span.errors > 0).map(|span| span.middle).collect();
    let step =
        TIME_STEPS_S.into_iter().find(|step| (end - start) / step <= 8.0).unwrap_or(((end - start) / 8.0).ceil());
    let ticks = (0..=8).map(|tick| ((start / step).ceil() + f64::from(tick)) * step).filter(|at| *at <= end);
    let x = Axis { low: start, high: end, log: false, ticks: ticks.map(|at| (at, format!("{at}"))).collect() };
    let (latency_y, rate_y) = (Axis::of_latency(&latency), Axis::of_rate(&throughput));
    let plots = [
        Plot { what: "latency", height: 220.0, x: &x, y: &latency_y, curves: &latency, failed: &[] },
        Plot { what: "rate", height: 90.0, x: &x, y: &rate_y, curves: &throughput, failed: &failed },
    ];
    let name = match width {
        w if w > 1.0 => format!("Every {w} seconds: median p50, highest p99 and max"),
        _ => "Second by second".to_string(),
    };
    figure(&name, "second", width, &plots)
}

/// One line of a plot: x and y in the axes' units, `None` where nothing was measured.
struct Curve {
    name: String,
    aside: String, // further words for the legend
    style: usize,
    points: Vec<(f64, Option<f64>)>,
    dot: bool, // mark the last point
}

struct Axis {
    low: f64,
    high: f64,
    log: bool,
    ticks: Vec<(f64, String)>, // an empty label is a line only
}

struct Plot<'a> {
    what: &'static str, // "latency" in ns or "rate" per second
    height: f64,        // pixels
    x: &'a Axis,
    y: &'a Axis,
    curves: &'a [Curve],
    failed: &'a [f64], // where on x requests failed
}

impl Axis {
    /// A logarithmic axis around every value, from one of 1, 2, 5, 10, 20, … to another.
    fn of_latency(curves: &[Curve]) -> Axis {
        let values = || curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.1);
        let (min, max) = (values().fold(f64::MAX, f64::min), values().fold(1.0, f64::max));
        let steps: Vec<(f64, f64)> =
            (0..20).flat_map(|power| [1.0, 2.0, 5.0].map(|digit| (digit, digit * 10_f64.powi(power)))).collect();
        let low = steps.iter().rev().map(|step| step.1).find(|step| *step <= min.min(max)).unwrap_or(1.0);
        let high = steps.iter().map(|step| step.1).find(|step| *step >= max && *step > low).unwrap_or(max * 2.0);
        let steps: Vec<(f64, f64)> = steps.into_iter().filter(|step| (low..=high).contains(&step.1)).collect();
        let crowded = steps.len() > LABELS_MAX;
        let label = |(digit, ns): (f64, f64)| {
            let label = if crowded && digit != 1.0 { String::new() } else { tick_label(ns) };
            (ns, label)
        };
        Axis { low, high, log: true, ticks: steps.into_iter().map(label).collect() }
    }

    /// A linear axis from zero.
    fn of_rate(curves: &[Curve]) -> Axis {
        let max = curves.iter().flat_map(|curve| &curve.points).filter_map(|point| point.1).fold(1.0, f64::max);
        let power = 10_f64.powf((max / 3.0).log10().floor());
        let step = [1.0, 2.0, 5.0].into_iter().find(|digit| digit * power >= max / 3.0).unwrap_or(10.0) * power;
        let count = (max / step).ceil();
        let ticks = (0..=count as u32).map(|tick| f64::from(tick) * step).map(|rps| (rps, short_rate(rps))).collect();
        Axis { low: 0.0, high: count * step, log: false, ticks }
    }

    /// Where `value` lies, 0 at the low end to 1 at the high end; what lies beyond is drawn at the end.
    fn at(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.log { value.max(1.0).log10() } else { value };
        let (low, high) = (scale(self.low), scale(self.high));
        finite((scale(value) - low) / (high - low)).clamp(0.0, 1.0)
    }
}

/// `plots` below each other on one x axis, whose points stand `grain` apart (0 = a continuous curve).
fn figure(name: &str, x_kind: &str, grain: f64, plots: &[Plot<'_>]) -> String {
    let mut html = format!("<figure data-x=\"{x_kind}\" data-grain=\"{grain}\">\n<figcaption>{name}</figcaption>\n");
    for (index, plot) in plots.iter().enumerate() {
        plot.legend(&mut html);
        plot.draw(&mut html, index + 1 == plots.len());
    }
    let _ = writeln!(html, "<p class=\"axis\">{x_kind}</p>\n</figure>");
    html
}

impl Plot<'_> {
    fn legend(&self, html: &mut String) {
        html.push_str("<ul class=\"legend\">\n");
        let mut entry = |style: &str, name: &str, aside: &str| {
            let swatch = format!("<path class=\"{style}\" d=\"M1 5H33\"/>");
            let swatch = format!("<svg width=\"34\" height=\"10\" aria-hidden=\"true\">{swatch}</svg>");
            let _ = writeln!(html, "<li>{swatch}{} <small>{}</small></li>", escape(name), escape(aside));
        };
        self.curves.iter().for_each(|curve| entry(&style(curve.style), &curve.name, &curve.aside));
        if !self.failed.is_empty() {
            entry("bad", "errors", "");
        }
        html.push_str("</ul>\n");
    }

    fn draw(&self, html: &mut String, x_labels: bool) {
        let (height, x, y) = (self.height, self.x, self.y);
        let names: Vec<&str> = self.curves.iter().map(|curve| curve.name.as_str()).collect();
        let what = self.what;
        let _ = write!(html, "<div class=\"plot\" data-what=\"{what}\" data-x=\"{} {}\">", x.low, x.high);
        let label = format!("{what}: {}", escape(&names.join(", ")));
        let _ = writeln!(html, "<svg width=\"100%\" height=\"{height}\" role=\"img\" aria-label=\"{label}\">");
        for (value, label) in &y.ticks {
            let (top, class) = (height * (1.0 - y.at(*value)), if label.is_empty() { "minor" } else { "grid" });
            let _ = write!(html, "<line class=\"{class}\" x1=\"0\" x2=\"100%\" y1=\"{top:.1}\" y2=\"{top:.1}\"/>");
            let _ = writeln!(html, "<text class=\"y\" x=\"-8\" y=\"{:.1}\">{label}</text>", top + 4.0);
        }
        for (index, (value, label)) in x.ticks.iter().enumerate() {
            let left = x.at(*value) * 100.0;
            let _ = write!(html, "<line class=\"grid\" x1=\"{left:.2}%\" x2=\"{left:.2}%\" y1=\"0\" y2=\"{height}\"/>");
            if x_labels {
                // On a phone every second label gives way, the last one never.
                let class = if (x.ticks.len() - index).is_multiple_of(2) { "x spare" } else { "x" };
                let _ = writeln!(
                    html,
                    "<text class=\"{class}\" x=\"{left:.2}%\" y=\"{:.1}\">{label}</text>",
                    height + 18.0
                );
            }
        }
        for at in self.failed {
            let left = x.at(*at) * 100.0;
            let _ = writeln!(
                html,
                "<line class=\"bad\" x1=\"{left:.2}%\" x2=\"{left:.2}%\" y1=\"{}\" y2=\"{height}\"/>",
                height - 10.0
            );
        }
        let _ = writeln!(
            html,
            "<svg class=\"curves\" viewBox=\"0 0 1000 {height}\" width=\"100%\" height=\"{height}\" \
            preserveAspectRatio=\"none\">"
        );
        for curve in self.curves {
            let (mut path, mut points, mut pen) = (String::new(), String::new(), 'M');
            for (at, value) in &curve.points {
                let Some(value) = value else {
                    pen = 'M';
                    continue;
                };
                let (left, top) = (x.at(*at) * 1000.0, height * (1.0 - y.at(*value)));
                // The extra h0 makes a lone point visible: round caps turn it into a dot.
                let _ = write!(path, "{pen}{left:.1} {top:.1}{}", if pen == 'M' { "h0" } else { "" });
                let _ = write!(points, "{} {} ", (at * 1e4).round() / 1e4, value.round());
                pen = 'L';
            }
            let (style, name) = (style(curve.style), escape(&curve.name));
            let points = points.trim_end();
            let _ =
                writeln!(html, "<path class=\"{style}\" d=\"{path}\" data-name=\"{name}\" data-points=\"{points}\"/>");
        }
        html.push_str("</svg>\n");
        for curve in self.curves.iter().filter(|curve| curve.dot) {
            if let Some((at, Some(value))) = curve.points.last() {
                let (left, top, style) = (x.at(*at) * 100.0, height * (1.0 - y.at(*value)), style(curve.style));
                let _ = writeln!(html, "<circle class=\"{style}\" cx=\"{left:.2}%\" cy=\"{top:.1}\" r=\"3.5\"/>");
            }
        }
        html.push_str("</svg></div>\n");
    }
}

fn style(index: usize) -> String {
    format!("c{} d{}", index % COLOURS, index % DASHES)
}

/// `90`, `99`, `99.9`, …: the percentile with that many nines.
fn nines_label(nines: usize) -> String {
    match nines {
        1 => "90".to_string(),
        2 => "99".to_string(),
        _ => format!("99.{}", "9".repeat(nines - 2)),
    }
}

/// A duration whose digits are all significant: `20 µs`, where a table says `20.0 µs`.
fn tick_label(ns: f64) -> String {
    duration(ns as u64).replace(".00 ", " ").replace(".0 ", " ").replace(' ', "\u{a0}")
}

fn short_rate(rps: f64) -> String {
    match rps {
        r if r >= 1e6 => format!("{}\u{a0}M", r / 1e6),
        r if r >= 1e3 => format!("{}\u{a0}k", r / 1e3),
        r => format!("{r}"),
    }
}

/// A duration whose unit stands in a column of its own, so that digits line up below each other.
fn with_unit(ns: u64) -> String {
    duration(ns).replacen(' ', "<small>", 1) + "</small>"
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

const EXPLANATION: &str = "Latency counts from the moment a request was due, so a stalled server cannot hide \
     (open loop). A run without a rate sends as fast as answers come: read its throughput";
const STYLE: &str = include_str!("report.css");
const SCRIPT: &str = include_str!("report.js");
const KEPT_UP_SHARE: f64 = 0.99; // below it the schedule was not kept, and the reader must know
const COLOURS: usize = 6; // .c0 to .c5 in report.css
const DASHES: usize = 5; // .d0 to .d4; with six colours, thirty lines before one repeats
const DEPTH_MIN: f64 = 5.0; // decades of 1/(1-p): up to 99.999
const DEPTH_MAX: f64 = 7.0; // more labels would touch on a phone
const LABELS_MAX: usize = 10; // on a latency axis; more, and only powers of ten are named
const TIME_STEPS_S: [f64; 13] = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::outcome::{Second, tests::outcome};

    fn section(name: &str, operations: &[(&str, &[u64])], seconds: Vec<Second>) -> Section {
        let (offered_rps, achieved_rps, miss_ratio) = (Some(f64::INFINITY), f64::NAN, f64::NAN);
        let outcome = Outcome { offered_rps, achieved_rps, miss_ratio, seconds, ..outcome(operations) };
        Section { name: name.into(), note: "a note".into(), outcome }
    }

    fn second(second: u32, requests: u64, p50_ns: u64, max_ns: u64) -> Second {
        Second { second, requests, errors: 1, p50_ns, p99_ns: p50_ns * 2, max_ns }
    }

    #[test]
    fn hostile_text_is_only_text() {
        let hostile = "</title></script><script>alert('1')</script><!-- \" & ";
        let mut run = section(hostile, &[(hostile, &[5, 6])], vec![]);
        run.outcome.target = hostile.into();
        run.note = hostile.into();
        let html = render(hostile, &[(hostile.into(), hostile.into())], &[run.clone(), run]);
        assert!(!html.contains("<script>alert") && !html.contains("<!--"));
        assert_eq!((html.matches("</title>").count(), html.matches("</script>").count()), (1, 3));
        assert!(html.contains("<h1>&lt;/title&gt;&lt;/script&gt;&lt;script&gt;alert(&#39;1&#39;)"));
        let json = html.split("id=\"outcome-1\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(serde_json::from_str::<serde_json::Value>(json).unwrap()["target"], hostile);
    }

    #[test]
    fn runs_without_requests_render() {
        let idle = section("idle", &[("get", &[])], vec![second(0, 0, 0, 0)]);
        for runs in [vec![], vec![section("none", &[], vec![])], vec![idle.clone(), idle]] {
            let html = render("nothing", &[], &runs);
            assert_eq!(html.matches("No request was measured.").count(), runs.len());
            assert!(html.ends_with("</html>\n") && !html.contains("NaN"));
        }
    }

    #[test]
    fn every_coordinate_is_finite() {
        let values: Vec<u64> = (0..40_000).map(|n| n * n).chain([0, u64::MAX / 4]).collect();
        let seconds = vec![second(0, 10, 900, 5_000), second(1, 0, 0, 0), second(u32::MAX, 7, 1, u64::MAX)];
        let wild = section("wild", &[("get", &values), ("set", &[0])], seconds);
        let lone = section("lone", &[("get", &[1])], vec![second(9, 1, 1, 1)]);
        let html = render("all", &[], &[wild, lone]);
        let mut seen = 0;
        for name in
            [" d=\"", " x=\"", " y=\"", " x1=\"", " x2=\"", " y1=\"", " y2=\"", " cx=\"", " cy=\"", "-points=\""]
        {
            for attribute in html.split(name).skip(1).map(|rest| rest.split('"').next().unwrap()) {
                let numbers = attribute.split(|c: char| c.is_whitespace() || "MLHVh%".contains(c));
                for number in numbers.filter(|number| !number.is_empty()) {
                    assert!(number.parse::<f64>().unwrap().is_finite(), "{name}{attribute}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 1000);
        assert!(!html.contains("NaN") && !html.contains("inf"));
    }

    #[test]
    fn a_second_without_answers_breaks_the_line() {
        let html = time_figure(&section("gap", &[], vec![second(3, 10, 5, 9), second(5, 20, 6, 8)]).outcome);
        let p50 = html.split("<path").find(|path| path.contains("data-name=\"p50\"")).unwrap();
        assert_eq!(p50.matches('M').count(), 2);
    }
}
