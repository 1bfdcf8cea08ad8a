//! `measure`: what a drive gives, as curves over block and depth, written down for `lode serve`.

pub mod content;
mod curves;
mod mixed;
pub mod refuse;
mod target;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lode_net::io_properties::{
    Identity, IoProperties, IoPropertiesError, Kind, Measurement, Operation, VERSION, default_path,
};
use lode_net::ring::floor::FloorError;
use serde::Serialize;
use thiserror::Error;

use crate::checks::human_bytes;
use crate::machine::drives;
use crate::probe::{Probe, absolute};
use target::Target;

/// What `measure` is told.
#[derive(Debug)]
pub struct Options<'a> {
    /// The drive: a path, or `id:` and a serial number or a name under `/dev/disk/by-id`.
    pub drive: &'a str,
    /// Where the file goes.
    pub output: Option<&'a Path>,
    /// Whether all is written twice before.
    pub precondition: bool,
    /// Whether what is on the drive may be lost.
    pub destroy_data: bool,
    /// How long each point counts.
    pub point: Duration,
    /// Bytes that are read and written; all of a device by default.
    pub area_bytes: Option<u64>,
}

/// Why a drive was not measured.
#[derive(Debug, Error)]
pub enum MeasureError {
    /// No disk has this id.
    #[error("no disk has the serial number or name {0:?}; lode-tune inspect lists them")]
    NoSuchId(String),
    /// The path is of no use.
    #[error("{path}: {error}; {}", remedy(.error))]
    Path {
        /// Which.
        path: PathBuf,
        /// The system's answer.
        error: io::Error,
    },
    /// Nobody may write it.
    #[error(
        "{0} is read-only, and nothing was tried: make it writable (blockdev --setrw, or a mount with rw), or measure another"
    )]
    ReadOnly(PathBuf),
    /// Something uses the device.
    #[error("{path} is in use ({uses}); it is never measured so: unmount it, or stop what holds it, first")]
    InUse {
        /// Which.
        path: PathBuf,
        /// By what.
        uses: String,
    },
    /// There is something on the device.
    #[error(
        "{path} holds {what}, and measuring writes all over it; if all of that may be lost, say --destroy-data"
    )]
    HoldsData {
        /// Which.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// It is too small, or the file system too full.
    #[error("{path}: {bytes} bytes are too few, {least} are needed; give another --area, or another place")]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// What there is.
        bytes: u64,
        /// What there should be.
        least: u64,
    },
    /// The raw loop failed.
    #[error("measuring {path}: {error}")]
    Loop {
        /// Which.
        path: PathBuf,
        /// Why.
        error: FloorError,
    },
    /// The result would take the place of something else.
    #[error("{path} {what}, and would be lost; give another --output, or take it away first")]
    OutputIsTaken {
        /// Where the result was to go.
        path: PathBuf,
        /// What is there.
        what: &'static str,
    },
    /// The file could not be written.
    #[error("{path}: {error}; what was measured is lost, give another --output")]
    Output {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl MeasureError {
    /// What an error of a path means.
    fn at(path: &Path, error: io::Error) -> MeasureError {
        match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => MeasureError::ReadOnly(path.into()),
            _ => MeasureError::Path { path: path.into(), error },
        }
    }
}

/// What to do about a path that is of no use.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "run as root, or as the user whose it is",
        io::ErrorKind::StorageFull => "make room, or give a smaller --area or another place",
        // Of a drive, or a file system.
        _ if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
            "the drive fails: the kernel's log (dmesg) tells more; measure another"
        }
        _ => "give the path of a file, there or not, or of a block device",
    }
}

/// What was measured, and where it was written.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// The file.
    pub output: PathBuf,
    /// What is in it.
    pub properties: IoProperties,
}

/// Measures a drive, and writes its file.
pub fn measure(probe: &Probe, options: &Options) -> Result<Measured, MeasureError> {
    let path = path_of(probe, options.drive)?;
    let failed = |error| MeasureError::at(&path, error);
    let kind = match std::fs::metadata(&path).is_ok_and(|found| found.file_type().is_block_device()) {
        true => Kind::BlockDevice,
        false => Kind::File,
    };
    let output = output_of(probe, options, kind, &path);
    check_output(&output, &path)?;
    let target = Target::open(probe, &path, options)?;
    let mut drive = Identity::of(&probe.path("/"), &path).map_err(failed)?;
    // A node that runs below the root sees the path from there.
    if let Some(below) =
        probe.link("/").and_then(|root| Path::new(&drive.path).strip_prefix(root).ok().map(PathBuf::from))
    {
        drive.path = Path::new("/").join(below).to_string_lossy().into_owned();
    }
    let unix_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let lost = |error| MeasureError::Loop { path: path.clone(), error };
    if options.precondition {
        eprintln!("preconditioning: {} are written twice", human_bytes(target.bytes()));
        curves::precondition(&target).map_err(lost)?;
    }
    let curves = curves::all(&target, options.point).map_err(lost)?;
    let reads = curves.iter().find(|curve| curve.operation == Operation::Read);
    let most_reads = reads.and_then(|curve| curve.points.iter().map(|point| point.iops).reduce(f64::max));
    let mixed = mixed::search(&target, options.point, most_reads.unwrap_or(0.0)).map_err(lost)?;
    let measurement = Measurement {
        unix_s,
        by: concat!("lode-tune ", env!("CARGO_PKG_VERSION")).to_owned(),
        area_bytes: target.bytes(),
        preconditioned: options.precondition,
        direct: target.direct,
        point_s: options.point.as_secs_f64(),
        points: curves.iter().map(|curve| curve.points.len()).sum(),
    };
    let properties = IoProperties { version: VERSION, drive, measurement, mixed: Some(mixed), curves };
    write_durably(&output, &properties.to_toml())
        .map_err(|error| MeasureError::Output { path: output.clone(), error })?;
    Ok(Measured { output, properties })
}

