//! Write requests that have to wait, with bytes of their own.

use crate::ids::{PartitionId, RequestId, TransactionId};
use crate::request::{BatchWrite, Change, Condition, RequestBody, Target, Ttl};

/// A write request that outlives the caller's buffer.
#[derive(Debug, Clone)]
pub struct OwnedWrite {
    /// The request.
    pub id: RequestId,
    target: Target,
    body: OwnedBody,
}

/// A key, a value where it is a put, and how long that is to live.
type OwnedBatchWrite = (Box<[u8]>, Option<Box<[u8]>>, Ttl);

#[derive(Debug, Clone)]
enum OwnedBody {
    Put { key: Box<[u8]>, value: Box<[u8]>, condition: Condition, ttl: Ttl },
    Delete { key: Box<[u8]>, condition: Condition },
    Modify { key: Box<[u8]>, change: Change },
    Batch { writes: Vec<OwnedBatchWrite>, commits: Option<TransactionId> },
}

impl OwnedWrite {
    /// A copy of a put, delete, modify, batch or commit; `None` for anything else.
    pub fn copy_of(id: RequestId, body: &RequestBody<'_>) -> Option<OwnedWrite> {
        let (target, body) = match body {
            RequestBody::Put { target, key, value, condition, ttl } => {
                let (key, value) = ((*key).into(), (*value).into());
                (*target, OwnedBody::Put { key, value, condition: *condition, ttl: *ttl })
            }
            RequestBody::Delete { target, key, condition } => {
                (*target, OwnedBody::Delete { key: (*key).into(), condition: *condition })
            }
            RequestBody::Modify { target, key, change } => {
                (*target, OwnedBody::Modify { key: (*key).into(), change: *change })
            }
            RequestBody::Batch { target, writes } => {
                (*target, OwnedBody::Batch { writes: writes.iter().map(copy).collect(), commits: None })
            }
            RequestBody::Commit { target, transaction, writes } => {
                let writes = writes.iter().map(copy).collect();
                (*target, OwnedBody::Batch { writes, commits: Some(*transaction) })
            }
            _ => return None,
        };
        Some(OwnedWrite { id, target, body })
    }

    /// As a request again.
    pub fn body(&self) -> RequestBody<'_> {
        let target = self.target;
        match &self.body {
            OwnedBody::Put { key, value, condition, ttl } => {
                RequestBody::Put { target, key, value, condition: *condition, ttl: *ttl }
            }
            OwnedBody::Delete { key, condition } => {
                RequestBody::Delete { target, key, condition: *condition }
            }
            OwnedBody::Modify { key, change } => RequestBody::Modify { target, key, change: *change },
            OwnedBody::Batch { writes, commits } => {
                let mut out = Vec::with_capacity(writes.len());
                for (key, value, ttl) in writes {
                    out.push(match (value, *ttl) {
                        (Some(value), Ttl::Table) => BatchWrite::Put { key, value },
                        (Some(value), ttl) => BatchWrite::PutFor { key, value, ttl },
                        (None, _) => BatchWrite::Delete { key },
                    });
                }
                match *commits {
                    Some(transaction) => RequestBody::Commit { target, transaction, writes: out },
                    None => RequestBody::Batch { target, writes: out },
                }
            }
        }
    }

    /// Partition and key of a single write; of a batch, its first key.
    pub fn place(&self) -> (PartitionId, &[u8]) {
        let key: &[u8] = match &self.body {
            OwnedBody::Put { key, .. } | OwnedBody::Delete { key, .. } | OwnedBody::Modify { key, .. } => key,
            OwnedBody::Batch { writes, .. } => writes.first().map_or(&[], |(key, ..)| key),
        };
        (self.target.partition, key)
    }

    /// Partition and key of each of its writes.
    pub fn places(&self) -> impl Iterator<Item = (PartitionId, &[u8])> {
        let (one, many) = match &self.body {
            OwnedBody::Put { key, .. } | OwnedBody::Delete { key, .. } | OwnedBody::Modify { key, .. } => {
                (Some(&**key), &[][..])
            }
            OwnedBody::Batch { writes, .. } => (None, writes.as_slice()),
        };
        let keys = one.into_iter().chain(many.iter().map(|(key, ..)| &**key));
        keys.map(|key| (self.target.partition, key))
    }

    /// Bytes that it holds.
    pub fn bytes(&self) -> usize {
        match &self.body {
            OwnedBody::Put { key, value, .. } => key.len() + value.len(),
            OwnedBody::Delete { key, .. } | OwnedBody::Modify { key, .. } => key.len(),
            OwnedBody::Batch { writes, .. } => {
                writes.iter().map(|(key, value, _)| key.len() + value.as_ref().map_or(0, |v| v.len())).sum()
            }
        }
    }

    /// Whether it only frees space.
    pub fn is_delete(&self) -> bool {
        match &self.body {
            OwnedBody::Put { .. } | OwnedBody::Modify { .. } => false,
            OwnedBody::Delete { .. } => true,
            OwnedBody::Batch { writes, .. } => writes.iter().all(|(_, value, _)| value.is_none()),
        }
    }
}

fn copy(write: &BatchWrite<'_>) -> OwnedBatchWrite {
    match write {
        BatchWrite::Put { key, value } => ((*key).into(), Some((*value).into()), Ttl::Table),
        BatchWrite::PutFor { key, value, ttl } => ((*key).into(), Some((*value).into()), *ttl),
        BatchWrite::Delete { key } => ((*key).into(), None, Ttl::Table),
    }
}
