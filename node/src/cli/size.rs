//! Sizes and durations as people write them: `10GiB`, `64K`, `1500`, `500us`, `2s`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// A number of bytes. `K`, `M`, `G`, `T` and `KiB`... are powers of 1024; `KB`, `MB`... of 1000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// A span of time, with its unit: `us`, `ms`, `s`, `m`, `h`, `d`, `w` or `y` (365 days).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// Why a text is no size or no span.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// No digits in front.
    #[error("{0:?} does not start with a number; write for example {1}")]
    NoNumber(String, &'static str),
    /// The letters behind the number are no unit.
    #[error("{0:?} has an unknown unit; write for example {1}")]
    UnknownUnit(String, &'static str),
    /// More than 64 bits.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

const SIZE_EXAMPLE: &str = "64MiB, 10GiB or 4096";
const SPAN_EXAMPLE: &str = "500us, 20ms, 5s, 2m, 12h, 30d or 1y";

/// The digits in front, and what is behind them without blanks.
fn split_number<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str), QuantityError> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let digits = digits.replace('_', "");
    if digits.is_empty() {
        return Err(QuantityError::NoNumber(text.to_owned(), example));
    }
    let number = digits.parse().map_err(|_| QuantityError::TooLarge(text.to_owned()))?;
    Ok((number, unit.trim()))
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Size, QuantityError> {
        let (number, unit) = split_number(text, SIZE_EXAMPLE)?;
        let factor: u64 = match unit.to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kib" => 1 << 10,
            "m" | "mib" => 1 << 20,
            "g" | "gib" => 1 << 30,
            "t" | "tib" => 1 << 40,
            "kb" => 1_000,
            "mb" => 1_000_000,
            "gb" => 1_000_000_000,
            "tb" => 1_000_000_000_000,
            _ => return Err(QuantityError::UnknownUnit(text.to_owned(), SIZE_EXAMPLE)),
        };
        let bytes = number.checked_mul(factor).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
        Ok(Size(bytes))
    }
}

impl FromStr for Span {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Span, QuantityError> {
        let (number, unit) = split_number(text, SPAN_EXAMPLE)?;
        let seconds = |each: u64| {
            let all = number.checked_mul(each).ok_or_else(|| QuantityError::TooLarge(text.to_owned()));
            all.map(Duration::from_secs)
        };
        let span = match unit {
            "us" | "µs" => Duration::from_micros(number),
            "ms" => Duration::from_millis(number),
            "s" => Duration::from_secs(number),
            "m" | "min" => seconds(60)?,
            "h" => seconds(3600)?,
            "d" => seconds(24 * 3600)?,
            "w" => seconds(7 * 24 * 3600)?,
            "y" => seconds(365 * 24 * 3600)?,
            _ => return Err(QuantityError::UnknownUnit(text.to_owned(), SPAN_EXAMPLE)),
        };
        Ok(Span(span))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 4] =
            [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        for (unit, factor) in UNITS {
            if self.0 >= factor {
                let amount = self.0 as f64 / factor as f64;
                return match self.0 % factor {
                    0 => write!(f, "{} {unit}", self.0 / factor),
                    _ if amount < 100.0 => write!(f, "{amount:.1} {unit}"),
                    _ => write!(f, "{amount:.0} {unit}"),
                };
            }
        }
        write!(f, "{} B", self.0)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u128); 5] =
            [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1000)];
        let us = self.0.as_micros();
        let whole = UNITS.iter().find(|(_, unit_us)| us >= *unit_us && us.is_multiple_of(*unit_us));
        match whole {
            Some((unit, unit_us)) => write!(f, "{}{unit}", us / unit_us),
            None => write!(f, "{us}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_in_all_units() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("64K", 65_536),
            ("10GiB", 10 << 30),
            ("10 gib", 10 << 30),
            ("1_000", 1000),
            ("2TB", 2_000_000_000_000),
            ("16777215TiB", 16_777_215 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn bad_sizes_are_named() {
        assert_eq!("GiB".parse::<Size>(), Err(QuantityError::NoNumber("GiB".into(), SIZE_EXAMPLE)));
        assert_eq!("-1".parse::<Size>(), Err(QuantityError::NoNumber("-1".into(), SIZE_EXAMPLE)));
        assert_eq!("3PiB".parse::<Size>(), Err(QuantityError::UnknownUnit("3PiB".into(), SIZE_EXAMPLE)));
        assert_eq!("16777216TiB".parse::<Size>(), Err(QuantityError::TooLarge("16777216TiB".into())));
        assert_eq!(
            "99999999999999999999".parse::<Size>(),
            Err(QuantityError::TooLarge("99999999999999999999".into()))
        );
    }

    #[test]
    fn spans_need_a_unit() {
        assert_eq!("500us".parse(), Ok(Span(Duration::from_micros(500))));
        assert_eq!("20 ms".parse(), Ok(Span(Duration::from_millis(20))));
        assert_eq!("2m".parse(), Ok(Span(Duration::from_secs(120))));
        assert_eq!("2w".parse::<Span>(), "14d".parse());
        assert_eq!("100y".parse::<Span>(), "36500d".parse());
        let too_large = "999999999999y".to_owned();
        assert_eq!(too_large.parse::<Span>(), Err(QuantityError::TooLarge(too_large)));
        assert_eq!("7".parse::<Span>(), Err(QuantityError::UnknownUnit("7".into(), SPAN_EXAMPLE)));
    }

    #[test]
    fn sizes_print_short() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (700_000_000, "668 MiB")]
        {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
