//! What commands do to one key, as a function of what the key has: so that the same is done by a conditional write,
//! and within a transaction.

use bytes::Bytes;
use lode_net::client::{Record, TimeLeft};
use lode_net::resp::Reply;
use lode_net::wire::limits::MAX_VALUE_BYTES;

use super::numbers;
use super::refusal::Refusal;
use super::times::{self, ExpireIf, Life};

/// What a command does to its one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyOp {
    Get,
    Length,
    /// The bytes from one place to another, both counted from the end where they are negative.
    Part {
        from: i64,
        to: i64,
    },
    Type,
    TimeLeft {
        in_ms: bool,
    },
    Set(Set),
    Append(Bytes),
    Overwrite {
        at: i64,
        with: Bytes,
    },
    Add(i64),
    AddFloat(Bytes),
    GetAndDelete,
    GetAndLive(Option<Life>),
    Live {
        ms: u64,
        only: ExpireIf,
    },
    Persist,
    /// Writes the new value where the present one is the expected one.
    Swap {
        expected: Bytes,
        new: Bytes,
    },
}

/// SET and its kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    pub value: Bytes,
    pub when: When,
    pub life: Life,
    pub says: Says,
}

/// Where a SET writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Always,
    IfAbsent,
    IfPresent,
}

/// What a SET answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Says {
    /// `OK`, or nothing where it did not write.
    Ok,
    /// One or zero.
    Flag,
    /// The old value.
    Old,
}

/// What becomes of the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is.
    None,
    Put {
        value: Bytes,
        life: Life,
    },
    Delete,
}

impl KeyOp {
    /// Whether it may change the record.
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            KeyOp::Get | KeyOp::Length | KeyOp::Part { .. } | KeyOp::Type | KeyOp::TimeLeft { .. }
        )
    }

    /// What its answer may hold, in bytes, where that is more than a few.
    pub fn reply_bytes(&self) -> usize {
        match self {
            KeyOp::Get | KeyOp::Part { .. } | KeyOp::GetAndDelete | KeyOp::GetAndLive(_) => MAX_VALUE_BYTES,
            KeyOp::Set(set) if set.says == Says::Old => MAX_VALUE_BYTES,
            _ => 0,
        }
    }

    /// Whether it always asks for a time to live other than its table's.
    pub fn sets_time(&self) -> bool {
        match self {
            KeyOp::Set(set) => matches!(set.life, Life::For(_)),
            KeyOp::GetAndLive(life) => life.is_some(),
            KeyOp::Live { .. } | KeyOp::Persist => true,
            _ => false,
        }
    }

    /// The answer, and what becomes of the record.
    pub fn apply(&self, present: Option<&Record>) -> Result<(Reply, Change), Refusal> {
        let value = present.map(|record| record.value.clone());
        let keep = |reply| Ok((reply, Change::None));
        let put = |reply, value, life| Ok((reply, Change::Put { value, life }));
        match self {
            KeyOp::Get => keep(Reply::bulk_or_null(value)),
            KeyOp::Length => keep(length(value.map_or(0, |value| value.len()))),
            KeyOp::Part { from, to } => keep(Reply::Bulk(part(&value.unwrap_or_default(), *from, *to))),
            KeyOp::Type => keep(Reply::Simple(if value.is_some() { "string" } else { "none" })),
            KeyOp::TimeLeft { in_ms } => {
                keep(Reply::Integer(present.map_or(-2, |record| times::told(record.left, *in_ms))))
            }
            KeyOp::Set(set) => Ok(set.apply(value)),
            KeyOp::Append(more) => {
                let old = value.unwrap_or_default();
                let whole = old.len() + more.len();
                if whole > MAX_VALUE_BYTES {
                    return Err(Refusal::too_long(MAX_VALUE_BYTES));
                }
                put(length(whole), Bytes::from([&old[..], more].concat()), Life::Keep)
            }
            KeyOp::Overwrite { at, with } => overwritten(value, *at, with),
            KeyOp::Add(by) => {
                let sum = numbers::add(value.as_deref(), *by)?;
                put(Reply::Integer(sum), Bytes::from(sum.to_string()), Life::Keep)
            }
            KeyOp::AddFloat(by) => {
                let sum = Bytes::from(numbers::add_float(value.as_deref(), by)?);
                put(Reply::Bulk(sum.clone()), sum, Life::Keep)
            }
            KeyOp::GetAndDelete => {
                let change = if value.is_some() { Change::Delete } else { Change::None };
                Ok((Reply::bulk_or_null(value), change))
            }
            KeyOp::GetAndLive(life) => match (value, life) {
                // What lives for ever is not written anew to live for ever: whoever watches it would see a change.
                (Some(value), Some(Life::Forever)) if lives_for_ever(present) => keep(Reply::Bulk(value)),
                (Some(value), Some(life)) => put(Reply::Bulk(value.clone()), value, *life),
                (value, _) => keep(Reply::bulk_or_null(value)),
            },
            KeyOp::Live { ms, only } => match present.filter(|record| only.holds(record.left, *ms)) {
                Some(record) => put(Reply::Integer(1), record.value.clone(), Life::For(*ms)),
                None => keep(Reply::Integer(0)),
            },
            KeyOp::Persist => match present.filter(|record| record.left != TimeLeft::Forever) {
                Some(record) => put(Reply::Integer(1), record.value.clone(), Life::Forever),
                None => keep(Reply::Integer(0)),
            },
            KeyOp::Swap { expected, new } => match value.filter(|value| value == expected) {
                Some(_) => put(Reply::Integer(1), new.clone(), Life::Keep),
                None => keep(Reply::Integer(0)),
            },
        }
    }
}

