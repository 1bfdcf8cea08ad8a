//! What clients ask, and how each request ended.

use lode_net::wire::{Seq, Status};

use super::node::{BRIEF, CHURNED, FEW_PARTITIONS, MEMORY, does_expire, prefix_of, table_count};
use super::plan::Plan;
use crate::value::Dice;

/// What every account begins with.
pub const FIRST_BALANCE: u64 = 1_000;
/// A key of the partition that has a quota.
const QUOTA_KEY: &[u8] = b"p01/";
/// Places of a list.
const LIST_PLACES: u64 = 6;
/// Bits of an account's version that hold its balance; above them is the operation that wrote it.
const BALANCE_BITS: u32 = 24;

/// Names an operation: its place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// One write of a register: a value of this length, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisterWrite {
    /// Where.
    pub key: Vec<u8>,
    /// Its length; `None` deletes.
    pub value_bytes: Option<usize>,
    /// How long it lives, in milliseconds; `None` is what its table says.
    pub ttl_ms: Option<u64>,
}

/// When a write of a register takes place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// Always.
    Always,
    /// Only where there is nothing.
    Absent,
    /// Only over the value that this operation wrote.
    Over(OpId, Seq),
}

/// An operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Read a register.
    Get { key: Vec<u8> },
    /// Write one.
    Put { write: RegisterWrite, when: When },
    /// Delete one: any, or the value that this operation wrote.
    Delete { key: Vec<u8>, over: Option<(OpId, Seq)> },
    /// Have a record expire, in so many milliseconds.
    Expire { key: Vec<u8>, ttl_ms: u64 },
    /// Write some of one partition at once.
    Batch { writes: Vec<RegisterWrite> },
    /// Read the registers of a range, `[first, beyond)`, up to so many; and how long they have still to live, if that is wanted.
    Scan { first: Vec<u8>, beyond: Vec<u8>, limit: u32, reverse: bool, ttls: bool },
    /// Count the registers of a range, `[first, beyond)`.
    Count { first: Vec<u8>, beyond: Vec<u8> },
    /// How long a register has still to live.
    TimeToLive { key: Vec<u8> },
    /// Read all of a list, and count it, and then put one's name at a place of it, and take away what is at another: all at one
    /// instant, so that whoever does it next finds what the one before has left.
    SignList { list: Vec<u8>, place: Vec<u8>, strike: Option<Vec<u8>> },
    /// Read all of a list, and count it, at one instant.
    ReadList { list: Vec<u8> },
    /// Count one up.
    Increment { key: Vec<u8>, by: u64 },
    /// Put the first money into an account.
    Deposit { key: Vec<u8> },
    /// Move money.
    Transfer { from: Vec<u8>, to: Vec<u8>, amount: u64 },
    /// See what is in all accounts at one instant.
    Audit,
    /// Make a table.
    MakeTable { table: usize },
    /// Drop the table that comes and goes.
    DropTable,
    /// Set the quota of the partition that has one, to so many requests a second or to none.
    SetQuota { requests_per_s: Option<u64> },
}

