//! Commands on a table as a whole: scans, counts, and what is ordered.

use bytes::Bytes;
use lode_net::client::{
    Batch, BatchWrite, LEAST_LANE_BYTES, ScanOptions, ScanRecord, Scanner, Transaction, TransactionRange,
    successor,
};
use lode_net::resp::Reply;
use lode_net::wire::PartitionId;
use lode_net::wire::limits::{MAX_BATCH_BYTES, MAX_BATCH_WRITES, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use tokio::sync::Semaphore;

use super::cursors::Owner;
use super::door::Door;
use super::glob::{self, Pattern};
use super::limits::MAX_SCAN_COUNT;
use super::memory::{List, Taken};
use super::refusal::Refusal;
use super::store::{Refused, Table};

/// Keys that RANDOMKEY reads at most, to come to the one that it gives.
const RANDOM_CHOICE: u64 = 512;
/// How often it halves a range for that.
const MOST_HALVINGS: u32 = 64;

/// Records of a range that a transaction reads at once.
const RECORDS_AT_ONCE: u64 = 32;

/// Steps of matching keys, at most, until others have their turn: about half a millisecond.
const STEPS_AT_ONCE: usize = 1 << 18;

/// What is asked of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOp {
    Count,
    Scan {
        cursor: u64,
        pattern: Option<Bytes>,
        count: u64,
        is_for_strings: bool,
    },
    Keys {
        pattern: Bytes,
    },
    RandomKey,
    Empty,
    Range(Range),
    /// The record with the largest key, or the smallest.
    Extreme {
        largest: bool,
    },
}

/// Records in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// First key; empty: the smallest.
    pub start: Bytes,
    /// First key beyond; `None`: to the largest.
    pub end: Option<Bytes>,
    pub reverse: bool,
    pub limit: Option<u64>,
    pub keys_only: bool,
}

impl Range {
    /// Of all keys with this prefix.
    fn of_prefix(prefix: &[u8]) -> Range {
        // The first key behind all of them: the prefix without what cannot be raised, and its last byte raised.
        let raised = prefix.iter().rposition(|byte| *byte < 0xff);
        let end = raised.map(|at| {
            let mut end = prefix[..=at].to_vec();
            end[at] += 1;
            Bytes::from(end)
        });
        Range { start: Bytes::copy_from_slice(prefix), end, ..Range::default() }
    }

    /// Its records, as a transaction sees them: some at a time, as their number says little of their bytes.
    async fn within(&self, table: &Table, transaction: &Transaction) -> Result<Reply, Refused> {
        let (mut start, mut end) = (self.start.clone(), self.end.clone());
        let mut left = self.limit.unwrap_or(u64::MAX);
        let mut list = List::new(&table.door.memory);
        while left > 0 {
            let limit = left.min(RECORDS_AT_ONCE);
            let some = transaction.scan(TransactionRange {
                start: &start,
                end: end.as_deref(),
                reverse: self.reverse,
                limit: Some(limit as usize),
            });
            let some = some.await.map_err(Refused::all)?;
            left = if (some.len() as u64) < limit { 0 } else { left - limit };
            match some.last().map(|(last, _)| last) {
                Some(last) if self.reverse => end = Some(last.clone()),
                last => match last.and_then(|last| successor(last)) {
                    Some(behind) => start = Bytes::from(behind),
                    None => left = 0,
                },
            }
            for (key, value) in some {
                // A key alone is copied: it would keep its value in memory, too.
                let items = if self.keys_only {
                    [Some(Bytes::copy_from_slice(&key)), None]
                } else {
                    [Some(key), Some(value)]
                };
                let mut items = items.into_iter().flatten();
                items.try_for_each(|item| list.push_bytes(item)).map_err(Refused::This)?;
            }
        }
        Ok(Reply::Array(list.into_items()))
    }

    fn options(&self) -> ScanOptions {
        ScanOptions {
            start: self.start.to_vec(),
            end: self.end.as_ref().map(|end| end.to_vec()),
            reverse: self.reverse,
            limit: self.limit,
            keys_only: self.keys_only,
            ..ScanOptions::default()
        }
    }
}

