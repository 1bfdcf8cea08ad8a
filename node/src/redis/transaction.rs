//! MULTI, EXEC and WATCH over a transaction of one partition.
//!
//! WATCH keeps the version of each key, and holds nothing open. EXEC begins a transaction, compares the versions in
//! it, does the commands and commits: serialisable, so what was compared still holds at the commit. A conflict with
//! somebody else's writes begins it again; a watched key that was written ends it.

use bytes::Bytes;
use lode_net::client::{Record, Transaction, TransactionOptions};
use lode_net::resp::Reply;
use lode_net::wire::Seq;

use super::key_op::KeyOp;
use super::keys_op::{KeysOp, finish, pause};
use super::limits::{MAX_QUEUED_BYTES, MAX_QUEUED_COMMANDS, MAX_WATCHED_KEYS};
use super::memory::List;
use super::refusal::Refusal;
use super::store::{Refused, Table, within};
use super::table_op::TableOp;
use crate::access::Rights;

/// How often EXEC begins again where others are in its way.
const MOST_TRIES: u32 = 256;

/// A command that waits for EXEC.
pub enum Queued {
    Key(Bytes, KeyOp),
    Keys(KeysOp),
    Table(TableOp),
    /// It has its answer already, as it asks for nothing of the table.
    Told(Reply),
}

/// What was said since MULTI.
#[derive(Default)]
pub struct Queue {
    commands: Vec<Queued>,
    bytes: usize,
    /// The rights that its commands take together: looked at again when they are done, which may be much later.
    pub needed: Rights,
    /// A command was refused, so that EXEC does nothing.
    pub is_broken: bool,
}

impl Queue {
    /// About what it holds in memory, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes + self.commands.capacity() * size_of::<Queued>()
    }

    /// Takes a command of so many bytes.
    pub fn push(&mut self, command: Queued, bytes: usize) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.commands.len() >= MAX_QUEUED_COMMANDS || self.bytes > MAX_QUEUED_BYTES {
            return Err(Refusal::new(format_args!(
                "MULTI takes at most {MAX_QUEUED_COMMANDS} commands and {MAX_QUEUED_BYTES} bytes"
            )));
        }
        self.commands.push(command);
        Ok(())
    }
}

/// A key as it was when it was watched.
pub struct Watched {
    pub table: std::rc::Rc<str>,
    pub key: Bytes,
    /// `None`: it was not there.
    pub seq: Option<Seq>,
}

/// Notes how the keys are now.
pub async fn watch(
    table: &Table,
    keys: &[Bytes],
    watched: &std::cell::RefCell<Vec<Watched>>,
) -> Result<Reply, Refusal> {
    for key in keys {
        let is_known = |known: &Watched| known.table == table.name && known.key == *key;
        if watched.borrow().iter().any(is_known) {
            continue;
        }
        if watched.borrow().len() >= MAX_WATCHED_KEYS {
            return Err(Refusal::new(format_args!("a connection watches at most {MAX_WATCHED_KEYS} keys")));
        }
        let record = table.client.get(&table.name, key).await?;
        let seq = record.map(|record| record.seq);
        // A copy: the request that the key was in may have been long.
        let key = Bytes::copy_from_slice(key);
        watched.borrow_mut().push(Watched { table: table.name.clone(), key, seq });
    }
    Ok(Reply::OK)
}

