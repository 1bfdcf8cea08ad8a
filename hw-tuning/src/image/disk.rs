//! The disk: a partition table, a file system that firmware reads with the unified kernel image on it, and the root. All of it
//! is written into a file, without mounts and without the right to make any.

use std::fs::File;
use std::path::Path;

use super::tools::{self, FAKEROOT, MCOPY, MKE2FS, MKFS_FAT, MMD, SFDISK, ToolError};
use super::{BuildError, MIB};

/// Where the firmware's file system begins, and how long it is: two images fit.
const ESP_AT: u64 = MIB;
const ESP_BYTES: u64 = 128 * MIB;
/// Where the root begins.
const ROOT_AT: u64 = ESP_AT + ESP_BYTES;
/// Behind the root lies the second partition table.
const TAIL_BYTES: u64 = MIB;
/// Least bytes of a disk: the root is about 250 MB, and needs room for what it writes.
pub const LEAST_BYTES: u64 = 768 * MIB;
const SECTOR_BYTES: u64 = 512;

/// Ids are always the same, so that the same input gives the same disk; a machine has one such disk.
const DISK_ID: &str = "6C6F6465-0001-4000-8000-000000000000";
const ESP_ID: &str = "6C6F6465-0001-4000-8000-000000000001";
/// The root's partition, which the kernel is told.
pub const ROOT_ID: &str = "6c6f6465-0001-4000-8000-000000000002";
const ROOT_FILES_ID: &str = "6c6f6465-0001-4000-8000-000000000003";
/// Where firmware looks for what it boots, if nobody has told it.
const UKI: &str = "::/EFI/BOOT/BOOTX64.EFI";
const FAT_ID: &str = "6C6F6465";
/// Types of partitions: the firmware's, and a root for x86-64 (Discoverable Partitions Specification, UAPI group).
const ESP_TYPE: &str = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B";
const ROOT_TYPE: &str = "4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709";

/// What a disk is made of.
pub struct Disk<'a> {
    /// The file.
    pub path: &'a Path,
    /// Its length.
    pub bytes: u64,
    /// Seconds since 1970 that everything on it is dated.
    pub epoch_s: u64,
    /// A directory for what is needed meanwhile.
    pub work: &'a Path,
}

/// The unified kernel image of a disk.
pub fn read_uki(disk: &Path, work: &Path) -> Result<Vec<u8>, BuildError> {
    let path = work.join("uki.efi");
    let at = format!("{}@@{ESP_AT}", disk.display());
    let mut command = tools::command(MCOPY, work);
    tools::run(command.args(["-n", "-i", &at, UKI]).arg(&path).env("MTOOLS_SKIP_CHECK", "1"), b"")?;
    std::fs::read(&path).map_err(BuildError::of(path))
}

impl Disk<'_> {
    /// Makes the file and its partition table.
    pub fn partition(&self) -> Result<(), BuildError> {
        let failed = |error| BuildError::File { path: self.path.to_path_buf(), error };
        File::create(self.path).and_then(|file| file.set_len(self.bytes)).map_err(failed)?;
        let sector = |bytes: u64| bytes / SECTOR_BYTES;
        let table = format!(
            "label: gpt\nlabel-id: {DISK_ID}\n\
             start={}, size={}, type={ESP_TYPE}, uuid={ESP_ID}, name=\"esp\"\n\
             start={}, size={}, type={ROOT_TYPE}, uuid={}, name=\"lode\"\n",
            sector(ESP_AT),
            sector(ESP_BYTES),
            sector(ROOT_AT),
            sector(self.bytes - ROOT_AT - TAIL_BYTES),
            ROOT_ID.to_uppercase()
        );
        let mut command = tools::command(SFDISK, self.work);
        tools::run(
            command.args(["--quiet", "--no-reread", "--no-tell-kernel"]).arg(self.path),
            table.as_bytes(),
        )?;
        Ok(())
    }

    /// The firmware's file system, with the image where firmware looks for one without having been told.
    pub fn write_esp(&self, image: &Path) -> Result<(), ToolError> {
        let kib = (ESP_BYTES / 1024).to_string();
        let sectors = (ESP_AT / SECTOR_BYTES).to_string();
        let mut make = self.dated(MKFS_FAT);
        // Sectors for clusters: of a small file system there would be too few for FAT32, and firmware might not read it.
        make.args(["-F", "32", "-S", "512", "-s", "1", "-n", "ESP", "-i", FAT_ID, "--offset", &sectors]);
        tools::run(make.arg(self.path).arg(&kib), b"")?;
        let at = format!("{}@@{ESP_AT}", self.path.display());
        tools::run(self.dated(MMD).args(["-i", &at, "::/EFI", "::/EFI/BOOT"]), b"")?;
        tools::run(self.dated(MCOPY).args(["-m", "-i", &at]).arg(image).arg(UKI), b"")?;
        Ok(())
    }

    /// The root, out of a tar archive. Who is not root sees the owners of its files through fakeroot.
    pub fn write_root(&self, archive: &Path) -> Result<(), ToolError> {
        let root = self.work.join("root");
        let kib = ((self.bytes - ROOT_AT - TAIL_BYTES) / 1024).to_string();
        // What boots lies on the other file system.
        let script = format!(
            "mkdir \"$1\" && tar -C \"$1\" --numeric-owner --exclude='./boot/*' --exclude='./dev/*' -xpf \"$2\" && \
             \"$3\" -q -t ext4 -L lode -U {ROOT_FILES_ID} -m 1 -O ^metadata_csum_seed,^orphan_file \
             -E offset={ROOT_AT},hash_seed={ROOT_FILES_ID},root_owner=0:0,lazy_itable_init=0,nodiscard \
             -d \"$1\" \"$4\" {kib}k"
        );
        let shell = tools::Tool { program: "sh", package: "dash" };
        let mut command = if rustix::process::geteuid().is_root() {
            self.dated(shell)
        } else {
            let mut command = self.dated(FAKEROOT);
            command.args(["--", "sh"]);
            command
        };
        let mke2fs = tools::command(MKE2FS, self.work).get_program().to_owned();
        command.args(["-euc", &script, "sh"]).arg(&root).arg(archive).arg(mke2fs).arg(self.path);
        tools::run(&mut command, b"")?;
        Ok(())
    }

    /// A tool that dates what it makes as everything else.
    fn dated(&self, tool: tools::Tool) -> std::process::Command {
        let mut command = tools::command(tool, self.work);
        let epoch = self.epoch_s.to_string();
        command
            .env("SOURCE_DATE_EPOCH", &epoch)
            .env("E2FSPROGS_FAKE_TIME", &epoch)
            .env("MTOOLS_SKIP_CHECK", "1");
        command
    }
}
