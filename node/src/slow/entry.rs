//! A slow request as it is told to people and programs.

use lode_net::wire::Opcode;
use serde_json::{Map, Value, json};

use super::stages::Told;
use super::{SlowRequest, Stage, Stages};

/// One that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowEntry {
    /// Counted from the node's start.
    pub id: u64,
    /// UNIX milliseconds of its answer.
    pub at_ms: u64,
    /// What was asked, as `get`.
    pub verb: String,
    /// How it ended, as `Ok`.
    pub status: String,
    /// The table's name; empty where the partition was none's.
    pub table: String,
    /// The partition.
    pub partition: u32,
    /// The shard that it came to.
    pub shard: u16,
    /// Who asked.
    pub client: Option<String>,
    /// The key's length in bytes; 0 where the request was about no single key.
    pub key_bytes: u16,
    /// The key's hash, as hexadecimal digits.
    pub key_hash: Option<String>,
    /// Bytes of the request's body.
    pub request_bytes: u32,
    /// Bytes of the answer's body.
    pub answer_bytes: u64,
    /// Where its time went.
    pub stages: Stages,
}

/// `TransactionGet` as `transaction-get`.
fn verb_of(opcode: u8) -> String {
    let Some(opcode) = Opcode::from_u8(opcode) else { return opcode.to_string() };
    let mut verb = String::new();
    for letter in format!("{opcode:?}").chars() {
        if letter.is_ascii_uppercase() && !verb.is_empty() {
            verb.push('-');
        }
        verb.push(letter.to_ascii_lowercase());
    }
    verb
}

impl SlowEntry {
    /// Of a request that `shard` has noted.
    pub(super) fn of(id: u64, shard: u16, request: SlowRequest) -> SlowEntry {
        let of_partition = request.map.published.map.tables().iter();
        let table = of_partition
            .filter(|table| table.partitions().iter().any(|found| found.id == request.partition))
            .map(|table| table.name.clone())
            .next();
        let has_key = request.key.len > 0;
        SlowEntry {
            id,
            at_ms: request.at_ns / 1_000_000,
            verb: verb_of(request.opcode),
            status: format!("{:?}", request.status),
            table: table.unwrap_or_default(),
            partition: request.partition.0,
            shard,
            client: request.client.map(|client| client.to_string()),
            key_bytes: request.key.len,
            key_hash: has_key.then(|| format!("{:08x}", request.key.hash)),
            request_bytes: request.request_bytes,
            answer_bytes: request.answer_bytes,
            stages: request.stages,
        }
    }

    /// As JSON.
    pub fn to_json(&self) -> Value {
        let stages: Map<String, Value> = Stage::ALL
            .into_iter()
            .map(|stage| (format!("{}_us", stage.name()), json!(self.stages.of(stage))))
            .collect();
        json!({
            "id": self.id,
            "at_ms": self.at_ms,
            "verb": self.verb,
            "status": self.status,
            "table": self.table,
            "partition": self.partition,
            "shard": self.shard,
            "client": self.client,
            "key_bytes": self.key_bytes,
            "key_hash": self.key_hash,
            "request_bytes": self.request_bytes,
            "answer_bytes": self.answer_bytes,
            "total_us": self.stages.total_us(),
            "longest": self.stages.longest().name(),
            "stages": stages,
        })
    }

    /// In a sentence.
    pub fn told(&self) -> String {
        let SlowEntry { verb, table, partition, stages, .. } = self;
        let client = self.client.as_deref().unwrap_or("a client that is gone");
        let total = Told(stages.total_us());
        let table = table.escape_debug();
        format!("a {verb} of table {table} (partition {partition}) by {client} took {total}: {stages}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_words() {
        assert_eq!(verb_of(Opcode::Get as u8), "get");
        assert_eq!(verb_of(Opcode::TransactionScan as u8), "transaction-scan");
        assert_eq!(verb_of(250), "250");
    }
}
