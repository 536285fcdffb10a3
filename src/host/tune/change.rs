//! One reversible setting: where it is, what it should be, and how its text is to be understood.
//!
//! The kernel shows settings in a handful of forms, and the same value has several spellings. `kind`
//! says which form a file has, and with it three things: when two texts mean the same (`same`), what
//! to show to people (`shown`), and what has to be written (`encoded`).
//!
//! ```text
//!   value   10                        words, compared one by one; tabs and spaces are the same
//!   choice  always [madvise] never    the word in brackets is the value
//!   mask    ff,00000003               a set of cores, in hexadecimal groups
//!   list    0-1,64-71                 a set of cores, as people write it
//!   rings   rx 512 tx 512             no file: asked of the network card's driver
//!   file    anything                  one that this program makes, or replaces
//! ```
//!
//! What was there before is always kept and restored as the bytes that were read, whatever they mean.

use serde::{Deserialize, Serialize};

use crate::host::cpu_list::{parse_cpu_list, parse_cpu_mask};

/// What is to be changed, to what, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The form of the setting.
    pub kind: Kind,
    /// Path below the root, without a leading slash.
    pub path: String,
    /// The value, as people write it; a file's whole text.
    pub want: String,
    /// Why, for people: one line.
    pub reason: String,
}

/// The form of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Words of text.
    Value,
    /// One of several words, the chosen one in brackets.
    Choice,
    /// A set of cores as hexadecimal groups of 32.
    Mask,
    /// A set of cores as numbers and ranges.
    List,
    /// Ring sizes of a network card; the path is the interface's folder.
    Rings,
    /// A whole file.
    File,
}

/// What a setting held: its bytes, and for a whole file who may do what with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Everything that was read.
    pub bytes: Vec<u8>,
    /// Of a whole file only.
    pub owner: Option<Owner>,
}

/// Mode and owner of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Permission bits.
    pub mode: u32,
    /// User.
    pub user: u32,
    /// Group.
    pub group: u32,
}

impl Change {
    /// A change; `path` may be written with its leading slash.
    pub fn new(kind: Kind, path: impl AsRef<str>, want: impl Into<String>, reason: impl Into<String>) -> Change {
        let path = path.as_ref().trim_start_matches('/').to_owned();
        Change { kind, path, want: want.into(), reason: reason.into() }
    }

    /// Whether `held` is what this change wants.
    pub fn satisfied_by(&self, held: &[u8]) -> bool {
        self.kind.same(held, self.want.as_bytes())
    }
}

impl Kind {
    /// Whether two texts mean the same. Texts of no sense are the same only if equal.
    pub fn same(self, left: &[u8], right: &[u8]) -> bool {
        if left == right {
            return true;
        }
        let (Ok(left), Ok(right)) = (str::from_utf8(left), str::from_utf8(right)) else { return false };
        match self {
            Kind::File => false,
            Kind::Value | Kind::Rings => left.split_whitespace().eq(right.split_whitespace()),
            Kind::Choice => chosen(left) == chosen(right),
            Kind::Mask => parse_cpu_mask(left).is_some_and(|mask| Some(mask) == parse_cpu_mask(right)),
            Kind::List => parse_cpu_list(left).is_ok_and(|list| Ok(list) == parse_cpu_list(right)),
        }
    }