impl Set {
    fn apply(&self, present: Option<Bytes>) -> (Reply, Change) {
        let writes = match self.when {
            When::Always => true,
            When::IfAbsent => present.is_none(),
            When::IfPresent => present.is_some(),
        };
        let reply = match self.says {
            Says::Ok if writes => Reply::OK,
            Says::Ok => Reply::Null,
            Says::Flag => Reply::Integer(i64::from(writes)),
            Says::Old => Reply::bulk_or_null(present),
        };
        let put = Change::Put { value: self.value.clone(), life: self.life };
        (reply, if writes { put } else { Change::None })
    }
}

fn lives_for_ever(present: Option<&Record>) -> bool {
    present.is_some_and(|record| record.left == TimeLeft::Forever)
}

fn length(bytes: usize) -> Reply {
    Reply::Integer(bytes as i64)
}

/// A part of a value, as GETRANGE cuts it.
fn part(value: &Bytes, from: i64, to: i64) -> Bytes {
    let bytes = value.len() as i64;
    if from < 0 && to < 0 && from > to {
        return Bytes::new();
    }
    let from_begin = |at: i64| if at < 0 { at.saturating_add(bytes).max(0) } else { at };
    let (from, to) = (from_begin(from), from_begin(to).min(bytes - 1));
    if from > to {
        return Bytes::new();
    }
    let part = value.slice(from as usize..=to as usize);
    // A small one is copied: it would keep all of the value in memory, and be counted for itself alone.
    if part.len() < value.len() / 2 { Bytes::copy_from_slice(&part) } else { part }
}

