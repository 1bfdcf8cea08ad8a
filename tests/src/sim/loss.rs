//! What is lost to damage is told, and nothing else is: who is told of damage asked for what lies where there is some.

use lode_net::wire::Status;

use super::history::History;
use super::node::partition_of;
use super::plan::Plan;
use super::work::{Ask, End, Keys};

/// Who was told of damage where there is none, in words.
pub fn check(history: &History, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, op) in history.ops() {
        // A partition is gone with the record that made it, where no image has it yet.
        let End::Refused(status @ (Status::Corrupt | Status::Quarantined | Status::StaleMap)) = op.end else {
            continue;
        };
        let partition = partition_of(key_of(&op.ask), plan.partitions);
        let shard = (partition % u32::from(plan.shards)) as u16;
        if !history.is_damaged(shard, op.returned) {
            let ask = &op.ask;
            wrong.push(format!(
                "operation {} ({ask:?}) was told {status:?}, and nothing is damaged there",
                id.0
            ));
        }
    }
    wrong
}

/// A key of the partition that an operation is about.
fn key_of(ask: &Ask) -> &[u8] {
    match ask {
        Ask::Get { key } | Ask::Delete { key } | Ask::Increment { key, .. } | Ask::Deposit { key } => key,
        Ask::Put { write, .. } => &write.key,
        Ask::Batch { writes } => &writes[0].key,
        Ask::Scan { first, .. } => first,
        Ask::Transfer { from, .. } => from,
        Ask::Audit => Keys::account_range().0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_told_of_damage_asked_where_there_is_some() {
        let plan = Plan { shards: 2, partitions: 5, ..Plan::from_seed(1) };
        let told = |shard: u16| {
            let mut history = History::default();
            history.damaged(shard);
            let get = history.call(Ask::Get { key: b"p03/k0001".to_vec() }, 0);
            history.end(get, End::Refused(Status::Corrupt));
            check(&history, &plan).len()
        };
        assert_eq!((told(1), told(0)), (0, 1));
    }
}