    /// The value for people, on one line.
    pub fn shown(self, bytes: &[u8]) -> String {
        let text = String::from_utf8_lossy(bytes);
        match self {
            Kind::Choice => chosen(&text).to_owned(),
            Kind::File => format!("a file of {} bytes", bytes.len()),
            _ => text.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }

    /// The bytes that give a setting, which holds `held` now, the value `want`. An ordinary file (`plain`) in
    /// place of a kernel's choice gets the brackets that the kernel would show, so that a recorded machine stays
    /// one that can be read.
    pub fn encoded(self, want: &str, held: &[u8], plain: bool) -> Vec<u8> {
        match self {
            Kind::File | Kind::Rings => want.as_bytes().to_vec(),
            Kind::Choice if plain => {
                let word = chosen(want);
                let held = String::from_utf8_lossy(held);
                let words = held.split_whitespace().map(|other| other.trim_matches(['[', ']']));
                let words = words.map(|other| if other == word { format!("[{other}]") } else { other.to_owned() });
                format!("{}\n", words.collect::<Vec<_>>().join(" ")).into_bytes()
            }
            Kind::Choice => chosen(want).as_bytes().to_vec(),
            Kind::Value | Kind::Mask | Kind::List => format!("{}\n", want.trim()).into_bytes(),
        }
    }

    /// Whether a reboot leaves it as it is.
    pub fn outlives_reboot(self) -> bool {
        self == Kind::File
    }
}

/// Settings that the kernel changes along with another: who sets one must keep the others too.
/// Paths below `proc/sys`. The first four are each other's alternatives (Documentation/admin-guide/sysctl/vm.rst:
/// "when one is written, the other becomes 0"); `watchdog` is the two watchdogs together (kernel.rst).
pub const COMPANIONS: [(&str, &[&str]); 7] = [
    ("vm/dirty_bytes", &["vm/dirty_ratio"]),
    ("vm/dirty_ratio", &["vm/dirty_bytes"]),
    ("vm/dirty_background_bytes", &["vm/dirty_background_ratio"]),
    ("vm/dirty_background_ratio", &["vm/dirty_background_bytes"]),
    ("vm/overcommit_kbytes", &["vm/overcommit_ratio"]),
    ("vm/overcommit_ratio", &["vm/overcommit_kbytes"]),
    ("kernel/watchdog", &["kernel/nmi_watchdog", "kernel/soft_watchdog"]),
];

/// The settings that change along with the one at `path`.
pub fn companions(path: &str) -> impl Iterator<Item = String> {
    let name = path.strip_prefix("proc/sys/").unwrap_or_default();
    let found = COMPANIONS.iter().find(|(owner, _)| *owner == name).map_or(&[][..], |(_, others)| others);
    found.iter().map(|other| format!("proc/sys/{other}"))
}

/// Of two alternatives the one that is not in force reads 0, which the kernel does not take (`dirty_bytes`), or takes as
/// an order to drop the other (`overcommit_kbytes`). It becomes 0 again when the other is written back, so the other
/// is what is to be rehearsed: its path, for one of a pair that holds 0.
pub fn in_force_instead(path: &str, held: &[u8]) -> Option<String> {
    let name = path.strip_prefix("proc/sys/")?;
    let pair = COMPANIONS.iter().find(|(owner, others)| *owner == name && others.len() == 1)?;
    Kind::Value.same(held, b"0").then(|| format!("proc/sys/{}", pair.1[0]))
}

/// Writes a set of cores as the kernel shows a mask: groups of 32 bits, the highest first.
pub fn format_mask(cores: &[usize]) -> String {
    let groups = cores.iter().max().map_or(1, |highest| highest / 32 + 1);
    let group = |index: usize| {
        cores.iter().filter(|&&core| core / 32 == index).fold(0u32, |bits, core| bits | 1 << (core % 32))
    };
    let first = format!("{:x}", group(groups - 1));
    let rest = (0..groups - 1).rev().map(|index| format!(",{:08x}", group(index)));
    std::iter::once(first).chain(rest).collect()
}

/// The word in brackets; a text without any is its own choice.
fn chosen(text: &str) -> &str {
    let inside = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    inside.map_or(text.trim(), |(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_value_are_the_same() {
        for (kind, left, right) in [
            (Kind::Value, "4096\t131072\t6291456\n", "4096 131072 6291456"),
            (Kind::Choice, "always [madvise] never\n", "madvise"),
            (Kind::Mask, "00000000,0000000f\n", "f"),
            (Kind::Mask, "00000003", "3"),
            (Kind::List, "0-3\n", "0,1,2,3"),
            (Kind::Rings, "rx 512 tx 512", "rx 512  tx 512"),
        ] {
            assert!(kind.same(left.as_bytes(), right.as_bytes()), "{kind:?} {left} {right}");
        }
    }

    #[test]
    fn different_values_are_not_the_same() {
        for (kind, left, right) in [
            (Kind::Value, "10\n", "1"),
            (Kind::Choice, "always [madvise] never\n", "never"),
            (Kind::Mask, "3", "1,00000003"),
            (Kind::Mask, "3", "x"),
            (Kind::List, "0-3", "0-2"),
            (Kind::File, "a\n", "a"),
        ] {
            assert!(!kind.same(left.as_bytes(), right.as_bytes()), "{kind:?} {left} {right}");
        }
    }

    #[test]
    fn masks_are_read_and_written_alike() {
        for (cores, text) in
            [(vec![], "0"), (vec![0, 1], "3"), (vec![32], "1,00000000"), (vec![0, 63, 64], "1,80000000,00000001")]
        {
            assert_eq!(format_mask(&cores), text);
            assert_eq!(parse_cpu_mask(text), Some(cores));
        }
    }

    #[test]
    fn a_choice_is_written_as_its_word_and_recorded_with_its_brackets() {
        let held = b"always [madvise] never\n";
        assert_eq!(Kind::Choice.encoded("never", held, false), b"never");
        assert_eq!(Kind::Choice.encoded("never", held, true), b"always madvise [never]\n");
        assert_eq!(Kind::Choice.encoded("always [madvise] never\n", held, false), b"madvise");
    }

    #[test]
    fn companions_are_found_both_ways() {
        for (owner, others) in COMPANIONS.iter().take(6) {
            let back: Vec<String> = companions(&format!("proc/sys/{}", others[0])).collect();
            assert_eq!(back, [format!("proc/sys/{owner}")]);
        }
        assert_eq!(companions("proc/sys/vm/swappiness").count(), 0);
        let other = Some("proc/sys/vm/dirty_ratio".to_owned());
        assert_eq!(in_force_instead("proc/sys/vm/dirty_bytes", b"0\n"), other);
        assert_eq!(in_force_instead("proc/sys/vm/dirty_bytes", b"4096\n"), None);
        assert_eq!(in_force_instead("proc/sys/kernel/watchdog", b"0\n"), None, "its halves are no alternatives");
    }
}
