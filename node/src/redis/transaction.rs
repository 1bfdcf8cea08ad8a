//! MULTI, EXEC and WATCH over a transaction of one partition.
//!
//! WATCH keeps the version of each key, and holds nothing open. EXEC begins a transaction, compares the versions in
//! it, does the commands and commits: serialisable, so what was compared still holds at the commit. A conflict with
//! somebody else's writes begins it again; a watched key that was written ends it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use bytes::Bytes;
use lode_net::client::{Record, Transaction, TransactionOptions};
use lode_net::resp::Reply;
use lode_net::wire::Seq;

use super::key_op::KeyOp;
use super::keys_op::{KeysOp, finish, pause};
use super::limits::{
    KEPT_ARGUMENT_BYTES, MAX_QUEUED_BYTES, MAX_QUEUED_COMMANDS, MAX_WATCHED_BYTES, MAX_WATCHED_KEYS,
};
use super::memory::{List, Memory};
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

    /// Takes a command with these arguments.
    pub fn push(&mut self, command: Queued, args: &[Bytes], memory: &Shares<'_>) -> Result<(), Refusal> {
        let bytes = args.iter().map(|arg| arg.len() + KEPT_ARGUMENT_BYTES).sum::<usize>();
        if self.commands.len() >= MAX_QUEUED_COMMANDS || self.bytes + bytes > MAX_QUEUED_BYTES {
            return Err(Refusal::new(format_args!(
                "MULTI takes at most {MAX_QUEUED_COMMANDS} commands, and {MAX_QUEUED_BYTES} bytes of arguments, \
                 {KEPT_ARGUMENT_BYTES} more counted for each"
            )));
        }
        memory.have_room(self.held_bytes() + bytes)?;
        self.bytes += bytes;
        self.commands.push(command);
        Ok(())
    }
}

/// What connections may keep between their commands, while memory is short.
pub struct Shares<'a> {
    pub memory: &'a Memory,
    /// Of each of them, in bytes.
    pub share: usize,
}

impl Shares<'_> {
    /// Whether one connection may keep so much of a kind.
    fn have_room(&self, bytes: usize) -> Result<(), Refusal> {
        match self.memory.is_short() && bytes > self.share {
            true => Err(Refusal::short_of_memory()),
            false => Ok(()),
        }
    }
}

/// The keys that a connection watches, by their tables, each with its version when it was watched; `None`: it was not there.
#[derive(Default)]
pub struct Watched {
    seqs: HashMap<(Rc<str>, Bytes), Option<Seq>>,
    bytes: usize,
}

impl Watched {
    /// About what it holds in memory, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, table: &Rc<str>, key: Bytes, seq: Option<Seq>) {
        self.bytes += key.len() + KEPT_ARGUMENT_BYTES;
        self.seqs.insert((table.clone(), key), seq);
    }

    /// Whether a key is watched already; refused where it cannot be.
    fn knows(&self, table: &Table, key: &Bytes) -> Result<bool, Refusal> {
        if self.seqs.contains_key(&(table.name.clone(), key.clone())) {
            return Ok(true);
        }
        let bytes = self.bytes + key.len() + KEPT_ARGUMENT_BYTES;
        if self.seqs.len() >= MAX_WATCHED_KEYS || bytes > MAX_WATCHED_BYTES {
            return Err(Refusal::new(format_args!(
                "a connection watches at most {MAX_WATCHED_KEYS} keys, and {MAX_WATCHED_BYTES} bytes of them, \
                 {KEPT_ARGUMENT_BYTES} more counted for each"
            )));
        }
        table.door.shares().have_room(bytes)?;
        Ok(false)
    }
}

/// Notes how the keys are now.
pub async fn watch(table: &Table, keys: &[Bytes], watched: &RefCell<Watched>) -> Result<Reply, Refusal> {
    for key in keys {
        let is_known = watched.borrow().knows(table, key)?;
        if is_known {
            continue;
        }
        let record = table.client.get(&table.name, key).await?;
        // A copy: the request that the key was in may have been long.
        let key = Bytes::copy_from_slice(key);
        watched.borrow_mut().push(&table.name, key, record.map(|record| record.seq));
    }
    Ok(Reply::OK)
}

/// Does what was queued, all at one instant.
pub async fn exec(table: &Table, queue: Queue, watched: &Watched) -> Result<Reply, Refusal> {
    let commands = queue.commands;
    let asks = commands.iter().any(|command| !matches!(command, Queued::Told(_)));
    if !asks && watched.seqs.is_empty() {
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
async fn home(table: &Table, commands: &[Queued], watched: &Watched) -> Result<Bytes, Refusal> {
    if watched.seqs.keys().any(|(of, _)| *of != table.name) {
        return Err(Refusal::new("keys of another table are watched; a transaction is within one table"));
    }
    let mut keys: Vec<&Bytes> = watched.seqs.keys().map(|(_, key)| key).collect();
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
    watched: &Watched,
) -> Result<Option<Vec<Reply>>, Refused> {
    for ((_, key), seq) in &watched.seqs {
        let record: Option<Record> = transaction.get_record(key).await.map_err(Refused::all)?;
        if record.map(|record| record.seq) != *seq {
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
    use super::super::limits::MAX_HELD_BYTES;
    use super::*;

    #[test]
    fn a_queue_is_full_at_its_limits() {
        let memory = Memory::default();
        let shares = Shares { memory: &memory, share: 10_000 };
        let mut queue = Queue::default();
        for _ in 0..MAX_QUEUED_COMMANDS {
            assert_eq!(queue.push(Queued::Told(Reply::OK), &[Bytes::from_static(b"a")], &shares), Ok(()));
        }
        assert!(queue.push(Queued::Told(Reply::OK), &[], &shares).is_err());
        let of = |bytes: usize| [Bytes::from(vec![0; bytes - KEPT_ARGUMENT_BYTES])];
        let mut queue = Queue::default();
        assert_eq!(queue.push(Queued::Told(Reply::OK), &of(MAX_QUEUED_BYTES), &shares), Ok(()));
        assert!(queue.push(Queued::Told(Reply::OK), &of(KEPT_ARGUMENT_BYTES), &shares).is_err());
        // Arguments without a byte take memory, too.
        let empty = vec![Bytes::new(); MAX_QUEUED_BYTES / KEPT_ARGUMENT_BYTES];
        let mut queue = Queue::default();
        assert_eq!(queue.push(Queued::Told(Reply::OK), &empty, &shares), Ok(()));
        assert!(queue.held_bytes() >= empty.len() * (size_of::<Bytes>() + 16), "{}", queue.held_bytes());
        assert!(queue.push(Queued::Told(Reply::OK), &empty[..1], &shares).is_err());
        // Where others hold most of it, each has its share.
        memory.hold(0, MAX_HELD_BYTES);
        let mut queue = Queue::default();
        assert_eq!(queue.push(Queued::Told(Reply::OK), &of(10_000), &shares), Ok(()));
        let refused = queue.push(Queued::Told(Reply::OK), &of(KEPT_ARGUMENT_BYTES), &shares);
        assert_eq!(refused, Err(Refusal::short_of_memory()));
    }
}