impl Ask {
    /// A key of the partition that it is about.
    pub fn key(&self) -> Option<&[u8]> {
        Some(match self {
            Ask::Get { key }
            | Ask::Delete { key, .. }
            | Ask::Expire { key, .. }
            | Ask::TimeToLive { key }
            | Ask::Increment { key, .. }
            | Ask::Deposit { key } => key,
            Ask::Put { write, .. } => &write.key,
            Ask::Batch { writes } => &writes[0].key,
            Ask::Scan { first, .. } | Ask::Count { first, .. } => first,
            Ask::SignList { list, .. } | Ask::ReadList { list } => list,
            Ask::Transfer { from, .. } => from,
            Ask::Audit => Keys::account_range().0,
            Ask::SetQuota { .. } => QUOTA_KEY,
            Ask::MakeTable { .. } | Ask::DropTable => return None,
        })
    }
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It has not.
    Open,
    /// It did nothing.
    Refused(Status),
    /// It may have been done, until the node's life in which it was asked was over.
    Unknown,
    /// A write was done.
    Written {
        /// Its version.
        seq: Seq,
        /// Whether there was a record before.
        existed: bool,
    },
    /// A condition did not hold.
    ConditionFailed,
    /// A record expires at another time now, if there is one.
    Renewed {
        /// Whether there is.
        existed: bool,
    },
    /// A register held what this operation wrote, or nothing.
    Found(Option<OpId>),
    /// It held something, and how long that has still to live is in the history.
    Lives,
    /// What is in a list is in the history.
    Listed,
    /// Registers that a scan found, in its order, and whether the range holds more.
    Page(Vec<(Vec<u8>, OpId)>, bool),
    /// What a counter was counted up to, or how many registers a range holds.
    Counted(u64),
    /// What all accounts held together.
    Total(u64),
    /// A table was made or dropped, or a quota set.
    Changed,
    /// There is such a table already.
    Exists,
    /// There is no such table, or none of its partitions takes the key.
    IsNot,
}

/// An operation, from when it was asked to when it was answered, in steps of the world.
#[derive(Clone, Debug)]
pub struct Op {
    /// What.
    pub ask: Ask,
    /// Asked at this step and time.
    pub called: u64,
    /// The same, in nanoseconds.
    pub called_ns: u64,
    /// The earliest time, in milliseconds, that the wall clock showed while it was under way.
    pub earliest_ms: u64,
    /// The latest that it had ever shown when it ended.
    pub latest_ms: u64,
    /// Ended at this step; 0 while it has not.
    pub returned: u64,
    /// How.
    pub end: End,
}

/// What a client has last read of a register: who wrote it, and its version.
pub type Known<'a> = &'a dyn Fn(&[u8]) -> Option<(OpId, Seq)>;

/// Names of keys.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Of the first table.
    partitions: u64,
    ttl_ms: u64,
    keys: u64,
    accounts: u64,
    counters: u64,
    quota_per_s: u64,
    /// Whether a table comes and goes.
    churns: bool,
    is_compact: bool,
    longest_value_bytes: usize,
}

impl Keys {
    /// As the plan has it.
    pub fn new(plan: &Plan) -> Keys {
        Keys {
            partitions: u64::from(plan.partitions),
            ttl_ms: plan.ttl_ms,
            keys: plan.keys,
            accounts: plan.accounts,
            counters: plan.counters,
            quota_per_s: plan.quota_per_s,
            churns: plan.churns,
            is_compact: plan.is_compact,
            longest_value_bytes: plan.longest_value_bytes as usize,
        }
    }

    fn register(&self, partition: u64, i: u64) -> Vec<u8> {
        let mut key = self.prefix(partition);
        key.extend_from_slice(format!("k{i:04}").as_bytes());
        key
    }

    fn prefix(&self, partition: u64) -> Vec<u8> {
        prefix_of(partition as u32, self.partitions as u32)
    }

    /// Partitions of all tables.
    fn all_partitions(&self) -> u64 {
        let tables = table_count() - 1 - usize::from(!self.churns);
        self.partitions + tables as u64 * u64::from(FEW_PARTITIONS)
    }

    /// Whether the indexes of what is on the drive hold no whole keys.
    pub fn is_compact(&self) -> bool {
        self.is_compact
    }

    /// How long what is put there lives, in milliseconds, where the request says nothing.
    pub fn table_ttl_ms(&self, key: &[u8]) -> Option<u64> {
        does_expire(key).then_some(self.ttl_ms)
    }

    /// All registers, in order of the partitions.
    pub fn registers(&self) -> Vec<Vec<u8>> {
        let of = |partition| (0..self.keys).map(move |i| (partition, i));
        (0..self.all_partitions()).flat_map(of).map(|(partition, i)| self.register(partition, i)).collect()
    }

    /// All accounts, in order: in one partition.
    pub fn accounts(&self) -> Vec<Vec<u8>> {
        (0..self.accounts).map(|i| format!("p00/account{i:02}").into_bytes()).collect()
    }

