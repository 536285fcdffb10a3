//! The result for a terminal: figures with their noise, a ladder, a map of cores, hiccups by size. Characters only, no
//! colours: it is as good in a file.

use std::fmt::Write;

use crate::base::units::format_bytes;
use crate::host::calibration::{Calibration, Measured, PairFigures, rfc3339, short};
use crate::host::topology::format_cpu_list;

/// The whole result.
pub fn render(taken: &Calibration) -> String {
    let mut text = String::new();
    let (clock, calls, jitter) = (&taken.clock, &taken.calls, &taken.jitter);
    let _ = writeln!(text, "{}", taken.machine.describe());
    let _ = writeln!(
        text,
        "{}, {:.1} s on cores {}; core {} for what needs only one{}\n",
        rfc3339(taken.taken_unix_s),
        taken.took_s,
        format_cpu_list(&taken.cores),
        taken.measuring_core,
        taken.load_average.map_or(String::new(), |load| format!("; load average {load:.2} before"))
    );
    let _ = writeln!(text, "{:<34} {:>9} {:>21} {:>8}", "FIGURE", "MEDIAN", "NOISE", "UNIT");
    let mut row = |name: &str, figure: Option<Measured>, unit: &str| {
        let _ = match figure {
            Some(figure) => writeln!(text, "{name:<34} {:>9} {:>21} {unit:>8}", short(figure.median), noise(figure)),
            None => writeln!(text, "{name:<34} {:>9}", "-"),
        };
    };
    let invariant = match clock.invariant {
        Some(true) => ", invariant",
        Some(false) => ", not invariant",
        None => "",
    };
    row(&format!("counter ({}{invariant})", clock.counter), Some(clock.counter_mhz), "MHz");
    row("reading the counter", Some(clock.counter_ns), "ns");
    let source = clock.clocksource.as_ref().map_or(String::new(), |source| format!(" ({source})"));
    row(&format!("reading the clock{source}"), Some(clock.clock_ns), "ns");
    row("system call", Some(calls.syscall_ns), "ns");
    row("NOP through a ring", calls.ring_ns, "ns");
    row(if calls.wake_across_cores { "wake-up, across cores" } else { "wake-up, same core" }, calls.wake_p50_us, "µs");
    row("  one in a hundred", calls.wake_p99_us, "µs");
    row("TCP loopback, there and back", calls.loopback_us, "µs");
    for rung in &taken.ladder {
        let remote = match rung.node {
            Some(node) if rung.remote => format!(", node {node}"),
            _ => String::new(),
        };
        let name = format!("load: {} {} in {}{remote}", rung.level, format_bytes(rung.bytes), rung.pages);
        row(&name, Some(rung.load_ns), "ns");
    }
    let percent = |share: Measured| share.per(0.01);
    row("time lost to hiccups", Some(percent(jitter.lost_share)), "%");
    row("hiccup of a round, p50", Some(jitter.hiccup_p50_us), "µs");
    row("  p99", Some(jitter.hiccup_p99_us), "µs");
    row("  p99.9", Some(jitter.hiccup_p999_us), "µs");
    row("  longest", Some(jitter.hiccup_max_us), "µs");
    text.push_str(&map(&taken.pairs));
    text.push_str(&hiccups(taken));
    for note in &taken.notes {
        let _ = writeln!(text, "\nnote: {note}");
    }
    let _ = writeln!(text, "\n{}", taken.figures().line());
    text
}

fn noise(figure: Measured) -> String {
    let missing = if figure.rounds < FULL_ROUNDS { format!(" ({} rounds)", figure.rounds) } else { String::new() };
    // Digits enough to tell the ends apart from the median, as for the counter's rate.
    let narrow = figure.high - figure.low < figure.median * 0.01;
    let told = |value: f64| if narrow { format!("{value:.1}") } else { short(value) };
    format!("{} to {}{missing}", told(figure.low), told(figure.high))
}

/// Cores against cores: the darker, the longer a line takes. Figures beside it where there are few.
fn map(figures: &PairFigures) -> String {
    let mut text = format!("\nCORE TO CORE, one way: {}\n", figures.sample);
    let (low, high) = extent(figures);
    let mut cores: Vec<usize> = figures.pairs.iter().flat_map(|pair| [pair.first, pair.second]).collect();
    cores.sort_unstable();
    cores.dedup();
    if cores.is_empty() {
        return text;
    }
    let by_pair: std::collections::BTreeMap<(usize, usize), f64> =
        figures.pairs.iter().map(|pair| ((pair.first, pair.second), pair.one_way_ns.median)).collect();
    let between = |a: usize, b: usize| by_pair.get(&(a.min(b), a.max(b))).copied();
    let with_figures = cores.len() <= FIGURES_CORES_MAX;
    let width = if with_figures { 6 } else { 1 };
    if with_figures {
        let _ = write!(text, "{:>5} ", "");
        cores.iter().for_each(|core| {
            let _ = write!(text, "{core:>width$}");
        });
        text.push_str("  ns\n");
    }
    for &row in &cores {
        let _ = write!(text, "{row:>5} ");
        for &column in &cores {
            let cell = match between(row, column) {
                _ if row == column => "·".to_owned(),
                None => " ".to_owned(),
                Some(ns) if with_figures => format!("{}{}", short(ns), shade(ns, low, high)),
                Some(ns) => shade(ns, low, high).to_string(),
            };
            let _ = write!(text, "{cell:>width$}");
        }
        text.push('\n');
    }
    let steps = SHADES.iter().enumerate().map(|(step, shade)| {
        let from = low + (high - low) * step as f64 / SHADES.len() as f64;
        format!("{shade} from {} ns", short(from))
    });
    let legend: Vec<String> =
        if high > low { steps.collect() } else { vec![format!("{} {} ns", SHADES[0], short(low))] };
    let _ = writeln!(text, "      {}", legend.join(", "));
    text
}

