//! Lists of cores as the kernel and people write them: `0-3,8`.
//!
//! One reader for sysfs, flags and profiles, so that all of them refuse the same nonsense.

/// Largest core number a list may hold: the kernel's own bound (`NR_CPUS`) on x86.
pub(crate) const CORE_ID_MAX: usize = 8191;

/// Characters of a list that is none which a complaint shows.
const SHOWN_CHARS_MAX: usize = 80;

/// Reads a list of cores as the kernel and people write it: `0-3,8`. Ascending, each core once;
/// an empty text is an empty list.
pub fn parse_cpu_list(text: &str) -> Result<Vec<usize>, String> {
    let shown = || text.chars().take(SHOWN_CHARS_MAX).collect::<String>();
    let complaint = || format!("'{}' is not a list of cores: write numbers and ranges, like 0-3,8", shown());
    // A place for each core there may be: a list that names ranges over and over takes no more than this.
    let mut named = vec![false; CORE_ID_MAX + 1];
    for part in text.trim().split(',') {
        let part = part.trim();
        if part.is_empty() && text.trim().is_empty() {
            continue;
        }
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first = parse_core(first).ok_or_else(complaint)?;
        let last = parse_core(last).ok_or_else(complaint)?;
        if first > last {
            return Err(complaint());
        }
        named[first..=last].fill(true);
    }
    Ok((0..=CORE_ID_MAX).filter(|&core| named[core]).collect())
}

/// Writes a list of cores the way [`parse_cpu_list`] reads it: `0-3,8`.
pub fn format_cpu_list(cores: &[usize]) -> String {
    let mut cores = cores.to_vec();
    cores.sort_unstable();
    cores.dedup();
    let ranges = cores.chunk_by(|a, b| a + 1 == *b).map(|range| match range {
        [only] => only.to_string(),
        _ => format!("{}-{}", range[0], range[range.len() - 1]),
    });
    ranges.collect::<Vec<_>>().join(",")
}

/// Reads a mask as sysfs writes those that have no list beside them: `00000000,0000000f`, the lowest
/// cores last. `None` for what is no mask.
pub(crate) fn parse_cpu_mask(text: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for (index, word) in text.trim().rsplit(',').enumerate() {
        let bits = u32::from_str_radix(word, 16).ok()?;
        let first = index * 32;
        cores.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| first + bit));
    }
    cores.last().is_none_or(|&core| core <= CORE_ID_MAX).then_some(cores)
}

/// Reads one core's number: digits and nothing else.
pub(crate) fn parse_core(text: &str) -> Option<usize> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None; // `parse` alone would take "+3"
    }
    text.parse().ok().filter(|&core| core <= CORE_ID_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_lists_are_read_and_written_alike() {
        for (text, cores) in [("", vec![]), ("5", vec![5]), ("0-3,8", vec![0, 1, 2, 3, 8])] {
            assert_eq!(parse_cpu_list(text), Ok(cores.clone()));
            assert_eq!(format_cpu_list(&cores), text);
        }
        assert_eq!(parse_cpu_list(" 3, 1-2,2\n"), Ok(vec![1, 2, 3]));
    }

    #[test]
    fn core_lists_that_are_none_are_refused() {
        for text in ["a", "3-1", "1-2-3", "-1", "1,,2", ",", "1,", "+1", "0-99999999999", "0x1"] {
            assert!(parse_cpu_list(text).is_err(), "{text}");
        }
    }

    #[test]
    fn masks_are_read_from_their_end() {
        assert_eq!(parse_cpu_mask("0"), Some(vec![]));
        assert_eq!(parse_cpu_mask("5\n"), Some(vec![0, 2]));
        assert_eq!(parse_cpu_mask("00000001,80000000"), Some(vec![31, 32]));
        for text in ["", "g", "1,,1", "100000000"] {
            assert_eq!(parse_cpu_mask(text), None, "{text}");
        }
    }
}
