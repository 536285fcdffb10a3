//! Sums of decimal numbers, as INCRBYFLOAT wants them: exact, where a binary float would leave remainders.
//!
//! Redis adds 80-bit floats and prints seventeen places, so 0.1 + 0.2 is 0.3 there and 1000000.1 + 0 is
//! 1000000.10000000000000853. Here digits are added as on paper and the result is rounded to seventeen places. What is
//! a number, and how large it may be, is as there.

/// Why there is no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSum {
    /// One of the two is no decimal number, or too large or too small for one.
    NotANumber,
    /// The sum is no finite number.
    NotFinite,
}

/// A number: its sign, and its digits, of which the last [`PLACES_KEPT`] stand behind the point.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Number {
    is_negative: bool,
    /// Highest first, none of them for zero.
    digits: Vec<u8>,
}

/// The sum of two decimal numbers, without zeros at its end.
pub fn sum(a: &[u8], b: &[u8]) -> Result<String, NoSum> {
    let (a, b) = (parse(a)?, parse(b)?);
    let width = a.digits.len().max(b.digits.len()) + 1;
    let (a_digits, b_digits) = (widened(&a.digits, width), widened(&b.digits, width));
    let (is_negative, digits) = if a.is_negative == b.is_negative {
        (a.is_negative, added(&a_digits, &b_digits))
    } else if a_digits >= b_digits {
        (a.is_negative, taken(&a_digits, &b_digits))
    } else {
        (b.is_negative, taken(&b_digits, &a_digits))
    };
    printed(is_negative, &digits).ok_or(NoSum::NotFinite)
}

/// Whether `text` is a number, infinite ones included.
pub fn is_number(text: &[u8]) -> bool {
    parse(text) != Err(NoSum::NotANumber)
}

fn parse(text: &[u8]) -> Result<Number, NoSum> {
    let text = std::str::from_utf8(text).map_err(|_| NoSum::NotANumber)?;
    let (is_negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    if unsigned.eq_ignore_ascii_case("inf") || unsigned.eq_ignore_ascii_case("infinity") {
        return Err(NoSum::NotFinite);
    }
    let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
        Some(at) => (&unsigned[..at], exponent(&unsigned[at + 1..])?),
        None => (unsigned, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + part.len() == 0 || text.len() > TEXT_BYTES_MAX || !is_plain(whole) || !is_plain(part) {
        return Err(NoSum::NotANumber);
    }
    let all = whole.bytes().chain(part.bytes()).map(|byte| byte - b'0');
    let leading = all.clone().take_while(|digit| *digit == 0).count();
    let mut digits: Vec<u8> = all.skip(leading).collect();
    if digits.is_empty() {
        return Ok(Number { is_negative: false, digits });
    }
    // Where the point stands, counted from the first digit.
    let point = whole.len() as i64 - leading as i64 + exponent;
    if !(-SMALLEST_PLACE..=LARGEST_PLACE).contains(&point) {
        return Err(NoSum::NotANumber);
    }
    let length = usize::try_from(point + PLACES_KEPT as i64).unwrap_or(0);
    digits.resize(length, 0);
    Ok(Number { is_negative, digits })
}

fn exponent(text: &str) -> Result<i64, NoSum> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(NoSum::NotANumber);
    }
    let far = EXPONENT_MAX + 1;
    let number = digits.bytes().fold(0i64, |number, digit| (number * 10 + i64::from(digit - b'0')).min(far));
    Ok(if text.starts_with('-') { -number } else { number })
}

fn widened(digits: &[u8], width: usize) -> Vec<u8> {
    let mut wide = vec![0; width - digits.len()];
    wide.extend_from_slice(digits);
    wide
}

fn added(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let mut sum: Vec<u8> = Vec::with_capacity(a.len());
    for (a, b) in a.iter().zip(b).rev() {
        let digit = a + b + carry;
        carry = digit / 10;
        sum.push(digit % 10);
    }
    sum.reverse();
    sum
}

/// `a - b`, where `a` is no smaller.
fn taken(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrowed = 0;
    let mut rest: Vec<u8> = Vec::with_capacity(a.len());
    for (a, b) in a.iter().zip(b).rev() {
        let digit = 10 + a - b - borrowed;
        borrowed = u8::from(digit < 10);
        rest.push(digit % 10);
    }
    rest.reverse();
    rest
}

