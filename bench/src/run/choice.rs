//! What is asked for next.

use std::collections::{BTreeSet, HashSet};

use lode_net::wire::ShardId;

use super::ask::{Ask, Step};
use super::routes::Routes;
use crate::draw::{Dice, Drawn, KeyOrder, Keys, Popularity, Tenants};
use crate::options::{PlacementKind, RunOptions};
use crate::workload::{Mix, Operation};

/// How often a record is drawn again because it is another shard's, before it is sent the long way.
const MOST_REDRAWS: u32 = 64;
/// Records that loads insert are numbered beyond all that are loaded before.
const INSERTED: u64 = 1 << 63;

/// Draws requests.
#[derive(Debug, Clone)]
pub struct Choice {
    mix: Mix,
    keys: Keys,
    routes: Routes,
    popularity: Popularity,
    /// Which tenants ask for more than others.
    tenants: Option<Tenants>,
    /// Records of each tenant; of all, where none is told apart.
    records_of_tenant: u64,
    tenant_count: u64,
    records_of_table: u64,
    tables: u16,
    scan_length: u32,
    /// Whether all scans are of `scan_length`.
    even_scans: bool,
    inserted: Inserted,
    key: Vec<u8>,
}

/// What the load itself has inserted.
#[derive(Debug, Clone, Default)]
struct Inserted {
    /// Number of the first.
    first: u64,
    /// How many were begun.
    begun: u64,
    /// Those that were not answered yet.
    open: BTreeSet<u64>,
    /// Those that failed.
    failed: HashSet<u64>,
}

impl Inserted {
    /// Nothing yet; of two with different seeds none numbers what the other does.
    fn of_seed(seed: u64) -> Inserted {
        let first = INSERTED | (Dice::new(seed).roll() >> 1 & !0xffff_ffff);
        Inserted { first, ..Inserted::default() }
    }

    /// So many, from the first, were answered.
    fn answered(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.begun)
    }
}

impl Choice {
    /// Draws what `options` say; of two with different `seed`s none inserts what the other does.
    pub fn new(options: &RunOptions, routes: Routes, seed: u64) -> Choice {
        let data = &options.data;
        let keys = data.keys();
        let is_split = keys.order() == KeyOrder::Ordered && options.placement() == PlacementKind::Range;
        let of_table = if is_split { u64::from(data.partitions) } else { 1 };
        let has_tenants = options.tenant_skew > 0.0;
        let wanted = if has_tenants { u64::from(data.tables) * of_table } else { 1 };
        let records_of_tenant = data.records.div_ceil(wanted);
        let tenant_count = data.records.div_ceil(records_of_tenant);
        let scatters = keys.order() == KeyOrder::Ordered || data.tables > 1;
        Choice {
            mix: options.mix(),
            keys,
            routes,
            popularity: Popularity::new(options.distribution(), records_of_tenant, scatters),
            tenants: has_tenants.then(|| Tenants::new(tenant_count, options.tenant_skew)),
            records_of_tenant,
            tenant_count,
            records_of_table: data.records_of_table(),
            tables: data.tables,
            scan_length: options.scan_length,
            even_scans: options.even_scans,
            inserted: Inserted::of_seed(seed),
            key: Vec::new(),
        }
    }

    /// The same for another worker, which inserts other records.
    pub fn with_seed(&self, seed: u64) -> Choice {
        Choice { inserted: Inserted::of_seed(seed), ..self.clone() }
    }

    /// The same records, alike often, of nothing but PUTs.
    pub fn of_puts(mut self) -> Choice {
        self.mix = Mix::only(Operation::Put);
        self
    }

    /// Where records live.
    pub fn routes(&self) -> &Routes {
        &self.routes
    }

    /// The next request, of the given shard if any; and its shard.
    pub fn next(&mut self, dice: &mut Dice, shard: Option<ShardId>, at_ns: u64) -> (Ask, ShardId) {
        let operation = self.mix.draw(dice);
        if operation == Operation::Insert {
            let number = self.inserted.begun;
            self.inserted.begun += 1;
            self.inserted.open.insert(number);
            return self.ask_of(self.inserted.first + number, operation, dice, at_ns);
        }
        let mut redraws = 0;
        loop {
            let index = self.record(dice);
            let drawn = self.ask_of(index, operation, dice, at_ns);
            redraws += 1;
            if shard.is_none_or(|shard| shard == drawn.1) || redraws > MOST_REDRAWS {
                return drawn;
            }
        }
    }

    fn record(&self, dice: &mut Dice) -> u64 {
        let tenant = match &self.tenants {
            Some(tenants) => tenants.draw(dice),
            None => dice.below(self.tenant_count),
        };
        let first = tenant * self.records_of_tenant;
        let last = self.records_of_table * u64::from(self.tables) - 1;
        loop {
            match self.popularity.draw(dice, self.inserted.answered()) {
                Drawn::Loaded(within) => return (first + within).min(last),
                Drawn::Inserted(number) if self.inserted.failed.contains(&number) => {}
                Drawn::Inserted(number) => return self.inserted.first + number,
            }
        }
    }