impl TableOp {
    /// Does it. `random` is any number.
    pub async fn carry_out(&self, table: &Table, owner: Owner, random: u64) -> Result<Reply, Refusal> {
        let (client, name) = (&table.client, &*table.name);
        let _pages = self.pages(table)?;
        match self {
            TableOp::Count => Ok(Reply::Integer(client.count(name, b"", None).await? as i64)),
            TableOp::Scan { cursor, pattern, count, is_for_strings } => {
                let scan = Scan { cursor: *cursor, pattern: pattern.as_deref(), count: *count };
                let (next, keys) = scan.page(table, owner).await?;
                let keys = if *is_for_strings { keys } else { Vec::new() };
                Ok(Reply::Array(vec![Reply::text(next.to_string()), Reply::Array(keys)]))
            }
            TableOp::Keys { pattern } => {
                let mut filter = Filter::new(Some(pattern), &table.door)?;
                // No key begins so.
                if filter.prefix.len() > MAX_KEY_BYTES {
                    return Ok(Reply::Array(Vec::new()));
                }
                let range = Range { keys_only: true, ..Range::of_prefix(&filter.prefix) };
                let mut scanner = client.scan(name, range.options());
                while let Some(record) = scanner.next().await.transpose()? {
                    filter.look(&record.key).await?;
                }
                Ok(Reply::Array(filter.found.into_items()))
            }
            TableOp::RandomKey => random_key(table, random).await,
            TableOp::Empty => empty(table).await,
            TableOp::Range(range) => {
                let mut list = List::new(&table.door.memory);
                let mut scanner = client.scan(name, range.options());
                while let Some(record) = scanner.next().await.transpose()? {
                    push_record(&mut list, record, range.keys_only)?;
                }
                Ok(Reply::Array(list.into_items()))
            }
            TableOp::Extreme { largest } => {
                let found = if *largest { client.max(name).await? } else { client.min(name).await? };
                Ok(found.map_or(Reply::NullArray, |record| pair(record.key, record.value)))
            }
        }
    }

    /// Whether it can be done within a transaction, where the table has one partition.
    pub fn is_for_transactions(&self) -> bool {
        matches!(self, TableOp::Count | TableOp::Range(_) | TableOp::Extreme { .. })
    }

    /// Counts the pages of what it reads, beside which its reply is counted as it grows: one, or a piece of one for each of
    /// many partitions whose keys are put in order.
    fn pages(&self, table: &Table) -> Result<Option<Taken>, Refusal> {
        let bytes = match self {
            TableOp::Count => return Ok(None),
            TableOp::Extreme { .. } => MAX_VALUE_BYTES,
            _ => {
                let routes = table.client.map();
                let lanes = routes.table(&table.name).map_or(1, |table| table.partitions().len());
                (ScanOptions::default().page_bytes as usize).max(lanes * LEAST_LANE_BYTES as usize)
            }
        };
        Taken::pages(&table.door.memory, bytes).map(Some)
    }

    /// Whether it changes the table.
    pub fn writes(&self) -> bool {
        matches!(self, TableOp::Empty)
    }

    /// Within a transaction that is open, of a table with one partition.
    pub async fn within(&self, table: &Table, transaction: &Transaction) -> Result<Reply, Refused> {
        match self {
            TableOp::Count => {
                let count = transaction.count(b"", None).await.map_err(Refused::all)?;
                Ok(Reply::Integer(count as i64))
            }
            TableOp::Range(range) => range.within(table, transaction).await,
            TableOp::Extreme { largest } => {
                let range =
                    TransactionRange { reverse: *largest, limit: Some(1), ..TransactionRange::default() };
                let first = transaction.scan(range).await.map_err(Refused::all)?.into_iter().next();
                Ok(first.map_or(Reply::NullArray, |(key, value)| pair(key, value)))
            }
            _ => Err(Refused::This(Refusal::new("this cannot be done within MULTI"))),
        }
    }
}

fn pair(key: Bytes, value: Bytes) -> Reply {
    Reply::Array(vec![Reply::Bulk(key), Reply::Bulk(value)])
}

fn push_record(list: &mut List, record: ScanRecord, keys_only: bool) -> Result<(), Refusal> {
    list.push_bytes(record.key)?;
    if keys_only { Ok(()) } else { list.push_bytes(record.value) }
}

/// Keys that match a pattern, as they are found.
struct Filter<'a> {
    pattern: Option<Pattern>,
    /// What the pattern takes of the door's memory.
    _taken: Taken,
    /// What all of them begin with.
    prefix: Vec<u8>,
    found: List,
    steps: usize,
    /// Whose turn it is to look at a key that takes long.
    long_looks: &'a Semaphore,
}

