//! Patterns as KEYS, SCAN and PSUBSCRIBE take them: `*`, `?`, `[a-z]`, `[^a]`, and `\` before what is meant as it is.

/// Whether `text` matches `pattern`.
///
/// A star is tried again from where it last matched, never two stars within each other, so the work is bounded by the
/// product of the lengths: hostile patterns of many stars cost no more than that.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when what follows the last star does not match.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, t));
            p += 1;
        } else if let Some(length) = one(&pattern[p..], text[t]) {
            p += length;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            (p, t) = (after, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|&byte| byte == b'*')
}

/// Whether the first element of `pattern` matches `byte`; how many bytes of the pattern it is.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern {
        [] => None,
        [b'?', ..] => Some(1),
        [b'\\', escaped, ..] => (escaped == byte).then_some(2),
        [b'[', ref set @ ..] => {
            let (is_in, length) = in_set(set, byte);
            is_in.then_some(1 + length)
        }
        [plain, ..] => (plain == byte).then_some(1),
    }
}

/// Whether `byte` is in the set that begins behind its bracket; how many bytes the rest of the set is. A set that does
/// not end goes to the end of the pattern.
fn in_set(set: &[u8], byte: u8) -> (bool, usize) {
    let is_negated = set.first() == Some(&b'^');
    let mut at = usize::from(is_negated);
    let mut is_in = false;
    while let Some(&first) = set.get(at) {
        match (first, set.get(at + 1), set.get(at + 2)) {
            (b'\\', Some(&escaped), _) => {
                is_in |= escaped == byte;
                at += 2;
            }
            (b']', ..) => {
                at += 1;
                break;
            }
            (low, Some(b'-'), Some(&high)) => {
                let (low, high) = (low.min(high), low.max(high));
                is_in |= (low..=high).contains(&byte);
                at += 3;
            }
            (plain, ..) => {
                is_in |= plain == byte;
                at += 1;
            }
        }
    }
    (is_in != is_negated, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_redis_matches_them() {
        let cases: [(&str, &str, bool); 26] = [
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*c", "abcbc", true),
            ("a*d", "abcbc", false),
            ("?b?", "abc", true),
            ("?", "", false),
            ("[abc]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[c-a]x", "bx", true),
            ("[^a]x", "bx", true),
            ("[^a]x", "ax", false),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("h[\\]]i", "h]i", true),
            ("h[ab", "ha", true),
            ("news.*", "news.", true),
            ("news.*", "new", false),
            ("", "", true),
            ("", "a", false),
            ("**a**", "bab", true),
            ("a", "A", false),
            ("key:[0-9][0-9]", "key:42", true),
            ("key:[0-9][0-9]", "key:4", false),
            ("a?*", "a", false),
            ("*\\\\", "a\\", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "'{pattern}' against '{text}'");
        }
    }

    #[test]
    fn a_pattern_of_many_stars_is_answered_at_once() {
        let began = std::time::Instant::now();
        assert!(!matches(
            &b"a*".repeat(50),
            &b"a".repeat(5000)[..].iter().chain(b"b").copied().collect::<Vec<u8>>()[..40]
        ));
        assert!(!matches(&[b"*a".repeat(60), b"c".to_vec()].concat(), &b"a".repeat(20_000)));
        assert!(began.elapsed().as_secs() < 5);
    }
}
