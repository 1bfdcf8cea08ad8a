//! Commands on keys carried out: by writes that stand for themselves, or within a transaction.

use std::rc::Rc;

use bytes::Bytes;
use lode_net::client::{Client, Lifetime, PutOptions, Record, TimeLeft, Transaction, WriteError};
use lode_net::resp::Reply;
use lode_net::wire::{Condition, Seq};

use super::door::Door;
use super::key_op::{Change, KeyOp, Says, Set, When};
use super::memory::Taken;
use super::refusal::Refusal;
use super::times::{self, ExpireIf, Life};

/// How often a command reads and writes again where somebody else has written in between.
const MOST_TRIES: u32 = 1000;

/// A table as the door sees it.
#[derive(Clone)]
pub struct Table {
    pub door: Rc<Door>,
    pub client: Client,
    pub name: Rc<str>,
}

impl Table {
    /// Does this to a key, at once and atomically.
    pub async fn on_key(&self, key: &[u8], op: &KeyOp) -> Result<Reply, Refusal> {
        let (client, table) = (&self.client, &*self.name);
        match op {
            KeyOp::Get | KeyOp::Length | KeyOp::Part { .. } => {
                let record = client.get(table, key).await?;
                let (reply, _) = op.apply(record.as_ref())?;
                // From here on until it is told, it is counted as a reply.
                Taken::value(&self.door.memory, reply.size_bytes())?;
                Ok(reply)
            }
            KeyOp::Type => {
                let is_there = client.time_left(table, key).await?.is_some();
                Ok(Reply::Simple(if is_there { "string" } else { "none" }))
            }
            KeyOp::TimeLeft { in_ms } => {
                let left = client.time_left(table, key).await?;
                Ok(Reply::Integer(left.map_or(-2, |left| times::told(left, *in_ms))))
            }
            KeyOp::Set(set) if set.says != Says::Old && set.life != Life::Keep => {
                self.set(key, op, set).await
            }
            KeyOp::Add(by) => Ok(Reply::Integer(client.increment(table, key, *by).await?.number)),
            KeyOp::Live { ms, only } if *only == ExpireIf::default() => {
                let existed = match ms {
                    0 => client.delete(table, key).await?.existed,
                    ms => {
                        let life = Lifetime::For(std::time::Duration::from_millis(*ms));
                        client.expire(table, key, life).await?.existed
                    }
                };
                Ok(Reply::Integer(i64::from(existed)))
            }
            KeyOp::Persist => match client.time_left(table, key).await? {
                Some(TimeLeft::For(_)) => {
                    let existed = client.persist(table, key).await?.existed;
                    Ok(Reply::Integer(i64::from(existed)))
                }
                _ => Ok(Reply::Integer(0)),
            },
            op => self.read_and_write(key, op).await,
        }
    }

    /// A SET that needs not know the old value.
    async fn set(&self, key: &[u8], op: &KeyOp, set: &Set) -> Result<Reply, Refusal> {
        let condition = match set.when {
            When::Always => Condition::Always,
            When::IfAbsent => Condition::IfAbsent,
            When::IfPresent => return self.read_and_write(key, op).await,
        };
        // One whose time is over before it is written.
        let Some(lifetime) = set.life.resolve(None) else { return self.read_and_write(key, op).await };
        let options = PutOptions { condition, lifetime };
        let did = match self.client.put_with(&self.name, key, &set.value, options).await {
            Ok(_) => true,
            Err(WriteError::ConditionFailed { .. }) => false,
            Err(error) => return Err(error.into()),
        };
        Ok(match (set.says, did) {
            (Says::Flag, did) => Reply::Integer(i64::from(did)),
            (_, true) => Reply::OK,
            (_, false) => Reply::Null,
        })
    }

