//! Every command that the door knows.

use bytes::Bytes;

use super::key_op::KeyOp;
use super::keys_op::KeysOp;
use super::parse;
use super::refusal::Refusal;
use super::table_op::TableOp;

/// One command.
pub struct Command {
    pub name: &'static str,
    /// How many arguments it has, its name among them; negative: at least so many.
    pub arity: i64,
    /// First and last key among the arguments, and the step between two; the last counts from the end where negative.
    pub keys: (i64, i64, i64),
    pub is_write: bool,
    pub group: &'static str,
    pub summary: &'static str,
    pub does: Does,
}

/// What kind of thing a command does, and how its arguments are read.
#[derive(Clone, Copy)]
pub enum Does {
    Key(fn(&[Bytes]) -> Result<KeyOp, Refusal>),
    Keys(fn(&[Bytes]) -> Result<KeysOp, Refusal>),
    Table(fn(&[Bytes]) -> Result<TableOp, Refusal>),
    Session(OfSession),
}

/// Commands about the connection, its transaction, or the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OfSession {
    Ping,
    Echo,
    Hello,
    Auth,
    Select,
    Quit,
    Reset,
    Client,
    Info,
    Command,
    Config,
    Time,
    Slowlog,
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
}

const NO_KEYS: (i64, i64, i64) = (0, 0, 0);
const ONE_KEY: (i64, i64, i64) = (1, 1, 1);

const fn reads(
    name: &'static str,
    arity: i64,
    of: fn(&[Bytes]) -> Result<KeyOp, Refusal>,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys: ONE_KEY, is_write: false, group: "string", summary, does: Does::Key(of) }
}

const fn writes(
    name: &'static str,
    arity: i64,
    of: fn(&[Bytes]) -> Result<KeyOp, Refusal>,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys: ONE_KEY, is_write: true, group: "string", summary, does: Does::Key(of) }
}

const fn generic(command: Command) -> Command {
    Command { group: "generic", ..command }
}

const fn lode(command: Command) -> Command {
    Command { group: "lode", ..command }
}

const fn several(
    name: &'static str,
    arity: i64,
    keys: (i64, i64, i64),
    is_write: bool,
    of: fn(&[Bytes]) -> Result<KeysOp, Refusal>,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys, is_write, group: "string", summary, does: Does::Keys(of) }
}

const fn table(
    name: &'static str,
    arity: i64,
    is_write: bool,
    of: fn(&[Bytes]) -> Result<TableOp, Refusal>,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys: NO_KEYS, is_write, group: "generic", summary, does: Does::Table(of) }
}

const fn session(
    name: &'static str,
    arity: i64,
    of: OfSession,
    group: &'static str,
    summary: &'static str,
) -> Command {
    Command { name, arity, keys: NO_KEYS, is_write: false, group, summary, does: Does::Session(of) }
}

/// By name, for the search.
pub static COMMANDS: [Command; 60] = [
    writes("append", 3, parse::append, "Appends to a value"),
    session("auth", -2, OfSession::Auth, "connection", "Names a user; there are no passwords"),
    session("client", -2, OfSession::Client, "connection", "About this connection and the others"),
    session("command", -1, OfSession::Command, "server", "About commands"),
    session("config", -2, OfSession::Config, "server", "Reads settings"),
    table("dbsize", 1, false, parse::count, "How many keys the table has"),
    writes("decr", 2, parse::decr, "Takes one from a number"),
    writes("decrby", 3, parse::decr_by, "Takes from a number"),
    generic(several("del", -2, (1, -1, 1), true, parse::delete, "Deletes keys")),
    session("discard", 1, OfSession::Discard, "transactions", "Forgets the commands since MULTI"),
    session("echo", 2, OfSession::Echo, "connection", "Answers what it is given"),
    session("exec", 1, OfSession::Exec, "transactions", "Does the commands since MULTI"),
    generic(several("exists", -2, (1, -1, 1), false, parse::exists, "How many of the keys are there")),
    generic(writes("expire", -3, parse::expire, "Lets a key live so many seconds")),
    generic(writes("expireat", -3, parse::expire_at, "Lets a key live until a second")),
    table("flushdb", -1, true, parse::flush, "Deletes every key of the table"),
    reads("get", 2, parse::get, "Reads a value"),
    writes("getdel", 2, parse::get_del, "Reads a value and deletes its key"),
    writes("getex", -2, parse::get_ex, "Reads a value and says how long it is to live"),
    reads("getrange", 4, parse::get_range, "Reads a part of a value"),
    writes("getset", 3, parse::get_set, "Writes a value and answers the old one"),
    session("hello", -1, OfSession::Hello, "connection", "Chooses the protocol's version"),
    writes("incr", 2, parse::incr, "Adds one to a number"),
    writes("incrby", 3, parse::incr_by, "Adds to a number"),
    writes("incrbyfloat", 3, parse::incr_by_float, "Adds to a number with a fraction"),
    session("info", -1, OfSession::Info, "server", "About the node"),
    table("keys", 2, false, parse::keys, "All keys that match a pattern"),
    lode(writes("lode.cas", 4, parse::swap, "Writes a value where the present one is the expected one")),
    lode(table("lode.max", 1, false, parse::largest, "The record with the largest key")),
    lode(table("lode.min", 1, false, parse::least, "The record with the smallest key")),
    lode(table("lode.range", -3, false, parse::range, "Records from one key to before another")),
    lode(table("lode.revrange", -3, false, parse::rev_range, "The same, the largest key first")),
    several("mget", -2, (1, -1, 1), false, parse::mget, "Reads values"),
    several("mset", -3, (1, -1, 2), true, parse::mset, "Writes values"),
    several("msetnx", -3, (1, -1, 2), true, parse::mset_nx, "Writes values where none of the keys is there"),
    session("multi", 1, OfSession::Multi, "transactions", "Begins to collect commands"),
    generic(writes("persist", 2, parse::persist, "Lets a key live for ever")),
    generic(writes("pexpire", -3, parse::pexpire, "Lets a key live so many milliseconds")),
    generic(writes("pexpireat", -3, parse::pexpire_at, "Lets a key live until a millisecond")),
    session("ping", -1, OfSession::Ping, "connection", "Answers"),
    writes("psetex", 4, parse::pset_ex, "Writes a value that lives so many milliseconds"),
    generic(reads("pttl", 2, parse::pttl, "How many milliseconds a key has to live")),
    session("quit", -1, OfSession::Quit, "connection", "Ends the connection"),
    table("randomkey", 1, false, parse::random_key, "Any key"),
    generic(several("rename", 3, (1, 2, 1), true, parse::rename, "Moves a value to another key")),
    session("reset", 1, OfSession::Reset, "connection", "Brings the connection to its beginning"),
    table("scan", -2, false, parse::scan, "Some keys, and where to go on"),
    session("select", 2, OfSession::Select, "connection", "Chooses a table"),
    writes("set", -3, parse::set, "Writes a value"),
    writes("setex", 4, parse::set_ex, "Writes a value that lives so many seconds"),
    writes("setnx", 3, parse::set_nx, "Writes a value where the key is not there"),
    writes("setrange", 4, parse::set_range, "Overwrites a part of a value"),
    session("slowlog", -2, OfSession::Slowlog, "server", "Commands that took long"),
    reads("strlen", 2, parse::strlen, "How long a value is"),
    session("time", 1, OfSession::Time, "server", "The time"),
    generic(reads("ttl", 2, parse::ttl, "How many seconds a key has to live")),
    generic(reads("type", 2, parse::type_of, "What kind of value a key has")),
    generic(several("unlink", -2, (1, -1, 1), true, parse::delete, "Deletes keys")),
    session("unwatch", 1, OfSession::Unwatch, "transactions", "Watches no key any more"),
    session("watch", -2, OfSession::Watch, "transactions", "Lets EXEC fail where a key was changed"),
];

