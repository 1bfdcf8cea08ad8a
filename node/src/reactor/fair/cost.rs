//! What requests cost, in requests for a small record.

use std::collections::BTreeMap;

use lode_net::wire::{Opcode, PartitionId};

use super::super::connection::LITTLE_BYTES;
use crate::io_limits::IoLimits;

/// A scan of which nothing is known reads several records.
pub const SCAN_COST: u32 = 8;
/// What was learned counts for 1 part in `2^SHIFT` less with each request.
const SHIFT: u32 = 3;
/// And where a read is refused, for 1 part in `2^DOUBT_SHIFT` less: of partitions with values of 1 MiB alone, one in 180 is tried.
const DOUBT_SHIFT: u32 = 6;
/// Largest cost: of the longest answer.
const MOST: u64 = 256;
/// So many partitions whose reads are dear are remembered at least, and twice as many at most: some 64 KiB.
const REMEMBERED: usize = 512;

/// What is known of a request's cost before it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// A write of so many bytes.
    Write(u32),
    /// A write that reads a record and writes it again: as those before it.
    Rewrite,
    /// A read of one record: as those before it.
    Get,
    /// A read of many: as those before it.
    Scan,
}

impl Class {
    /// Of a request with so many bytes of body.
    pub fn of(opcode: u8, body_bytes: usize) -> Class {
        use Opcode::{Expire, Get, Max, Min, Scan, TransactionGet, TransactionScan};
        match Opcode::from_u8(opcode) {
            Some(Get | Min | Max | TransactionGet) => Class::Get,
            Some(Scan | TransactionScan) => Class::Scan,
            Some(Expire) => Class::Rewrite,
            _ => Class::Write(u32::try_from(body_bytes).unwrap_or(u32::MAX)),
        }
    }

    /// Whether nothing is changed by it.
    pub fn is_read(self) -> bool {
        matches!(self, Class::Get | Class::Scan)
    }
}

/// A request costs one, and as much again for each so many bytes that it writes or reads.
#[derive(Debug, Clone, Copy)]
pub struct Prices {
    read_bytes: u64,
    write_bytes: u64,
}

impl Prices {
    /// As the drive has them.
    pub fn new(limits: &IoLimits) -> Prices {
        let (read_bytes, write_bytes) = (limits.read_bytes_per_cost, limits.write_bytes_per_cost);
        assert!(read_bytes > 0 && write_bytes > 0, "{limits:?}");
        Prices { read_bytes, write_bytes }
    }
}

fn cost_of(bytes: u64, bytes_per_cost: u64) -> u32 {
    (1 + bytes / bytes_per_cost).min(MOST) as u32
}

/// What reads of one partition have cost lately.
#[derive(Debug)]
pub struct Costs {
    get_bytes: u64,
    scan_bytes: u64,
    rewrite_bytes: u64,
}

impl Costs {
    /// Of a partition of which nothing is known.
    pub fn new(prices: Prices) -> Costs {
        Costs { get_bytes: 0, scan_bytes: u64::from(SCAN_COST - 1) * prices.read_bytes, rewrite_bytes: 0 }
    }

    /// What a request will cost.
    pub fn of(&self, class: Class, prices: Prices) -> u32 {
        match class {
            Class::Write(bytes) => cost_of(bytes.into(), prices.write_bytes),
            Class::Get => cost_of(self.get_bytes, prices.read_bytes),
            Class::Scan => cost_of(self.scan_bytes, prices.read_bytes),
            Class::Rewrite => {
                let read = cost_of(self.rewrite_bytes, prices.read_bytes) - 1;
                (read + cost_of(self.rewrite_bytes, prices.write_bytes)).min(MOST as u32)
            }
        }
    }

    fn mean(&mut self, class: Class) -> Option<&mut u64> {
        match class {
            Class::Write(_) => None,
            Class::Get => Some(&mut self.get_bytes),
            Class::Scan => Some(&mut self.scan_bytes),
            Class::Rewrite => Some(&mut self.rewrite_bytes),
        }
    }

    /// Whether its answer is expected to be longer than what a client may always have lying. A scan of which nothing is known is not.
    pub fn gives_much(&self, class: Class, prices: Prices) -> bool {
        match class {
            Class::Write(_) | Class::Rewrite => false,
            Class::Get => self.get_bytes > LITTLE_BYTES as u64,
            Class::Scan => self.scan_bytes > (LITTLE_BYTES as u64).max(Costs::new(prices).scan_bytes),
        }
    }

    /// A read was not carried out for what is expected of it. That may be wrong, and nobody would ever know: so it counts for a
    /// little less each time, until one is tried.
    pub fn doubt(&mut self, class: Class) {
        if let Some(mean) = self.mean(class) {
            *mean -= *mean >> DOUBT_SHIFT;
        }
    }

    /// A request was answered with so many bytes, or wrote so many again.
    pub fn learn(&mut self, class: Class, bytes: u64) {
        if let Some(mean) = self.mean(class) {
            *mean = *mean - (*mean >> SHIFT) + (bytes >> SHIFT);
        }
    }
}

/// What reads of partitions cost that ask for nothing now, of those where it is more than of others: whoever comes again for
/// large values is not taken for one who wants small ones.
#[derive(Debug, Default)]
pub struct Dear {
    young: BTreeMap<PartitionId, Costs>,
    old: BTreeMap<PartitionId, Costs>,
}