    /// Reads, and writes if the record is still the same; again until it is.
    async fn read_and_write(&self, key: &[u8], op: &KeyOp) -> Result<Reply, Refusal> {
        for _ in 0..MOST_TRIES {
            let present = self.client.get(&self.name, key).await?;
            // Before anything is written: what it writes is about as long, and what it tells.
            let _taken = self.taken(present.as_ref())?;
            let (reply, change) = op.apply(present.as_ref())?;
            match self.write_if(key, present.as_ref(), change).await {
                Ok(()) => return Ok(reply),
                Err(WriteError::ConditionFailed { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Refusal::new(format_args!(
            "others wrote the key {MOST_TRIES} times while this was tried; try again"
        )))
    }

    /// Counts a record that was read, where there is room for it.
    pub fn taken(&self, record: Option<&Record>) -> Result<Taken, Refusal> {
        Taken::value(&self.door.memory, record.map_or(0, |record| record.value.len()))
    }

    async fn write_if(&self, key: &[u8], present: Option<&Record>, change: Change) -> Result<(), WriteError> {
        let condition = present.map_or(Condition::IfAbsent, |record| Condition::IfSeq(record.seq));
        let put = match change {
            Change::None => return Ok(()),
            Change::Delete => None,
            Change::Put { value, life } => {
                life.resolve(present.map(|record| record.left)).map(|lifetime| (value, lifetime))
            }
        };
        let (client, table) = (&self.client, &*self.name);
        match (put, present) {
            (Some((value, lifetime)), _) => {
                client.put_with(table, key, &value, PutOptions { condition, lifetime }).await.map(drop)
            }
            (None, Some(record)) => client.delete_if(table, key, record.seq).await.map(drop),
            (None, None) => Ok(()),
        }
    }

    /// Whether records live by default for a time that the table says.
    async fn has_ttl(&self) -> Result<bool, Refusal> {
        let id = self.client.map().table(&self.name).map(|table| table.id.0);
        let known = id.and_then(|id| self.door.have_ttl.borrow().get(&id).copied());
        if let Some(known) = known {
            return Ok(known);
        }
        let ttls = self.client.table_ttls().await?;
        let has_ttl = |id| ttls.iter().any(|(of, _)| *of == id);
        if let Some(id) = id {
            self.door.have_ttl.borrow_mut().insert(id, has_ttl(id));
        }
        // One that is gone by now has none; what is begun in it ends with that.
        Ok(id.is_some_and(has_ttl))
    }

    /// Whether a transaction would give this record its table's time to live, where it writes it again. What it has
    /// written itself has that one anyway.
    pub async fn would_shorten(&self, record: &Record) -> Result<bool, Refusal> {
        let lives_for_ever = record.left == TimeLeft::Forever && record.seq != Seq::default();
        Ok(lives_for_ever && self.has_ttl().await?)
    }

    /// Whether there is such a key; takes no read of the drive.
    pub async fn exists(&self, key: &[u8]) -> Result<bool, Refusal> {
        Ok(self.client.time_left(&self.name, key).await?.is_some())
    }
}

/// What cannot be done within a transaction, and what to do instead.
pub fn time_in_transaction(what: &str) -> Refusal {
    Refusal::new(format_args!(
        "{what} a time to live, which a transaction of lode cannot carry: do it outside of MULTI, or in a table whose \
         records all live for so long"
    ))
}

/// That a transaction cannot write a key that lives for ever, where its table gives new records a time.
pub fn forever_in_transaction(key: &[u8]) -> Refusal {
    let key = key.escape_ascii();
    Refusal::new(format_args!(
        "the key '{key}' lives for ever, in a table that gives a time to live to what a transaction writes: do it outside \
         of MULTI"
    ))
}

/// Does this to a key within a transaction.
pub async fn within(
    table: &Table,
    transaction: &mut Transaction,
    key: &Bytes,
    op: &KeyOp,
) -> Result<Reply, Refused> {
    let is_blind = matches!(op, KeyOp::Set(set) if set.when == When::Always && set.life == Life::Table && set.says == Says::Ok);
    // What is overwritten whatever it is, nobody else's write can conflict with.
    let present = match is_blind {
        true => None,
        false => transaction.get_record(key).await.map_err(Refused::all)?,
    };
    let (reply, change) = op.apply(present.as_ref()).map_err(Refused::This)?;
    match change {
        Change::None => {}
        Change::Delete => transaction.delete(key).map_err(Refused::all)?,
        Change::Put { value, life } => {
            let keeps = match &present {
                Some(record) if life == Life::Keep => table.would_shorten(record).await,
                _ => Ok(false),
            };
            if keeps.map_err(Refused::All)? {
                return Err(Refused::All(forever_in_transaction(key)));
            }
            match life.resolve(present.map(|record| record.left)) {
                Some(Lifetime::For(_)) => {
                    let key = key.escape_ascii();
                    return Err(Refused::All(time_in_transaction(&format!("the key '{key}' has"))));
                }
                Some(_) => transaction.put(key, &value).map_err(Refused::all)?,
                None => transaction.delete(key).map_err(Refused::all)?,
            }
        }
    }
    Ok(reply)
}

/// What a refusal within a transaction means.
#[derive(Clone, Debug)]
pub enum Refused {
    /// This command did nothing; the others may go on.
    This(Refusal),
    /// Nothing of the transaction can be done.
    All(Refusal),
    /// It conflicts with somebody else's writes, or has ended: begun again, it may succeed.
    Again(Refusal),
}

impl Refused {
    /// A failure of the transaction itself.
    pub fn all(error: lode_net::client::TransactionError) -> Refused {
        match error.is_transient() {
            true => Refused::Again(error.into()),
            false => Refused::All(error.into()),
        }
    }

    /// What the client is told.
    pub fn into_refusal(self) -> Refusal {
        match self {
            Refused::This(refusal) | Refused::All(refusal) | Refused::Again(refusal) => refusal,
        }
    }
}