/// Rounded to [`PLACES`]; `None` if it is too large.
fn printed(is_negative: bool, digits: &[u8]) -> Option<String> {
    let cut = PLACES_KEPT - PLACES;
    let mut digits = widened(digits, digits.len().max(PLACES_KEPT) + 1);
    let (kept, rest) = digits.split_at(digits.len() - cut);
    // A half goes to the even digit, as printing a float does.
    let is_half = rest[0] == 5 && rest[1..].iter().all(|digit| *digit == 0);
    let rounds_up = if is_half { kept[kept.len() - 1] % 2 == 1 } else { rest[0] >= 5 };
    digits.truncate(digits.len() - cut);
    if rounds_up {
        let mut one = vec![0; digits.len()];
        *one.last_mut()? = 1;
        digits = added(&digits, &one);
    }
    let (whole, part) = digits.split_at(digits.len() - PLACES);
    let text = |digits: &[u8]| digits.iter().map(|digit| char::from(b'0' + digit)).collect::<String>();
    let (whole, part) = (text(whole), text(part));
    let (whole, part) = (whole.trim_start_matches('0'), part.trim_end_matches('0'));
    if whole.len() as i64 > LARGEST_PLACE {
        return None;
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if is_negative && (whole != "0" || !part.is_empty()) { "-" } else { "" };
    let point = if part.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{part}"))
}

/// Places behind the point that are printed, and that are added.
const PLACES: usize = 17;
/// See [`PLACES`].
const PLACES_KEPT: usize = 40;
/// An 80-bit float goes to 1.2e4932 and down to 3.6e-4951.
const LARGEST_PLACE: i64 = 4933;
/// See [`LARGEST_PLACE`].
const SMALLEST_PLACE: i64 = 4950;
/// Beyond this an exponent is far too large, whatever stands before it.
const EXPONENT_MAX: i64 = 100_000;
/// A longer text is no number.
const TEXT_BYTES_MAX: usize = 5 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_exact_and_printed_without_zeros() {
        let cases = [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "200", "5200"),
            ("3", "-3", "0"),
            ("-0", "0", "0"),
            ("-1.5", "0.25", "-1.25"),
            ("1.5", "-0.25", "1.25"),
            ("0.25", "-1.5", "-1.25"),
            ("1000000.1", "0", "1000000.1"),
            ("1", "1e-17", "1.00000000000000001"),
            ("1", "6e-18", "1.00000000000000001"),
            ("0.99999999999999999", "0.000000000000000005", "1"),
            ("0", "0.024390243902439025", "0.02439024390243902"),
            ("0.02439024390243902", "-0.024390243902439025", "0"),
            ("0", ".5", "0.5"),
            ("5.", "+1", "6"),
            ("1e-30", "0", "0"),
            ("-1e-30", "0", "0"),
            ("-4644238456028572735", "0", "-4644238456028572735"),
            ("-9223372036854775808", "3063.5", "-9223372036854772744.5"),
            ("100000000000000000", "0.296875", "100000000000000000.296875"),
        ];
        for (a, b, expected) in cases {
            assert_eq!(sum(a.as_bytes(), b.as_bytes()), Ok(expected.to_string()), "{a} + {b}");
        }
        assert_eq!(sum(b"1e4932", b"1").unwrap().len(), 4933);
    }

    #[test]
    fn what_is_no_number_or_no_finite_one_is_told_apart() {
        for bad in [
            "x",
            " 1",
            "1 ",
            "",
            "-",
            "e5",
            "1e",
            "1e+",
            "1.2.3",
            "0x10",
            "nan",
            "1e5000",
            "1e-5117",
            "1e99999999999999999999",
        ] {
            assert_eq!(sum(bad.as_bytes(), b"1"), Err(NoSum::NotANumber), "{bad}");
            assert!(!is_number(bad.as_bytes()));
        }
        assert_eq!(sum(b"1", b"-inf"), Err(NoSum::NotFinite));
        assert_eq!(sum(b"9.9e4932", b"9.9e4932"), Err(NoSum::NotFinite));
        assert!(is_number(b"inf") && is_number(b"1e400"));
    }
}
