//! Requests that wait until their partition is loaded, in the order in which they came.

use std::collections::HashMap;

use crate::asking::OwnedRange;
use crate::config::ShardConfig;
use crate::ids::{OwnerId, PartitionId, RequestId};
use crate::owned::OwnedWrite;
use crate::request::{Request, RequestBody, Target};

/// A request with bytes of its own.
#[derive(Debug)]
pub enum OwnedRequest {
    /// A put, delete, modify or batch.
    Write(OwnedWrite),
    /// A read.
    Read(RequestId, OwnedRead),
}

/// A read, or the beginning of a transaction, with bytes of its own.
#[derive(Debug)]
pub enum OwnedRead {
    Get { target: Target, key: Box<[u8]> },
    TimeToLive { target: Target, key: Box<[u8]> },
    Scan { target: Target, range: OwnedRange, reverse: bool, limit: u32, byte_budget: u32, keys_only: bool },
    Count { target: Target, range: OwnedRange },
    Begin { target: Target, owner: OwnerId, read_only: bool, lifetime_ms: u32 },
}

impl OwnedRequest {
    /// A copy of a request for one partition; `None` for those of the shard.
    pub fn copy_of(request: &Request<'_>) -> Option<OwnedRequest> {
        let read = match &request.body {
            RequestBody::Get { target, key } => OwnedRead::Get { target: *target, key: (*key).into() },
            RequestBody::TimeToLive { target, key } => {
                OwnedRead::TimeToLive { target: *target, key: (*key).into() }
            }
            RequestBody::Scan { target, range, reverse, limit, byte_budget, keys_only } => OwnedRead::Scan {
                target: *target,
                range: OwnedRange::of(range),
                reverse: *reverse,
                limit: *limit,
                byte_budget: *byte_budget,
                keys_only: *keys_only,
            },
            RequestBody::Count { target, range } => {
                OwnedRead::Count { target: *target, range: OwnedRange::of(range) }
            }
            RequestBody::Begin { target, owner, read_only, lifetime_ms } => OwnedRead::Begin {
                target: *target,
                owner: *owner,
                read_only: *read_only,
                lifetime_ms: *lifetime_ms,
            },
            body => return OwnedWrite::copy_of(request.id, body).map(OwnedRequest::Write),
        };
        Some(OwnedRequest::Read(request.id, read))
    }

    /// As it came.
    pub fn lend(&self) -> Request<'_> {
        let (id, read) = match self {
            OwnedRequest::Write(write) => return Request { id: write.id, body: write.body() },
            OwnedRequest::Read(id, read) => (*id, read),
        };
        let body = match read {
            OwnedRead::Get { target, key } => RequestBody::Get { target: *target, key },
            OwnedRead::TimeToLive { target, key } => RequestBody::TimeToLive { target: *target, key },
            OwnedRead::Scan { target, range, reverse, limit, byte_budget, keys_only } => RequestBody::Scan {
                target: *target,
                range: range.lend(),
                reverse: *reverse,
                limit: *limit,
                byte_budget: *byte_budget,
                keys_only: *keys_only,
            },
            OwnedRead::Count { target, range } => RequestBody::Count { target: *target, range: range.lend() },
            OwnedRead::Begin { target, owner, read_only, lifetime_ms } => RequestBody::Begin {
                target: *target,
                owner: *owner,
                read_only: *read_only,
                lifetime_ms: *lifetime_ms,
            },
        };
        Request { id, body }
    }

    fn bytes(&self) -> usize {
        match self {
            OwnedRequest::Write(write) => write.bytes(),
            OwnedRequest::Read(_, OwnedRead::Get { key, .. } | OwnedRead::TimeToLive { key, .. }) => {
                key.len()
            }
            OwnedRequest::Read(_, OwnedRead::Scan { range, .. } | OwnedRead::Count { range, .. }) => {
                range.bytes()
            }
            OwnedRequest::Read(_, OwnedRead::Begin { .. }) => 0,
        }
    }
}

/// The partition that a request is for, where it needs that one's index.
pub fn target_of<'r>(body: &'r RequestBody<'_>) -> Option<&'r Target> {
    match body {
        RequestBody::Get { target, .. }
        | RequestBody::TimeToLive { target, .. }
        | RequestBody::Scan { target, .. }
        | RequestBody::Count { target, .. }
        | RequestBody::Put { target, .. }
        | RequestBody::Delete { target, .. }
        | RequestBody::Modify { target, .. }
        | RequestBody::Batch { target, .. }
        | RequestBody::Begin { target, .. } => Some(target),
        // A transaction has begun when its partition was loaded.
        RequestBody::Within { .. }
        | RequestBody::Commit { .. }
        | RequestBody::Rollback { .. }
        | RequestBody::EndTransactions { .. }
        | RequestBody::CreateTable { .. }
        | RequestBody::DropTable { .. }
        | RequestBody::CreatePartition { .. }
        | RequestBody::DropPartition { .. }
        | RequestBody::SetQuota { .. }
        | RequestBody::ListTables
        | RequestBody::HasAllTables
        | RequestBody::Stats
        | RequestBody::Checkpoint
        | RequestBody::Scrub => None,
    }
}

/// All that wait.
#[derive(Debug)]
pub struct Waiting {
    by_partition: HashMap<PartitionId, Vec<OwnedRequest>, ahash::RandomState>,
    count: usize,
    bytes: usize,
}

impl Waiting {
    /// Nobody.
    pub fn none() -> Waiting {
        let hasher = ahash::RandomState::with_seeds(31, 32, 33, 34);
        Waiting { by_partition: HashMap::with_hasher(hasher), count: 0, bytes: 0 }
    }

    /// How many wait.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes a request in, if there is room. Says whether it is the first for its partition, `None` where there
    /// is no room.
    pub fn push(&mut self, id: PartitionId, owned: OwnedRequest, config: &ShardConfig) -> Option<bool> {
        let bytes = self.bytes + owned.bytes();
        if self.count >= config.max_queued_requests || bytes > config.max_queued_bytes {
            return None;
        }
        (self.count, self.bytes) = (self.count + 1, bytes);
        let behind = self.by_partition.entry(id).or_default();
        behind.push(owned);
        Some(behind.len() == 1)
    }

    /// Those of a partition, in order.
    pub fn take(&mut self, id: PartitionId) -> Vec<OwnedRequest> {
        let taken = self.by_partition.remove(&id).unwrap_or_default();
        self.count -= taken.len();
        self.bytes -= taken.iter().map(OwnedRequest::bytes).sum::<usize>();
        taken
    }

    /// Takes the reads out whose answer nobody wants.
    pub fn take_unwanted(&mut self, is_unwanted: impl Fn(RequestId) -> bool) -> Vec<OwnedRequest> {
        let mut taken = Vec::new();
        for requests in self.by_partition.values_mut() {
            let is_gone = |owned: &mut OwnedRequest| match owned {
                OwnedRequest::Read(id, _) => is_unwanted(*id),
                OwnedRequest::Write(_) => false,
            };
            taken.extend(requests.extract_if(.., is_gone));
        }
        // An order that does not hang on a map's.
        taken.sort_by_key(|owned| owned.lend().id.0);
        self.count -= taken.len();
        self.bytes -= taken.iter().map(OwnedRequest::bytes).sum::<usize>();
        taken
    }
}
