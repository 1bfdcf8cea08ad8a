//! Commands on several keys: of one partition they see and change one instant; of several, each key by itself, where
//! that is no lie, and not at all elsewhere.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use lode_net::client::{
    Batch, BatchWrite, Lifetime, PutOptions, TimeLeft, Transaction, TransactionOptions, WriteError, successor,
};
use lode_net::resp::Reply;
use lode_net::wire::limits::MAX_VALUE_BYTES;

use super::limits::{MAX_KEY_BYTES_AT_ONCE, MAX_KEYS_AT_ONCE};
use super::memory::{List, Memory, Taken};
use super::refusal::Refusal;
use super::store::{Refused, Table, forever_in_transaction, time_in_transaction};

/// Requests of one command under way at once.
const FAN_OUT: usize = 64;
/// Values that MGET reads at once, where the reply has room for the longest.
const VALUES_AT_ONCE: usize = 16;
/// How often a transaction is begun again.
const MOST_TRIES: u32 = 64;

/// What a command does to its several keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysOp {
    Get(Vec<Bytes>),
    Exist(Vec<Bytes>),
    Delete(Vec<Bytes>),
    Set(Vec<(Bytes, Bytes)>),
    SetIfNone(Vec<(Bytes, Bytes)>),
    Rename(Bytes, Bytes),
}

impl KeysOp {
    /// Its keys.
    pub fn keys(&self) -> Vec<&Bytes> {
        match self {
            KeysOp::Get(keys) | KeysOp::Exist(keys) | KeysOp::Delete(keys) => keys.iter().collect(),
            KeysOp::Set(pairs) | KeysOp::SetIfNone(pairs) => pairs.iter().map(|(key, _)| key).collect(),
            KeysOp::Rename(from, to) => vec![from, to],
        }
    }

    /// Whether it may change them.
    pub fn writes(&self) -> bool {
        !matches!(self, KeysOp::Get(_) | KeysOp::Exist(_))
    }

    /// What its answer may hold at once beside what is counted as it grows, in bytes.
    pub fn reply_bytes(&self) -> usize {
        match self {
            KeysOp::Get(keys) => keys.len().min(VALUES_AT_ONCE) * MAX_VALUE_BYTES,
            _ => 0,
        }
    }

    /// Does it, at once.
    pub async fn carry_out(&self, table: &Table) -> Result<Reply, Refusal> {
        match self {
            KeysOp::Get(keys) if keys.len() == 1 => {
                let record = table.client.get(&table.name, &keys[0]).await?;
                table.taken(record.as_ref())?;
                return Ok(Reply::Array(vec![Reply::bulk_or_null(record.map(|record| record.value))]));
            }
            KeysOp::Exist(keys) if keys.len() == 1 => {
                return Ok(Reply::Integer(i64::from(table.exists(&keys[0]).await?)));
            }
            KeysOp::Delete(keys) if keys.len() == 1 => {
                let existed = table.client.delete(&table.name, &keys[0]).await?.existed;
                return Ok(Reply::Integer(i64::from(existed)));
            }
            KeysOp::Set(pairs) => return set_all(table, pairs).await,
            KeysOp::Rename(from, to) => return rename(table, from, to).await,
            _ => {}
        }
        let keys = self.keys();
        let common = table.client.common_partition(&table.name, keys.iter().map(|key| &key[..])).await?;
        match (self, common) {
            (KeysOp::Delete(keys), Some(_)) if !is_for_one_instant(keys) => self.one_by_one(table).await,
            (_, Some(_)) => self.in_one_instant(table).await,
            (KeysOp::SetIfNone(_), None) => Err(Refusal::cross_slot(&table.name)),
            (_, None) => self.one_by_one(table).await,
        }
    }

    /// As a transaction of its own, begun again where others are in its way.
    async fn in_one_instant(&self, table: &Table) -> Result<Reply, Refusal> {
        let options = TransactionOptions { read_only: !self.writes(), ..TransactionOptions::default() };
        let keys = self.keys();
        let mut last = Refusal::syntax();
        for tries in 0..MOST_TRIES {
            let mut transaction = table.client.transaction(&table.name, keys[0], options).await?;
            let done = self.within(table, &mut transaction).await;
            match finish(transaction, done).await {
                Err(Refused::Again(refusal)) => last = refusal,
                done => return done.map_err(Refused::into_refusal),
            }
            pause(tries).await;
        }
        Err(last)
    }

