//! The result as one HTML file that opens offline, light or dark: the core-to-core map, the memory ladder, hiccups.
//!
//! Pictures are inline SVG and say their figures in titles and tables too. There is no script and no request to anybody;
//! the page's own policy forbids both. The whole result is inside, as JSON that nothing runs.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::base::units::format_bytes;
use crate::host::calibrate::text::extent;
use crate::host::calibration::{Calibration, Measured, PairFigures, rfc3339, short};
use crate::host::topology::format_cpu_list;

/// The page.
pub fn render(taken: &Calibration) -> String {
    let machine = escape(&taken.machine.describe());
    let mut html = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'\">\n<link rel=\"icon\" href=\"data:,\">\n\
         <title>Spinetail calibration: {machine}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n\
         <h1>This machine, measured</h1>\n\
         <p class=\"lead\">{machine}. {}, {:.1} s on cores {}. Each figure is the median of its rounds; noise is the range \
         of the rounds, widened by what a run cannot see. A second run agrees if the two ranges overlap.</p>\n",
        rfc3339(taken.taken_unix_s),
        taken.took_s,
        format_cpu_list(&taken.cores)
    );
    for note in &taken.notes {
        let _ = writeln!(html, "<p class=\"note\">{}</p>", escape(note));
    }
    html.push_str(&figures(taken));
    html.push_str(&ladder(taken));
    html.push_str(&map(&taken.pairs));
    html.push_str(&hiccups(taken));
    // Every `<` leaves as an escape: nothing in it can end the element early.
    let json = serde_json::to_string(taken).unwrap_or_default().replace('<', "\\u003c");
    let _ = write!(
        html,
        "<footer><p>The whole result is inside this file, as JSON in <code>script</code> element \
         <code>calibration</code>.</p></footer>\n<script type=\"application/json\" id=\"calibration\">{json}</script>\n\
         </main>\n</body>\n</html>\n"
    );
    html
}

