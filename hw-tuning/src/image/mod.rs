//! `image`: a disk that boots into a tuned machine with a node on it; made, written in other formats, and tried.

pub mod args;
mod boot_test;
mod build;
mod disk;
mod export;
pub mod overlay;
pub mod tools;
mod uki;
mod vhd;

use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub use boot_test::{BootTestError, boot_test};
pub use build::build;
pub use export::export;
use tools::ToolError;
use uki::UkiError;

const MIB: u64 = 1 << 20;

/// Why an image was not made or written.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A program is missing, or failed.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The unified kernel image.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// A file of ours.
    #[error("{path}: {error}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// No node to put in.
    #[error("there is no node at {0}; build it (cargo build --release -p lode-node), or name it by --node")]
    NoNode(PathBuf),
    /// No such profile.
    #[error("there is no built-in profile {0:?}; there are {1}")]
    Profile(String, String),
    /// A file of keys is none.
    #[error("line {line} of {path} is not a public key of OpenSSH; give the .pub file")]
    Key {
        /// Which file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
    },
    /// No keys, though some were asked for.
    #[error("{0} holds no key, and an image with SSH for nobody is not what was meant")]
    NoKey(PathBuf),
    /// A length that is too short, or odd.
    #[error("a disk of {bytes} bytes does not do: 768MiB or more, in whole MiB; give another --size")]
    Size {
        /// What was asked for.
        bytes: u64,
    },
    /// SOURCE_DATE_EPOCH.
    #[error("SOURCE_DATE_EPOCH is {0:?}, which is no number of seconds since 1970")]
    Epoch(String),
    /// What was installed lacks something.
    #[error("the packages were installed, but there is no {0} among them")]
    Lacks(&'static str),
    /// Other packages than wanted.
    #[error(
        "the packages are not those of {path}: {differences}; take --mirror of that time, or write the list anew"
    )]
    Packages {
        /// The list.
        path: PathBuf,
        /// What differs.
        differences: String,
    },
    /// Something is there under the name of what is to be made.
    #[error("{path} cannot be written: {why}; name another file")]
    NotReplaced {
        /// Which.
        path: PathBuf,
        /// What it is.
        why: &'static str,
    },
    /// What is to be exported is no disk of ours.
    #[error("{path} is no disk of `lode-tune image build` ({why})")]
    NotADisk {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
}

impl BuildError {
    /// A function that says of which file an error is.
    fn of(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> BuildError {
        let path = path.into();
        move |error| BuildError::File { path, error }
    }

    /// Whether the command line is to blame.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            BuildError::NoNode(_)
                | BuildError::Profile(..)
                | BuildError::Key { .. }
                | BuildError::NoKey(_)
                | BuildError::Size { .. }
                | BuildError::Epoch(_)
        )
    }
}

/// A directory beside what is made, gone when this is dropped.
#[derive(Debug)]
struct Work(PathBuf);

impl Work {
    fn beside(output: &std::path::Path) -> Result<Work, BuildError> {
        let mut name = output.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}.work", std::process::id()));
        let path = std::path::absolute(output.with_file_name(name)).map_err(BuildError::of(output))?;
        std::fs::create_dir_all(&path).map_err(BuildError::of(&path))?;
        Ok(Work(path))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // What cannot be removed is a directory of temporary files, and no reason to fail.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
