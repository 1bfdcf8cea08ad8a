//! The file of tokens: names, hashes of secrets, rights and limits. The secrets themselves are in no file of the node's.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use thiserror::Error;

use super::rights::Rights;

/// Most tokens of a node.
pub const MAX_TOKENS: usize = 1024;
/// Longest name of a token, in bytes.
const MAX_NAME_BYTES: usize = 128;
/// Most tables and prefixes of one list.
const MAX_LIST: usize = 1024;
/// Bytes of chance in a secret: nobody finds it by trying, so a plain hash keeps it.
const SECRET_BYTES: usize = 32;
/// In front of a secret, so that one is known where it should not be.
const SECRET_MARK: &str = "lode_";
/// The least that a limit of bytes may be: shorter requests than this are all but none.
const LEAST_REQUEST_BYTES: usize = 1024;

/// SHA-256 of a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(..)")
    }
}

/// The hash of a secret.
pub fn digest_of(secret: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(secret).into())
}

/// A secret that nobody has had before, as text.
pub fn new_secret() -> Result<String, getrandom::Error> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(format!("{SECRET_MARK}{}", hex(&bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Tables by their names, or by what their names begin with (`users-*`; `*` is all of them).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TableList(pub Vec<String>);

impl TableList {
    /// Whether a table of this name is meant.
    pub fn has(&self, table: &str) -> bool {
        self.0.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => table.starts_with(prefix),
            None => table == pattern,
        })
    }

    /// Whether every table is.
    pub fn has_all(&self) -> bool {
        self.0.iter().any(|pattern| pattern == "*")
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A token, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Its name, for people and for the log.
    pub name: String,
    /// The hash of its secret.
    pub digest: Digest,
    /// Whose records it may read.
    pub read: TableList,
    /// Whose records it may write.
    pub write: TableList,
    /// Which tables it may make, drop and give quotas.
    pub admin: TableList,
    /// Whether it may read the node's statistics.
    pub stats: bool,
    /// Requests a second, if limited.
    pub requests_per_s: Option<u64>,
    /// Connections, if limited.
    pub connections: Option<u32>,
    /// Longest body of a request, in bytes, if limited.
    pub request_bytes: Option<usize>,
}

impl TokenRow {
    /// What it may do with a table.
    pub fn rights(&self, table: &str) -> Rights {
        Rights::KNOWN
            .and_if(Rights::READ, self.read.has(table))
            .and_if(Rights::WRITE, self.write.has(table))
            .and_if(Rights::ADMIN, self.admin.has(table))
    }

    /// Whether it may do what concerns all tables.
    pub fn is_admin_of_all(&self) -> bool {
        self.admin.has_all()
    }

    /// Whether it may see the node's statistics.
    pub fn may_see_stats(&self) -> bool {
        self.stats || self.is_admin_of_all()
    }
}

/// Why a file of tokens cannot be used. Never tells a hash.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TokensError {
    /// It is no such file.
    #[error("line {line}: {problem}")]
    Syntax {
        /// The line.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// Nobody could do anything.
    #[error("there is no token in it; make one with lode token make")]
    Empty,
    /// Too many of them.
    #[error("it has {0} tokens, {MAX_TOKENS} are the most")]
    TooMany(usize),
    /// A token is not as it should be.
    #[error("token `{name}`: {problem}")]
    Token {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    token: Vec<RawToken>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawToken {
    name: String,
    secret_sha256: String,
    #[serde(default, skip_serializing_if = "TableList::is_empty")]
    read: TableList,
    #[serde(default, skip_serializing_if = "TableList::is_empty")]
    write: TableList,
    #[serde(default, skip_serializing_if = "TableList::is_empty")]
    admin: TableList,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    stats: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests_per_s: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_bytes: Option<usize>,
}

/// The tokens of a file with this text.
pub fn parse(text: &str) -> Result<Vec<TokenRow>, TokensError> {
    let file: TokenFile = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        let line = text[..at].matches('\n').count() + 1;
        TokensError::Syntax { line, problem: error.message().to_owned() }
    })?;
    if file.token.is_empty() {
        return Err(TokensError::Empty);
    }
    if file.token.len() > MAX_TOKENS {
        return Err(TokensError::TooMany(file.token.len()));
    }
    let mut rows: Vec<TokenRow> = Vec::with_capacity(file.token.len());
    for raw in file.token {
        let row = checked(raw)?;
        let twice = rows.iter().find(|other| other.name == row.name || other.digest == row.digest);
        if let Some(other) = twice {
            let problem = match other.name == row.name {
                true => "there are two of this name".to_owned(),
                false => format!("it has the secret of `{}`; make one of its own", other.name),
            };
            return Err(TokensError::Token { name: row.name, problem });
        }
        rows.push(row);
    }
    Ok(rows)
}

fn checked(raw: RawToken) -> Result<TokenRow, TokensError> {
    let name = raw.name.clone();
    let wrong = |problem: &str| TokensError::Token { name: name.clone(), problem: problem.to_owned() };
    let good_name =
        (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !good_name {
        return Err(wrong("a name has 1 to 128 letters, digits and signs, and no blanks"));
    }
    let Some(digest) = unhex(&raw.secret_sha256).map(Digest) else {
        return Err(wrong("secret-sha256 is 64 hexadecimal digits, as lode token make writes them"));
    };
    for list in [&raw.read, &raw.write, &raw.admin] {
        if list.0.len() > MAX_LIST || list.0.iter().any(String::is_empty) {
            return Err(wrong("a list has at most 1024 tables, and none without a name"));
        }
    }
    if raw.requests_per_s == Some(0) || raw.connections == Some(0) {
        return Err(wrong("requests-per-s and connections are at least 1; leave them out for any number"));
    }
    if raw.request_bytes.is_some_and(|bytes| bytes < LEAST_REQUEST_BYTES) {
        return Err(wrong("request-bytes is at least 1024"));
    }
    Ok(TokenRow {
        name: raw.name,
        digest,
        read: raw.read,
        write: raw.write,
        admin: raw.admin,
        stats: raw.stats,
        requests_per_s: raw.requests_per_s,
        connections: raw.connections,
        request_bytes: raw.request_bytes,
    })
}

/// A token as the file has it.
pub fn to_toml(row: &TokenRow) -> String {
    let raw = RawToken {
        name: row.name.clone(),
        secret_sha256: hex(&row.digest.0),
        read: row.read.clone(),
        write: row.write.clone(),
        admin: row.admin.clone(),
        stats: row.stats,
        requests_per_s: row.requests_per_s,
        connections: row.connections,
        request_bytes: row.request_bytes,
    };
    toml::to_string(&TokenFile { token: vec![raw] }).expect("plain data is TOML")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str) -> TokenRow {
        TokenRow {
            name: name.to_owned(),
            digest: digest_of(name.as_bytes()),
            read: TableList(vec!["users".into(), "log-*".into()]),
            write: TableList(vec!["users".into()]),
            admin: TableList::default(),
            stats: false,
            requests_per_s: Some(7),
            connections: None,
            request_bytes: Some(4096),
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let rows = vec![row("a"), TokenRow { stats: true, admin: TableList(vec!["*".into()]), ..row("b") }];
        let text: String = rows.iter().map(to_toml).collect();
        assert_eq!(parse(&text), Ok(rows));
    }

    #[test]
    fn rights_go_by_name_and_prefix() {
        let row = row("a");
        let (read, both) =
            (Rights::KNOWN.and(Rights::READ), Rights::KNOWN.and(Rights::READ).and(Rights::WRITE));
        for (table, rights) in [
            ("users", both),
            ("log-", read),
            ("log-2026", read),
            ("log", Rights::KNOWN),
            ("users2", Rights::KNOWN),
        ] {
            assert_eq!(row.rights(table), rights, "{table}");
        }
        assert!(!row.is_admin_of_all() && !row.may_see_stats());
        let all = TokenRow { admin: TableList(vec!["*".into()]), ..row };
        assert!(all.rights("anything").have(Rights::ADMIN) && all.may_see_stats());
    }

    #[test]
    fn what_is_no_file_of_tokens_is_told_without_its_hashes() {
        let good = to_toml(&row("a"));
        let hash = hex(&row("a").digest.0);
        for (text, told) in [
            (String::new(), "no token"),
            (format!("{good}{good}"), "two of this name"),
            (format!("{good}{}", good.replace("name = \"a\"", "name = \"b\"")), "the secret of `a`"),
            (good.replace("\"a\"", "\"a b\""), "no blanks"),
            (good.replace("\"a\"", "\"\""), "1 to 128"),
            (good.replace("\"a\"", &format!("\"{}\"", "n".repeat(129))), "1 to 128"),
            (good.replace(&hash, &hash[1..]), "64 hexadecimal digits"),
            (good.replace(&hash, &format!("g{}", &hash[1..])), "64 hexadecimal digits"),
            (good.replace("per-s = 7", "per-s = 0"), "at least 1"),
            (good.replace("bytes = 4096", "bytes = 1023"), "at least 1024"),
            (good.replace("write", "rite"), "line 5: unknown field"),
            (good.replace("[[token]]", "[token"), "line 1"),
        ] {
            let error = parse(&text).unwrap_err().to_string();
            assert!(error.contains(told), "{told}: {error}");
            assert!(!error.contains(&hash[1..]), "{error}");
        }
        assert!(parse(&good.replace("\"a\"", &format!("\"{}\"", "n".repeat(128)))).is_ok());
    }

    #[test]
    fn there_are_so_many_tokens_and_no_more() {
        let of = |count: usize| (0..count).map(|n| to_toml(&row(&format!("t{n}")))).collect::<String>();
        assert_eq!(parse(&of(MAX_TOKENS)).map(|rows| rows.len()), Ok(MAX_TOKENS));
        assert_eq!(parse(&of(MAX_TOKENS + 1)), Err(TokensError::TooMany(MAX_TOKENS + 1)));
    }

    #[test]
    fn secrets_differ_and_are_marked() {
        let (a, b) = (new_secret().unwrap(), new_secret().unwrap());
        assert!(a != b && a.starts_with("lode_") && a.len() == 5 + 64);
        assert_ne!(digest_of(a.as_bytes()), digest_of(b.as_bytes()));
    }
}