    /// A request for this record.
    pub fn ask_of(
        &mut self,
        index: u64,
        operation: Operation,
        dice: &mut Dice,
        at_ns: u64,
    ) -> (Ask, ShardId) {
        let table = self.table_of(index);
        self.keys.write(index, &mut self.key);
        let aim = self.routes.find(table, &self.key);
        let (step, left) = match operation {
            Operation::Get | Operation::ReadModifyWrite => (Step::Read, 0),
            Operation::Put | Operation::Insert => (Step::Write, 0),
            Operation::Scan if self.even_scans => (Step::Scan, self.scan_length),
            Operation::Scan => (Step::Scan, 1 + dice.below(u64::from(self.scan_length)) as u32),
            Operation::Transaction => (Step::Begin, 0),
        };
        let (target, place, from) = (aim.target, aim.place, Vec::new());
        (Ask { at_ns, index, table, operation, step, target, place, left, from }, aim.shard)
    }

    fn table_of(&self, index: u64) -> u16 {
        if index >= INSERTED {
            (index % u64::from(self.tables)) as u16
        } else {
            (index / self.records_of_table) as u16
        }
    }

    /// The key of a record; valid until the next.
    pub fn key_of(&mut self, index: u64) -> &[u8] {
        self.keys.write(index, &mut self.key);
        &self.key
    }

    /// A request has ended, well or not.
    pub fn ended(&mut self, ask: &Ask, is_done: bool) {
        if ask.operation == Operation::Insert {
            let number = ask.index - self.inserted.first;
            self.inserted.open.remove(&number);
            if !is_done {
                self.inserted.failed.insert(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{Arguments, Command};
    use clap::Parser;

    fn choice(line: &str) -> Choice {
        let line = format!("lode-bench run {line}");
        let Command::Run(options) = Arguments::parse_from(line.split_whitespace()).command else {
            panic!("not a run");
        };
        Choice::new(&options, Routes::of_server(), 1)
    }

    #[test]
    fn what_was_inserted_is_read_once_it_was_answered() {
        let mut choice = choice("--workload ycsb-d --records 10");
        let mut dice = Dice::new(2);
        let mut inserts = Vec::new();
        for _ in 0..200 {
            let (ask, _) = choice.next(&mut dice, None, 0);
            match ask.operation {
                Operation::Insert => inserts.push(ask),
                _ => assert!(ask.index < 10, "nothing was answered yet"),
            }
        }
        assert!(inserts.len() > 2);
        choice.ended(&inserts[0], true);
        choice.ended(&inserts[1], false);
        let mut read = HashSet::new();
        for _ in 0..500 {
            let (ask, _) = choice.next(&mut dice, None, 0);
            if ask.operation == Operation::Get && ask.index >= INSERTED {
                read.insert(ask.index);
            }
        }
        assert_eq!(read, HashSet::from([inserts[0].index]), "not the one that failed, nor the others");
    }

    #[test]
    fn records_are_spread_over_tables_and_tenants() {
        let mut all = choice("--records 1000 --tables 4");
        let mut dice = Dice::new(3);
        let mut counts = [0; 4];
        (0..4000).for_each(|_| counts[usize::from(all.next(&mut dice, None, 0).0.table)] += 1);
        assert!(counts.iter().all(|n| (800..1200).contains(n)), "{counts:?}");

        let mut skewed = choice("--records 1000 --tables 4 --tenant-skew 0.99");
        let mut counts = [0; 4];
        (0..4000).for_each(|_| counts[usize::from(skewed.next(&mut dice, None, 0).0.table)] += 1);
        assert!(counts[0] > 2 * counts[3], "{counts:?}");

        let mut partitions =
            choice("--records 1000 --partitions 10 --key-order ordered --placement range --tenant-skew 1.2");
        let mut counts = [0; 10];
        (0..4000).for_each(|_| counts[(partitions.next(&mut dice, None, 0).0.index / 100) as usize] += 1);
        assert!(counts[0] > 4 * counts[9] && counts[9] > 0, "{counts:?}");
    }

    #[test]
    fn scans_have_lengths_up_to_the_longest() {
        let mut choice = choice("--workload scan --records 10 --scan-length 5");
        let mut dice = Dice::new(4);
        let lengths: HashSet<u32> = (0..200).map(|_| choice.next(&mut dice, None, 0).0.left).collect();
        assert_eq!(lengths, (1..=5u32).collect::<HashSet<u32>>());
        let mut choice = self::choice("--workload scan --records 10 --scan-length 5 --even-scans");
        assert!((0..50).all(|_| choice.next(&mut dice, None, 0).0.left == 5));
    }
}
