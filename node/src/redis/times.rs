//! How long records live: what commands say of it, and what they are told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use lode_net::client::{Lifetime, TimeLeft};
use lode_net::wire::limits::MAX_TTL_MS;

use super::numbers::integer;
use super::refusal::Refusal;

/// How long a record is to live once a command is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// As its table says: for ever, in most.
    Table,
    /// As long as before; of a new record, as its table says.
    Keep,
    /// For ever.
    Forever,
    /// For so many milliseconds; 0: its time is over.
    For(u64),
}

impl Life {
    /// In the client's words; `left` is what the record had until now. `None`: it is to go.
    pub fn resolve(self, left: Option<TimeLeft>) -> Option<Lifetime> {
        Some(match (self, left) {
            (Life::Table, _) | (Life::Keep, None) => Lifetime::Table,
            (Life::Forever, _) | (Life::Keep, Some(TimeLeft::Forever)) => Lifetime::Forever,
            (Life::Keep, Some(TimeLeft::For(left))) => Lifetime::For(left),
            (Life::For(0), _) => return None,
            (Life::For(ms), _) => Lifetime::For(Duration::from_millis(ms)),
        })
    }
}

/// How a command counts time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// In milliseconds, not seconds.
    pub in_ms: bool,
    /// Since the beginning of 1970, not from now.
    pub is_absolute: bool,
}

impl Clock {
    /// Of `EX` and `EXPIRE`.
    pub const SECONDS: Clock = Clock { in_ms: false, is_absolute: false };
    /// Of `PX` and `PEXPIRE`.
    pub const MILLISECONDS: Clock = Clock { in_ms: true, is_absolute: false };

    /// Which one an option such as `EX` means.
    pub fn of_option(option: &[u8]) -> Option<Clock> {
        Some(match option.to_ascii_uppercase().as_slice() {
            b"EX" => Clock::SECONDS,
            b"PX" => Clock::MILLISECONDS,
            b"EXAT" => Clock { in_ms: false, is_absolute: true },
            b"PXAT" => Clock { in_ms: true, is_absolute: true },
            _ => return None,
        })
    }

    /// How long a record is to live; one whose time is over already is to go.
    pub fn life(self, text: &[u8], command: &str) -> Result<Life, Refusal> {
        let number = integer(text)?;
        let bad = || Refusal::bad_time(command);
        let ms = if self.in_ms { number } else { number.checked_mul(1000).ok_or_else(bad)? };
        let ms = if self.is_absolute { ms.saturating_sub(now_ms()) } else { ms };
        let ms = u64::try_from(ms).unwrap_or(0);
        if ms > MAX_TTL_MS { Err(bad()) } else { Ok(Life::For(ms)) }
    }

    /// The same, of a command that takes no time that is not above zero.
    pub fn life_above_zero(self, text: &[u8], command: &str) -> Result<Life, Refusal> {
        match integer(text)? {
            ..=0 => Err(Refusal::bad_time(command)),
            _ => self.life(text, command),
        }
    }
}

/// When EXPIRE does anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpireIf {
    /// Only where the record lives for ever (true), or only where it does not (false).
    pub lives_for_ever: Option<bool>,
    /// Only where it then lives longer (true), or only where it lives less long (false).
    pub longer: Option<bool>,
}

impl ExpireIf {
    /// The options behind the time.
    pub fn parse(options: &[Bytes]) -> Result<ExpireIf, Refusal> {
        let (mut only, mut has_xx) = (ExpireIf::default(), false);
        for option in options {
            match option.to_ascii_uppercase().as_slice() {
                b"NX" => only.lives_for_ever = Some(true),
                b"XX" => has_xx = true,
                b"GT" if only.longer == Some(false) => return Err(ExpireIf::both()),
                b"GT" => only.longer = Some(true),
                b"LT" if only.longer == Some(true) => return Err(ExpireIf::both()),
                b"LT" => only.longer = Some(false),
                _ => return Err(Refusal::new(format_args!("Unsupported option {}", option.escape_ascii()))),
            }
        }
        if only.lives_for_ever == Some(true) && (has_xx || only.longer.is_some()) {
            return Err(Refusal::new("NX and XX, GT or LT options at the same time are not compatible"));
        }
        if has_xx {
            only.lives_for_ever = Some(false);
        }
        Ok(only)
    }