/// Where the result goes, below the root.
fn output_of(probe: &Probe, options: &Options, kind: Kind, path: &Path) -> PathBuf {
    match options.output {
        Some(output) => probe.path(&absolute(output).unwrap_or_else(|| output.into()).to_string_lossy()),
        None if kind == Kind::File => default_path(kind, path),
        None => probe.path(&default_path(kind, path).to_string_lossy()),
    }
}

/// The result takes the place of an earlier one, or of nothing: refused before anything is measured.
fn check_output(output: &Path, drive: &Path) -> Result<(), MeasureError> {
    let taken = |what| Err(MeasureError::OutputIsTaken { path: output.into(), what });
    let Ok(there) = std::fs::metadata(output) else { return Ok(()) };
    if std::fs::metadata(drive).is_ok_and(|drive| (drive.dev(), drive.ino()) == (there.dev(), there.ino())) {
        return taken("is the drive that is measured");
    }
    if !there.is_file() {
        return taken("is no ordinary file");
    }
    match IoProperties::load(output) {
        Ok(_) | Err(IoPropertiesError::Version { .. }) => Ok(()),
        Err(_) if there.len() == 0 => Ok(()),
        Err(_) => taken("holds something else than an earlier result"),
    }
}

/// The path of a drive below the root.
fn path_of(probe: &Probe, named: &str) -> Result<PathBuf, MeasureError> {
    let Some(id) = named.strip_prefix("id:") else {
        let path = absolute(Path::new(named)).unwrap_or_else(|| named.into());
        return Ok(probe.path(&path.to_string_lossy()));
    };
    let disks = drives::all(probe);
    let is = |disk: &&drives::Drive| {
        disk.id.known().is_some_and(|own| own.0 == id) || disk.by_id.iter().any(|name| name == id)
    };
    let disk = disks.iter().find(is).ok_or_else(|| MeasureError::NoSuchId(id.to_owned()))?;
    Ok(probe.path(&format!("/dev/{}", disk.name)))
}

/// Whoever reads the file sees the one before or the one after.
pub fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let fresh = directory.join(name);
    let written = (|| {
        let mut file = std::fs::File::create(&fresh)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        std::fs::File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        // It may not be there at all.
        let _ = std::fs::remove_file(&fresh);
    }
    written
}

impl Measured {
    /// For people: what it is of, a line for each point, the knees, and where it went.
    pub fn to_text(&self) -> String {
        let IoProperties { drive, measurement, mixed, curves, .. } = &self.properties;
        let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not told".to_owned());
        let kind = if drive.kind == Kind::File { "a file" } else { "a block device" };
        let mut out = format!(
            "{}: {kind}; serial {}, model {}, firmware {}; kernel {}, tunables {}\n{} measured{}{}\n\n",
            drive.path,
            told(&drive.serial),
            told(&drive.model),
            told(&drive.firmware),
            drive.kernel,
            drive.tunables_hash,
            human_bytes(measurement.area_bytes),
            if measurement.preconditioned { ", preconditioned" } else { "" },
            if measurement.direct {
                ""
            } else {
                ", THROUGH THE PAGE CACHE: the file system has no direct I/O"
            },
        );
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "{:<14}{:>10}{:>7}{:>12}{:>11}{:>10}{:>10}{:>11}",
            "operation", "block", "depth", "ops/s", "MB/s", "p50 us", "p99 us", "p99.9 us"
        );
        for curve in curves {
            for point in &curve.points {
                let knee = if point.depth == curve.knee_depth { "  knee" } else { "" };
                let _ = writeln!(
                    out,
                    "{:<14}{:>10}{:>7}{:>12.0}{:>11.1}{:>10.0}{:>10.0}{:>11.0}{knee}",
                    curve.operation.to_string(),
                    human_bytes(curve.block_bytes.into()),
                    point.depth,
                    point.iops,
                    point.bytes_per_s / 1e6,
                    point.p50_us,
                    point.p99_us,
                    point.p999_us
                );
            }
        }
        if let Some(mixed) = mixed {
            out += &format!("\n{}\n", mixed::to_text(mixed));
        }
        out + &format!("written to {}\n", self.output.display())
    }
}
