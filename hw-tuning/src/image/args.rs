//! The grammar of `image`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::overlay::EmptyDrive;
use crate::{seconds_long, size};

/// `image ...`.
#[derive(Debug, Subcommand)]
pub enum Image {
    /// Make a bootable disk: Debian 13 with the node, its units and these tunings.
    ///
    /// Needs mmdebstrap, fdisk, e2fsprogs, dosfstools and mtools, and fakeroot where not run as root; no mounts. Beside the
    /// disk it writes FILE.packages, with the version of every package. SOURCE_DATE_EPOCH dates every file.
    #[command(after_help = "Exit codes: 0 made, 2 failed, 64 wrong usage.")]
    Build(Build),
    /// Write a disk as another format: for a cloud, or for a hypervisor.
    #[command(after_help = "Exit codes: 0 written, 2 failed, 64 wrong usage.")]
    Export(Export),
    /// Boot a disk in QEMU with two emulated NVMe drives, and hold the node on it to what it promises.
    ///
    /// The disk itself is not written. Without --quick: tuning there and back, a node on a drive with blocks of 4 KiB, power
    /// cuts in mid-write, media errors, and a drive's format. Emulation says nothing of speed, so none is judged.
    #[command(
        after_help = "Exit codes: 0 all as promised, 1 not, 2 not tried, 3 left out: QEMU is not here, 64 wrong usage."
    )]
    BootTest(BootTest),
}

/// `image build`.
#[derive(Debug, Args)]
pub struct Build {
    /// The disk to make
    #[arg(long, value_name = "FILE", default_value = "lode.img")]
    pub output: PathBuf,
    /// The node's binary [default: lode beside this program]
    #[arg(long, value_name = "FILE")]
    pub node: Option<PathBuf>,
    /// What the machines are: azure-lsv3, azure-lsv4, azure-laosv4, generic-nvme or dev
    #[arg(long, value_name = "NAME", default_value = "generic-nvme")]
    pub profile: String,
    /// Let the owners of the public keys in this file in by SSH, as root; without, there is no SSH. May be given more than once
    #[arg(long, value_name = "FILE")]
    pub ssh_key: Vec<PathBuf>,
    /// Where the node listens
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:7411")]
    pub listen: std::net::SocketAddr,
    /// What becomes of a drive that held a node's data and comes back empty, as a cloud's does after a deallocation
    #[arg(long, value_enum, default_value = "refuse")]
    pub empty_drive: EmptyDrive,
    /// Further parameters of the kernel
    #[arg(long, value_name = "WORDS", default_value = "")]
    pub cmdline: String,
    /// Length of the disk, 768MiB or more
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = size)]
    pub size: u64,
    /// Where packages come from, as http://snapshot.debian.org/archive/debian/20260101T000000Z/ [default: Debian, with updates]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Fail unless the packages are those of this file, as an earlier build wrote it
    #[arg(long, value_name = "FILE")]
    pub packages: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a disk is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// As it is, holes left out
    Raw,
    /// The same, compressed with zstd
    RawZst,
    /// For QEMU; compressed
    Qcow2,
    /// Fixed, of whole MiB: for Azure
    Vhd,
}

/// `image export`.
#[derive(Debug, Args)]
pub struct Export {
    /// The disk that `image build` has made
    pub image: PathBuf,
    /// What to write it as
    #[arg(long, value_enum)]
    pub format: Format,
    /// Where to [default: the disk's name with the format's ending]
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `image boot-test`.
#[derive(Debug, Args)]
pub struct BootTest {
    /// The disk that `image build` has made
    pub image: PathBuf,
    /// Only boot it by UEFI, and see the node serve from an empty drive
    #[arg(long)]
    pub quick: bool,
    /// Emulate the processor, even where there is /dev/kvm
    #[arg(long)]
    pub no_kvm: bool,
    /// How long all of it may take, in seconds; a processor that is emulated, and wanted by others, needs minutes a boot
    #[arg(long, value_name = "SECONDS", default_value = "1200", value_parser = seconds_long)]
    pub timeout: Duration,
    /// Keep the consoles and drives of the machine here
    #[arg(long, value_name = "DIRECTORY")]
    pub keep: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}
