//! Which drive is the node's, over boots.

use super::decide::{Allowed, Candidate, Decision, Holds, decide};
use super::{Options, Record, claim};
use lode_net::ring::floor::{Load, Operation, run};

use crate::image::overlay::EmptyDrive;
use crate::probe::Probe;
use crate::profile::{DriveChoice, Profile};

fn drive(id: &str, bytes: u64, holds: Holds) -> Candidate {
    Candidate { name: format!("nvme-{id}"), id: Some(id.to_owned()), bytes, holds }
}

fn record(id: &str, held_data: bool) -> Record {
    Record { version: 1, id: id.to_owned(), held_data }
}

/// Which is taken, and whether it is formatted.
fn taken(record: Option<&Record>, drives: &[Candidate], empty_drive: EmptyDrive) -> Option<(String, bool)> {
    match decide(record, drives, Allowed { empty_drive, another: false }) {
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
fn a_drive_that_is_gone_is_followed_by_an_empty_one_only_as_was_said() {
    let held = record("GONE", true);
    let empty = [drive("B", 9, Holds::Nothing)];
    assert_eq!(taken(Some(&held), &empty, EmptyDrive::Refuse), None);
    assert_eq!(taken(Some(&held), &empty, EmptyDrive::Format), Some(("B".to_owned(), true)));
}

#[test]
fn another_nodes_drive_follows_one_that_is_gone_only_where_a_person_says_so() {
    let drives = [drive("B", 9, Holds::Nothing), drive("C", 1, Holds::Lode)];
    let held = record("GONE", true);
    for empty_drive in [EmptyDrive::Refuse, EmptyDrive::Format] {
        match decide(Some(&held), &drives, Allowed { empty_drive, another: false }) {
            Decision::Leave { why } => {
                for words in ["GONE", "C holds a node's data", "attach the drive again", "--accept-another"] {
                    assert!(why.contains(words), "no {words} in {why}");
                }
            }
            taken => panic!("{taken:?}"),
        }
        let accepted = decide(Some(&held), &drives, Allowed { empty_drive, another: true });
        assert!(matches!(accepted, Decision::Take { at: 1, format: false, .. }), "{accepted:?}");
    }
    // It is there again at the next boot: taken as before, whatever else there is.
    let again = [drives.to_vec(), vec![drive("GONE", 1, Holds::Lode)]].concat();
    assert_eq!(taken(Some(&held), &again, EmptyDrive::Refuse), Some(("GONE".to_owned(), false)));
    // One that was chosen, and never held anything, keeps nobody from a drive with data.
    let chosen = record("GONE", false);
    assert_eq!(taken(Some(&chosen), &drives, EmptyDrive::Refuse), Some(("C".to_owned(), false)));
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
        let allowed = Allowed { empty_drive, another: false };
        let options = Options { profile: "generic-nvme", choice: &choice, allowed };
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
    let allowed = Allowed { empty_drive: EmptyDrive::Format, another: true };
    let options = Options { profile: "dev", choice: &choice, allowed };
    let refused = claim(&Probe::new(root.path()), &options).unwrap_err().to_string();
    assert!(refused.contains("remove it"), "{refused}");
}

#[test]
fn what_was_measured_of_another_drive_goes_with_it_and_of_the_same_one_stays() {
    let root = machine();
    let choice = DriveChoice::default();
    let boot = || {
        let allowed = Allowed { empty_drive: EmptyDrive::Format, another: false };
        claim(&Probe::new(root.path()), &Options { profile: "generic-nvme", choice: &choice, allowed })
            .unwrap()
    };
    let measured = root.path().join("var/lib/lode/io-properties.toml");
    std::fs::create_dir_all(measured.parent().unwrap()).unwrap();
    std::fs::write(&measured, "").unwrap();
    assert_eq!(boot().id.as_deref(), Some("SERIAL-A"));
    assert_eq!(boot().id.as_deref(), Some("SERIAL-A"));
    assert!(measured.exists(), "the first drive may have been measured before an image claimed it");
    std::fs::write(root.path().join("sys/devices/nvme0n1/serial"), "SERIAL-B\n").unwrap();
    assert_eq!(boot().id.as_deref(), Some("SERIAL-B"));
    assert!(!measured.exists());
    std::fs::write(&measured, "").unwrap();
    assert_eq!(boot().id.as_deref(), Some("SERIAL-B"));
    assert!(measured.exists());
}

#[test]
fn the_profile_of_a_boot_can_be_loaded_whatever_it_extends() {
    let root = machine();
    let own = root.path().join("my \"own\" one.toml");
    let text = "version = 1\nname = \"mine\"\nabout = \"ours\"\nextends = \"generic-nvme\"\n[knobs]\nsomaxconn = 77\n";
    std::fs::write(&own, text).unwrap();
    for name in ["azure-lsv3", own.to_str().unwrap()] {
        let choice = DriveChoice::default();
        let allowed = Allowed { empty_drive: EmptyDrive::Refuse, another: false };
        claim(&Probe::new(root.path()), &Options { profile: name, choice: &choice, allowed }).unwrap();
        let written = root.path().join("run/lode/profile.toml");
        let loaded = Profile::load(written.to_str().unwrap()).unwrap();
        assert_eq!(loaded.drives.ids, ["SERIAL-A"]);
        assert!(loaded.about.contains(name), "{}", loaded.about);
        let wanted = Profile::load(name).unwrap().number("somaxconn");
        assert_eq!(loaded.number("somaxconn"), wanted);
    }
}

#[test]
fn a_drive_whose_middle_holds_data_is_not_taken_but_one_that_was_measured_is() {
    use std::os::unix::fs::FileExt;
    let root = machine();
    let device =
        std::fs::File::options().write(true).read(true).open(root.path().join("dev/nvme0n1")).unwrap();
    let boot = || {
        let choice = DriveChoice::default();
        let allowed = Allowed { empty_drive: EmptyDrive::Refuse, another: false };
        claim(&Probe::new(root.path()), &Options { profile: "generic-nvme", choice: &choice, allowed })
            .unwrap()
    };
    device.write_all_at(&[7; 64 << 10], 2 << 20).unwrap();
    let claimed = boot();
    assert!(!claimed.is_taken() && claimed.to_text().contains("at byte 2097152"), "{}", claimed.to_text());
    device.write_all_at(&[0; 64 << 10], 2 << 20).unwrap();
    let time = std::time::Duration::from_millis(20);
    let load = Load::new(Operation::Write, 1 << 20..3 << 20, time);
    run(device.try_clone().unwrap(), &load).unwrap();
    let claimed = boot();
    assert!(claimed.is_taken() && claimed.format, "{}", claimed.to_text());
    std::fs::write(root.path().join("sys/devices/nvme0n1/ro"), "1\n").unwrap();
    assert!(boot().to_text().contains("it is read-only"), "{}", boot().to_text());
}
