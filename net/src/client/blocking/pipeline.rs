//! Many gets and writes sent together, their answers collected in order.

use crate::client::answer;
use crate::client::blocking::Client;
use crate::client::call::{Ask, Call};
use crate::client::error::{GetError, IncrementError, WriteError};
use crate::client::options::{Counted, Lifetime, PutOptions, Record, Written};
use crate::wire::Condition;

/// The answer to one operation of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a get.
    Get(Result<Option<Record>, GetError>),
    /// To a put, a delete or an expire.
    Write(Result<Written, WriteError>),
    /// To an increment.
    Increment(Result<Counted, IncrementError>),
}

enum Kind {
    Get,
    Put { value: Vec<u8>, options: PutOptions },
    Expire { lifetime: Lifetime },
    Delete { condition: Condition },
    Increment { by: i64 },
}

struct Queued {
    table: String,
    key: Vec<u8>,
    kind: Kind,
}

/// Operations to be sent together. They take place in no particular order, but that answers come in the order
/// in which they were queued.
pub struct Pipeline<'c> {
    client: &'c mut Client,
    queued: Vec<Queued>,
}

impl<'c> Pipeline<'c> {
    pub(super) fn new(client: &'c mut Client) -> Pipeline<'c> {
        Pipeline { client, queued: Vec::new() }
    }

    /// Queues a get.
    pub fn get(&mut self, table: &str, key: &[u8]) -> &mut Self {
        self.push(table, key, Kind::Get)
    }

    /// Queues a put.
    pub fn put(&mut self, table: &str, key: &[u8], value: &[u8]) -> &mut Self {
        self.put_if(table, key, value, Condition::Always)
    }

    /// Queues a put with a condition.
    pub fn put_if(&mut self, table: &str, key: &[u8], value: &[u8], condition: Condition) -> &mut Self {
        let lifetime = Lifetime::Table;
        self.put_with(table, key, value, PutOptions { condition, lifetime })
    }

    /// Queues a put with a condition, a time to live, or both.
    pub fn put_with(&mut self, table: &str, key: &[u8], value: &[u8], options: PutOptions) -> &mut Self {
        self.push(table, key, Kind::Put { value: value.to_vec(), options })
    }

    /// Queues a change of how long a record is to live.
    pub fn expire(&mut self, table: &str, key: &[u8], lifetime: Lifetime) -> &mut Self {
        self.push(table, key, Kind::Expire { lifetime })
    }

    /// Queues a delete.
    pub fn delete(&mut self, table: &str, key: &[u8]) -> &mut Self {
        self.push(table, key, Kind::Delete { condition: Condition::Always })
    }

    /// Queues an increment.
    pub fn increment(&mut self, table: &str, key: &[u8], by: i64) -> &mut Self {
        self.push(table, key, Kind::Increment { by })
    }

    fn push(&mut self, table: &str, key: &[u8], kind: Kind) -> &mut Self {
        self.queued.push(Queued { table: table.to_owned(), key: key.to_vec(), kind });
        self
    }

    /// How many are queued.
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether none is queued.
    pub fn is_empty(&self) -> bool {
        self.queued.is_empty()
    }

    /// Sends all that is queued, and waits for all answers. The pipeline is empty then, and may be used again.
    pub fn run(&mut self) -> Vec<Answer> {
        let queued = std::mem::take(&mut self.queued);
        let calls: Vec<Call<'_>> = queued.iter().map(Queued::call).collect();
        let replies = self.client.runner.run(&calls);
        let answers = queued.iter().zip(replies).map(|(queued, reply)| match queued.kind {
            Kind::Get => Answer::Get(reply.and_then(answer::of_get).map_err(GetError::from)),
            Kind::Increment { .. } => {
                Answer::Increment(reply.and_then(|r| answer::of_increment(&r)).map_err(IncrementError::from))
            }
            Kind::Put { .. } | Kind::Expire { .. } | Kind::Delete { .. } => {
                Answer::Write(reply.and_then(|r| answer::of_write(&r)).map_err(WriteError::from))
            }
        });
        answers.collect()
    }
}

impl Queued {
    fn call(&self) -> Call<'_> {
        let key = &self.key[..];
        let ask = match &self.kind {
            Kind::Get => Ask::Get { key },
            Kind::Put { value, options: PutOptions { condition, lifetime } } => {
                Ask::Put { key, value, condition: *condition, ttl: lifetime.to_wire() }
            }
            Kind::Expire { lifetime } => Ask::Expire { key, ttl: lifetime.to_wire() },
            Kind::Increment { by } => Ask::Increment { key, by: *by, initial: 0 },
            Kind::Delete { condition } => Ask::Delete { key, condition: *condition },
        };
        Call::on_key(&self.table, key, ask)
    }
}