impl Command {
    /// The command of this name, in whatever case.
    pub fn find(name: &[u8]) -> Option<&'static Command> {
        let name = name.to_ascii_lowercase();
        let at = COMMANDS.binary_search_by(|command| command.name.as_bytes().cmp(&name)).ok()?;
        Some(&COMMANDS[at])
    }

    /// Whether it may have so many arguments, its name among them.
    pub fn takes(&self, arguments: usize) -> bool {
        let arguments = arguments as i64;
        if self.arity < 0 { arguments >= -self.arity } else { arguments == self.arity }
    }

    /// The places of its keys among so many arguments.
    pub fn key_places(&self, arguments: usize) -> Vec<usize> {
        let (first, last, step) = self.keys;
        if first == 0 {
            return Vec::new();
        }
        let last = if last < 0 { arguments as i64 + last } else { last };
        (first..=last).step_by(step as usize).map(|at| at as usize).collect()
    }

    /// What its name and its arguments are told as where there is no such command, in Redis's words.
    pub fn unknown(args: &[Bytes]) -> Refusal {
        const MOST_SHOWN_BYTES: usize = 128;
        let shown =
            |bytes: &[u8], most: usize| String::from_utf8_lossy(&bytes[..bytes.len().min(most)]).into_owned();
        let mut told = String::new();
        for argument in &args[1..] {
            if told.len() >= MOST_SHOWN_BYTES {
                break;
            }
            told += &format!("'{}' ", shown(argument, MOST_SHOWN_BYTES - told.len()));
        }
        let name = shown(&args[0], MOST_SHOWN_BYTES);
        Refusal::new(format_args!("unknown command '{name}', with args beginning with: {told}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_name_in_any_case() {
        assert!(COMMANDS.is_sorted_by(|a, b| a.name < b.name));
        for command in &COMMANDS {
            let name = command.name.to_ascii_uppercase();
            assert_eq!(Command::find(name.as_bytes()).map(|found| found.name), Some(command.name));
        }
        assert!(Command::find(b"").is_none() && Command::find(b"lpush").is_none());
    }

    #[test]
    fn arguments_are_counted_and_keys_found() {
        let find = |name: &str| Command::find(name.as_bytes()).expect("a command");
        assert!(find("get").takes(2) && !find("get").takes(1) && !find("get").takes(3));
        assert!(find("mset").takes(3) && find("mset").takes(9) && !find("mset").takes(2));
        assert_eq!(find("mset").key_places(5), [1, 3]);
        assert_eq!(find("rename").key_places(3), [1, 2]);
        assert_eq!(find("del").key_places(4), [1, 2, 3]);
        assert!(find("ping").key_places(2).is_empty());
    }

    #[test]
    fn what_is_unknown_is_told_in_known_words() {
        let args = [Bytes::from_static(b"foo"), Bytes::from_static(b"a"), Bytes::from(vec![b'b'; 500])];
        let told = Command::unknown(&args).0;
        assert!(told.starts_with("ERR unknown command 'foo', with args beginning with: 'a' 'bbb"), "{told}");
        assert!(told.len() < 250);
        assert!(Command::unknown(&args[..1]).0.ends_with("beginning with: "));
    }
}