fn figures(taken: &Calibration) -> String {
    let (clock, calls, jitter) = (&taken.clock, &taken.calls, &taken.jitter);
    let wake = if calls.wake_across_cores { "wake-up, across cores" } else { "wake-up, same core" };
    let rows = [
        ("counter", Some(clock.counter_mhz), "MHz"),
        ("reading the counter", Some(clock.counter_ns), "ns"),
        ("reading the clock", Some(clock.clock_ns), "ns"),
        ("system call", Some(calls.syscall_ns), "ns"),
        ("NOP through a ring", calls.ring_ns, "ns"),
        (wake, calls.wake_p50_us, "µs"),
        ("wake-up, one in a hundred", calls.wake_p99_us, "µs"),
        ("TCP loopback, there and back", calls.loopback_us, "µs"),
        ("time lost to hiccups", Some(jitter.lost_share.per(0.01)), "%"),
    ];
    let mut html = String::from(
        "<section>\n<h2>Clock and kernel</h2>\n<div class=\"scroll\"><table><thead><tr><th scope=\"col\">figure</th>\
         <th scope=\"col\">median</th><th scope=\"col\">noise</th></tr></thead><tbody>\n",
    );
    for (name, figure, unit) in rows {
        let (median, noise) = figure.map_or(("–".to_owned(), String::new()), |figure| {
            (format!("{} {unit}", short(figure.median)), range(figure))
        });
        let _ = writeln!(html, "<tr><th scope=\"row\">{name}</th><td>{median}</td><td>{noise}</td></tr>");
    }
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

/// Working sets as bars on a logarithmic scale, the noise around each median's end.
fn ladder(taken: &Calibration) -> String {
    let mut html = String::from(
        "<section>\n<h2>Memory ladder</h2>\n<p class=\"lead\">One dependent load, by working set and pages; the scale is \
         logarithmic.</p>\n<div class=\"scroll\"><table><thead><tr><th scope=\"col\">working set</th><th scope=\"col\">pages</th>\
         <th scope=\"col\">ns</th><th scope=\"col\">noise</th><th scope=\"col\"></th></tr></thead><tbody>\n",
    );
    let highest = taken.ladder.iter().map(|rung| rung.load_ns.high).fold(2.0, f64::max);
    let at = |ns: f64| (ns.max(1.0).ln() / highest.ln() * 100.0).clamp(0.0, 100.0);
    for rung in &taken.ladder {
        let (median, low, high) = (at(rung.load_ns.median), at(rung.load_ns.low), at(rung.load_ns.high));
        let node = rung.node.map_or(String::new(), |node| format!(", node {node}"));
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{} {}{node}</th><td>{}</td><td>{}</td><td>{}</td><td class=\"bar\"><svg width=\"100%\" \
             height=\"14\" aria-hidden=\"true\"><rect class=\"median\" x=\"0\" y=\"3\" width=\"{median:.1}%\" height=\"8\"/>\
             <rect class=\"noise\" x=\"{low:.1}%\" y=\"0\" width=\"{:.1}%\" height=\"14\" opacity=\"0.6\"/></svg></td></tr>",
            escape(&rung.level),
            format_bytes(rung.bytes),
            escape(&rung.pages),
            short(rung.load_ns.median),
            range(rung.load_ns),
            (high - low).max(0.5),
        );
    }
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

/// Cores against cores; the stronger the colour, the longer a line takes.
fn map(figures: &PairFigures) -> String {
    let mut html =
        format!("<section>\n<h2>Core to core</h2>\n<p class=\"lead\">A cache line, one way: {}.</p>\n", figures.sample);
    let mut cores: Vec<usize> = figures.pairs.iter().flat_map(|pair| [pair.first, pair.second]).collect();
    cores.sort_unstable();
    cores.dedup();
    if cores.is_empty() {
        return html + "</section>\n";
    }
    let (low, high) = extent(figures);
    let cell = if cores.len() <= FIGURES_CORES_MAX { CELL_LARGE } else { CELL_SMALL };
    let side = LABEL + cell * cores.len();
    let place: BTreeMap<usize, usize> =
        cores.iter().enumerate().map(|(place, &core)| (core, LABEL + place * cell)).collect();
    let _ = writeln!(
        html,
        "<div class=\"scroll\"><svg width=\"{side}\" height=\"{side}\" role=\"img\" aria-label=\"one-way latency between cores: {} \
         to {} ns\">",
        short(low),
        short(high)
    );
    // On a large map every core's number would be one on the other.
    let step = if cell == CELL_LARGE { 1 } else { 8 };
    for (&core, &at) in place.iter().step_by(step) {
        let (middle, base) = (at + cell / 2, LABEL - 6);
        let _ = writeln!(html, "<text x=\"{middle}\" y=\"{base}\" text-anchor=\"middle\">{core}</text>");
        let _ = writeln!(html, "<text x=\"{base}\" y=\"{}\" text-anchor=\"end\">{core}</text>", middle + 4);
    }
    for at in place.values() {
        let _ = writeln!(html, "<rect class=\"self\" x=\"{at}\" y=\"{at}\" width=\"{cell}\" height=\"{cell}\"/>");
    }
    for pair in &figures.pairs {
        let median = pair.one_way_ns.median;
        let share = if high > low { (median - low) / (high - low) } else { 0.0 };
        for (row, column) in [(pair.first, pair.second), (pair.second, pair.first)] {
            let (x, y) = (place[&column], place[&row]);
            let _ = writeln!(
                html,
                "<rect class=\"cell\" x=\"{x}\" y=\"{y}\" width=\"{cell}\" height=\"{cell}\" fill-opacity=\"{:.2}\"><title>{row} and \
                 {column}: {} ns, {} ({})</title></rect>",
                0.12 + 0.78 * share,
                short(median),
                range(pair.one_way_ns),
                pair.relation.name()
            );
            if cell == CELL_LARGE {
                let (x, y) = (x + cell / 2, y + cell / 2 + 4);
                let _ = writeln!(html, "<text class=\"figure\" x=\"{x}\" y=\"{y}\">{}</text>", short(median));
            }
        }
    }
    html.push_str("</svg></div>\n</section>\n");
    html
}

fn hiccups(taken: &Calibration) -> String {
    let jitter = &taken.jitter;
    let pooled = jitter.pooled;
    let mut html = format!(
        "<section>\n<h2>Hiccups</h2>\n<p class=\"lead\">Gaps above {} ns in the time of a thread that only reads the counter, {} s \
         on each core: {} of them; p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs. The scale of the counts is logarithmic.</p>\n\
         <div class=\"scroll\"><table><thead><tr><th scope=\"col\">from</th><th scope=\"col\">below</th><th scope=\"col\">count</th>\
         <th scope=\"col\"></th></tr></thead><tbody>\n",
        short(jitter.threshold_ns),
        short(jitter.watched_s),
        pooled.count,
        short(pooled.p50_us),
        short(pooled.p99_us),
        short(pooled.p999_us),
        short(pooled.max_us)
    );
    let most = jitter.sizes.iter().map(|class| class.count).max().unwrap_or(1).max(1) as f64;
    for class in &jitter.sizes {
        let width = ((class.count as f64 + 1.0).ln() / (most + 1.0).ln() * 100.0).clamp(0.0, 100.0);
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{} µs</th><td>{} µs</td><td>{}</td><td class=\"bar\"><svg width=\"100%\" height=\"10\" \
             aria-hidden=\"true\"><rect class=\"median\" x=\"0\" y=\"0\" width=\"{width:.1}%\" height=\"10\"/></svg></td></tr>",
            short(class.from_us),
            short(class.below_us),
            class.count
        );
    }
    html.push_str(
        "</tbody></table></div>\n<div class=\"scroll\"><table><thead><tr><th scope=\"col\">core</th><th scope=\"col\">lost</th>\
         <th scope=\"col\">stolen</th><th scope=\"col\">hiccups</th><th scope=\"col\">p50</th><th scope=\"col\">p99.9</th>\
         <th scope=\"col\">longest</th></tr></thead><tbody>\n",
    );
    for core in &jitter.cores {
        let _ = writeln!(
            html,
            "<tr><th scope=\"row\">{}</th><td>{} %</td><td>{} %</td><td>{}</td><td>{} µs</td><td>{} µs</td><td>{} µs</td></tr>",
            core.core,
            short(core.lost_share * 100.0),
            short(core.steal_share * 100.0),
            core.hiccups.count,
            short(core.hiccups.p50_us),
            short(core.hiccups.p999_us),
            short(core.hiccups.max_us)
        );
    }
    html.push_str("</tbody></table></div>\n</section>\n");
    html
}

