//! Arguments into what is to be done. The command's name is the first argument, and their number is checked.

use bytes::Bytes;

use super::key_op::{KeyOp, Says, Set, When};
use super::keys_op::KeysOp;
use super::numbers::{float, integer};
use super::refusal::Refusal;
use super::table_op::{Range, TableOp};
use super::times::{Clock, ExpireIf, Life};

/// Records that LODE.RANGE gives where no LIMIT is said.
const DEFAULT_RANGE_LIMIT: u64 = 1000;

type OfKey = Result<KeyOp, Refusal>;
type OfKeys = Result<KeysOp, Refusal>;
type OfTable = Result<TableOp, Refusal>;

fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

pub fn get(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Get)
}

pub fn strlen(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Length)
}

pub fn get_range(args: &[Bytes]) -> OfKey {
    Ok(KeyOp::Part { from: integer(&args[2])?, to: integer(&args[3])? })
}

pub fn type_of(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Type)
}

pub fn ttl(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::TimeLeft { in_ms: false })
}

pub fn pttl(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::TimeLeft { in_ms: true })
}

pub fn set(args: &[Bytes]) -> OfKey {
    let (mut when, mut life, mut says) = (When::Always, None, Says::Ok);
    let mut at = 3;
    while let Some(option) = args.get(at) {
        at += 1;
        match Clock::of_option(option) {
            Some(clock) if life.is_none() && at < args.len() => {
                life = Some(clock.life_above_zero(&args[at], "set")?);
                at += 1;
            }
            None if is(option, "NX") && when != When::IfPresent => when = When::IfAbsent,
            None if is(option, "XX") && when != When::IfAbsent => when = When::IfPresent,
            None if is(option, "KEEPTTL") && life.is_none_or(|life| life == Life::Keep) => {
                life = Some(Life::Keep)
            }
            None if is(option, "GET") => says = Says::Old,
            _ => return Err(Refusal::syntax()),
        }
    }
    Ok(KeyOp::Set(Set { value: args[2].clone(), when, life: life.unwrap_or(Life::Table), says }))
}

pub fn set_nx(args: &[Bytes]) -> OfKey {
    let value = args[2].clone();
    Ok(KeyOp::Set(Set { value, when: When::IfAbsent, life: Life::Table, says: Says::Flag }))
}

pub fn set_ex(args: &[Bytes]) -> OfKey {
    set_for(args, Clock::SECONDS, "setex")
}

pub fn pset_ex(args: &[Bytes]) -> OfKey {
    set_for(args, Clock::MILLISECONDS, "psetex")
}

fn set_for(args: &[Bytes], clock: Clock, name: &str) -> OfKey {
    let life = clock.life_above_zero(&args[2], name)?;
    Ok(KeyOp::Set(Set { value: args[3].clone(), when: When::Always, life, says: Says::Ok }))
}

pub fn get_set(args: &[Bytes]) -> OfKey {
    let value = args[2].clone();
    Ok(KeyOp::Set(Set { value, when: When::Always, life: Life::Table, says: Says::Old }))
}

pub fn get_del(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::GetAndDelete)
}

pub fn get_ex(args: &[Bytes]) -> OfKey {
    let life = match &args[2..] {
        [] => None,
        [option] if is(option, "PERSIST") => Some(Life::Forever),
        [option, time] => {
            let clock = Clock::of_option(option).ok_or_else(Refusal::syntax)?;
            Some(clock.life_above_zero(time, "getex")?)
        }
        _ => return Err(Refusal::syntax()),
    };
    Ok(KeyOp::GetAndLive(life))
}

pub fn append(args: &[Bytes]) -> OfKey {
    Ok(KeyOp::Append(args[2].clone()))
}

pub fn set_range(args: &[Bytes]) -> OfKey {
    let at = integer(&args[2])?;
    if at < 0 {
        return Err(Refusal::new("offset is out of range"));
    }
    Ok(KeyOp::Overwrite { at, with: args[3].clone() })
}

pub fn incr(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Add(1))
}