    /// All counters: in turn in the first table and in memory.
    pub fn counters(&self) -> Vec<Vec<u8>> {
        let few = u64::from(FEW_PARTITIONS);
        let partition = |i: u64| match i % 2 {
            0 => i / 2 % self.partitions,
            _ => self.partition(MEMORY, i / 2 % few),
        };
        let key = |i: u64| [self.prefix(partition(i)), format!("counter{i:02}").into_bytes()].concat();
        (0..self.counters).map(key).collect()
    }

    /// The number of a partition of a table but the first.
    fn partition(&self, table: usize, place: u64) -> u64 {
        self.partitions + (table as u64 - 1) * u64::from(FEW_PARTITIONS) + place
    }

    /// All lists: one in each partition, but for those whose records expire.
    pub fn lists(&self) -> Vec<Vec<u8>> {
        let brief = self.partition(BRIEF, 0)..self.partition(BRIEF + 1, 0);
        let partitions = (0..self.all_partitions()).filter(|partition| !brief.contains(partition));
        partitions.map(|partition| [&self.prefix(partition)[..], b"list"].concat()).collect()
    }

    /// The ranges of all registers, by partition.
    pub fn ranges(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        (0..self.all_partitions())
            .map(|partition| (self.register(partition, 0), self.register(partition, 9_999)))
            .collect()
    }

    /// First key of all accounts, and first beyond.
    pub fn account_range() -> (&'static [u8], &'static [u8]) {
        (b"p00/account", b"p00/accounu")
    }

    /// Something to ask.
    pub fn draw(&self, dice: &mut Dice, known: Known<'_>) -> Ask {
        if dice.below(80) == 0
            && let Some(ask) = self.change(dice)
        {
            return ask;
        }
        if dice.below(7) == 0 {
            return self.look(dice);
        }
        let partition = dice.below(self.all_partitions());
        // Some keys are asked for far more often than others.
        let place = dice.below(self.keys).min(dice.below(self.keys));
        let key = self.register(partition, place);
        match dice.below(100) {
            0..=29 => Ask::Put { write: self.write(key, dice), when: When::Always },
            30..=39 => {
                let when = match known(&key) {
                    Some((id, seq)) if dice.below(4) > 0 && !is_renewed(&key) => When::Over(id, seq),
                    _ => When::Absent,
                };
                Ask::Put { write: self.write(key, dice), when }
            }
            40..=47 if is_renewed(&key) => Ask::Expire { key, ttl_ms: 1 + dice.below(2 * self.ttl_ms) },
            40..=47 => {
                let over = known(&key).filter(|_| dice.below(3) == 0);
                Ask::Delete { key, over }
            }
            48..=72 => Ask::Get { key },
            73..=78 => self.batch(partition, dice),
            79..=84 => self.scan(partition, dice),
            85..=90 => {
                let counters = self.counters();
                let key = counters[dice.below(self.counters) as usize].clone();
                Ask::Increment { key, by: 1 + dice.below(3) }
            }
            91..=96 => {
                let accounts = self.accounts();
                let from = dice.below(self.accounts);
                let to = (from + 1 + dice.below(self.accounts - 1)) % self.accounts;
                let account = |i: u64| accounts[i as usize].clone();
                Ask::Transfer { from: account(from), to: account(to), amount: 1 + dice.below(50) }
            }
            _ => Ask::Audit,
        }
    }

    /// How much there is, for how long, and what is in lists.
    fn look(&self, dice: &mut Dice) -> Ask {
        let partition = dice.below(self.all_partitions());
        match dice.below(10) {
            0..=2 => Ask::TimeToLive { key: self.register(partition, dice.below(self.keys)) },
            3..=4 => match self.scan(partition, dice) {
                Ask::Scan { first, beyond, .. } => Ask::Count { first, beyond },
                other => other,
            },
            kind => {
                let lists = self.lists();
                // Those of few partitions are signed by several at a time.
                let list =
                    &lists[dice.below(lists.len() as u64).min(dice.below(lists.len() as u64)) as usize];
                let place = |dice: &mut Dice| place_of_list(list, dice.below(LIST_PLACES));
                match kind {
                    5 => Ask::ReadList { list: list.clone() },
                    _ => Ask::SignList {
                        list: list.clone(),
                        place: place(dice),
                        strike: (dice.below(2) == 0).then(|| place(dice)),
                    },
                }
            }
        }
    }