/// A value with other bytes from one place on, and zeros before that where it was shorter.
fn overwritten(value: Option<Bytes>, at: i64, with: &Bytes) -> Result<(Reply, Change), Refusal> {
    let old = value.unwrap_or_default();
    let at = usize::try_from(at).map_err(|_| Refusal::new("offset is out of range"))?;
    if with.is_empty() {
        return Ok((length(old.len()), Change::None));
    }
    let end = at.saturating_add(with.len());
    if end > MAX_VALUE_BYTES {
        return Err(Refusal::too_long(MAX_VALUE_BYTES));
    }
    let mut new = old.to_vec();
    new.resize(old.len().max(end), 0);
    new[at..end].copy_from_slice(with);
    Ok((length(new.len()), Change::Put { value: Bytes::from(new), life: Life::Keep }))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lode_net::wire::Seq;

    use super::*;

    fn record(value: &'static [u8], left: TimeLeft) -> Record {
        Record { seq: Seq::default(), value: Bytes::from_static(value), left }
    }

    fn forever(value: &'static [u8]) -> Record {
        record(value, TimeLeft::Forever)
    }

    #[test]
    fn a_part_is_cut_from_either_end() {
        let value = Bytes::from_static(b"This is a string");
        for (from, to, wanted) in [
            (0, 3, "This"),
            (-3, -1, "ing"),
            (0, -1, "This is a string"),
            (10, 100, "string"),
            (5, 3, ""),
            (-1, -3, ""),
            (-100, 3, "This"),
            (-100, -100, "T"),
            (100, 200, ""),
            (i64::MIN, i64::MAX, "This is a string"),
            (i64::MAX, i64::MIN, ""),
        ] {
            assert_eq!(part(&value, from, to), wanted.as_bytes(), "{from} {to}");
        }
        assert_eq!(part(&Bytes::new(), 0, -1), "");
        // What is small keeps nothing else in memory; what is large is not copied.
        let is_copied = |to| !value.as_ptr_range().contains(&part(&value, 0, to).as_ptr());
        assert_eq!((is_copied(6), is_copied(7), is_copied(15)), (true, false, false));
    }

    #[test]
    fn values_are_overwritten_within_the_limit() {
        let over = |value: &'static [u8], at, with: Bytes| {
            KeyOp::Overwrite { at, with }.apply(Some(&forever(value))).map(|(reply, change)| match change {
                Change::Put { value, life: Life::Keep } => (reply, Some(value)),
                Change::None => (reply, None),
                other => panic!("{other:?}"),
            })
        };
        let bytes = Bytes::from_static;
        assert_eq!(over(b"Hello", 2, bytes(b"yy")), Ok((Reply::Integer(5), Some(bytes(b"Heyyo")))));
        assert_eq!(over(b"", 2, bytes(b"y")), Ok((Reply::Integer(3), Some(bytes(b"\0\0y")))));
        assert_eq!(over(b"abc", 9, Bytes::new()), Ok((Reply::Integer(3), None)));
        assert!(over(b"abc", -1, bytes(b"y")).is_err());
        let last = MAX_VALUE_BYTES as i64 - 1;
        assert_eq!(over(b"", last, bytes(b"y")).expect("it fits").0, Reply::Integer(last + 1));
        assert_eq!(over(b"", last + 1, bytes(b"y")), Err(Refusal::too_long(MAX_VALUE_BYTES)));
        assert_eq!(over(b"", i64::MAX, bytes(b"y")), Err(Refusal::too_long(MAX_VALUE_BYTES)));
        let append = |bytes| KeyOp::Append(Bytes::from(vec![0; bytes])).apply(Some(&forever(b"a")));
        assert_eq!(append(MAX_VALUE_BYTES - 1).expect("it fits").0, Reply::Integer(MAX_VALUE_BYTES as i64));
        assert_eq!(append(MAX_VALUE_BYTES), Err(Refusal::too_long(MAX_VALUE_BYTES)));
    }

    #[test]
    fn set_writes_where_it_may_and_says_so() {
        let old = forever(b"old");
        for (when, says, present, reply, writes) in [
            (When::Always, Says::Ok, None, Reply::OK, true),
            (When::Always, Says::Old, Some(&old), Reply::text("old"), true),
            (When::Always, Says::Old, None, Reply::Null, true),
            (When::IfAbsent, Says::Ok, Some(&old), Reply::Null, false),
            (When::IfAbsent, Says::Flag, None, Reply::Integer(1), true),
            (When::IfAbsent, Says::Flag, Some(&old), Reply::Integer(0), false),
            (When::IfAbsent, Says::Old, Some(&old), Reply::text("old"), false),
            (When::IfPresent, Says::Ok, None, Reply::Null, false),
            (When::IfPresent, Says::Ok, Some(&old), Reply::OK, true),
        ] {
            let set = Set { value: Bytes::from_static(b"new"), when, life: Life::Keep, says };
            let (told, change) = KeyOp::Set(set).apply(present).expect("it cannot fail");
            assert_eq!((told, change != Change::None), (reply, writes), "{when:?} {says:?}");
        }
    }

    #[test]
    fn times_are_set_only_on_what_is_there() {
        let expiring = record(b"v", TimeLeft::For(Duration::from_secs(5)));
        let kept = forever(b"v");
        let live = KeyOp::Live { ms: 10, only: ExpireIf::default() };
        assert_eq!(live.apply(None), Ok((Reply::Integer(0), Change::None)));
        let put = |life| Change::Put { value: Bytes::from_static(b"v"), life };
        assert_eq!(live.apply(Some(&kept)), Ok((Reply::Integer(1), put(Life::For(10)))));
        assert_eq!(KeyOp::Persist.apply(Some(&kept)), Ok((Reply::Integer(0), Change::None)));
        assert_eq!(KeyOp::Persist.apply(Some(&expiring)), Ok((Reply::Integer(1), put(Life::Forever))));
        assert_eq!(
            KeyOp::TimeLeft { in_ms: false }.apply(Some(&expiring)),
            Ok((Reply::Integer(5), Change::None))
        );
        assert_eq!(KeyOp::TimeLeft { in_ms: true }.apply(None), Ok((Reply::Integer(-2), Change::None)));
        assert_eq!(KeyOp::GetAndDelete.apply(Some(&kept)), Ok((Reply::text("v"), Change::Delete)));
        let swap = KeyOp::Swap { expected: Bytes::from_static(b"v"), new: Bytes::from_static(b"w") };
        assert_eq!(swap.apply(None), Ok((Reply::Integer(0), Change::None)));
        assert!(matches!(
            swap.apply(Some(&expiring)),
            Ok((Reply::Integer(1), Change::Put { life: Life::Keep, .. }))
        ));
    }
}