/// Lowest and highest median.
pub(super) fn extent(figures: &PairFigures) -> (f64, f64) {
    let medians = || figures.pairs.iter().map(|pair| pair.one_way_ns.median);
    (medians().fold(f64::INFINITY, f64::min), medians().fold(0.0, f64::max))
}

fn shade(ns: f64, low: f64, high: f64) -> char {
    let step = if high > low { (ns - low) / (high - low) * SHADES.len() as f64 } else { 0.0 };
    SHADES[(step as usize).min(SHADES.len() - 1)]
}

/// Hiccups by size, as bars whose length is the logarithm of the count; then core by core.
fn hiccups(taken: &Calibration) -> String {
    let jitter = &taken.jitter;
    let pooled = jitter.pooled;
    let mut text = format!(
        "\nHICCUPS above {} ns in {} s of each core: {}; p50 {} µs, p99 {} µs, p99.9 {} µs, longest {} µs\n",
        short(jitter.threshold_ns),
        short(jitter.watched_s),
        pooled.count,
        short(pooled.p50_us),
        short(pooled.p99_us),
        short(pooled.p999_us),
        short(pooled.max_us)
    );
    for class in &jitter.sizes {
        let bar = "▒".repeat(bar_length(class.count));
        let _ =
            writeln!(text, "{:>10} to {:>7} µs {:>8} {bar}", short(class.from_us), short(class.below_us), class.count);
    }
    for core in jitter.cores.iter().take(CORES_LISTED_MAX) {
        let _ = writeln!(
            text,
            "      core {:>4}: {} % lost, {} % stolen, longest {} µs",
            core.core,
            short(core.lost_share * 100.0),
            short(core.steal_share * 100.0),
            short(core.hiccups.max_us)
        );
    }
    if let Some(more) = jitter.cores.len().checked_sub(CORES_LISTED_MAX).filter(|&more| more > 0) {
        let _ = writeln!(text, "      and {more} cores more: --json or --report show them all");
    }
    text
}

/// Six characters for each power of ten; one hiccup is a short bar.
fn bar_length(count: u64) -> usize {
    if count == 0 { 0 } else { ((count as f64).log10() * 6.0) as usize + 1 }
}

const SHADES: [char; 4] = ['░', '▒', '▓', '█'];

/// Cores up to which cells hold figures: a terminal's width.
const FIGURES_CORES_MAX: usize = 12;

/// Cores whose hiccups are listed one by one.
const CORES_LISTED_MAX: usize = 16;

const FULL_ROUNDS: u32 = crate::base::limits::CALIBRATE_ROUNDS as u32;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::calibration::example;

    #[test]
    fn every_figure_is_there_with_its_noise_and_nothing_is_coloured() {
        let text = render(&example());
        for words in
            ["counter (tsc, invariant)", "reading the clock (kvm-clock)", "NOP through a ring", "wake-up, across cores"]
        {
            assert!(text.contains(words), "{words} in {text}");
        }
        for words in
            ["load: L3 6.0 MiB in transparent", "time lost", "p99.9", "note: said", "core to core", "2300.0 to 2301.0"]
        {
            assert!(text.contains(words), "{words} in {text}");
        }
        assert!(!text.contains('\u{1b}') && text.lines().all(|line| line.trim_end() == line), "{text}");
    }

    #[test]
    fn the_map_is_as_dark_as_the_pair_is_slow() {
        let text = map(&example().pairs);
        assert!(text.contains("40.0░") && text.contains("120█"), "{text}");
        assert!(map(&PairFigures { sample: "none".into(), ..PairFigures::default() }).ends_with("none\n"));
    }

    #[test]
    fn a_hundred_cores_have_a_character_each() {
        let mut figures = example().pairs;
        let pair = figures.pairs[0].clone();
        for second in 3..100 {
            figures.pairs.push(crate::host::calibration::Pair { second, ..pair.clone() });
        }
        let text = map(&figures);
        assert!(text.lines().all(|line| line.chars().count() <= 106), "{text}");
    }

    #[test]
    fn a_bar_grows_with_the_power_of_ten() {
        assert_eq!([0, 1, 10, 1000].map(bar_length), [0, 1, 7, 19]);
    }
}
