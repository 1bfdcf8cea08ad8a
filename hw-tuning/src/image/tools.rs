//! The programs that an image is made and tried with.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::Access;
use thiserror::Error;

/// A program, and the package of Debian that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its name.
    pub program: &'static str,
    /// The package.
    pub package: &'static str,
}

/// A tool by name and package.
const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

pub const MMDEBSTRAP: Tool = tool("mmdebstrap", "mmdebstrap");
pub const FAKEROOT: Tool = tool("fakeroot", "fakeroot");
pub const SFDISK: Tool = tool("sfdisk", "fdisk");
pub const MKE2FS: Tool = tool("mke2fs", "e2fsprogs");
pub const MKFS_FAT: Tool = tool("mkfs.fat", "dosfstools");
pub const MMD: Tool = tool("mmd", "mtools");
pub const MCOPY: Tool = tool("mcopy", "mtools");
pub const TAR: Tool = tool("tar", "tar");
pub const QEMU_IMG: Tool = tool("qemu-img", "qemu-utils");
pub const ZSTD: Tool = tool("zstd", "zstd");
pub const NVME: Tool = tool("nvme", "nvme-cli");
pub const TIMEOUT: Tool = tool("timeout", "coreutils");
pub const QEMU: Tool = tool("qemu-system-x86_64", "qemu-system-x86");

/// Why a program did not do its work.
#[derive(Debug, Error)]
pub enum ToolError {
    /// Some are not installed.
    #[error("{programs} not installed: apt-get install {packages}")]
    Missing {
        /// Which.
        programs: String,
        /// What has them.
        packages: String,
    },
    /// It does not start.
    #[error("{program} cannot be started: {error}")]
    Start {
        /// Which.
        program: String,
        /// What the system said.
        error: io::Error,
    },
    /// It failed.
    #[error("{program} failed ({status}): {told}")]
    Failed {
        /// Which.
        program: String,
        /// With what.
        status: std::process::ExitStatus,
        /// The end of what it told.
        told: String,
    },
}

/// Most of what a program told that is shown again.
const TOLD_LINES: usize = 15;

/// Where a program is: in the path, or where administrators' programs are, which not everybody's path has.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut files = directories.map(|directory| directory.join(program));
    files.find(|file| file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok())
}

/// Whether a program is there.
pub fn is_there(tool: Tool) -> bool {
    find(tool.program).is_some()
}

/// All of them are there, or what to install.
pub fn require(tools: &[Tool]) -> Result<(), ToolError> {
    let missing: Vec<&Tool> = tools.iter().filter(|tool| !is_there(**tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
    let verb = if programs.len() == 1 { "is" } else { "are" };
    Err(ToolError::Missing {
        programs: format!("{} {verb}", programs.join(", ")),
        packages: packages.join(" "),
    })
}

/// A command for a tool; the directory of temporary files is `work`.
pub fn command(tool: Tool, work: &Path) -> Command {
    let mut command = Command::new(find(tool.program).unwrap_or_else(|| tool.program.into()));
    command.env("TMPDIR", work).env("LC_ALL", "C");
    command
}

/// Run it with this input to its end; what it prints.
pub fn run(command: &mut Command, input: &[u8]) -> Result<Vec<u8>, ToolError> {
    let program = Path::new(command.get_program()).file_name().unwrap_or(OsStr::new("?"));
    let program = program.to_string_lossy().into_owned();
    let failed = |error| ToolError::Start { program: program.clone(), error };
    let stdin = if input.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child =
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends before it has read everything says so itself.
        let _ = stdin.write_all(input);
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let told =
        String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    let lines: Vec<&str> = told.lines().filter(|line| !line.trim().is_empty()).collect();
    let told = lines[lines.len().saturating_sub(TOLD_LINES)..].join("\n");
    Err(ToolError::Failed { program, status: output.status, told })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_with_its_packages_once() {
        assert!(require(&[TAR]).is_ok());
        let missing = require(&[TAR, tool("no-such-one", "p"), tool("no-such-two", "p")]).unwrap_err();
        assert_eq!(missing.to_string(), "no-such-one, no-such-two are not installed: apt-get install p");
    }

    #[test]
    fn a_program_that_fails_is_told_with_what_it_said() {
        let work = std::env::temp_dir();
        let error = run(command(TAR, &work).args(["--no-such-option"]), b"").unwrap_err().to_string();
        assert!(error.starts_with("tar failed (exit status:") && error.contains("no-such-option"), "{error}");
        let told = run(command(tool("cat", "coreutils"), &work).arg("-"), b"through").unwrap();
        assert_eq!(told, b"through");
    }
}