    /// A change of the tables and quotas.
    fn change(&self, dice: &mut Dice) -> Option<Ask> {
        match dice.below(4) {
            0 if self.quota_per_s > 0 => {
                let requests_per_s = (dice.below(3) > 0).then_some(self.quota_per_s);
                Some(Ask::SetQuota { requests_per_s })
            }
            1 | 2 if self.churns => Some(Ask::MakeTable { table: CHURNED }),
            3 if self.churns => Some(Ask::DropTable),
            _ => None,
        }
    }

    /// What is to be there before anybody asks for anything else, in this order.
    pub fn first_changes(&self) -> Vec<Ask> {
        let tables = (0..CHURNED).map(|table| Ask::MakeTable { table });
        let quota =
            (self.quota_per_s > 0).then_some(Ask::SetQuota { requests_per_s: Some(self.quota_per_s) });
        tables.chain(quota).collect()
    }

    fn write(&self, key: Vec<u8>, dice: &mut Dice) -> RegisterWrite {
        let longest = self.longest_value_bytes as u64;
        // Lengths recur: what took the place of a record of the same length is hardest to tell from it.
        let value_bytes = match dice.below(12) {
            0 => dice.below(longest + 1),
            1 => longest,
            2 | 3 => longest / 3,
            _ => 200,
        };
        let ttl_ms = (dice.below(12) == 0).then(|| 1 + dice.below(2 * self.ttl_ms));
        RegisterWrite { key, value_bytes: Some(value_bytes.max(20) as usize), ttl_ms }
    }

    fn batch(&self, partition: u64, dice: &mut Dice) -> Ask {
        let first = dice.below(self.keys);
        let count = 1 + dice.below(4.min(self.keys));
        let writes = (0..count).map(|i| {
            let key = self.register(partition, (first + i) % self.keys);
            match dice.below(4) {
                0 => RegisterWrite { key, value_bytes: None, ttl_ms: None },
                _ => RegisterWrite { key, value_bytes: Some(100), ttl_ms: None },
            }
        });
        Ask::Batch { writes: writes.collect() }
    }

    fn scan(&self, partition: u64, dice: &mut Dice) -> Ask {
        let first = dice.below(self.keys);
        let beyond = first + 1 + dice.below(self.keys);
        Ask::Scan {
            first: self.register(partition, first),
            beyond: self.register(partition, beyond.min(9_999)),
            limit: 1 + dice.below(20) as u32,
            reverse: dice.below(2) == 0,
            ttls: dice.below(3) == 0,
        }
    }
}

/// The key of a place of a list.
fn place_of_list(list: &[u8], place: u64) -> Vec<u8> {
    [list, format!("{place:02}").as_bytes()].concat()
}

/// The first key beyond a list.
pub fn beyond_list(list: &[u8]) -> Vec<u8> {
    [list, b"~"].concat()
}

/// Whether a record may be told to expire at another time, which makes it another version of the same value: of those that
/// expire, every second. They are asked for by no version.
pub fn is_renewed(key: &[u8]) -> bool {
    does_expire(key) && key.last().is_some_and(|last| last.is_multiple_of(2))
}

/// The version that a value of an account carries: who wrote it, and how much is in it.
pub fn account_version(op: OpId, balance: u64) -> u64 {
    assert!(balance < 1 << BALANCE_BITS, "a balance of {balance}");
    op.0 << BALANCE_BITS | balance
}

/// Who wrote an account of this version.
pub fn account_writer(version: u64) -> OpId {
    OpId(version >> BALANCE_BITS)
}

/// How much is in an account of this version.
pub fn balance_of(version: u64) -> u64 {
    version & ((1 << BALANCE_BITS) - 1)
}