    /// Within a transaction that is open.
    pub async fn within(&self, table: &Table, transaction: &mut Transaction) -> Result<Reply, Refused> {
        let all = Refused::all;
        Ok(match self {
            KeysOp::Get(keys) => {
                let (mut values, mut keys) = (List::new(&table.door.memory), &keys[..]);
                while !keys.is_empty() {
                    let (some, behind) = keys.split_at(values_at_once(&values, keys.len()));
                    let (memory, transaction) = (&table.door.memory, &*transaction);
                    let found = gather(some, |key| async move {
                        let value = transaction.get(key).await.map_err(all)?;
                        Counted::new(memory, value).map_err(Refused::This)
                    });
                    let found = found.await?.into_iter();
                    found
                        .map(Counted::told)
                        .try_for_each(|value| values.push(value))
                        .map_err(Refused::This)?;
                    keys = behind;
                }
                Reply::Array(values.into_items())
            }
            KeysOp::Exist(keys) => {
                let there = present(transaction, keys).await.map_err(all)?;
                Reply::Integer(there.into_iter().filter(|is_there| *is_there).count() as i64)
            }
            KeysOp::Delete(keys) => {
                let mut keys = keys.clone();
                keys.sort();
                keys.dedup();
                let there = present(transaction, &keys).await.map_err(all)?;
                for (key, _) in keys.iter().zip(&there).filter(|(_, is_there)| **is_there) {
                    transaction.delete(key).map_err(all)?;
                }
                Reply::Integer(there.into_iter().filter(|is_there| *is_there).count() as i64)
            }
            KeysOp::Set(pairs) => {
                pairs.iter().try_for_each(|(key, value)| transaction.put(key, value)).map_err(all)?;
                Reply::OK
            }
            KeysOp::SetIfNone(pairs) => {
                let keys: Vec<Bytes> = pairs.iter().map(|(key, _)| key.clone()).collect();
                if present(transaction, &keys).await.map_err(all)?.contains(&true) {
                    return Ok(Reply::Integer(0));
                }
                pairs.iter().try_for_each(|(key, value)| transaction.put(key, value)).map_err(all)?;
                Reply::Integer(1)
            }
            KeysOp::Rename(from, to) => {
                let record = transaction.get_record(from).await.map_err(all)?;
                let record = record.ok_or_else(|| Refused::This(no_such_key()))?;
                if from == to {
                    // Nothing is written: whoever watches the key has seen no change.
                    return Ok(Reply::OK);
                }
                if record.left != TimeLeft::Forever {
                    let key = from.escape_ascii();
                    return Err(Refused::All(time_in_transaction(&format!("the key '{key}' has"))));
                }
                if table.would_shorten(&record).await.map_err(Refused::All)? {
                    return Err(Refused::All(forever_in_transaction(from)));
                }
                transaction.delete(from).map_err(all)?;
                transaction.put(to, &record.value).map_err(all)?;
                Reply::OK
            }
        })
    }

    /// Each key by itself.
    async fn one_by_one(&self, table: &Table) -> Result<Reply, Refusal> {
        let (client, name) = (&table.client, &*table.name);
        match self {
            KeysOp::Get(keys) => {
                let (mut values, mut keys) = (List::new(&table.door.memory), &keys[..]);
                while !keys.is_empty() {
                    let (some, behind) = keys.split_at(values_at_once(&values, keys.len()));
                    let memory = &table.door.memory;
                    let found = gather(some, |key| async move {
                        Counted::new(memory, client.get(name, key).await?.map(|record| record.value))
                    });
                    let found = found.await?.into_iter();
                    found.map(Counted::told).try_for_each(|value| values.push(value))?;
                    keys = behind;
                }
                Ok(Reply::Array(values.into_items()))
            }
            KeysOp::Exist(keys) => {
                let there = gather(keys, |key| table.exists(key)).await?;
                Ok(Reply::Integer(there.into_iter().filter(|is_there| *is_there).count() as i64))
            }
            KeysOp::Delete(keys) => {
                let deleted = gather(keys, |key| client.delete(name, key)).await?;
                Ok(Reply::Integer(deleted.into_iter().filter(|done| done.existed).count() as i64))
            }
            KeysOp::Set(_) | KeysOp::SetIfNone(_) | KeysOp::Rename(..) => {
                Err(Refusal::cross_slot(&table.name))
            }
        }
    }
}

