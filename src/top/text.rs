//! Figures and names as they are shown.
//!
//! Names come from clients of the appliance: a key may hold escape sequences that clear a screen, set a
//! title or, in some terminals, type a command. Nothing of a name reaches a terminal that is not a
//! visible character of its own: control characters, and those that change how their neighbours are
//! shown (directions, joiners, variants), are written as escapes.

/// A count of a second, or of entries: `0`, `9.5`, `980`, `12.3k`, `1.20M`.
pub fn count(value: f64) -> String {
    let value = if value.is_finite() { value.max(0.0) } else { 0.0 };
    match value {
        0.0 => "0".to_string(),
        v if v < 9.95 => format!("{v:.1}"),
        v if v < 999.5 => format!("{v:.0}"),
        v if v < 99_950.0 => format!("{:.1}k", v / 1e3),
        v if v < 999_500.0 => format!("{:.0}k", v / 1e3),
        v if v < 99.95e6 => format!("{:.2}M", v / 1e6),
        v if v < 999.5e6 => format!("{:.0}M", v / 1e6),
        v if v < 1e15 => format!("{:.2}G", v / 1e9),
        v => format!("{v:.1e}"),
    }
}

/// A share of one: `0.0 %`, `97.3 %`.
pub fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { "–".to_string() }
}

/// A time to the second: `42s`, `2m 03s`, `5h 07m`, `3d 04h`.
pub fn age(seconds: f64) -> String {
    let s = if seconds.is_finite() { seconds.max(0.0) as u64 } else { 0 };
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {:02}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {:02}h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How long something lay idle, where parts of a second matter.
pub fn idle(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { age(seconds) }
}

/// A name from outside, harmless, and no longer than `characters`.
pub fn name(text: &str, characters: usize) -> String {
    let mut safe = String::new();
    let mut length = 0;
    for character in text.chars() {
        let piece = escaped(character);
        let piece_length = piece.chars().count();
        if length + piece_length > characters {
            // What is cut must be seen to be cut; the last of what fits gives way to the mark.
            while length + 1 > characters && safe.pop().is_some() {
                length -= 1;
            }
            safe.push('…');
            return safe;
        }
        safe.push_str(&piece);
        length += piece_length;
    }
    safe
}

/// JSON whose strings can be written to a terminal as they are.
pub fn json(text: &str) -> String {
    text.chars()
        .map(|character| if is_visible(character) { character.to_string() } else { json_escape(character) })
        .collect()
}

fn escaped(character: char) -> String {
    match character {
        '\\' => r"\\".to_string(),
        '\n' => r"\n".to_string(),
        '\r' => r"\r".to_string(),
        '\t' => r"\t".to_string(),
        c if is_visible(c) => c.to_string(),
        c if (c as u32) < 0x80 => format!("\\x{:02x}", c as u32),
        c => format!("\\u{{{:x}}}", c as u32),
    }
}

fn json_escape(character: char) -> String {
    // Space between JSON's tokens is all that can stand here unescaped.
    if matches!(character, '\n' | '\r' | '\t') {
        return " ".to_string();
    }
    let mut units = [0; 2];
    character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

/// Whether a character shows itself and nothing else.
fn is_visible(character: char) -> bool {
    let hidden = matches!(character as u32,
        0xad | 0x34f | 0x61c | 0x115f..=0x1160 | 0x17b4..=0x17b5 | 0x180b..=0x180f
        // Zero width, directions, separators of lines, invisible operators.
        | 0x200b..=0x200f | 0x2028..=0x202e | 0x2060..=0x206f | 0x3164
        // Variants, the byte order mark, annotations, tags, private use.
        | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xfff0..=0xfffb | 0xe000..=0xf8ff | 0xe0000..=0x10ffff
        // Marks that pile up on the character before.
        | 0x300..=0x36f | 0x483..=0x489 | 0x1ab0..=0x1aff | 0x1dc0..=0x1dff | 0x20d0..=0x20ff | 0xfe20..=0xfe2f);
    !character.is_control() && !hidden
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_keep_three_digits() {
        let shown = [0.0, 9.5, 42.0, 999.4, 999.6, 12_345.0, 120_000.0, 999_700.0, 12_345_678.0, f64::NAN].map(count);
        assert_eq!(shown, ["0", "9.5", "42", "999", "1.0k", "12.3k", "120k", "1.00M", "12.35M", "0"]);
    }

    #[test]
    fn ages_have_two_units() {
        assert_eq!([5.0, 123.4, 18_432.0, 273_600.0].map(age), ["5s", "2m 03s", "5h 07m", "3d 04h"]);
    }

    #[test]
    fn control_characters_of_names_are_escaped() {
        assert_eq!(name("a\x1b[2Jb\u{9b}c\u{7f}\r\n", 80), r"a\x1b[2Jb\u{9b}c\x7f\r\n");
        assert_eq!(name("\u{202e}evil\u{200b}", 80), r"\u{202e}evil\u{200b}");
        assert_eq!(name(r"\x1b", 80), r"\\x1b");
        assert_eq!(name("größe 漢字", 80), "größe 漢字");
    }

    #[test]
    fn no_character_at_all_leaves_a_name_raw() {
        for character in (0..=0x10_ffff).filter_map(char::from_u32) {
            for shown in [name(&character.to_string(), 20), json(&character.to_string())] {
                assert!(shown.chars().all(is_visible), "{character:?}");
            }
        }
    }

    #[test]
    fn long_names_are_cut_and_show_it() {
        assert_eq!(name("abcdef", 6), "abcdef");
        assert_eq!(name("abcdefg", 6), "abcde…");
        assert_eq!(name("abcd\x1b", 6), "abcd…");
        assert_eq!(name("abcdefg", 0), "…");
    }

    #[test]
    fn escaped_json_means_the_same() {
        let raw = "{\"key\":\n\"\u{9b}x\u{e0041}\"}";
        let safe = json(raw);
        assert!(safe.is_ascii() && !safe.contains('\n'), "{safe}");
        let parse = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(parse(raw), parse(&safe));
    }
}