impl Dear {
    /// What was learned of a partition that has nothing to do any more.
    pub fn note(&mut self, partition: PartitionId, costs: Costs, prices: Prices) {
        let is_more = |class| costs.of(class, prices) > Costs::new(prices).of(class, prices);
        if ![Class::Get, Class::Scan, Class::Rewrite].into_iter().any(is_more) {
            return;
        }
        if self.young.len() >= REMEMBERED {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(partition, costs);
    }

    /// What is known of a partition that asks for something again.
    pub fn recall(&mut self, partition: PartitionId, prices: Prices) -> Costs {
        // Both, or what was learned long ago would come back.
        let (young, old) = (self.young.remove(&partition), self.old.remove(&partition));
        young.or(old).unwrap_or_else(|| Costs::new(prices))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRICES: Prices = Prices { read_bytes: 8 * 1024, write_bytes: 8 * 1024 };

    #[test]
    fn reads_cost_what_those_before_them_gave() {
        let mut costs = Costs::new(PRICES);
        assert_eq!((costs.of(Class::Get, PRICES), costs.of(Class::Scan, PRICES)), (1, SCAN_COST));
        (0..64).for_each(|_| costs.learn(Class::Get, 1 << 20));
        assert!((120..=129).contains(&costs.of(Class::Get, PRICES)), "{costs:?}");
        assert_eq!(costs.of(Class::Scan, PRICES), SCAN_COST, "scans are another matter");
        (0..64).for_each(|_| costs.learn(Class::Get, 100));
        assert_eq!(costs.of(Class::Get, PRICES), 1);
    }

    #[test]
    fn what_is_written_again_costs_what_that_was_before() {
        let expire = Class::of(Opcode::Expire as u8, 20);
        assert!(!expire.is_read());
        let mut costs = Costs::new(PRICES);
        assert_eq!(costs.of(expire, PRICES), 1);
        (0..64).for_each(|_| costs.learn(expire, 80 * 1024));
        assert!((19..=21).contains(&costs.of(expire, PRICES)), "read once and written once: {costs:?}");
        (0..64).for_each(|_| costs.learn(expire, 1 << 20));
        assert!((250..=MOST as u32).contains(&costs.of(expire, PRICES)), "{costs:?}");
        (0..64).for_each(|_| costs.learn(expire, 2 << 20));
        assert_eq!(costs.of(expire, PRICES), MOST as u32);
        assert!(!costs.gives_much(expire, PRICES) && costs.of(Class::Get, PRICES) == 1);
    }

    #[test]
    fn what_gives_much_is_told_by_bytes_whatever_a_drive_charges_for_them() {
        for read_bytes in [1024, 8 * 1024, 64 * 1024, 1 << 20] {
            let prices = Prices { read_bytes, ..PRICES };
            let mut costs = Costs::new(prices);
            assert!(!costs.gives_much(Class::Get, prices) && !costs.gives_much(Class::Scan, prices));
            (0..64).for_each(|_| costs.learn(Class::Get, LITTLE_BYTES as u64 - 4096));
            assert!(!costs.gives_much(Class::Get, prices), "{read_bytes}");
            (0..64).for_each(|_| costs.learn(Class::Get, LITTLE_BYTES as u64 + 4096));
            assert!(costs.gives_much(Class::Get, prices), "{read_bytes}");
            assert!(!costs.gives_much(Class::Write(1 << 20), prices));
        }
    }

    #[test]
    fn what_was_learned_of_reads_that_are_refused_is_tried_again() {
        let mut costs = Costs::new(PRICES);
        (0..64).for_each(|_| costs.learn(Class::Get, 1 << 20));
        let mut refused = 0;
        while costs.gives_much(Class::Get, PRICES) {
            costs.doubt(Class::Get);
            refused += 1;
        }
        assert!((100..250).contains(&refused), "{refused}");
        costs.doubt(Class::Write(7));
        costs.learn(Class::Get, 1 << 20);
        assert!(costs.gives_much(Class::Get, PRICES), "and it is known again at once");
    }

    #[test]
    fn writes_cost_what_they_bring() {
        let put = Opcode::Put as u8;
        let costs = Costs::new(PRICES);
        let of = |bytes| costs.of(Class::of(put, bytes), PRICES);
        assert_eq!((of(0), of(8 * 1024 - 1), of(8 * 1024), of(1 << 20)), (1, 1, 2, 129));
        let dear = Prices { write_bytes: 1024, ..PRICES };
        assert_eq!(costs.of(Class::of(put, 8 * 1024), dear), 9, "a drive that writes slowly");
        assert_eq!(costs.of(Class::of(put, 1 << 20), dear), MOST as u32);
        assert_eq!(Class::of(Opcode::TransactionScan as u8, 9), Class::Scan);
        assert_eq!(Class::of(Opcode::Min as u8, 0), Class::Get);
    }

    #[test]
    fn only_what_is_dear_is_remembered_and_so_much_of_it() {
        let mut dear = Dear::default();
        let costs = |bytes: u64| {
            let mut costs = Costs::new(PRICES);
            (0..64).for_each(|_| costs.learn(Class::Get, bytes));
            costs
        };
        dear.note(PartitionId(1), costs(100), PRICES);
        assert_eq!(dear.young.len(), 0, "small values are what is expected");
        for partition in 0..3 * REMEMBERED as u32 {
            dear.note(PartitionId(partition), costs(1 << 20), PRICES);
            assert!(dear.young.len() + dear.old.len() <= 2 * REMEMBERED);
        }
        let mut cost = |partition| dear.recall(PartitionId(partition), PRICES).of(Class::Get, PRICES);
        let last = 3 * REMEMBERED as u32 - 1;
        assert!(cost(last) > 100 && cost(last - REMEMBERED as u32 + 1) > 100);
        assert_eq!((cost(last), cost(0)), (1, 1), "it is told once, and what is too old not at all");
    }
}
