//! Sums of decimal numbers, as INCRBYFLOAT wants them: exact, where a binary float would leave remainders.
//!
//! Redis adds 80-bit floats and prints seventeen places, so 0.1 + 0.2 is 0.3 there and 1000000.1 + 0 is
//! 1000000.10000000000000853. Here numbers with up to seventeen places and twenty digits before the point are added
//! as integers; what is larger or finer is added as 64-bit floats.

/// Why there is no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoSum {
    /// One of the two is no decimal number.
    NotANumber,
    /// The sum is no finite number.
    NotFinite,
}

/// The sum of two decimal numbers, without zeros at its end.
pub fn sum(a: &[u8], b: &[u8]) -> Result<String, NoSum> {
    if let (Some(a), Some(b)) = (scaled(a), scaled(b)) {
        return Ok(printed(a + b));
    }
    let sum = float(a).ok_or(NoSum::NotANumber)? + float(b).ok_or(NoSum::NotANumber)?;
    if !sum.is_finite() {
        return Err(NoSum::NotFinite);
    }
    Ok(without_zeros(format!("{sum:.PLACES$}")))
}

/// A number times ten to the seventeenth; `None` if it is too large or too fine, or none.
fn scaled(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (is_negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match digits.find(['e', 'E']) {
        Some(at) => (&digits[..at], digits[at + 1..].parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.len() + part.len() == 0 || !whole.bytes().chain(part.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: i128 = match format!("{whole}{part}").trim_start_matches('0') {
        "" => return Some(0),
        digits if digits.len() > DIGITS_MAX => return None,
        digits => digits.parse().ok()?,
    };
    let power = exponent.checked_sub(part.len() as i32)?.checked_add(PLACES as i32)?;
    let number = match power {
        0.. => number.checked_mul(10i128.checked_pow(power as u32)?)?,
        _ => {
            let unit = 10i128.checked_pow(power.unsigned_abs())?;
            (number % unit == 0).then_some(number / unit)?
        }
    };
    (number < WHOLE_MAX * UNIT).then_some(if is_negative { -number } else { number })
}

fn printed(number: i128) -> String {
    let sign = if number < 0 { "-" } else { "" };
    let (whole, part) = (number.unsigned_abs() / UNIT as u128, number.unsigned_abs() % UNIT as u128);
    without_zeros(format!("{sign}{whole}.{part:0PLACES$}"))
}

fn without_zeros(text: String) -> String {
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_string() } else { text.to_string() }
}

fn float(text: &[u8]) -> Option<f64> {
    let is_plain = text.first().is_some_and(|byte| !byte.is_ascii_whitespace());
    std::str::from_utf8(text).ok().filter(|_| is_plain)?.parse().ok().filter(|number: &f64| !number.is_nan())
}

/// Places behind the point.
const PLACES: usize = 17;
const UNIT: i128 = 10i128.pow(PLACES as u32);
/// What stands before the point stays below this, so that the sum of two fits.
const WHOLE_MAX: i128 = 10i128.pow(20);
/// Digits in all.
const DIGITS_MAX: usize = 38;

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
            ("-1.5", "0.25", "-1.25"),
            ("1000000.1", "0", "1000000.1"),
            ("1", "1e-17", "1.00000000000000001"),
            ("0", ".5", "0.5"),
            ("17179869184", "1.5", "17179869185.5"),
        ];
        for (a, b, expected) in cases {
            assert_eq!(sum(a.as_bytes(), b.as_bytes()), Ok(expected.to_string()), "{a} + {b}");
        }
        assert_eq!(sum(b"-4644238456028572735", b"0"), Ok("-4644238456028572735".to_string()));
        assert_eq!(sum(b"-9223372036854775808", b"3063.5"), Ok("-9223372036854772744.5".to_string()));
        assert_eq!(sum(b"1e300", b"1").unwrap().len(), 301);
    }

    #[test]
    fn what_is_no_number_or_no_finite_one_is_told_apart() {
        assert_eq!(sum(b"x", b"1"), Err(NoSum::NotANumber));
        assert_eq!(sum(b" 1", b"1"), Err(NoSum::NotANumber));
        assert_eq!(sum(b"", b"1"), Err(NoSum::NotANumber));
        assert_eq!(sum(b"1", b"inf"), Err(NoSum::NotFinite));
        assert_eq!(sum(b"1e308", b"1e308"), Err(NoSum::NotFinite));
    }
}
