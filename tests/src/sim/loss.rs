//! What is lost to damage is told, and nothing else is: who is told of damage asked for what lies where there is some.

use lode_net::wire::Status;

use super::history::History;
use super::node::{is_churned, partition_of, shard_of};
use super::plan::Plan;
use super::work::End;

/// Who was told of damage where there is none, in words.
pub fn check(history: &History, plan: &Plan) -> Vec<String> {
    let mut wrong = Vec::new();
    for (id, op) in history.ops() {
        // A partition is gone with the record that made it, where no image has it yet.
        let status = match op.end {
            End::Refused(status @ (Status::Corrupt | Status::Quarantined | Status::StaleMap)) => status,
            End::IsNot => Status::UnknownTable,
            _ => continue,
        };
        let Some(key) = op.ask.key() else { continue };
        if is_churned(key) && matches!(status, Status::StaleMap | Status::UnknownTable) {
            continue;
        }
        let shard = shard_of(partition_of(key, plan.partitions), plan);
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

#[cfg(test)]
mod tests {
    use super::super::work::Ask;
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
        // Of the first table, partition 3: shards are dealt from the second on.
        assert_eq!((told(0), told(1)), (0, 1));
    }
}