impl<'a> Filter<'a> {
    fn new(pattern: Option<&[u8]>, door: &'a Door) -> Result<Filter<'a>, Refusal> {
        glob::check_bytes(pattern.map_or(0, <[u8]>::len))?;
        let prefix = pattern.map(glob::prefix).unwrap_or_default();
        let found = List::new(&door.memory);
        let pattern = pattern.map(Pattern::new);
        let taken = Taken::value(&door.memory, pattern.as_ref().map_or(0, Pattern::bytes))?;
        Ok(Filter { pattern, _taken: taken, prefix, found, steps: 0, long_looks: &door.long_looks })
    }

    /// Takes a key where it matches: a copy, as a few keys would hold the whole pages that they came with.
    async fn look(&mut self, key: &[u8]) -> Result<(), Refusal> {
        let Some(pattern) = &self.pattern else { return self.found.push_bytes(Bytes::copy_from_slice(key)) };
        let steps = pattern.steps(key.len());
        // Others of the door's one thread are not to wait for a pattern that takes long, nor for many of them: however many
        // there are, one has its turn between two looks at what the others ask.
        let turn = match steps > STEPS_AT_ONCE {
            true => self.long_looks.acquire().await.ok(),
            false => None,
        };
        self.steps += steps;
        if self.steps > STEPS_AT_ONCE {
            self.steps = 0;
            tokio::task::yield_now().await;
        }
        let matches = pattern.matches(key);
        drop(turn);
        match matches {
            true => self.found.push_bytes(Bytes::copy_from_slice(key)),
            false => Ok(()),
        }
    }
}

/// One call of SCAN.
struct Scan<'a> {
    cursor: u64,
    pattern: Option<&'a [u8]>,
    count: u64,
}

impl Scan<'_> {
    /// The cursor of the next call, and the keys of this one.
    async fn page(&self, table: &Table, owner: Owner) -> Result<(u64, Vec<Reply>), Refusal> {
        let cursors = &table.door.cursors;
        let mut filter = Filter::new(self.pattern, &table.door)?;
        if filter.prefix.len() > MAX_KEY_BYTES {
            return Ok((0, Vec::new()));
        }
        let mut range = Range::of_prefix(&filter.prefix);
        if self.cursor != 0 {
            let from = cursors.borrow_mut().resume(self.cursor, &table.name);
            let from = from.ok_or_else(|| {
                Refusal::new(
                    "invalid cursor: it is not known any more, or of another table; begin again with 0",
                )
            })?;
            range.start = range.start.max(from);
        }
        let count = self.count.min(MAX_SCAN_COUNT);
        let options = ScanOptions {
            page_records: count as u32,
            ..Range { keys_only: true, limit: Some(count), ..range }.options()
        };
        let mut scanner: Scanner = table.client.scan(&table.name, options);
        let (mut seen, mut last) = (0, None);
        while let Some(record) = scanner.next().await.transpose()? {
            seen += 1;
            filter.look(&record.key).await?;
            last = Some(record.key);
        }
        let behind = last.filter(|_| seen == count).and_then(|last| successor(&last));
        let keep = |behind| cursors.borrow_mut().keep(owner, &table.name, Bytes::from(behind), self.cursor);
        Ok((behind.map_or(0, keep), filter.found.into_items()))
    }
}

/// Any key of the table, each as likely as any other: one of a chance place in the order of keys. The range that it is in is halved,
/// by its keys' first bytes that differ, and counted, until what is left is read.
async fn random_key(table: &Table, random: u64) -> Result<Reply, Refusal> {
    let (client, name) = (&table.client, &*table.name);
    let (Some(least), Some(largest)) = (client.min(name).await?, client.max(name).await?) else {
        return Ok(Reply::Null);
    };
    let mut left = client.count(name, b"", None).await?;
    let mut place = ((u128::from(random) * u128::from(left)) >> 64) as u64;
    let (mut from, mut last, mut end) = (least.key.clone(), largest.key, None);
    for _ in 0..MOST_HALVINGS {
        if left <= RANDOM_CHOICE {
            break;
        }
        let middle = Bytes::from(between(&from, &last, u64::MAX / 2));
        let below = client.count(name, &from, Some(&middle)).await?;
        let is_below = place < below;
        let all_on_one_side = below == 0 || below == left;
        // Where nothing was parted, the keys lie close together: what they begin with is seen by the outermost of them.
        let outermost = |start: &Bytes, end: Option<&Bytes>, reverse| Range {
            start: start.clone(),
            end: end.cloned(),
            reverse,
            limit: Some(1),
            keys_only: true,
        };
        if is_below {
            (left, end) = (below, Some(middle.clone()));
            let range = outermost(&from, Some(&middle), true);
            last = if all_on_one_side { first_of(table, range).await?.unwrap_or(middle) } else { middle };
        } else {
            (left, place) = (left.saturating_sub(below), place - below);
            let range = outermost(&middle, end.as_ref(), false);
            from = if all_on_one_side { first_of(table, range).await?.unwrap_or(middle) } else { middle };
        }
    }
    let limit = Some(place % RANDOM_CHOICE + 1);
    let range = Range { start: from, end, limit, keys_only: true, reverse: false };
    let some = client.scan(name, range.options()).collect().await?;
    // Others may have deleted meanwhile.
    Ok(Reply::Bulk(some.into_iter().last().map_or(least.key, |record| record.key)))
}

