//! Quotas on the command line: `table set`, and how they are shown.

use lode_net::client::{Quota, QuotaRow, TableInfo};
use lode_net::wire::PartitionId;
use serde_json::{Value, json};

use super::args::{QuotaArgs, SetArgs};
use super::data::Words;
use super::exit::Failure;
use super::output::Output;
use super::session::Session;
use super::size::{Size, Span};
use std::time::Duration;

impl QuotaArgs {
    /// The quota, where what is left out is as in `base`.
    pub fn over(&self, base: Quota) -> Quota {
        let bytes = |given: Option<Size>, base| given.map_or(base, |size| size.0);
        let burst = |span: Span| u32::try_from(span.0.as_millis()).unwrap_or(u32::MAX);
        Quota {
            weight: self.weight.unwrap_or(base.weight),
            burst_ms: self.burst.map_or(base.burst_ms, burst),
            requests_per_s: self.requests_per_s.unwrap_or(base.requests_per_s),
            read_bytes_per_s: bytes(self.read_bytes_per_s, base.read_bytes_per_s),
            write_bytes_per_s: bytes(self.write_bytes_per_s, base.write_bytes_per_s),
        }
    }
}

/// The quotas that were set, by table.
pub struct Quotas {
    rows: Vec<QuotaRow>,
}

impl Quotas {
    /// As the node has them.
    pub fn of(session: &Session) -> Result<Quotas, Failure> {
        Ok(Quotas { rows: session.wait(session.client.quotas())? })
    }

    /// Of each partition of a table that has none of its own.
    pub fn of_table(&self, table: u32) -> Quota {
        let is_its = |row: &&QuotaRow| row.table == table && row.partition.is_none();
        self.rows.iter().find(is_its).map_or(Quota::default(), |row| row.quota)
    }

    /// Of single partitions of a table.
    pub fn of_partitions(&self, table: u32) -> impl Iterator<Item = (PartitionId, Quota)> {
        let of_table = self.rows.iter().filter(move |row| row.table == table);
        of_table.filter_map(|row| Some((row.partition?, row.quota)))
    }
}

/// `table set`.
pub fn set(args: &SetArgs, session: &Session, words: Words, out: &mut Output) -> Result<(), Failure> {
    let table = super::table::find(&args.table, session)?;
    let quotas = Quotas::of(session)?;
    let of_table = quotas.of_table(table.id);
    let (whose, quota) = match &args.key {
        None => {
            let quota = (!args.reset).then(|| args.quota.over(of_table));
            session.wait(session.client.set_quota(&args.table, quota))?;
            (args.table.clone(), quota.unwrap_or_default())
        }
        Some(key) => {
            let key = words.bytes(key)?;
            let map = session.client.map();
            let home = map.table(&args.table).and_then(|routes| routes.partition_of(&key)).map(|p| p.id);
            let own =
                quotas.of_partitions(table.id).find(|(id, _)| Some(*id) == home).map(|(_, quota)| quota);
            let quota = (!args.reset).then(|| args.quota.over(own.unwrap_or(of_table)));
            session.wait(session.client.set_partition_quota(&args.table, &key, quota))?;
            let whose = home.map_or(args.table.clone(), |id| format!("partition {id} of {}", args.table));
            (whose, quota.unwrap_or(of_table))
        }
    };
    out.done(&format!("OK {whose}: {}", in_words(&quota)), &json!({ "ok": true, "quota": as_json(&quota) }))
}

/// A quota, for people.
pub fn in_words(quota: &Quota) -> String {
    let mut words = vec![format!("weight {}", quota.weight)];
    if quota.requests_per_s > 0 {
        words.push(format!("{} requests/s", quota.requests_per_s));
    }
    for (what, bytes) in [("read", quota.read_bytes_per_s), ("written", quota.write_bytes_per_s)] {
        if bytes > 0 {
            words.push(format!("{}/s {what}", Size(bytes)));
        }
    }
    match words.len() {
        1 => words.push("no limits".to_owned()),
        _ => words.push(format!("bursts of {}", Span(Duration::from_millis(quota.burst_ms.into())))),
    }
    words.join(", ")
}

/// A quota, for scripts; `null` is any number.
pub fn as_json(quota: &Quota) -> Value {
    let limit = |rate: u64| Some(rate).filter(|rate| *rate > 0);
    json!({
        "weight": quota.weight,
        "burst_ms": quota.burst_ms,
        "requests_per_s": limit(quota.requests_per_s),
        "read_bytes_per_s": limit(quota.read_bytes_per_s),
        "write_bytes_per_s": limit(quota.write_bytes_per_s),
    })
}

/// The quotas of single partitions, for scripts.
pub fn partitions_as_json(quotas: &Quotas, table: &TableInfo) -> Value {
    let rows = quotas.of_partitions(table.id);
    rows.map(|(id, quota)| json!({ "partition": id.0, "quota": as_json(&quota) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_as_it_was() {
        let base = Quota { requests_per_s: 9, write_bytes_per_s: 1 << 20, ..Quota::default() };
        let args = QuotaArgs { weight: Some(7), requests_per_s: Some(0), ..QuotaArgs::default() };
        let quota = args.over(base);
        assert_eq!(quota, Quota { weight: 7, requests_per_s: 0, ..base });
        assert_eq!(in_words(&quota), "weight 7, 1 MiB/s written, bursts of 1s");
        assert_eq!(in_words(&Quota::default()), "weight 100, no limits");
        assert_eq!(as_json(&quota)["requests_per_s"], Value::Null);
    }
}
