//! Which drive is the node's, over boots.

use super::decide::{Candidate, Decision, Holds, decide};
use super::{Options, Record, claim};
use crate::image::overlay::EmptyDrive;
use crate::probe::Probe;
use crate::profile::DriveChoice;

fn drive(id: &str, bytes: u64, holds: Holds) -> Candidate {
    Candidate { name: format!("nvme-{id}"), id: Some(id.to_owned()), bytes, holds }
}

fn record(id: &str, held_data: bool) -> Record {
    Record { version: 1, id: id.to_owned(), held_data }
}

/// Which is taken, and whether it is formatted.
fn taken(record: Option<&Record>, drives: &[Candidate], empty: EmptyDrive) -> Option<(String, bool)> {
    match decide(record, drives, empty) {
        Decision::Take { at, format, .. } => Some((drives[at].id.clone().expect("only known ones"), format)),
        Decision::Leave { .. } => None,
    }
}

#[test]
fn a_first_boot_takes_a_nodes_drive_or_the_largest_empty_one() {
    let other = || Holds::Other("an xfs file system".to_owned());
    let drives = [drive("A", 9, other()), drive("C", 5, Holds::Nothing), drive("B", 5, Holds::Nothing)];
    assert_eq!(taken(None, &drives, EmptyDrive::Refuse), Some(("B".to_owned(), true)));
    let with_data = [drives.to_vec(), vec![drive("D", 1, Holds::Lode)]].concat();
    assert_eq!(taken(None, &with_data, EmptyDrive::Refuse), Some(("D".to_owned(), false)));
    assert_eq!(taken(None, &[drive("A", 9, other())], EmptyDrive::Format), None);
    let nameless = Candidate { id: None, ..drive("A", 9, Holds::Nothing) };
    assert_eq!(taken(None, &[nameless], EmptyDrive::Format), None);
    assert_eq!(taken(None, &[], EmptyDrive::Format), None);
}

#[test]
fn a_drive_that_held_data_and_came_back_empty_is_formatted_only_where_that_was_said() {
    let drives = [drive("A", 5, Holds::Nothing), drive("B", 9, Holds::Nothing)];
    let held = record("A", true);
    assert_eq!(taken(Some(&held), &drives, EmptyDrive::Refuse), None);
    assert_eq!(taken(Some(&held), &drives, EmptyDrive::Format), Some(("A".to_owned(), true)));
    // It was chosen, and the boot ended before it was formatted.
    assert_eq!(taken(Some(&record("A", false)), &drives, EmptyDrive::Refuse), Some(("A".to_owned(), true)));
    let foreign = [drive("A", 5, Holds::Other("a LUKS volume".to_owned())), drive("B", 9, Holds::Nothing)];
    assert_eq!(taken(Some(&held), &foreign, EmptyDrive::Format), None);
}

#[test]
fn a_drive_that_is_gone_is_followed_by_one_with_data_or_as_was_said() {
    let held = record("GONE", true);
    let empty = [drive("B", 9, Holds::Nothing)];
    assert_eq!(taken(Some(&held), &empty, EmptyDrive::Refuse), None);
    assert_eq!(taken(Some(&held), &empty, EmptyDrive::Format), Some(("B".to_owned(), true)));
    let with_data = [drive("B", 9, Holds::Nothing), drive("C", 1, Holds::Lode)];
    assert_eq!(taken(Some(&held), &with_data, EmptyDrive::Refuse), Some(("C".to_owned(), false)));
}

/// A machine with one NVMe drive of 4 MiB.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("sys/devices/nvme0n1/size", "8192\n");
    put("sys/devices/nvme0n1/serial", "SERIAL-A\n");
    put("proc/self/mountinfo", "");
    std::fs::create_dir_all(root.path().join("sys/block")).unwrap();
    std::os::unix::fs::symlink("../devices/nvme0n1", root.path().join("sys/block/nvme0n1")).unwrap();
    std::fs::create_dir_all(root.path().join("dev")).unwrap();
    let drive = std::fs::File::create(root.path().join("dev/nvme0n1")).unwrap();
    drive.set_len(4 << 20).unwrap();
    root
}

#[test]
fn boots_of_a_machine() {
    let root = machine();
    let text = |path: &str| std::fs::read_to_string(root.path().join(path)).unwrap_or_default();
    let boot = |empty_drive| {
        let choice = DriveChoice::default();
        let options = Options { profile: "generic-nvme", choice: &choice, empty_drive };
        let claimed = claim(&Probe::new(root.path()), &options).unwrap();
        (claimed.is_taken(), claimed.format)
    };
    let is_to_format = || root.path().join("run/lode/format").exists();
    assert_eq!(boot(EmptyDrive::Refuse), (true, true));
    assert!(is_to_format() && text("run/lode/profile.toml").contains("ids = [\"SERIAL-A\"]"));
    let rules = text("run/udev/rules.d/91-lode-drive.rules");
    assert!(
        rules.contains("ATTRS{serial}==\"SERIAL-A\"") && rules.contains("SYMLINK+=\"lode/drive\""),
        "{rules}"
    );
    assert!(text("run/lode/machine.json").contains("SERIAL-A"));
    // The boot ended before it was formatted: the next one goes on.
    assert_eq!(boot(EmptyDrive::Refuse), (true, true));
    let device = root.path().join("dev/nvme0n1");
    let mut formatted = vec![0; 4 << 20];
    formatted[..4].copy_from_slice(b"LODE");
    std::fs::write(&device, &formatted).unwrap();
    assert_eq!(boot(EmptyDrive::Refuse), (true, false));
    assert!(!is_to_format());
    // Deallocated, and back with nothing on it.
    std::fs::write(&device, vec![0; 4 << 20]).unwrap();
    assert_eq!(boot(EmptyDrive::Refuse), (false, false));
    assert_eq!(text("run/udev/rules.d/91-lode-drive.rules"), "");
    assert_eq!(boot(EmptyDrive::Format), (true, true));
    std::fs::write(root.path().join("var/lib/lode-tune/drive.json"), "{").unwrap();
    let choice = DriveChoice::default();
    let options = Options { profile: "dev", choice: &choice, empty_drive: EmptyDrive::Format };
    let refused = claim(&Probe::new(root.path()), &options).unwrap_err().to_string();
    assert!(refused.contains("remove it"), "{refused}");
}
