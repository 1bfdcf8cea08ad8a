//! Commands about the node and the connection, as far as they ask nothing of a table.

use bytes::Bytes;
use lode_net::resp::limits::MAX_BULK_BYTES;
use lode_net::resp::{Protocol, Reply};

use super::commands::{COMMANDS, Command};
use super::door::{Door, FIRST_TABLE, Peer};
use super::glob::{self, Pattern};
use super::limits::MAX_CLIENT_NAME_BYTES;
use super::refusal::Refusal;

/// The version of Redis whose commands and replies these are; clients choose what they ask by it.
pub const REDIS_VERSION: &str = "7.0.0";

fn text(text: &str) -> Reply {
    Reply::text(text)
}

pub(super) fn unknown_subcommand(of: &str, args: &[Bytes]) -> Refusal {
    let given = String::from_utf8_lossy(&args[1]).into_owned();
    Refusal::new(format_args!("unknown subcommand '{given:.128}'. Try {of} HELP."))
}

/// What a HELLO asks for, of which nothing is done where one of it is wrong.
pub struct Hello<'a> {
    protocol: Option<Protocol>,
    /// Who asks, and the secret.
    pub user: Option<(&'a Bytes, &'a Bytes)>,
    name: Option<String>,
}

/// Reads a HELLO: its version before anything else, as Redis does.
pub fn parse_hello(args: &[Bytes]) -> Result<Hello<'_>, Refusal> {
    let bad = |_| Refusal::new("Protocol version is not an integer or out of range");
    let protocol = match args.get(1).map(|version| super::numbers::integer(version)) {
        None => None,
        Some(version) => Some(match version.map_err(bad)? {
            2 => Protocol::Resp2,
            3 => Protocol::Resp3,
            _ => return Err(Refusal("NOPROTO unsupported protocol version".to_owned())),
        }),
    };
    let mut hello = Hello { protocol, user: None, name: None };
    let mut rest = args.get(2..).unwrap_or_default();
    loop {
        rest = match rest {
            [] => return Ok(hello),
            [option, user, secret, behind @ ..] if option.eq_ignore_ascii_case(b"AUTH") => {
                hello.user = Some((user, secret));
                behind
            }
            [option, given, behind @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                hello.name = Some(client_name(given)?);
                behind
            }
            [option, ..] => {
                let option = String::from_utf8_lossy(option).into_owned();
                return Err(Refusal::new(format_args!("Syntax error in HELLO option '{option:.128}'")));
            }
        };
    }
}

/// HELLO of somebody who is who he says.
pub fn hello(peer: &Peer, hello: Hello<'_>) -> Reply {
    if let Some(name) = hello.name {
        *peer.name.borrow_mut() = name;
    }
    let protocol = hello.protocol.unwrap_or(peer.protocol.get());
    peer.protocol.set(protocol);
    let version = if protocol == Protocol::Resp3 { 3 } else { 2 };
    Reply::Map(vec![
        (text("server"), text("redis")),
        (text("version"), text(REDIS_VERSION)),
        (text("proto"), Reply::Integer(version)),
        (text("id"), Reply::Integer(peer.number as i64)),
        (text("mode"), text("standalone")),
        (text("role"), text("master")),
        (text("modules"), Reply::Array(vec![])),
    ])
}

