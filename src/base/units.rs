//! Sizes and durations as people write them, read and written in one place.

use std::time::Duration;

/// Reads a size: a whole number followed by `B`, `KiB`, `MiB` or `GiB`; a bare number is bytes.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let scale = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(format!("'{text}' is not a size: write a whole number with B, KiB, MiB or GiB, like 64MiB")),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(scale))
        .ok_or_else(|| format!("'{text}' is not a size: write a whole number with B, KiB, MiB or GiB, like 64MiB"))
}

/// Reads a duration: a number followed by `ns`, `us`, `ms`, `s`, `m` or `h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let complaint = || format!("'{text}' is not a duration: write a number with ns, us, ms, s, m or h, like 10s");
    let (number, unit) = split(text);
    let scale_ns: f64 = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return Err(complaint()),
    };
    let ns = number.parse::<f64>().map_err(|_| complaint())? * scale_ns;
    if !(0.0..=1e18).contains(&ns) {
        return Err(complaint());
    }
    Ok(Duration::from_nanos(ns.round() as u64))
}

/// Writes a size as [`parse_bytes`] reads it, exact, in the largest unit that divides it: `64MiB`.
pub fn exact_bytes(bytes: u64) -> String {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
    let (unit, scale) = units.into_iter().find(|(_, scale)| bytes.is_multiple_of(*scale)).unwrap_or(("B", 1));
    format!("{}{unit}", bytes / scale)
}

/// Writes a size with the largest unit that keeps it short: `16.0 MiB`.
pub fn format_bytes(bytes: u64) -> String {
    let value = bytes as f64;
    match bytes {
        0..=1023 => format!("{bytes} B"),
        1024..=1_048_575 => format!("{:.1} KiB", value / 1024.0),
        1_048_576..=1_073_741_823 => format!("{:.1} MiB", value / 1_048_576.0),
        _ => format!("{:.1} GiB", value / 1_073_741_824.0),
    }
}

/// Writes nanoseconds with the unit a reader of latency tables expects: `830 ns`, `11.2 µs`, `4.1 ms`.
pub fn format_ns(ns: u64) -> String {
    let value = ns as f64;
    match ns {
        0..=999 => format!("{ns} ns"),
        1_000..=99_999 => format!("{:.1} µs", value / 1e3),
        100_000..=999_999 => format!("{:.0} µs", value / 1e3),
        1_000_000..=999_999_999 => format!("{:.1} ms", value / 1e6),
        _ => format!("{:.2} s", value / 1e9),
    }
}

fn split(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_unit() {
        assert_eq!(parse_bytes("16MiB"), Ok(16 << 20));
        assert_eq!(parse_bytes("4096"), Ok(4096));
        assert_eq!(parse_bytes("4096B"), Ok(4096));
        assert_eq!(parse_bytes("3 GiB"), Ok(3 << 30));
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        for text in ["", "MiB", "1.5MiB", "16MB", "-1", "99999999999GiB"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_read_with_their_unit() {
        assert_eq!(parse_duration("200us"), Ok(Duration::from_micros(200)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
    }

    #[test]
    fn durations_that_are_none_are_refused() {
        for text in ["", "10", "s", "-1s", "1d", "1e30h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }
}
