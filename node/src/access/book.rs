//! The tokens as they count now, read from their file at the start and whenever the node is told to.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use lode_net::client::Token;
use lode_net::wire::server::Principal;
use thiserror::Error;

use super::meter::{ClientLimits, Meter, Metered};
use super::tokens::{TableList, TokenRow, TokensError, digest_of, new_secret, parse};
use super::{Access, Entry};

/// Largest file of tokens, in bytes.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The name of the token by which the node's own parts ask it.
const OWN_NAME: &str = "(node)";

/// Why there are no tokens, where there should be.
#[derive(Debug, Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("cannot read the tokens {}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// It is not as it should be.
    #[error("the tokens {}: {error}", path.display())]
    Tokens {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TokensError,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for a secret: {0}")]
    Random(getrandom::Error),
}

/// The tokens of a node, as its parts share them.
#[derive(Debug)]
pub struct AccessBook {
    path: PathBuf,
    own: Token,
    present: RwLock<Arc<Access>>,
}

impl AccessBook {
    /// Reads the file.
    pub fn open(path: &Path) -> Result<AccessBook, AccessError> {
        let secret = new_secret().map_err(AccessError::Random)?;
        let own = Token::new(&secret).expect("a secret of ours has a secret's length");
        let all = || TableList(vec!["*".to_owned()]);
        let row = TokenRow {
            name: OWN_NAME.to_owned(),
            digest: digest_of(secret.as_bytes()),
            read: all(),
            write: all(),
            admin: all(),
            stats: true,
            requests_per_s: None,
            connections: None,
            request_bytes: None,
        };
        let first = Access { entries: vec![Some(entry_of(row))] };
        let book = AccessBook { path: path.to_owned(), own, present: RwLock::new(Arc::new(first)) };
        book.reload()?;
        Ok(book)
    }

