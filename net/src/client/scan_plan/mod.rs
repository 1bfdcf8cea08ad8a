//! The paging of a scan over a table's partitions, without the fetching. Shared by both clients.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, VecDeque};

use bytes::Bytes;

use crate::client::answer::Page;
use crate::client::error::{Failure, ScanError};
use crate::client::options::{ScanOptions, ScanRecord};
use crate::wire::control::PlacementKind;
use crate::wire::limits::{MAX_KEY_BYTES, MAX_SCAN_BYTES, MAX_SCAN_RECORDS};
use crate::wire::map::TableRoutes;
use crate::wire::{PartitionId, RangeView, ScanView};

/// With many partitions to merge, no lane asks for less than this.
const LEAST_LANE_RECORDS: u32 = 16;
/// The same in bytes: what a scan holds of each of many partitions.
pub const LEAST_LANE_BYTES: u32 = 16 * 1024;

/// One partition's part of a scan.
#[derive(Debug)]
struct Lane {
    partition: PartitionId,
    start: Vec<u8>,
    end: Option<Vec<u8>>,
    buffer: VecDeque<ScanRecord>,
    exhausted: bool,
}

/// Lanes of a range table follow each other; lanes of a hashed table are merged by key.
#[derive(Debug)]
pub(crate) struct ScanPlan {
    lanes: Vec<Lane>,
    merge: bool,
    reverse: bool,
    keys_only: bool,
    times: bool,
    remaining: Option<u64>,
    lane_records: u32,
    lane_bytes: u32,
    /// Lanes that must be fetched before the next record is known.
    hungry: Vec<usize>,
    /// Of a merge: each fed lane's next key.
    heads: BinaryHeap<Head>,
    /// Of a chain: the lane being read.
    current: usize,
}

impl ScanPlan {
    pub(crate) fn new(table: &TableRoutes, options: &ScanOptions) -> Result<ScanPlan, ScanError> {
        let (page_records, page_bytes) = (options.page_records, options.page_bytes);
        if !(1..=MAX_SCAN_RECORDS).contains(&page_records) || !(1..=MAX_SCAN_BYTES).contains(&page_bytes) {
            return Err(ScanError::PageLimits { page_records, page_bytes });
        }
        let longest = options.start.len().max(options.end.as_ref().map_or(0, Vec::len));
        if longest > MAX_KEY_BYTES {
            return Err(ScanError::KeyLength { len: longest });
        }
        let merge = table.placement == PlacementKind::Hash;
        let mut lanes: Vec<Lane> = table
            .partitions()
            .iter()
            .map(|p| match merge {
                true => Lane::new(p.id, options.start.clone(), options.end.clone()),
                false => Lane::new(
                    p.id,
                    options.start.clone().max(p.start.clone()),
                    earlier_end(options.end.clone(), p.end.clone()),
                ),
            })
            .filter(|lane| lane.end.as_ref().is_none_or(|end| lane.start < *end))
            .collect();
        if options.reverse {
            lanes.reverse();
        }
        let share = if merge { lanes.len().max(1) as u32 } else { 1 };
        let mut plan = ScanPlan {
            merge,
            reverse: options.reverse,
            keys_only: options.keys_only,
            times: options.times,
            remaining: options.limit,
            lane_records: (page_records / share).max(LEAST_LANE_RECORDS).min(page_records),
            lane_bytes: (page_bytes / share).max(LEAST_LANE_BYTES).min(page_bytes),
            hungry: Vec::new(),
            heads: BinaryHeap::new(),
            current: 0,
            lanes,
        };
        plan.hungry = if merge { (0..plan.lanes.len()).collect() } else { plan.next_of_chain() };
        Ok(plan)
    }

    /// Lanes that must be fetched before `pop` may be called.
    pub(crate) fn hungry(&self) -> &[usize] {
        if self.remaining == Some(0) { &[] } else { &self.hungry }
    }