/// AUTH: there are no passwords, and one user who needs none.
pub fn auth(args: &[Bytes]) -> Result<Reply, Refusal> {
    match args {
        [_, user, _] => check_user(user).map(|()| Reply::OK),
        [_, _] => Err(Refusal::new(
            "AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        )),
        _ => Err(Refusal::syntax()),
    }
}

pub fn check_user(user: &[u8]) -> Result<(), Refusal> {
    match user == b"default" {
        true => Ok(()),
        false => Err(Refusal("WRONGPASS invalid username-password pair or user is disabled.".to_owned())),
    }
}

fn client_name(name: &[u8]) -> Result<String, Refusal> {
    if name.len() > MAX_CLIENT_NAME_BYTES {
        return Err(Refusal::new(format_args!("a client's name has at most {MAX_CLIENT_NAME_BYTES} bytes")));
    }
    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Err(Refusal::new("Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// CLIENT.
pub fn client(door: &Door, peer: &Peer, args: &[Bytes]) -> Result<Reply, Refusal> {
    let words = args[1].to_ascii_lowercase();
    let arity = || Refusal::arity(&format!("client|{}", String::from_utf8_lossy(&words)));
    match (words.as_slice(), &args[2..]) {
        (b"id", []) => Ok(Reply::Integer(peer.number as i64)),
        (b"getname", []) => match peer.name.borrow().as_str() {
            "" => Ok(Reply::Null),
            name => Ok(text(name)),
        },
        (b"setname", [name]) => {
            *peer.name.borrow_mut() = client_name(name)?;
            Ok(Reply::OK)
        }
        // What a library calls itself; nobody asks for it here.
        (b"setinfo", [what, _])
            if what.eq_ignore_ascii_case(b"lib-name") || what.eq_ignore_ascii_case(b"lib-ver") =>
        {
            Ok(Reply::OK)
        }
        (b"setinfo", [what, _]) => {
            let what = String::from_utf8_lossy(what).into_owned();
            Err(Refusal::new(format_args!("Unrecognized option '{what:.128}'")))
        }
        (b"info", []) => Ok(Reply::Text(described(peer))),
        (b"list", []) => {
            let lines: String = door.peers.borrow().values().map(|peer| described(peer)).collect();
            Ok(Reply::Text(lines))
        }
        (b"no-evict" | b"no-touch", [how])
            if how.eq_ignore_ascii_case(b"on") || how.eq_ignore_ascii_case(b"off") =>
        {
            Ok(Reply::OK)
        }
        (b"no-evict" | b"no-touch", [_]) => Err(Refusal::syntax()),
        (b"id" | b"getname" | b"setname" | b"setinfo" | b"info" | b"list" | b"no-evict" | b"no-touch", _) => {
            Err(arity())
        }
        _ => Err(unknown_subcommand("CLIENT", args)),
    }
}

fn described(peer: &Peer) -> String {
    let table = peer.table.borrow();
    let resp = if peer.protocol.get() == Protocol::Resp3 { 3 } else { 2 };
    let age_s = peer.since.elapsed().as_secs();
    format!(
        "id={} addr={} name={} age={age_s} db={} cmd={} resp={resp}\n",
        peer.number,
        peer.addr,
        peer.name.borrow(),
        table.escape_debug(),
        peer.last_command.get(),
    )
}

/// Settings that CONFIG GET knows.
const SETTINGS: usize = 10;

/// CONFIG GET.
pub fn config(door: &Door, args: &[Bytes]) -> Result<Reply, Refusal> {
    if !args[1].eq_ignore_ascii_case(b"get") {
        return Err(unknown_subcommand("CONFIG", args));
    }
    if args.len() < 3 {
        return Err(Refusal::arity("config|get"));
    }
    let settings: [_; SETTINGS] = [
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", door.max_connections.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("port", door.addr.port().to_string()),
        ("proto-max-bulk-len", MAX_BULK_BYTES.to_string()),
        ("save", String::new()),
        ("timeout", "0".to_owned()),
    ];
    let mut is_asked = [false; SETTINGS];
    glob::check_bytes(args[2..].iter().map(Bytes::len).sum())?;
    for pattern in &args[2..] {
        let pattern = Pattern::new(&pattern.to_ascii_lowercase());
        let names = settings.iter().zip(&mut is_asked);
        names.for_each(|((name, _), is_asked)| *is_asked |= pattern.matches(name.as_bytes()));
    }
    let asked = settings.into_iter().zip(is_asked).filter(|(_, is_asked)| *is_asked);
    Ok(Reply::Map(asked.map(|((name, value), _)| (text(name), Reply::text(value))).collect()))
}

/// TIME.
pub fn time() -> Reply {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Reply::Array(vec![
        Reply::text(since.as_secs().to_string()),
        Reply::text(since.subsec_micros().to_string()),
    ])
}

/// PING.
pub fn ping(args: &[Bytes]) -> Result<Reply, Refusal> {
    match args {
        [_] => Ok(Reply::Simple("PONG")),
        [_, told] => Ok(Reply::Bulk(told.clone())),
        _ => Err(Refusal::arity("ping")),
    }
}

/// COMMAND.
pub fn command(args: &[Bytes]) -> Result<Reply, Refusal> {
    let Some(word) = args.get(1) else {
        return Ok(Reply::Array(COMMANDS.iter().map(row).collect()));
    };
    let named = || args[2..].iter().map(|name| Command::find(name));
    match (word.to_ascii_lowercase().as_slice(), args.len()) {
        (b"count", 2) => Ok(Reply::Integer(COMMANDS.len() as i64)),
        (b"list", 2) => Ok(Reply::Array(COMMANDS.iter().map(|command| text(command.name)).collect())),
        (b"info", 2) => Ok(Reply::Array(COMMANDS.iter().map(row).collect())),
        (b"info", _) => Ok(Reply::Array(named().map(|found| found.map_or(Reply::Null, row)).collect())),
        (b"docs", 2) => Ok(Reply::Map(COMMANDS.iter().map(docs).collect())),
        (b"docs", _) => Ok(Reply::Map(named().flatten().map(docs).collect())),
        (b"getkeys", 4..) => {
            let asked = &args[2..];
            let command =
                Command::find(&asked[0]).ok_or_else(|| Refusal::new("Invalid command specified"))?;
            if !command.takes(asked.len()) {
                return Err(Refusal::new("Invalid number of arguments specified for command"));
            }
            let places = command.key_places(asked.len());
            if places.is_empty() {
                return Err(Refusal::new("The command has no key arguments"));
            }
            Ok(Reply::Array(places.into_iter().map(|at| Reply::Bulk(asked[at].clone())).collect()))
        }
        (b"count" | b"list" | b"getkeys", _) => {
            let word = String::from_utf8_lossy(word).to_ascii_lowercase();
            Err(Refusal::arity(&format!("command|{word}")))
        }
        _ => Err(unknown_subcommand("COMMAND", args)),
    }
}

fn row(command: &Command) -> Reply {
    let (first, last, step) = command.keys;
    let flag = match (command.is_write, first) {
        (true, _) => vec![Reply::Simple("write")],
        (false, 1) => vec![Reply::Simple("readonly")],
        (false, _) => vec![],
    };
    let none = || Reply::Array(vec![]);
    Reply::Array(vec![
        text(command.name),
        Reply::Integer(command.arity),
        Reply::Array(flag),
        Reply::Integer(first),
        Reply::Integer(last),
        Reply::Integer(step),
        none(),
        none(),
        none(),
        none(),
    ])
}

fn docs(command: &Command) -> (Reply, Reply) {
    let of = vec![(text("summary"), text(command.summary)), (text("group"), text(command.group))];
    (text(command.name), Reply::Map(of))
}

/// INFO, whose keys are counted already.
pub fn info(door: &Door, sections: &[Bytes], keys: u64) -> Reply {
    let clock = door.begun.elapsed();
    let tally = &door.tally;
    let all = [
        (
            "Server",
            vec![
                ("redis_version", REDIS_VERSION.to_owned()),
                ("redis_mode", "standalone".to_owned()),
                ("server_name", "lode".to_owned()),
                ("lode_version", env!("CARGO_PKG_VERSION").to_owned()),
                ("process_id", std::process::id().to_string()),
                ("tcp_port", door.addr.port().to_string()),
                ("uptime_in_seconds", clock.as_secs().to_string()),
                ("uptime_in_days", (clock.as_secs() / 86_400).to_string()),
            ],
        ),
        (
            "Clients",
            vec![
                ("connected_clients", door.peers.borrow().len().to_string()),
                ("maxclients", door.max_connections.to_string()),
            ],
        ),
        (
            "Memory",
            vec![("mem_clients_normal", door.memory.held_bytes().to_string()), ("maxmemory", "0".to_owned())],
        ),
        ("Persistence", vec![("loading", "0".to_owned()), ("aof_enabled", "1".to_owned())]),
        (
            "Stats",
            vec![
                ("total_connections_received", tally.accepted.get().to_string()),
                ("rejected_connections", tally.refused.get().to_string()),
                ("total_commands_processed", tally.commands.get().to_string()),
                ("total_error_replies", tally.errors.get().to_string()),
            ],
        ),
        ("Replication", vec![("role", "master".to_owned()), ("connected_slaves", "0".to_owned())]),
        ("Cluster", vec![("cluster_enabled", "0".to_owned())]),
        ("Keyspace", vec![]),
    ];
    let is_asked = |name: &str| {
        let is = |section: &Bytes| {
            let word = section.to_ascii_lowercase();
            word == name.to_ascii_lowercase().as_bytes()
                || [&b"all"[..], b"default", b"everything"].contains(&word.as_slice())
        };
        sections.is_empty() || sections.iter().any(is)
    };
    let mut told = String::new();
    for (name, lines) in all.into_iter().filter(|(name, _)| is_asked(name)) {
        if !told.is_empty() {
            told += "\r\n";
        }
        told += &format!("# {name}\r\n");
        lines.into_iter().for_each(|(key, value)| told += &format!("{key}:{value}\r\n"));
        if name == "Keyspace" && keys > 0 {
            told += &format!("db{FIRST_TABLE}:keys={keys},expires=0,avg_ttl=0\r\n");
        }
    }
    Reply::Text(told)
}