    /// The tokens now.
    pub fn present(&self) -> Arc<Access> {
        Arc::clone(&self.present.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the node's own parts show. It is in no file, and ends with the process.
    pub fn own(&self) -> Token {
        self.own.clone()
    }

    /// What an operator has to do something about, if anything: whoever may write the file may do everything.
    pub fn warning(&self) -> Option<String> {
        let mode = fs::metadata(&self.path).map_or(0, |found| found.permissions().mode());
        (mode & 0o022 != 0).then(|| {
            format!(
                "the tokens {} may be written by others than their owner (mode {:03o}), who can give themselves every right: chmod 600",
                self.path.display(),
                mode & 0o777
            )
        })
    }

    /// How many tokens there are, the node's own not counted.
    pub fn len(&self) -> usize {
        let present = self.present();
        (1..present.principals()).filter(|number| present.entry(Principal(*number as u32)).is_some()).count()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the file again. Where it cannot be used, everything stays as it is.
    pub fn reload(&self) -> Result<Arc<Access>, AccessError> {
        let failed = |error| AccessError::Io { path: self.path.clone(), error };
        let found = fs::metadata(&self.path).map_err(failed)?;
        // A pipe would keep whoever reads it until somebody writes.
        if !found.is_file() {
            return Err(failed(io::Error::other("it is no file")));
        }
        let bytes = found.len();
        if bytes > MAX_FILE_BYTES {
            return Err(failed(io::Error::other(format!(
                "it has {bytes} bytes, {MAX_FILE_BYTES} are the most"
            ))));
        }
        let text = fs::read_to_string(&self.path).map_err(failed)?;
        let rows = parse(&text).map_err(|error| AccessError::Tokens { path: self.path.clone(), error })?;
        let mut present = self.present.write().unwrap_or_else(PoisonError::into_inner);
        *present = Arc::new(after(&present, rows));
        Ok(Arc::clone(&present))
    }
}

fn entry_of(row: TokenRow) -> Entry {
    Entry { meter: Arc::new(Meter::new(Metered::Token, limits_of(&row))), row }
}

fn limits_of(row: &TokenRow) -> ClientLimits {
    ClientLimits { connections: row.connections, requests_per_s: row.requests_per_s }
}

/// The next state: a token keeps its number as long as it has its name and its secret, and else its number is nobody's
/// any more.
fn after(before: &Access, rows: Vec<TokenRow>) -> Access {
    let mut rows: Vec<Option<TokenRow>> = rows.into_iter().map(Some).collect();
    let mut entries = Vec::with_capacity(before.entries.len() + rows.len());
    for (number, old) in before.entries.iter().enumerate() {
        let Some(old) = old else {
            entries.push(None);
            continue;
        };
        if number == 0 {
            entries.push(Some(Entry { row: old.row.clone(), meter: Arc::clone(&old.meter) }));
            continue;
        }
        let is_same = |row: &TokenRow| row.name == old.row.name && row.digest == old.row.digest;
        let kept = rows.iter_mut().find(|row| row.as_ref().is_some_and(is_same)).and_then(Option::take);
        entries.push(kept.map(|row| {
            // Its connections count on, and other limits hold for those that are open, too.
            old.meter.limit(limits_of(&row));
            Entry { row, meter: Arc::clone(&old.meter) }
        }));
    }
    entries.extend(rows.into_iter().flatten().map(|row| Some(entry_of(row))));
    Access { entries }
}

#[cfg(test)]
mod tests {
    use lode_net::wire::Secret;
    use lode_net::wire::server::Gate;

    use super::*;
    use crate::access::{Rights, to_toml};

    fn row(name: &str, secret: &str) -> TokenRow {
        TokenRow {
            name: name.into(),
            digest: digest_of(secret.as_bytes()),
            read: TableList(vec!["t".into()]),
            write: TableList::default(),
            admin: TableList::default(),
            stats: false,
            requests_per_s: None,
            connections: None,
            request_bytes: Some(2048),
        }
    }

    #[test]
    fn numbers_stay_with_their_tokens_and_go_with_their_secrets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let write =
            |rows: &[TokenRow]| fs::write(&path, rows.iter().map(to_toml).collect::<String>()).unwrap();
        write(&[row("a", "1"), row("b", "2")]);
        let book = AccessBook::open(&path).unwrap();
        let find = |secret: &str| book.present().find(secret.as_bytes());
        let (a, b) = (find("1").unwrap(), find("2").unwrap());
        assert!(a != b && find("3").is_none() && find("").is_none());
        let admitted = book.present().admit(Secret(b"1")).unwrap();
        assert_eq!((admitted.principal, admitted.request_body_bytes), (a, Some(2048)));
        assert!(
            book.present().rights(a, "t").have(Rights::READ)
                && !book.present().rights(a, "u").have(Rights::READ)
        );

        // b's secret is another, c is new, a stays.
        write(&[row("c", "4"), row("b", "3"), row("a", "1")]);
        book.reload().unwrap();
        assert_eq!(find("1"), Some(a));
        assert_eq!(book.present().rights(b, "t"), Rights::NONE, "withdrawn");
        assert!(find("2").is_none());
        let (new_b, c) = (find("3").unwrap(), find("4").unwrap());
        assert!(![a, b].contains(&new_b) && ![a, b, new_b].contains(&c));
        assert_eq!(book.len(), 3);

        fs::write(&path, "nonsense").unwrap();
        assert!(book.reload().is_err());
        assert_eq!((find("1"), find("4")), (Some(a), Some(c)), "as before");
    }

    #[test]
    fn the_nodes_own_token_may_everything_and_is_in_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        fs::write(&path, to_toml(&row("a", "1"))).unwrap();
        let book = AccessBook::open(&path).unwrap();
        let own = book.present().entry(Principal(0)).unwrap().row.clone();
        assert!(own.is_admin_of_all() && own.read.has_all() && own.write.has_all());
        assert_eq!(book.len(), 1);
    }

    #[test]
    fn what_connections_hold_stays_counted_over_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let limited = |most| TokenRow { connections: Some(most), ..row("a", "1") };
        fs::write(&path, to_toml(&limited(1))).unwrap();
        let book = AccessBook::open(&path).unwrap();
        let meter = || Arc::clone(&book.present().entry(Principal(1)).unwrap().meter);
        assert!(meter().connect());
        book.reload().unwrap();
        assert!(!meter().connect());
        let held = meter();
        fs::write(&path, to_toml(&TokenRow { requests_per_s: Some(1), ..limited(2) })).unwrap();
        book.reload().unwrap();
        assert!(meter().connect() && !meter().connect(), "the one of before and one more");
        assert!(held.request().is_ok() && held.request().is_err(), "on connections that are open, too");
    }
}
