//! A report in a directory: the page, JSON, histograms that can be merged, OpenSLO documents.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use thiserror::Error;

use super::openslo;
use super::page::page;
use super::slo::SloReport;
use crate::run::Tally;
use crate::search::Probe;
use crate::workload::Operation;

/// Why a report could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// A file could not be written.
    #[error("the report could not be written to {path}: {error}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        error: io::Error,
    },
    /// A histogram could not be put into its log.
    #[error("the histograms could not be written: {0}")]
    Histograms(String),
}

/// Writes `report.html`, `report.json`, `histograms.hlog` and `openslo-*.yaml` into `directory`, which is made where
/// it is missing.
pub fn write(
    directory: &Path,
    report: &SloReport,
    tally: &Tally,
    probes: &[Probe],
) -> Result<(), ReportError> {
    let at = |path: PathBuf| move |error| ReportError::Write { path, error };
    fs::create_dir_all(directory).map_err(at(directory.into()))?;
    let json = serde_json::to_string_pretty(report).expect("a report is plain data") + "\n";
    let mut files = vec![
        ("report.html".to_owned(), page(report, probes).into_bytes()),
        ("report.json".to_owned(), json.into_bytes()),
        ("histograms.hlog".to_owned(), histogram_log(report, tally)?),
    ];
    for (name, text) in openslo::documents(report) {
        files.push((format!("openslo-{name}.yaml"), text.into_bytes()));
    }
    for (name, bytes) in files {
        let path = directory.join(name);
        fs::write(&path, bytes).map_err(at(path))?;
    }
    Ok(())
}

/// Histograms of nanoseconds, one for each kind of requests, as a log of HdrHistogram 1.3.
fn histogram_log(report: &SloReport, tally: &Tally) -> Result<Vec<u8>, ReportError> {
    let failed = |error: &dyn std::fmt::Display| ReportError::Histograms(error.to_string());
    let mut log = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder.add_comment("lode-bench: latencies in nanoseconds, a tag for each kind of requests");
    let mut writer = builder.begin_log_with(&mut log, &mut serializer).map_err(|error| failed(&error))?;
    for operation in Operation::ALL {
        let histogram = tally.of(operation).histogram();
        if !histogram.is_empty() {
            let duration = Duration::from_secs_f64(report.run.seconds);
            let tag = Tag::new(operation.name());
            writer
                .write_histogram(histogram, Duration::ZERO, duration, tag)
                .map_err(|error| ReportError::Histograms(format!("{error:?}")))?;
        }
    }
    Ok(log)
}
