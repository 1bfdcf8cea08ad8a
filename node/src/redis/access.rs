//! Who a connection of the door acts for, and what he may ask.

use bytes::Bytes;
use lode_net::wire::server::Principal;

use super::commands::{Command, Does, OfSession};
use super::refusal::Refusal;
use crate::access::{Access, Need, Rights};

const BOTH: Rights = Rights::READ.and(Rights::WRITE);
/// Commands that write, and answer what was there, or what has come of it.
const TELLING: [&str; 13] = [
    "append",
    "decr",
    "decrby",
    "getdel",
    "getex",
    "getset",
    "incr",
    "incrby",
    "incrbyfloat",
    "lode.cas",
    "msetnx",
    "rename",
    "setrange",
];

/// What a command takes of the rights to its table; nothing where it is about none.
pub fn need_of(command: &Command, args: &[Bytes]) -> Option<Need> {
    let tells = || {
        let with_get =
            command.name == "set" && args[3..].iter().any(|word| word.eq_ignore_ascii_case(b"get"));
        with_get || TELLING.contains(&command.name)
    };
    match command.does {
        Does::Session(OfSession::Watch) => Some(Need::All(Rights::READ)),
        Does::Session(_) => None,
        _ if !command.is_write => Some(Need::All(Rights::READ)),
        _ if tells() => Some(Need::All(BOTH)),
        _ => Some(Need::All(Rights::WRITE)),
    }
}

/// What whoever has shown no token may ask: who he is, and to go.
pub fn is_for_strangers(of: OfSession) -> bool {
    matches!(of, OfSession::Auth | OfSession::Hello | OfSession::Quit | OfSession::Reset)
}

/// Whose secret this is. A user is a token's name, or `default` for any.
pub fn find(access: &Access, user: Option<&[u8]>, secret: &[u8]) -> Result<Principal, Refusal> {
    let wrong = || Refusal("WRONGPASS invalid username-password pair or user is disabled.".to_owned());
    let principal = access.find(secret).ok_or_else(wrong)?;
    let name = access.entry(principal).map(|entry| entry.row.name.as_bytes());
    match user {
        None | Some(b"default") => Ok(principal),
        Some(user) if name == Some(user) => Ok(principal),
        Some(_) => Err(wrong()),
    }
}

/// That somebody has to say who he is first.
pub fn no_auth() -> Refusal {
    Refusal("NOAUTH Authentication required.".to_owned())
}

/// That a token has not the right.
pub fn no_perm(command: &str, table: &str) -> Refusal {
    Refusal(format!(
        "NOPERM this token has no permissions to run the '{command}' command on the table '{}'",
        table.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(words: &[&str]) -> Option<Need> {
        let args: Vec<Bytes> = words.iter().map(|word| Bytes::copy_from_slice(word.as_bytes())).collect();
        need_of(Command::find(&args[0]).expect("a command"), &args)
    }

    #[test]
    fn commands_take_what_they_do_and_what_they_tell() {
        for words in
            [&["get", "k"][..], &["mget", "k"], &["scan", "0"], &["dbsize"], &["watch", "k"], &["ttl", "k"]]
        {
            assert_eq!(need(words), Some(Need::All(Rights::READ)), "{words:?}");
        }
        for words in
            [&["set", "k", "v"][..], &["set", "k", "get"], &["del", "k"], &["flushdb"], &["expire", "k", "1"]]
        {
            assert_eq!(need(words), Some(Need::All(Rights::WRITE)), "{words:?}");
        }
        for words in [&["set", "k", "v", "GeT"][..], &["getdel", "k"], &["incr", "k"], &["append", "k", "v"]]
        {
            assert_eq!(need(words), Some(Need::All(BOTH)), "{words:?}");
        }
        for words in [&["ping"][..], &["multi"], &["exec"], &["select", "1"], &["info"]] {
            assert_eq!(need(words), None, "{words:?}");
        }
        assert!(
            TELLING.iter().all(|name| Command::find(name.as_bytes()).is_some_and(|found| found.is_write))
        );
    }
}