    fn both() -> Refusal {
        Refusal::new("GT and LT options at the same time are not compatible")
    }

    /// Whether a record that has so long to live is to be given so many milliseconds.
    pub fn holds(self, left: TimeLeft, ms: u64) -> bool {
        let left_ms = left.duration().map_or(u128::MAX, |left| left.as_millis());
        let by_kind = self.lives_for_ever.is_none_or(|forever| forever == (left == TimeLeft::Forever));
        let by_time = self.longer.is_none_or(|longer| match longer {
            true => u128::from(ms) > left_ms,
            false => u128::from(ms) < left_ms,
        });
        by_kind && by_time
    }
}

/// What TTL and PTTL answer of a record that is there.
pub fn told(left: TimeLeft, in_ms: bool) -> i64 {
    let Some(left) = left.duration() else { return -1 };
    let ms = i64::try_from(left.as_millis()).unwrap_or(i64::MAX);
    if in_ms { ms } else { ms.saturating_add(500) / 1000 }
}

/// Milliseconds since the beginning of 1970, by this machine's clock.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_taken_within_their_limits() {
        let most = MAX_TTL_MS.to_string();
        assert_eq!(Clock::MILLISECONDS.life(most.as_bytes(), "c"), Ok(Life::For(MAX_TTL_MS)));
        let above = (MAX_TTL_MS + 1).to_string();
        assert_eq!(Clock::MILLISECONDS.life(above.as_bytes(), "c"), Err(Refusal::bad_time("c")));
        assert_eq!(Clock::SECONDS.life(b"9223372036854775807", "c"), Err(Refusal::bad_time("c")));
        assert_eq!(Clock::SECONDS.life(b"-1", "c"), Ok(Life::For(0)));
        assert_eq!(Clock::SECONDS.life(b"2", "c"), Ok(Life::For(2000)));
        assert_eq!(Clock::SECONDS.life(b"x", "c"), Err(Refusal::not_an_integer()));
        assert_eq!(Clock::SECONDS.life_above_zero(b"0", "c"), Err(Refusal::bad_time("c")));
        let at = Clock::of_option(b"exat").expect("an option");
        assert_eq!(at.life(b"1", "c"), Ok(Life::For(0)));
        let soon = at.life((now_ms() / 1000 + 100).to_string().as_bytes(), "c");
        assert!(matches!(soon, Ok(Life::For(98_000..=100_000))), "{soon:?}");
        assert_eq!(Clock::of_option(b"e"), None);
    }

    #[test]
    fn expire_has_conditions() {
        let parse = |text: &str| {
            let options: Vec<Bytes> =
                text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
            ExpireIf::parse(&options)
        };
        let ten = TimeLeft::For(Duration::from_millis(10));
        for (options, left, ms, holds) in [
            ("NX", TimeLeft::Forever, 1, true),
            ("nx", ten, 1, false),
            ("XX", ten, 1, true),
            ("XX", TimeLeft::Forever, 1, false),
            ("GT", ten, 11, true),
            ("GT", ten, 10, false),
            ("GT", TimeLeft::Forever, 11, false),
            ("LT", ten, 9, true),
            ("LT", ten, 10, false),
            ("LT", TimeLeft::Forever, 10, true),
            ("XX LT", TimeLeft::Forever, 10, false),
        ] {
            assert_eq!(parse(options).expect("options").holds(left, ms), holds, "{options} {left:?} {ms}");
        }
        for bad in ["NX XX", "NX GT", "LT NX", "GT LT", "LT GT", "EX", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn time_left_is_rounded_as_redis_does() {
        let of = |ms| TimeLeft::For(Duration::from_millis(ms));
        assert_eq!((told(of(1499), false), told(of(1500), false), told(of(1499), true)), (1, 2, 1499));
        assert_eq!(told(TimeLeft::Forever, true), -1);
    }
}
