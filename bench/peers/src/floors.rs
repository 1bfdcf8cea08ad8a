//! What the bare drive and bare loops over TCP give: GETs without a store.

use std::path::Path;

use lode_bench::floor;
use lode_net::ring::echo::EchoLoad;

use crate::figures::Figures;
use crate::options::RunOptions;
use crate::subject::SubjectError;

/// Bytes of a reply: a value of 1 KiB and a head.
const REPLY_BYTES: usize = 1040;

/// One way to measure on lode's drive.
pub type MeasureFloor = fn(&Path, &RunOptions) -> Result<Figures, SubjectError>;

/// Reads alone, on one thread.
pub fn reads(file: &Path, options: &RunOptions) -> Result<Figures, SubjectError> {
    Ok(Figures::of_floor(floor::reads(file, options.clients, 1, options.duration)?))
}

/// A read for each request over TCP, on one thread.
pub fn echo(file: &Path, options: &RunOptions) -> Result<Figures, SubjectError> {
    Ok(Figures::of_floor(floor::echo(file, &load(options))?))
}

/// The same on glommio.
#[cfg(feature = "glommio")]
pub fn echo_on_glommio(file: &Path, options: &RunOptions) -> Result<Figures, SubjectError> {
    let report = crate::echo_on_glommio::echo(file, &load(options));
    Ok(Figures::of_floor(report.map_err(|error| SubjectError::Glommio(error.to_string()))?.into()))
}

/// It is said to be missing before it is asked.
#[cfg(not(feature = "glommio"))]
pub fn echo_on_glommio(_: &Path, _: &RunOptions) -> Result<Figures, SubjectError> {
    Err(SubjectError::Glommio("not built in".to_owned()))
}

fn load(options: &RunOptions) -> EchoLoad {
    let (connections, time) = (usize::from(options.clients), options.duration);
    EchoLoad { connections, depth: 1, reply_bytes: REPLY_BYTES, spin: std::time::Duration::ZERO, time }
}
