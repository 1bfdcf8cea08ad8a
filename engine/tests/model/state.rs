//! What one write leaves behind, as far as the plain map knows: a value and the span of time in which it
//! expires. When a write took place is known only between its sending and its answer.

use lode_engine::TimeLeft;

/// What a key holds after a write.
#[derive(Default, Clone, Debug)]
pub(crate) struct State {
    /// `None` is absence.
    pub(crate) value: Option<Vec<u8>>,
    /// It expires at the earliest and at the latest then, in UNIX milliseconds; `None` is never.
    pub(crate) expires: Option<(u64, u64)>,
}

/// The time as the shard may see it: not before the wall clock, which is set back now and then, and not
/// after the latest time that it ever showed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Time {
    pub(crate) wall_ms: u64,
    pub(crate) highest_ms: u64,
}

impl State {
    /// After a write that was sent now, and takes place some time.
    pub(crate) fn sent(value: Option<Vec<u8>>, ttl_ms: Option<u64>, now: Time) -> State {
        let expires = ttl_ms.filter(|_| value.is_some()).map(|ttl_ms| (now.wall_ms + ttl_ms, u64::MAX));
        State { value, expires }
    }

    /// The write has taken place by now.
    pub(crate) fn settle(&mut self, ttl_ms: Option<u64>, now: Time) {
        if let (Some((_, latest)), Some(ttl_ms)) = (&mut self.expires, ttl_ms) {
            *latest = (*latest).min(now.highest_ms + ttl_ms);
        }
    }

    /// Whether a read that was sent at `since` and answered at `now` may have seen this of it.
    pub(crate) fn allows(&self, seen: Option<&[u8]>, since: Time, now: Time) -> bool {
        match (&self.value, seen) {
            (None, seen) => seen.is_none(),
            (Some(_), None) => self.may_be_over(now),
            (Some(value), Some(seen)) => {
                value == seen && self.expires.is_none_or(|(_, latest)| latest > since.wall_ms)
            }
        }
    }

    /// Whether a read of it may say that so much time is left.
    pub(crate) fn fits(&self, left: TimeLeft, since: Time, now: Time) -> bool {
        match (left, self.expires) {
            (TimeLeft::Forever, None) => true,
            (TimeLeft::Ms(ms), Some((earliest, latest))) => {
                let last = if latest == u64::MAX { latest } else { latest + 1 };
                ms >= 1 && since.wall_ms + ms <= last && now.highest_ms + ms >= earliest
            }
            _ => false,
        }
    }

    /// Whether its time may be over.
    pub(crate) fn may_be_over(&self, now: Time) -> bool {
        self.expires.is_some_and(|(earliest, _)| earliest <= now.highest_ms)
    }

    /// Whether nobody can tell if its time is over.
    pub(crate) fn is_uncertain(&self, now: Time) -> bool {
        self.expires.is_some_and(|(earliest, latest)| earliest <= now.highest_ms && latest > now.wall_ms)
    }

    /// What it holds at a time that leaves no doubt.
    pub(crate) fn at(&self, now: Time) -> Option<&[u8]> {
        assert!(!self.is_uncertain(now), "{self:?} at {now:?}");
        self.value.as_deref().filter(|_| !self.may_be_over(now))
    }
}
