//! What is measured: loads as `lode-bench run` takes them, whatever they are put on.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Point {
    /// GETs, uniform: nearly all of them miss memory.
    Get,
    /// YCSB C: GETs, zipf 0.99.
    CZipf,
    /// Scans of 100 records, uniform.
    Scan,
    /// YCSB B's mix (95 GETs, 5 PUTs), uniform.
    BUniform,
    /// YCSB B: the same, zipf 0.99.
    BZipf,
    /// YCSB A's mix (half GETs, half PUTs), uniform.
    AUniform,
    /// YCSB A: the same, zipf 0.99.
    AZipf,
    /// PUTs, uniform.
    Put,
}

impl Point {
    /// As the command line and the table call it.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// What it is, in words.
    pub fn title(self) -> &'static str {
        match self {
            Point::Get => "GET, uniform (YCSB C, uniform)",
            Point::CZipf => "YCSB C, zipf 0.99",
            Point::Scan => "scans of 100 records, uniform",
            Point::BUniform => "YCSB B, uniform",
            Point::BZipf => "YCSB B, zipf 0.99",
            Point::AUniform => "YCSB A, uniform",
            Point::AZipf => "YCSB A, zipf 0.99",
            Point::Put => "PUT, uniform",
        }
    }

    /// As `lode-bench run` takes it.
    pub fn arguments(self) -> &'static [&'static str] {
        match self {
            Point::Get => &["--workload", "ycsb-c", "--distribution", "uniform"],
            Point::CZipf => &["--workload", "ycsb-c", "--distribution", "zipfian"],
            Point::Scan => &["--workload", "scan", "--scan-length", "100", "--even-scans"],
            Point::BUniform => &["--workload", "ycsb-b", "--distribution", "uniform"],
            Point::BZipf => &["--workload", "ycsb-b", "--distribution", "zipfian"],
            Point::AUniform => &["--workload", "ycsb-a", "--distribution", "uniform"],
            Point::AZipf => &["--workload", "ycsb-a", "--distribution", "zipfian"],
            Point::Put => &["--workload", "put", "--distribution", "uniform"],
        }
    }
}
