//! Who may do what: tokens, their rights, and what one client may take.
//!
//! A token is found once, when its secret is shown; from then on its connection goes by a number. What the number may do
//! with a table is a byte in the node's map, looked up beside the partition's quota.

mod book;
mod meter;
mod meters;
mod rights;
mod tokens;

pub use book::{AccessBook, AccessError};
pub use meter::{Addresses, ClientLimits, Meter, MeterError, Metered};
pub use meters::Meters;
pub use rights::{Need, Rights, need_of};
pub use tokens::{
    Digest, MAX_TOKENS, TableList, TokenRow, TokensError, digest_of, new_secret, parse, to_toml,
};

use std::sync::Arc;

use lode_net::wire::RequestView;
use lode_net::wire::Secret;
use lode_net::wire::server::{Admitted, Gate, Principal};
use subtle::ConstantTimeEq;

/// A token that counts at present.
#[derive(Debug)]
pub struct Entry {
    /// What the file says of it.
    pub row: TokenRow,
    /// What its connections have taken.
    pub meter: Arc<Meter>,
}

/// All tokens, as of one reading of the file. A number once given is never another token's.
#[derive(Debug)]
pub struct Access {
    /// By number; nothing where a token was withdrawn.
    entries: Vec<Option<Entry>>,
}

impl Access {
    /// How many numbers were given.
    pub fn principals(&self) -> usize {
        self.entries.len()
    }

    /// The token of this number, unless it was withdrawn.
    pub fn entry(&self, principal: Principal) -> Option<&Entry> {
        self.entries.get(principal.0 as usize)?.as_ref()
    }

    /// Whose secret this is. Takes the same time whatever it is.
    pub fn find(&self, secret: &[u8]) -> Option<Principal> {
        let digest = digest_of(secret);
        let mut found = None;
        for (number, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry else { continue };
            if bool::from(entry.row.digest.0.ct_eq(&digest.0)) {
                found = Some(Principal(number as u32));
            }
        }
        found
    }

    /// What this token may do with the table of this name; nothing at all where it was withdrawn.
    pub fn rights(&self, principal: Principal, table: &str) -> Rights {
        self.entry(principal).map_or(Rights::NONE, |entry| entry.row.rights(table))
    }

    /// What every token may do with the table of this name, by number.
    pub fn rights_of_all(&self, table: &str) -> Vec<Rights> {
        let of = |entry: &Option<Entry>| entry.as_ref().map_or(Rights::NONE, |entry| entry.row.rights(table));
        self.entries.iter().map(of).collect()
    }

    /// Whether this token may ask what is for no partition; tables are known by their names here.
    pub fn may_ask(&self, principal: Principal, request: &RequestView<'_>) -> bool {
        let Some(Entry { row, .. }) = self.entry(principal) else { return false };
        match request {
            RequestView::CreateTable(table)
            | RequestView::CreateTableTtl { table, .. }
            | RequestView::CreateTableQuota { table, .. } => row.rights(&table.name).have(Rights::ADMIN),
            RequestView::DropTable(drop) => row.rights(&drop.name).have(Rights::ADMIN),
            RequestView::SetQuota { table, .. } => row.rights(table).have(Rights::ADMIN),
            RequestView::Stats => row.may_see_stats(),
            RequestView::Checkpoint | RequestView::Scrub => row.is_admin_of_all(),
            // Names, times to live and quotas of tables: the map tells as much to everybody.
            RequestView::ListTables | RequestView::TableTtls | RequestView::Quotas => true,
            _ => false,
        }
    }
}

impl Gate for Access {
    fn admit(&self, secret: Secret<'_>) -> Option<Admitted> {
        let principal = self.find(secret.0)?;
        let request_body_bytes = self.entry(principal).and_then(|entry| entry.row.request_bytes);
        Some(Admitted { principal, request_body_bytes })
    }
}