/// A value that waits for others that were asked for together with it.
struct Counted {
    value: Option<Bytes>,
    _taken: Taken,
}

impl Counted {
    fn new(memory: &Rc<Memory>, value: Option<Bytes>) -> Result<Counted, Refusal> {
        let taken = Taken::value(memory, value.as_ref().map_or(0, Bytes::len))?;
        Ok(Counted { value, _taken: taken })
    }

    /// It is counted by the reply from here on.
    fn told(self) -> Reply {
        Reply::bulk_or_null(self.value)
    }
}

/// How many of so many values may be read at once: as many as the reply has room for whatever they are, and one more, which
/// tells that it is too long.
fn values_at_once(values: &List, keys: usize) -> usize {
    let most = values.room_bytes() / MAX_VALUE_BYTES + 1;
    keys.min(most).min(VALUES_AT_ONCE)
}

/// Whether a transaction can remember that it has looked for all of these.
fn is_for_one_instant(keys: &[Bytes]) -> bool {
    keys.len() <= MAX_KEYS_AT_ONCE && keys.iter().map(Bytes::len).sum::<usize>() <= MAX_KEY_BYTES_AT_ONCE
}

fn no_such_key() -> Refusal {
    Refusal::new("no such key")
}

/// Which of the keys are there, as the transaction sees them; takes no read of the drive.
async fn present(
    transaction: &Transaction,
    keys: &[Bytes],
) -> Result<Vec<bool>, lode_net::client::TransactionError> {
    let behind: Vec<(&Bytes, Option<Vec<u8>>)> = keys.iter().map(|key| (key, successor(key))).collect();
    let counts = gather(&behind, |(key, behind)| transaction.count(key, behind.as_deref())).await?;
    Ok(counts.into_iter().map(|count| count > 0).collect())
}

/// Commits what was done, or ends the transaction where it failed.
pub async fn finish<T>(transaction: Transaction, done: Result<T, Refused>) -> Result<T, Refused> {
    match done {
        Ok(value) => transaction.commit().await.map(|_| value).map_err(Refused::all),
        Err(refused) => {
            // Why it failed matters more than that it could not be ended: its lifetime ends it.
            let _ = transaction.rollback().await;
            Err(refused)
        }
    }
}

/// Waits before another try, longer each time.
pub async fn pause(tries: u32) {
    let most_us = 500u64 << tries.min(6);
    // Whoever contends wakes at another time.
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let spread = u64::from(since.subsec_nanos());
    tokio::time::sleep(std::time::Duration::from_micros(most_us / 2 + spread % (most_us / 2))).await;
}

/// Writes all, in one write of their partition.
async fn set_all(table: &Table, pairs: &[(Bytes, Bytes)]) -> Result<Reply, Refusal> {
    if let [(key, value)] = pairs {
        table.client.put(&table.name, key, value).await?;
        return Ok(Reply::OK);
    }
    let mut batch = Batch::new();
    pairs.iter().for_each(|(key, value)| batch.push(BatchWrite::Put { key, value }));
    table.client.batch(&table.name, batch).await?;
    Ok(Reply::OK)
}

