//! Figures for people, in three digits or so.

use super::size::Size;

/// A count: `12.3 k`.
pub fn count(number: f64) -> String {
    let (value, unit) = match number {
        n if n >= 1e9 => (n / 1e9, " G"),
        n if n >= 1e6 => (n / 1e6, " M"),
        n if n >= 1e4 => (n / 1e3, " k"),
        n => return format!("{n:.*}", usize::from(n < 10.0 && n.fract() >= 0.05)),
    };
    format!("{}{unit}", digits(value))
}

fn digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Bytes, as sizes are told.
pub fn bytes(number: f64) -> String {
    Size(number.max(0.0) as u64).to_string()
}

/// A time of so many microseconds.
pub fn time_us(us: u64) -> String {
    match us as f64 {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{} ms", digits(us / 1e3)),
        us => format!("{} s", digits(us / 1e6)),
    }
}

/// A time in seconds, where one is known.
pub fn time(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "-".to_owned(), |s| time_us((s * 1e6).round() as u64))
}

/// A long time: `3 h 2 min`.
pub fn span(seconds: f64) -> String {
    let s = seconds.max(0.0) as u64;
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min {} s", s / 60, s % 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s / 60 % 60),
        _ => format!("{} d {} h", s / 86_400, s / 3600 % 24),
    }
}

/// A part of a whole, in percent.
pub fn percent(part: f64) -> String {
    format!("{:.0} %", part * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(
            [0.0, 0.5, 7.0, 999.4, 12_345.0, 2.5e6].map(count),
            ["0", "0.5", "7", "999", "12.3 k", "2.50 M"]
        );
        assert_eq!([3, 1_500, 125_000, 2_000_000].map(time_us), ["3 us", "1.50 ms", "125 ms", "2.00 s"]);
        assert_eq!([5.0, 125.0, 7_300.0, 90_000.0].map(span), ["5 s", "2 min 5 s", "2 h 1 min", "1 d 1 h"]);
        assert_eq!((time(None), percent(0.256)), ("-".to_owned(), "26 %".to_owned()));
    }
}
