//! `lode token`: makes tokens and lists them. The secret is printed once, and kept nowhere.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use lode_node::access::{TableList, TokenRow, digest_of, new_secret, parse, to_toml};
use serde_json::json;

use super::args::{TokenCommand, TokenListArgs, TokenMakeArgs};
use super::exit::{Exit, Failure};
use super::output::{Output, Style, say};

/// Makes or lists tokens.
pub fn run(command: &TokenCommand, out: &mut Output) -> Result<(), Failure> {
    match command {
        TokenCommand::Make(args) => make(args, out),
        TokenCommand::List(args) => list(args, out),
    }
}

fn make(args: &TokenMakeArgs, out: &mut Output) -> Result<(), Failure> {
    let secret = new_secret().map_err(|error| {
        Failure::new(Exit::Input, format_args!("the system gives no random bytes: {error}"))
    })?;
    let row = TokenRow {
        name: args.name.clone(),
        digest: digest_of(secret.as_bytes()),
        read: TableList(args.read.clone()),
        write: TableList(args.write.clone()),
        admin: TableList(args.admin.clone()),
        stats: args.stats,
        requests_per_s: args.requests_per_s,
        connections: args.connections,
        request_bytes: args.request_bytes.map(|size| size.0 as usize),
    };
    let path = args.tokens.as_path();
    let failed = |error: std::io::Error| {
        Failure::new(Exit::Input, format_args!("cannot write the tokens {}: {error}", path.display()))
    };
    let present = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
        Err(error) => return Err(failed(error)),
    };
    let gap = if present.is_empty() || present.ends_with('\n') { "" } else { "\n" };
    let text = format!("{present}{gap}{}", to_toml(&row));
    // What the node would refuse is refused now, and nothing is written.
    parse(&text)
        .map_err(|error| Failure::new(Exit::Usage, format_args!("the tokens {}: {error}", path.display())))?;
    write_whole(path, &text).map_err(failed)?;
    match out.style() {
        Style::Json => out.json(&json!({ "name": row.name, "secret": secret })),
        _ => {
            say(format_args!(
                "token `{}` is in {}; a node that runs takes it in on SIGHUP. Its secret, which is shown only now:",
                row.name,
                path.display()
            ));
            out.line(&secret)
        }
    }
}

/// A node that reads the file meanwhile finds the old one or the new one, and no half.
fn write_whole(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if let Ok(present) = fs::metadata(path) {
        fs::set_permissions(&new, present.permissions())?;
    }
    fs::rename(&new, path)
}

fn list(args: &TokenListArgs, out: &mut Output) -> Result<(), Failure> {
    let path = args.tokens.display();
    let text = fs::read_to_string(&args.tokens)
        .map_err(|error| Failure::new(Exit::Input, format_args!("cannot read the tokens {path}: {error}")))?;
    let rows = parse(&text)
        .map_err(|error| Failure::new(Exit::Input, format_args!("the tokens {path}: {error}")))?;
    for row in rows {
        if out.style() == Style::Json {
            out.json(&json!({
                "name": row.name, "read": row.read, "write": row.write, "admin": row.admin, "stats": row.stats,
                "requests_per_s": row.requests_per_s, "connections": row.connections,
                "request_bytes": row.request_bytes,
            }))?;
            continue;
        }
        let mut words = vec![row.name.clone()];
        for (right, tables) in [("read", &row.read), ("write", &row.write), ("admin", &row.admin)] {
            if !tables.0.is_empty() {
                words.push(format!("{right} {}", tables.0.join(",")));
            }
        }
        words.extend(row.stats.then(|| "stats".to_owned()));
        words.extend(row.requests_per_s.map(|rate| format!("{rate} requests/s")));
        words.extend(row.connections.map(|most| format!("{most} connections")));
        words.extend(row.request_bytes.map(|most| format!("requests of {most} bytes")));
        out.line(&words.join("; "))?;
    }
    Ok(())
}
