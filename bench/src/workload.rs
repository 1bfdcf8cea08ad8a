//! What a load asks for: kinds of requests and their shares.

use std::str::FromStr;

use clap::ValueEnum;
use serde::Serialize;

use crate::draw::{Dice, Distribution};

/// One kind of request, as users see it; it may take several on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Read a record.
    Get,
    /// Write a record that is there.
    Put,
    /// Write a record that is not there yet.
    Insert,
    /// Read records in key order.
    Scan,
    /// Read a record, then write it.
    ReadModifyWrite,
    /// Read a record and write it, both in a transaction.
    Transaction,
}

impl Operation {
    /// All of them, in the order of their numbers.
    pub const ALL: [Operation; 6] = [
        Operation::Get,
        Operation::Put,
        Operation::Insert,
        Operation::Scan,
        Operation::ReadModifyWrite,
        Operation::Transaction,
    ];

    /// As the command line and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::Insert => "insert",
            Operation::Scan => "scan",
            Operation::ReadModifyWrite => "rmw",
            Operation::Transaction => "transaction",
        }
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Operation, String> {
        let known = || Operation::ALL.map(Operation::name).join(", ");
        let found = Operation::ALL.into_iter().find(|operation| operation.name() == text);
        found.ok_or_else(|| format!("`{text}` is no kind of request; there are {}", known()))
    }
}

/// Shares of the kinds of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mix {
    /// By the operation's number.
    weights: [u32; Operation::ALL.len()],
}

impl Mix {
    /// Only one kind.
    pub fn only(operation: Operation) -> Mix {
        Mix::of(&[(operation, 1)])
    }

    /// GETs, and for the rest PUTs.
    pub fn reads(percent: u8) -> Mix {
        Mix::of(&[(Operation::Get, u32::from(percent)), (Operation::Put, 100 - u32::from(percent))])
    }

    fn of(shares: &[(Operation, u32)]) -> Mix {
        let mut weights = [0; Operation::ALL.len()];
        for &(operation, weight) in shares {
            weights[operation as usize] += weight;
        }
        Mix { weights }
    }

    fn whole(&self) -> u64 {
        self.weights.iter().map(|&weight| u64::from(weight)).sum()
    }

    /// The kind of the next request.
    pub fn draw(&self, dice: &mut Dice) -> Operation {
        let mut drawn = dice.below(self.whole());
        for operation in Operation::ALL {
            let weight = u64::from(self.weights[operation as usize]);
            if drawn < weight {
                return operation;
            }
            drawn -= weight;
        }
        unreachable!("a number below the sum of all weights is within one of them")
    }

    /// Whether there are any of this kind.
    pub fn has(&self, operation: Operation) -> bool {
        self.weights[operation as usize] > 0
    }
}

impl FromStr for Mix {
    type Err = String;

    /// `get=50,put=45,scan=5`: kinds with their weights.
    fn from_str(text: &str) -> Result<Mix, String> {
        let mut shares = Vec::new();
        for part in text.split(',') {
            let wrong = || format!("`{part}` is no kind of request with a weight, such as get=50");
            let (name, weight) = part.split_once('=').ok_or_else(wrong)?;
            shares.push((name.trim().parse()?, weight.trim().parse().map_err(|_| wrong())?));
        }
        let mix = Mix::of(&shares);
        if mix.whole() == 0 {
            return Err(format!("`{text}` has no weight at all"));
        }
        Ok(mix)
    }
}

impl std::fmt::Display for Mix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut comma = "";
        for operation in Operation::ALL.into_iter().filter(|operation| self.has(*operation)) {
            write!(f, "{comma}{}={}", operation.name(), self.weights[operation as usize])?;
            comma = ",";
        }
        Ok(())
    }
}

/// Which requests a load is made of. YCSB's are those of Cooper et al.: "Benchmarking cloud serving systems with
/// YCSB", SoCC 2010.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Only GETs.
    Get,
    /// Only PUTs, over keys that exist.
    Put,
    /// GETs and PUTs, as `--read-percent` says.
    Mixed,
    /// Only scans.
    Scan,
    /// Transactions that read a record and write it.
    Transaction,
    /// Half GETs, half PUTs; zipfian.
    YcsbA,
    /// 95 GETs, 5 PUTs; zipfian.
    YcsbB,
    /// Only GETs; zipfian.
    YcsbC,
    /// 95 GETs, 5 inserts; the latest.
    YcsbD,
    /// 95 scans of up to 100 records, 5 inserts; zipfian.
    YcsbE,
    /// Half GETs, half read-modify-writes; zipfian.
    YcsbF,
}

impl Workload {
    /// Its shares.
    pub fn mix(self, read_percent: u8) -> Mix {
        use Operation::{Get, Insert, Put, ReadModifyWrite, Scan, Transaction};
        match self {
            Workload::Get | Workload::YcsbC => Mix::only(Get),
            Workload::Put => Mix::only(Put),
            Workload::Mixed => Mix::reads(read_percent),
            Workload::Scan => Mix::only(Scan),
            Workload::Transaction => Mix::only(Transaction),
            Workload::YcsbA => Mix::reads(50),
            Workload::YcsbB => Mix::reads(95),
            Workload::YcsbD => Mix::of(&[(Get, 95), (Insert, 5)]),
            Workload::YcsbE => Mix::of(&[(Scan, 95), (Insert, 5)]),
            Workload::YcsbF => Mix::of(&[(Get, 50), (ReadModifyWrite, 50)]),
        }
    }

    /// The distribution that belongs to it.
    pub fn distribution(self) -> Distribution {
        match self {
            Workload::YcsbA | Workload::YcsbB | Workload::YcsbC | Workload::YcsbE | Workload::YcsbF => {
                Distribution::Zipfian
            }
            Workload::YcsbD => Distribution::Latest,
            _ => Distribution::Uniform,
        }
    }

    /// As the command line calls it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_drawn_by_weight() {
        let mix: Mix = "get=50,put=30,scan=20".parse().unwrap();
        assert_eq!(mix.to_string(), "get=50,put=30,scan=20");
        let mut dice = Dice::new(1);
        let mut counts = [0; Operation::ALL.len()];
        (0..100_000).for_each(|_| counts[mix.draw(&mut dice) as usize] += 1);
        assert_eq!(counts[Operation::Insert as usize], 0);
        assert!((49_000..51_000).contains(&counts[0]), "{counts:?}");
        assert!((19_000..21_000).contains(&counts[Operation::Scan as usize]), "{counts:?}");
    }

    #[test]
    fn what_is_no_mix_is_refused_in_words() {
        for wrong in ["", "get", "get=", "get=0", "fly=3", "get=-1", "get=1,,"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_of_operations_are_their_places() {
        for (place, operation) in Operation::ALL.into_iter().enumerate() {
            assert_eq!(operation as usize, place);
            assert_eq!(operation.name().parse(), Ok(operation));
        }
    }

    #[test]
    fn ycsb_has_its_shares() {
        assert_eq!(Workload::YcsbA.mix(1).to_string(), "get=50,put=50");
        assert_eq!(Workload::YcsbD.mix(1).to_string(), "get=95,insert=5");
        assert_eq!(Workload::YcsbE.mix(1).to_string(), "insert=5,scan=95");
        assert_eq!(Workload::YcsbF.mix(1).to_string(), "get=50,rmw=50");
        assert_eq!(Workload::YcsbE.name(), "ycsb-e");
    }
}