/// Moves a record to another key. One that lives as its table says moves at one instant; another is first written
/// under its new key, and then taken from the old one, in two writes.
async fn rename(table: &Table, from: &Bytes, to: &Bytes) -> Result<Reply, Refusal> {
    let (client, name) = (&table.client, &*table.name);
    if client.common_partition(name, [&from[..], to]).await?.is_none() {
        return Err(Refusal::cross_slot(name));
    }
    for tries in 0..MOST_TRIES {
        let Some(record) = client.get(name, from).await? else { return Err(no_such_key()) };
        if from == to {
            return Ok(Reply::OK);
        }
        let _taken = table.taken(Some(&record))?;
        let lifetime = match record.left {
            TimeLeft::For(left) => Lifetime::For(left),
            TimeLeft::Forever if table.would_shorten(&record).await? => Lifetime::Forever,
            TimeLeft::Forever => {
                let op = KeysOp::Rename(from.clone(), to.clone());
                return op.in_one_instant(table).await;
            }
        };
        let options = PutOptions { lifetime, ..PutOptions::default() };
        client.put_with(name, to, &record.value, options).await?;
        match client.delete_if(name, from, record.seq).await {
            Ok(_) => return Ok(Reply::OK),
            Err(WriteError::ConditionFailed { current: None }) => return Ok(Reply::OK),
            Err(WriteError::ConditionFailed { .. }) => pause(tries).await,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::new(format_args!("others wrote the key {MOST_TRIES} times while this was tried; try again")))
}

/// Asks for each, some at once, and gives the answers in order.
async fn gather<'a, K, T, E, F: Future<Output = Result<T, E>>>(
    keys: &'a [K],
    ask: impl Fn(&'a K) -> F,
) -> Result<Vec<T>, E> {
    let mut answers = Vec::with_capacity(keys.len());
    for some in keys.chunks(FAN_OUT) {
        let mut asked: Vec<(Pin<Box<F>>, Option<T>)> =
            some.iter().map(|key| (Box::pin(ask(key)), None)).collect();
        std::future::poll_fn(|context| {
            let mut is_waiting = false;
            for (future, answer) in asked.iter_mut().filter(|(_, answer)| answer.is_none()) {
                match future.as_mut().poll(context) {
                    Poll::Ready(Ok(value)) => *answer = Some(value),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => is_waiting = true,
                }
            }
            if is_waiting { Poll::Pending } else { Poll::Ready(Ok(())) }
        })
        .await?;
        answers.extend(asked.into_iter().map(|(_, answer)| answer.expect("each was waited for")));
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::super::limits::MAX_REPLY_BYTES;
    use super::*;

    #[test]
    fn as_many_values_are_read_at_once_as_the_reply_has_room_for_and_one() {
        let memory = Rc::new(Memory::default());
        let values = |bytes: usize| {
            let mut list = List::new(&memory);
            list.push_bytes(Bytes::from(vec![0; bytes - Reply::text("").size_bytes()])).expect("it fits");
            list
        };
        let rest = |bytes: usize| values_at_once(&values(MAX_REPLY_BYTES - bytes), 1000);
        assert_eq!(values_at_once(&List::new(&memory), 1000), VALUES_AT_ONCE);
        assert_eq!(values_at_once(&List::new(&memory), 3), 3, "no more than there are");
        for (room, most) in [
            (0, 1),
            (1, 1),
            (MAX_VALUE_BYTES - 1, 1),
            (MAX_VALUE_BYTES, 2),
            (5 * MAX_VALUE_BYTES - 1, 5),
            (5 * MAX_VALUE_BYTES, 6),
        ] {
            assert_eq!(rest(room), most, "where {room} bytes are left");
        }
    }

    #[test]
    fn values_that_wait_for_others_are_counted() {
        let memory = Rc::new(Memory::default());
        let value = || Some(Bytes::from(vec![0; MAX_VALUE_BYTES]));
        let some: Vec<Counted> =
            (0..VALUES_AT_ONCE).map(|_| Counted::new(&memory, value()).expect("there is room")).collect();
        assert_eq!(memory.held_bytes(), VALUES_AT_ONCE * MAX_VALUE_BYTES);
        assert_eq!(
            some.into_iter().map(Counted::told).filter(|told| *told != Reply::Null).count(),
            VALUES_AT_ONCE
        );
        assert_eq!(memory.held_bytes(), 0);
        assert_eq!(Counted::new(&memory, None).map(Counted::told), Ok(Reply::Null));
    }
}