    /// What a lane asks for.
    pub(crate) fn page_of(&self, lane: usize) -> (PartitionId, ScanView<'_>) {
        let limit = self.remaining.map_or(self.lane_records, |r| r.min(u64::from(self.lane_records)) as u32);
        let lane = &self.lanes[lane];
        let view = ScanView {
            range: RangeView { start: &lane.start, end: lane.end.as_deref() },
            reverse: self.reverse,
            keys_only: self.keys_only,
            ttls: self.times,
            limit,
            byte_budget: self.lane_bytes,
        };
        (lane.partition, view)
    }

    /// Feeds a hungry lane.
    pub(crate) fn feed(&mut self, lane_index: usize, page: Page) -> Result<(), Failure> {
        let place = self.hungry.iter().position(|hungry| *hungry == lane_index);
        self.hungry.swap_remove(place.expect("only hungry lanes are fed"));
        let lane = &mut self.lanes[lane_index];
        match page.records.last() {
            None if page.more => {
                return Err(Failure::BadReply("a page without records that says there are more"));
            }
            None => lane.exhausted = true,
            Some(last) => lane.advance_past(&last.key, self.reverse, page.more),
        }
        lane.buffer.extend(page.records);
        if self.merge {
            self.push_head(lane_index);
        } else if self.lanes[lane_index].buffer.is_empty() {
            self.current += 1;
            self.hungry = self.next_of_chain();
        }
        Ok(())
    }

    /// The next record; `None` at the end. No lane may be hungry.
    pub(crate) fn pop(&mut self) -> Option<ScanRecord> {
        assert!(self.hungry().is_empty(), "hungry lanes are fed first");
        if self.remaining == Some(0) {
            return None;
        }
        let lane_index = if self.merge { self.heads.pop()?.lane } else { self.current };
        let record = self.lanes.get_mut(lane_index)?.buffer.pop_front()?;
        self.remaining = self.remaining.map(|r| r - 1);
        let lane = &self.lanes[lane_index];
        match (lane.buffer.is_empty(), lane.exhausted) {
            (false, _) if self.merge => self.push_head(lane_index),
            (false, _) => {}
            (true, false) => self.hungry.push(lane_index),
            (true, true) if self.merge => {}
            (true, true) => {
                self.current += 1;
                self.hungry = self.next_of_chain();
            }
        }
        Some(record)
    }

    /// The chain's current lane is hungry, if there is one.
    fn next_of_chain(&self) -> Vec<usize> {
        if self.current < self.lanes.len() { vec![self.current] } else { Vec::new() }
    }

    fn push_head(&mut self, lane: usize) {
        if let Some(first) = self.lanes[lane].buffer.front() {
            self.heads.push(Head { key: first.key.clone(), lane, reverse: self.reverse });
        }
    }
}

impl Lane {
    fn new(partition: PartitionId, start: Vec<u8>, end: Option<Vec<u8>>) -> Lane {
        Lane { partition, start, end, buffer: VecDeque::new(), exhausted: false }
    }

    fn advance_past(&mut self, last: &[u8], reverse: bool, more: bool) {
        if reverse {
            self.end = Some(last.to_vec());
            self.exhausted = !more || last <= self.start.as_slice();
            return;
        }
        match successor(last) {
            Some(next) if more && self.end.as_ref().is_none_or(|end| next < *end) => self.start = next,
            _ => self.exhausted = true,
        }
    }
}

/// The smallest key above `key` that is no longer than a key may be; `None` above the largest.
pub fn successor(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    if next.len() < MAX_KEY_BYTES {
        next.push(0);
        return Some(next);
    }
    while let Some(last) = next.pop() {
        if last < u8::MAX {
            next.push(last + 1);
            return Some(next);
        }
    }
    None
}

fn earlier_end(a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<Vec<u8>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    key: Bytes,
    lane: usize,
    reverse: bool,
}

impl Ord for Head {
    /// The greatest is the next of the scan: `BinaryHeap` gives the greatest.
    fn cmp(&self, other: &Head) -> Ordering {
        let by_key = self.key.cmp(&other.key).then(self.lane.cmp(&other.lane));
        if self.reverse { by_key } else { by_key.reverse() }
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Head) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests;