/// Does what was queued, all at one instant.
pub async fn exec(table: &Table, queue: Queue, watched: &[Watched]) -> Result<Reply, Refusal> {
    let commands = queue.commands;
    let asks = commands.iter().any(|command| !matches!(command, Queued::Told(_)));
    if !asks && watched.is_empty() {
        return Ok(Reply::Array(commands.into_iter().map(told).collect()));
    }
    let home = home(table, &commands, watched).await?;
    let options =
        TransactionOptions { read_only: !commands.iter().any(writes), ..TransactionOptions::default() };
    let mut last = Refusal::syntax();
    for tries in 0..MOST_TRIES {
        let mut transaction = table.client.transaction(&table.name, &home, options).await?;
        let done = attempt(table, &mut transaction, &commands, watched).await;
        match finish(transaction, done).await {
            Ok(Some(replies)) => return Ok(Reply::Array(replies)),
            Ok(None) => return Ok(Reply::NullArray),
            Err(Refused::Again(refusal)) => last = refusal,
            Err(refused) => return Err(refused.into_refusal()),
        }
        pause(tries).await;
    }
    Err(last)
}

fn told(command: Queued) -> Reply {
    match command {
        Queued::Told(reply) => reply,
        _ => Reply::Null,
    }
}

fn writes(command: &Queued) -> bool {
    match command {
        Queued::Key(_, op) => op.writes(),
        Queued::Keys(op) => op.writes(),
        Queued::Table(op) => op.writes(),
        Queued::Told(_) => false,
    }
}

/// A key of the one partition in which all takes place.
async fn home(table: &Table, commands: &[Queued], watched: &[Watched]) -> Result<Bytes, Refusal> {
    if watched.iter().any(|watched| watched.table != table.name) {
        return Err(Refusal::new("keys of another table are watched; a transaction is within one table"));
    }
    let mut keys: Vec<&Bytes> = watched.iter().map(|watched| &watched.key).collect();
    let mut asks_all = false;
    for command in commands {
        match command {
            Queued::Key(key, _) => keys.push(key),
            Queued::Keys(op) => keys.extend(op.keys()),
            Queued::Table(_) => asks_all = true,
            Queued::Told(_) => {}
        }
    }
    // Whatever the table, any key has a home; this one stands for none.
    let anywhere = Bytes::from_static(b"0");
    if keys.is_empty() {
        keys.push(&anywhere);
    }
    let common = table.client.common_partition(&table.name, keys.iter().map(|key| &key[..])).await?;
    let is_one =
        || table.client.map().table(&table.name).is_some_and(|routes| routes.partitions().len() == 1);
    match common {
        Some(_) if !asks_all || is_one() => Ok(keys[0].clone()),
        _ => Err(Refusal::cross_slot(&table.name)),
    }
}

/// One try; `None`: a watched key was written.
async fn attempt(
    table: &Table,
    transaction: &mut Transaction,
    commands: &[Queued],
    watched: &[Watched],
) -> Result<Option<Vec<Reply>>, Refused> {
    for watched in watched {
        let record: Option<Record> = transaction.get_record(&watched.key).await.map_err(Refused::all)?;
        if record.map(|record| record.seq) != watched.seq {
            return Ok(None);
        }
    }
    let mut replies = List::new(&table.door.memory);
    for command in commands {
        let done = match command {
            Queued::Key(key, op) => within(table, transaction, key, op).await,
            Queued::Keys(op) => op.within(table, transaction).await,
            Queued::Table(op) => op.within(table, transaction).await,
            Queued::Told(reply) => Ok(reply.clone()),
        };
        let reply = match done {
            Ok(reply) => reply,
            Err(Refused::This(refusal)) => refusal.into(),
            Err(refused) => return Err(refused),
        };
        replies.push(reply).map_err(Refused::All)?;
    }
    Ok(Some(replies.into_items()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_full_at_its_limits() {
        let mut queue = Queue::default();
        for _ in 0..MAX_QUEUED_COMMANDS {
            assert_eq!(queue.push(Queued::Told(Reply::OK), 1), Ok(()));
        }
        assert!(queue.push(Queued::Told(Reply::OK), 1).is_err());
        let mut queue = Queue::default();
        assert_eq!(queue.push(Queued::Told(Reply::OK), MAX_QUEUED_BYTES), Ok(()));
        assert!(queue.push(Queued::Told(Reply::OK), 1).is_err());
    }
}
