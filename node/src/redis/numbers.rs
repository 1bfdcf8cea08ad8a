//! Numbers in arguments and values, as strict as Redis is about them.

use super::refusal::Refusal;

/// Digits behind the point that a sum keeps.
const FRACTION_DIGITS: u32 = 17;
/// One, as a scaled number.
const ONE: i128 = 10i128.pow(FRACTION_DIGITS);

/// A whole number: no spaces, no plus, no leading zeros.
pub fn integer(text: &[u8]) -> Result<i64, Refusal> {
    let digits = text.strip_prefix(b"-").unwrap_or(text);
    let is_zero = text == b"0";
    let is_plain = digits.first().is_some_and(|first| (b'1'..=b'9').contains(first))
        && digits.iter().all(u8::is_ascii_digit);
    if !is_zero && !is_plain {
        return Err(Refusal::not_an_integer());
    }
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(Refusal::not_an_integer)
}

/// A whole number in a value, and what is added to it.
pub fn add(present: Option<&[u8]>, by: i64) -> Result<i64, Refusal> {
    let present = present.map_or(Ok(0), integer)?;
    present.checked_add(by).ok_or_else(|| Refusal::new("increment or decrement would overflow"))
}

/// A number with a fraction; infinities are some.
pub fn float(text: &[u8]) -> Result<f64, Refusal> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with(char::is_whitespace));
    let number = text.and_then(|text| text.parse::<f64>().ok()).filter(|number| !number.is_nan());
    number.ok_or_else(Refusal::not_a_float)
}

/// The sum of two numbers, as text with up to 17 digits behind the point.
///
/// Exact where both have no more than that and are below 10^20, so that 0.1 and 0.2 make 0.3; else as binary
/// numbers of 64 bits add.
pub fn add_float(present: Option<&[u8]>, by: &[u8]) -> Result<String, Refusal> {
    let present = present.unwrap_or(b"0");
    let sum = float(present)? + float(by)?;
    if !sum.is_finite() {
        return Err(Refusal::new("increment would produce NaN or Infinity"));
    }
    let exact = scaled(present).zip(scaled(by)).and_then(|(a, b)| a.checked_add(b));
    Ok(match exact {
        Some(sum) => {
            let sign = if sum < 0 { "-" } else { "" };
            let sum = sum.unsigned_abs();
            let one = ONE.unsigned_abs();
            trimmed(format!("{sign}{}.{:017}", sum / one, sum % one))
        }
        None => trimmed(format!("{sum:.17}")),
    })
}

/// Without zeros at the end of the fraction.
fn trimmed(text: String) -> String {
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

/// A decimal number times 10^17, where that is a whole number that is not too large.
fn scaled(text: &[u8]) -> Option<i128> {
    let text = std::str::from_utf8(text).ok()?;
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (is_negative, mantissa) = match mantissa.as_bytes().first()? {
        b'-' => (true, &mantissa[1..]),
        b'+' => (false, &mantissa[1..]),
        _ => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = [whole, fraction].concat();
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let mut number: i128 = digits
        .trim_start_matches('0')
        .parse()
        .or_else(|error| if digits.bytes().all(|digit| digit == b'0') { Ok(0) } else { Err(error) })
        .ok()?;
    let shift =
        exponent.checked_add(FRACTION_DIGITS as i32)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    match u32::try_from(shift) {
        Ok(up) => number = number.checked_mul(10i128.checked_pow(up)?)?,
        Err(_) => {
            let down = 10i128.checked_pow(shift.unsigned_abs())?;
            number = (number % down == 0).then_some(number / down)?;
        }
    }
    Some(if is_negative { -number } else { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_are_strict() {
        for (text, number) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("1.0", None),
            ("0x1", None),
        ] {
            assert_eq!(integer(text.as_bytes()).ok(), number, "{text:?}");
        }
        assert_eq!(add(None, -3), Ok(-3));
        assert_eq!(add(Some(b"9223372036854775806"), 1), Ok(i64::MAX));
        assert!(add(Some(b"9223372036854775807"), 1).is_err());
        assert!(add(Some(b"-9223372036854775808"), -1).is_err());
        assert!(add(Some(b"a"), 1).is_err());
    }

    #[test]
    fn fractions_add_as_people_add_them() {
        for (present, by, sum) in [
            ("0.1", "0.2", "0.3"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("-1.5", "1.5", "0"),
            ("-0", "-0", "0"),
            ("1", "-.5", "0.5"),
            ("3.", "+1", "4"),
            ("0.00000000000000001", "1", "1.00000000000000001"),
            ("-0.25", "-0.25", "-0.5"),
            ("1e-5", "0", "0.00001"),
            ("17179869184.5", "0.25", "17179869184.75"),
            ("1e25", "1", "10000000000000000905969664"),
            ("1e-20", "0", "0"),
        ] {
            assert_eq!(
                add_float(Some(present.as_bytes()), by.as_bytes()).as_deref(),
                Ok(sum),
                "{present} + {by}"
            );
        }
        assert_eq!(add_float(None, b"3").as_deref(), Ok("3"));
        for (present, by) in [("a", "1"), ("1", "a"), (" 1", "1"), ("1", "nan"), ("", "1"), ("1", "1 ")] {
            assert_eq!(add_float(Some(present.as_bytes()), by.as_bytes()), Err(Refusal::not_a_float()));
        }
        for (present, by) in [("inf", "1"), ("1", "-inf"), ("1e308", "1e308")] {
            let refused = add_float(Some(present.as_bytes()), by.as_bytes());
            assert!(refused.is_err_and(|refusal| refusal.0.contains("NaN or Infinity")), "{present} + {by}");
        }
    }
}