pub fn decr(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Add(-1))
}

pub fn incr_by(args: &[Bytes]) -> OfKey {
    Ok(KeyOp::Add(integer(&args[2])?))
}

pub fn decr_by(args: &[Bytes]) -> OfKey {
    let by = integer(&args[2])?.checked_neg();
    Ok(KeyOp::Add(by.ok_or_else(|| Refusal::new("decrement would overflow"))?))
}

pub fn incr_by_float(args: &[Bytes]) -> OfKey {
    float(&args[2])?;
    Ok(KeyOp::AddFloat(args[2].clone()))
}

fn live(args: &[Bytes], clock: Clock, name: &str) -> OfKey {
    let life = clock.life(&args[2], name)?;
    let only = ExpireIf::parse(&args[3..])?;
    let Life::For(ms) = life else { return Err(Refusal::bad_time(name)) };
    Ok(KeyOp::Live { ms, only })
}

pub fn expire(args: &[Bytes]) -> OfKey {
    live(args, Clock::SECONDS, "expire")
}

pub fn pexpire(args: &[Bytes]) -> OfKey {
    live(args, Clock::MILLISECONDS, "pexpire")
}

pub fn expire_at(args: &[Bytes]) -> OfKey {
    live(args, Clock { in_ms: false, is_absolute: true }, "expireat")
}

pub fn pexpire_at(args: &[Bytes]) -> OfKey {
    live(args, Clock { in_ms: true, is_absolute: true }, "pexpireat")
}

pub fn persist(_: &[Bytes]) -> OfKey {
    Ok(KeyOp::Persist)
}

pub fn swap(args: &[Bytes]) -> OfKey {
    Ok(KeyOp::Swap { expected: args[2].clone(), new: args[3].clone() })
}

pub fn mget(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::Get(args[1..].to_vec()))
}

pub fn exists(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::Exist(args[1..].to_vec()))
}

pub fn delete(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::Delete(args[1..].to_vec()))
}

pub fn mset(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::Set(pairs(args, "mset")?))
}

pub fn mset_nx(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::SetIfNone(pairs(args, "msetnx")?))
}

fn pairs(args: &[Bytes], name: &str) -> Result<Vec<(Bytes, Bytes)>, Refusal> {
    let (pairs, rest) = args[1..].as_chunks::<2>();
    match rest {
        [] => Ok(pairs.iter().map(|[key, value]| (key.clone(), value.clone())).collect()),
        _ => Err(Refusal::arity(name)),
    }
}

pub fn rename(args: &[Bytes]) -> OfKeys {
    Ok(KeysOp::Rename(args[1].clone(), args[2].clone()))
}

pub fn count(_: &[Bytes]) -> OfTable {
    Ok(TableOp::Count)
}

pub fn random_key(_: &[Bytes]) -> OfTable {
    Ok(TableOp::RandomKey)
}

pub fn keys(args: &[Bytes]) -> OfTable {
    Ok(TableOp::Keys { pattern: args[1].clone() })
}

pub fn flush(args: &[Bytes]) -> OfTable {
    match &args[1..] {
        [] => Ok(TableOp::Empty),
        // Either way it is done when it is answered.
        [how] if is(how, "SYNC") || is(how, "ASYNC") => Ok(TableOp::Empty),
        _ => Err(Refusal::syntax()),
    }
}

pub fn scan(args: &[Bytes]) -> OfTable {
    let cursor = std::str::from_utf8(&args[1]).ok().and_then(|text| text.parse().ok());
    let cursor = cursor.ok_or_else(|| Refusal::new("invalid cursor"))?;
    let (mut pattern, mut count, mut is_for_strings) = (None, 10, true);
    let (options, rest) = args[2..].as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Refusal::syntax());
    }
    for [option, value] in options {
        if is(option, "MATCH") {
            pattern = Some(value.clone());
        } else if is(option, "COUNT") {
            count =
                u64::try_from(integer(value)?).ok().filter(|count| *count > 0).ok_or_else(Refusal::syntax)?;
        } else if is(option, "TYPE") {
            is_for_strings = is(value, "string");
        } else {
            return Err(Refusal::syntax());
        }
    }
    Ok(TableOp::Scan { cursor, pattern, count, is_for_strings })
}

