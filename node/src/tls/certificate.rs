//! How long a certificate is good for: of all that X.509 says (RFC 5280), what an operator has to act upon in time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// When a certificate (DER) begins and ends to be good; nothing where that cannot be read.
pub fn validity(der: &[u8]) -> Option<(SystemTime, SystemTime)> {
    let (certificate, _) = part(der, SEQUENCE)?;
    let (signed, _) = part(certificate, SEQUENCE)?;
    let rest = part(signed, EXPLICIT_VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = part(rest, INTEGER)?;
    let (_algorithm, rest) = part(rest, SEQUENCE)?;
    let (_issuer, rest) = part(rest, SEQUENCE)?;
    let (times, _) = part(rest, SEQUENCE)?;
    let (begins, rest) = time(times)?;
    let (ends, _) = time(rest)?;
    Some((begins, ends))
}

/// The content of the first value, if it has this tag, and what comes behind it.
fn part(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [found, length, rest @ ..] = der else { return None };
    if *found != tag {
        return None;
    }
    // Lengths of up to 127 are one byte; the upper bit says how many bytes a longer one takes.
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The first value as a time: years have two digits up to 2049, and four from then on.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (digits, year_digits, rest) = match part(der, UTC_TIME) {
        Some((digits, rest)) => (digits, 2, rest),
        None => part(der, GENERALIZED_TIME).map(|(digits, rest)| (digits, 4, rest))?,
    };
    let text = std::str::from_utf8(digits).ok()?.strip_suffix('Z')?;
    if text.len() != year_digits + 10 || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let (year, text) = text.split_at(year_digits);
    let year: u64 = year.parse().ok()?;
    let year = match year_digits {
        2 if year < 50 => 2000 + year,
        2 => 1900 + year,
        _ => year,
    };
    let two = |at: usize| text[at..at + 2].parse::<u64>().ok();
    let (month, day) = (two(0)?, two(2)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let seconds = (days_since_1970(year, month, day)? * 24 + two(4)?) * 3600 + two(6)? * 60 + two(8)?;
    Some((UNIX_EPOCH + Duration::from_secs(seconds), rest))
}

/// Days of the Gregorian calendar; nothing before 1970.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if year < 1970 {
        return None;
    }
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let leaps_before = |year: u64| (year - 1) / 4 - (year - 1) / 100 + (year - 1) / 400;
    const BEFORE_MONTH: [u64; 12] = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let in_year = BEFORE_MONTH[month as usize - 1] + u64::from(month > 2 && is_leap(year)) + day - 1;
    Some((year - 1970) * 365 + leaps_before(year) - leaps_before(1970) + in_year)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn der(tag: u8, content: &[u8]) -> Vec<u8> {
        let mut der = vec![tag];
        match content.len() {
            short @ ..=0x7f => der.push(short as u8),
            long => der.extend([0x82, (long >> 8) as u8, long as u8]),
        }
        der.extend_from_slice(content);
        der
    }

    fn certificate(begins: &[u8], ends: &[u8]) -> Vec<u8> {
        let parts = [
            der(EXPLICIT_VERSION, &der(INTEGER, &[2])),
            der(INTEGER, &[7; 20]),
            der(SEQUENCE, &[]),
            der(SEQUENCE, &[9; 200]),
            der(SEQUENCE, &[begins, ends].concat()),
        ];
        der(SEQUENCE, &der(SEQUENCE, &parts.concat()))
    }

    #[test]
    fn both_forms_of_times_are_read_and_leap_days_counted() {
        let made = certificate(&der(UTC_TIME, b"240229123456Z"), &der(GENERALIZED_TIME, b"20500301000000Z"));
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (begins, ends) = validity(&made).unwrap();
        assert_eq!((seconds(begins), seconds(ends)), (1_709_210_096, 2_529_705_600));
        assert_eq!(days_since_1970(1970, 1, 1), Some(0));
        assert_eq!(days_since_1970(2000, 3, 1), Some(11_017));
    }

    #[test]
    fn what_is_cut_or_is_no_certificate_has_no_times_and_panics_nowhere() {
        let made = certificate(&der(UTC_TIME, b"240229123456Z"), &der(UTC_TIME, b"491231235959Z"));
        assert!(validity(&made).is_some());
        for end in 0..made.len() {
            assert!(validity(&made[..end]).is_none(), "{end}");
        }
        for wrong in
            [&b"2402291234Z"[..], b"241329123456Z", b"240200123456Z", b"240229123456", b"24022912345xZ"]
        {
            assert!(
                validity(&certificate(&der(UTC_TIME, wrong), &der(UTC_TIME, b"491231235959Z"))).is_none()
            );
        }
        for byte in 0..=255u8 {
            let mut changed = made.clone();
            for at in 0..changed.len() {
                let before = std::mem::replace(&mut changed[at], byte);
                let _ = validity(&changed);
                changed[at] = before;
            }
        }
    }
}