/// The first key of a range, in its order.
async fn first_of(table: &Table, range: Range) -> Result<Option<Bytes>, Refusal> {
    let mut scanner = table.client.scan(&table.name, range.options());
    Ok(scanner.next().await.transpose()?.map(|record| record.key))
}

/// A key between two others, by a number that says how far.
fn between(least: &[u8], largest: &[u8], random: u64) -> Vec<u8> {
    let common = least.iter().zip(largest).take_while(|(a, b)| a == b).count();
    // Eight bytes behind what both begin with, as one number.
    let number = |key: &[u8]| {
        let mut bytes = [0u8; 8];
        key[common..].iter().zip(&mut bytes).for_each(|(from, to)| *to = *from);
        u64::from_be_bytes(bytes)
    };
    let (from, to) = (number(least), number(largest));
    let width = u128::from(to.saturating_sub(from)) + 1;
    let chosen = from + ((u128::from(random) * width) >> 64) as u64;
    let mut key = [&least[..common], &chosen.to_be_bytes()].concat();
    key.truncate(MAX_KEY_BYTES);
    key
}

/// Deletes every key, in batches by partition.
async fn empty(table: &Table) -> Result<Reply, Refusal> {
    let (client, name) = (&table.client, &*table.name);
    let options = ScanOptions { keys_only: true, page_records: 4096, ..ScanOptions::default() };
    let mut scanner = client.scan(name, options);
    let mut batches: std::collections::HashMap<PartitionId, Batch> = std::collections::HashMap::new();
    while let Some(record) = scanner.next().await.transpose()? {
        let home = client.common_partition(name, [&record.key[..]]).await?;
        let batch = home.map(|home| batches.entry(home).or_default());
        let Some(batch) = batch else { continue };
        batch.push(BatchWrite::Delete { key: &record.key });
        let is_full = batch.len() >= MAX_BATCH_WRITES || batch.encoded_len() >= MAX_BATCH_BYTES / 2;
        if is_full {
            client.batch(name, std::mem::take(batch)).await?;
        }
    }
    for batch in batches.into_values().filter(|batch| !batch.is_empty()) {
        client.batch(name, batch).await?;
    }
    Ok(Reply::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_range() {
        let end = |prefix: &[u8]| Range::of_prefix(prefix).end;
        assert_eq!(end(b"user:"), Some(Bytes::from_static(b"user;")));
        assert_eq!(end(b"a\xff\xff"), Some(Bytes::from_static(b"b")));
        assert_eq!((end(b""), end(b"\xff")), (None, None));
    }

    #[test]
    fn a_key_between_two_is_between_them() {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            for (least, largest) in
                [(&b"key:1"[..], &b"key:9"[..]), (b"a", b"a"), (b"a", b"ab"), (b"\x01", b"\xff")]
            {
                let key = between(least, largest, random);
                assert!(key.len() > least.len().min(largest.len()), "{key:?}");
                let ends = [least, &[0u8; 8]].concat();
                assert!(key.as_slice() >= least && key[..1] <= largest[..1], "{key:?} {ends:?}");
            }
        }
        let (least, largest) = (vec![b'k'; MAX_KEY_BYTES - 1], vec![b'k'; MAX_KEY_BYTES]);
        assert_eq!(between(&least, &largest, u64::MAX).len(), MAX_KEY_BYTES, "no longer than a key may be");
        assert_ne!(between(b"key:1", b"key:9", 0), between(b"key:1", b"key:9", u64::MAX));
    }
}