pub fn range(args: &[Bytes]) -> OfTable {
    ordered(args, false)
}

pub fn rev_range(args: &[Bytes]) -> OfTable {
    ordered(args, true)
}

/// `START END [LIMIT n] [KEYS]`; `-` is the beginning, `+` the end.
fn ordered(args: &[Bytes], reverse: bool) -> OfTable {
    let start = if args[1] == "-" { Bytes::new() } else { args[1].clone() };
    let end = (args[2] != "+").then(|| args[2].clone());
    let mut range = Range { start, end, reverse, limit: Some(DEFAULT_RANGE_LIMIT), keys_only: false };
    let mut rest = &args[3..];
    loop {
        rest = match rest {
            [] => return Ok(TableOp::Range(range)),
            [option, behind @ ..] if is(option, "KEYS") => {
                range.keys_only = true;
                behind
            }
            [option, limit, behind @ ..] if is(option, "LIMIT") => {
                let limit = u64::try_from(integer(limit)?);
                range.limit = Some(limit.map_err(|_| Refusal::new("LIMIT cannot be negative"))?);
                behind
            }
            _ => return Err(Refusal::syntax()),
        }
    }
}

pub fn least(_: &[Bytes]) -> OfTable {
    Ok(TableOp::Extreme { largest: false })
}

pub fn largest(_: &[Bytes]) -> OfTable {
    Ok(TableOp::Extreme { largest: true })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<Bytes> {
        text.split(' ').map(|word| Bytes::copy_from_slice(word.as_bytes())).collect()
    }

    #[test]
    fn options_of_set_exclude_each_other() {
        for good in ["", " NX", " xx GET", " EX 10", " px 10 nx", " KEEPTTL XX", " NX NX", " GET GET EX 1"] {
            assert!(set(&args(&format!("SET k v{good}"))).is_ok(), "{good}");
        }
        for bad in [
            " NX XX",
            " EX",
            " EX 10 PX 10",
            " EX 10 KEEPTTL",
            " KEEPTTL EX 10",
            " OTHER",
            " EX 0",
            " EX -1",
            " EX x",
        ] {
            assert!(set(&args(&format!("SET k v{bad}"))).is_err(), "{bad}");
        }
        assert_eq!(set(&args("SET k v EX 0")), Err(Refusal::bad_time("set")));
        assert!(get_ex(&args("GETEX k PERSIST EX 1")).is_err());
        assert_eq!(get_ex(&args("GETEX k persist")), Ok(KeyOp::GetAndLive(Some(Life::Forever))));
    }

    #[test]
    fn ranges_have_ends_and_limits() {
        let of = |text: &str| match range(&args(text)) {
            Ok(TableOp::Range(range)) => Ok(range),
            Ok(other) => panic!("{other:?}"),
            Err(refusal) => Err(refusal),
        };
        let all = of("LODE.RANGE - +").expect("a range");
        assert_eq!((all.start, all.end, all.limit), (Bytes::new(), None, Some(DEFAULT_RANGE_LIMIT)));
        let some = of("LODE.RANGE a b KEYS limit 0").expect("a range");
        assert_eq!((some.end.as_deref(), some.limit, some.keys_only), (Some(&b"b"[..]), Some(0), true));
        for bad in
            ["LODE.RANGE a b LIMIT", "LODE.RANGE a b LIMIT -1", "LODE.RANGE a b LIMIT x", "LODE.RANGE a b c"]
        {
            assert!(of(bad).is_err(), "{bad}");
        }
        assert!(scan(&args("SCAN 0 COUNT 0")).is_err() && scan(&args("SCAN x")).is_err());
        assert!(scan(&args("SCAN 0 MATCH")).is_err() && scan(&args("SCAN -1")).is_err());
    }
}