fn range(figure: Measured) -> String {
    format!("{} to {}", short(figure.low), short(figure.high))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

const STYLE: &str = include_str!("page.css");

/// Cores up to which cells hold figures.
const FIGURES_CORES_MAX: usize = 16;

/// Pixels of a cell, and of the labels' margin.
const CELL_LARGE: usize = 44;
const CELL_SMALL: usize = 9;
const LABEL: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::calibration::example;

    #[test]
    fn the_page_asks_nobody_and_runs_nothing() {
        let html = render(&example());
        for words in ["http://", "https://", "src=", "@import", "url(", "onload", "<script>"] {
            assert!(!html.contains(words), "{words}");
        }
        assert!(html.contains("default-src 'none'") && html.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn what_a_machine_calls_itself_ends_no_element() {
        let mut taken = example();
        taken.machine.cpu_model = "</script><b>".to_owned();
        taken.notes = vec!["<i>".to_owned()];
        let html = render(&taken);
        assert!(!html.contains("<b>") && !html.contains("<i>") && html.matches("</script>").count() == 1);
        // What is inside is still the whole result.
        let json = html.split("id=\"calibration\">").nth(1).unwrap().split("</script>").next().unwrap();
        assert_eq!(serde_json::from_str::<Calibration>(json).unwrap(), taken);
    }

    #[test]
    fn every_pair_has_two_cells_and_every_working_set_a_bar() {
        let taken = example();
        let html = render(&taken);
        assert_eq!(html.matches("class=\"cell\"").count(), 2 * taken.pairs.pairs.len());
        assert_eq!(html.matches("class=\"noise\"").count(), taken.ladder.len());
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(html.contains("40.0 ns") && html.contains("hardware threads of one core"));
        let mut alone = taken;
        alone.pairs = PairFigures::default();
        assert!(!render(&alone).contains("class=\"cell\""));
    }
}
