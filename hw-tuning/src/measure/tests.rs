//! What is refused, what is left alone, and what the searches find.

use std::fs;
use std::os::unix::fs::FileExt;

use lode_net::io_properties::Point;
use lode_net::ring::floor::{self, FloorReport};

use super::content::{EDGE_BYTES, data_on};
use super::refuse::{Uses, is_read_only, uses_of};
use super::*;
use crate::tests::fixture::Fixture;

fn point(iops: f64) -> Point {
    Point { depth: 1, iops, bytes_per_s: iops * 4096.0, p50_us: 1.0, p99_us: 1.0, p999_us: 1.0 }
}

#[test]
fn a_curve_ends_where_two_doublings_bring_little() {
    let goes_on = |iops: &[f64]| curves::is_worthwhile(&iops.iter().copied().map(point).collect::<Vec<_>>());
    assert!(goes_on(&[]) && goes_on(&[100.0]) && goes_on(&[100.0, 100.0]));
    assert!(!goes_on(&[100.0, 100.0, 104.0]));
    assert!(goes_on(&[100.0, 100.0, 106.0]));
    assert!(goes_on(&[100.0, 200.0, 200.0]), "one that brings nothing may be chance");
    assert!(!goes_on(&[100.0, 200.0, 200.0, 190.0]));
}

#[test]
fn the_largest_multiple_is_found_and_no_more_is_asked_than_the_drive_has() {
    let mut asked = Vec::new();
    let mut search = |most, truth: u32| {
        asked.clear();
        let found = mixed::largest(most, |multiple| {
            asked.push(multiple);
            Ok::<_, ()>(if multiple <= truth { [5.0, 1.0, 0.1] } else { [5.001, 1.0, 0.1] })
        });
        (found.unwrap(), asked.clone())
    };
    assert_eq!(search(100, 0), ((0, [5.001, 1.0, 0.1]), vec![1]));
    assert_eq!(search(0, 5).0.0, 1, "1 is always tried");
    assert_eq!(search(100, 1), ((1, [5.0, 1.0, 0.1]), vec![1, 2]));
    assert_eq!(search(100, 11).0.0, 11);
    let (found, asked) = search(100, 1000);
    assert!((90..=100).contains(&found.0) && asked.iter().all(|multiple| *multiple <= 100), "{asked:?}");
}

#[test]
fn what_is_above_a_threshold_is_counted_at_it_and_beyond() {
    let report =
        FloorReport { latencies_ns: vec![1, 1_000_000, 1_000_001, 2_000_000], ..FloorReport::default() };
    assert_eq!(mixed::above_percent(&report, 1_000.0), 50.0);
    assert_eq!(mixed::above_percent(&report, 2_000.0), 0.0);
    assert_eq!(mixed::above_percent(&FloorReport::default(), 1.0), 0.0);
}

#[test]
fn a_device_that_is_used_is_told_from_one_that_is_divided() {
    let machine = Fixture::untuned();
    let uses = |disk: &str| {
        uses_of(&machine.probe(), &machine.path(&format!("sys/block/{disk}")).canonicalize().unwrap())
    };
    assert_eq!(uses("nvme1n1"), Uses::default());
    // Its partition is mounted, which the disk as a whole does not show.
    machine.set("sys/devices/pci/nvme0/nvme0n1/nvme0n1p1/dev", "259:1");
    let found = uses("nvme0n1");
    assert_eq!(found.partitions.len(), 1, "{found:?}");
    assert!(found.running.iter().any(|used| used.contains("mounted at")), "{found:?}");
    fs::create_dir_all(machine.path("sys/devices/pci/nvme1/nvme1n1/holders/dm-0")).unwrap();
    assert_eq!(uses("nvme1n1").running, ["held by dm-0"]);
}

#[test]
fn what_lies_on_a_device_is_named_and_zeros_are_free() {
    let file = tempfile::tempfile().unwrap();
    let bytes = 4 << 20;
    let found = |at: u64, sign: &[u8]| {
        file.set_len(0).unwrap();
        file.set_len(bytes).unwrap();
        file.write_all_at(sign, at).unwrap();
        data_on(&file, bytes).unwrap()
    };
    assert_eq!(found(0, &[]), None);
    for (at, sign, what) in [
        (512, b"EFI PART".as_slice(), "a GPT partition table"),
        (1080, b"\x53\xef", "an ext2, ext3 or ext4 file system"),
        (65600, b"_BHRfS_M", "a btrfs file system"),
        (0, b"XFSB", "an xfs file system"),
        (100_000, b"?", "data of a kind that is not known in its first MiB"),
        (EDGE_BYTES - 1, b"?", "data of a kind that is not known in its first MiB"),
        (bytes - EDGE_BYTES, b"?", "data of a kind that is not known in its last MiB"),
        (bytes - 1, b"?", "data of a kind that is not known in its last MiB"),
        (131_072, b"\x0c\xb1\xba\0\0\0\0\0", "a member of a ZFS pool"),
        (bytes - 512, b"EFI PART", "the copy of a GPT partition table"),
        (bytes - 8192, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
        (bytes - 65_536, b"\xfc\x4e\x2b\xa9", "a member of a RAID"),
        (bytes - 4096, b"LODE", "a lode drive"),
        // A device as small as this one is looked at all over.
        (EDGE_BYTES, b"?", "data of a kind that is not known at byte 1048576"),
        (EDGE_BYTES + 1080, b"\x53\xef", "an ext2, ext3 or ext4 file system at byte 1048576"),
        (EDGE_BYTES, b"LODE", "data of a kind that is not known at byte 1048576"),
        (bytes - EDGE_BYTES - 1, b"?", "data of a kind that is not known at byte 3141632"),
    ] {
        assert_eq!(found(at, sign).as_deref(), Some(what));
    }
}

fn options<'a>(drive: &'a str) -> Options<'a> {
    Options {
        drive,
        output: None,
        precondition: false,
        destroy_data: false,
        point: Duration::from_millis(10),
        area_bytes: Some(4 << 20),
    }
}

fn refused(options: &Options) -> String {
    measure(&Probe::new("/"), options).map(|measured| measured.output).unwrap_err().to_string()
}

#[test]
fn what_cannot_be_measured_is_told_and_nothing_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drive.lode");
    let drive = path.to_str().unwrap();
    assert!(refused(&options("id:NO-SUCH")).contains("no disk has the serial number or name \"NO-SUCH\""));
    assert!(refused(&options("/no/such/place")).contains("/no/such/place: No such file"));
    assert!(refused(&options("/dev/null")).contains("neither a file nor a block device"));
    assert!(refused(&options(directory.path().to_str().unwrap())).contains("neither a file nor"));
    let below = Options { area_bytes: Some((4 << 20) - 1), ..options(drive) };
    assert!(refused(&below).contains("4194304 are needed"), "{}", refused(&below));
    let beyond = Options { area_bytes: Some(u64::MAX), ..options(drive) };
    assert!(refused(&beyond).contains("are too few"));
    fs::write(&path, vec![0; 4 << 20]).unwrap();
    let node = fs::File::open(&path).unwrap();
    rustix::fs::flock(&node, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let lost = Options { destroy_data: true, ..options(drive) };
    assert!(refused(&lost).contains("is in use (a running node)"), "{}", refused(&lost));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
}

/// A device of so many bytes, with holes where nothing is written.
fn device(bytes: u64) -> fs::File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(bytes).unwrap();
    file
}

#[test]
fn a_drive_with_data_in_its_middle_is_not_empty() {
    let bytes = 1 << 30;
    // As much as two of the parts that are sampled, wherever it begins.
    let much = vec![7; 2 * ((bytes - 2 * EDGE_BYTES) as usize / 512)];
    for begin in [EDGE_BYTES, 15 << 20, 500 << 20, bytes - EDGE_BYTES - much.len() as u64] {
        let file = device(bytes);
        file.write_all_at(&much, begin).unwrap();
        assert!(data_on(&file, bytes).unwrap().is_some_and(|what| what.contains("at byte")), "{begin}");
    }
    // The second copy of a file system whose ends were wiped.
    let file = device(bytes);
    file.write_all_at(b"_BHRfS_M", (64 << 20) + 64).unwrap();
    assert!(data_on(&file, bytes).unwrap().is_some());
}

#[test]
fn what_measuring_leaves_is_no_data_and_data_among_it_are() {
    let bytes = 16 << 20;
    let file = device(bytes);
    let area = EDGE_BYTES..bytes - EDGE_BYTES;
    for block_bytes in [4 << 10, 128 << 10] {
        let time = Duration::from_millis(20);
        let load = floor::Load {
            block_bytes,
            depth: 4,
            ..floor::Load::new(floor::Operation::Write, area.clone(), time)
        };
        floor::run(file.try_clone().unwrap(), &load).unwrap();
        assert_eq!(data_on(&file, bytes).unwrap(), None);
    }
    file.write_all_at(&[1; 1 << 20], 5 << 20).unwrap();
    assert!(data_on(&file, bytes).unwrap().is_some());
}

#[test]
fn a_file_that_something_is_made_of_is_not_measured_over() {
    let root = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    put("data/disk.img", "");
    put("data/swapfile", "");
    for name in ["data/disk.img", "data/swapfile"] {
        fs::File::options().write(true).open(root.path().join(name)).unwrap().set_len(8 << 20).unwrap();
    }
    put("sys/devices/virtual/block/loop3/loop/backing_file", "/data/disk.img\n");
    put("sys/devices/virtual/block/loop3/dev", "7:3\n");
    fs::create_dir_all(root.path().join("sys/block")).unwrap();
    std::os::unix::fs::symlink("../devices/virtual/block/loop3", root.path().join("sys/block/loop3"))
        .unwrap();
    put("proc/self/mountinfo", "22 1 7:3 / /mnt rw - ext4 /dev/loop3 rw\n");
    put("proc/swaps", "Filename Type\n/data/swapfile file 8188 0 -2\n");
    let destroy = |drive| {
        let options = Options { destroy_data: true, ..options(drive) };
        measure(&Probe::new(root.path()), &options).map(|measured| measured.output).unwrap_err().to_string()
    };
    let told = destroy("/data/disk.img");
    assert!(told.contains("is in use (loop3 is made of it, mounted at /mnt)"), "{told}");
    let told = destroy("/data/swapfile");
    assert!(told.contains("is in use (swap)"), "{told}");
    assert!(fs::read(root.path().join("data/disk.img")).unwrap().iter().all(|byte| *byte == 0));
    put("sys/dev/block/7:3/ro", "1\n");
    put("sys/dev/block/7:4/ro", "0\n");
    assert!(is_read_only(&Probe::new(root.path()), "7:3") && !is_read_only(&Probe::new(root.path()), "7:4"));
    // What was taken apart is a file again.
    fs::remove_dir_all(root.path().join("sys/devices/virtual/block/loop3/loop")).unwrap();
    measure(&Probe::new(root.path()), &Options { destroy_data: true, ..options("/data/disk.img") }).unwrap();
}

#[test]
fn errors_say_what_to_do() {
    let told = |error: rustix::io::Errno| MeasureError::at(Path::new("/dev/x"), error.into()).to_string();
    for (error, words) in [
        (rustix::io::Errno::ROFS, "is read-only, and nothing was tried: make it writable (blockdev --setrw"),
        (rustix::io::Errno::ACCESS, "run as root"),
        (rustix::io::Errno::IO, "dmesg"),
        (rustix::io::Errno::NOENT, "give the path of a file"),
    ] {
        assert!(told(error).contains(words), "{error}: {}", told(error));
    }
}

#[test]
fn a_device_may_be_smaller_than_where_some_signs_lie() {
    let file = tempfile::tempfile().unwrap();
    for bytes in [0, 1, 511, 4096, 65_536, 65_602] {
        file.set_len(bytes).unwrap();
        assert_eq!(data_on(&file, bytes).unwrap(), None, "{bytes} bytes");
    }
}

#[test]
fn a_result_takes_the_place_of_nothing_but_an_earlier_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drive.lode");
    fs::write(&path, b"precious").unwrap();
    let other = directory.path().join("notes");
    fs::write(&other, b"also precious").unwrap();
    let drive = path.to_str().unwrap();
    let to = |output| refused(&Options { output: Some(output), ..options(drive) });
    assert!(to(&path).contains("is the drive that is measured"), "{}", to(&path));
    assert!(to(&other).contains("holds something else than an earlier result"), "{}", to(&other));
    assert!(to(Path::new("/dev/null")).contains("is no ordinary file"), "{}", to(Path::new("/dev/null")));
    let link = directory.path().join("link.toml");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(to(&link).contains("is the drive that is measured"), "{}", to(&link));
    let named_so = directory.path().join("io-properties.toml");
    fs::write(&named_so, b"precious").unwrap();
    let same = refused(&options(named_so.to_str().unwrap()));
    assert!(same.contains("is the drive that is measured"), "{same}");
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    assert_eq!(fs::read(&other).unwrap(), b"also precious");
    assert_eq!(fs::read(&named_so).unwrap(), b"precious");
    for text in ["", "version = 7\n"] {
        fs::write(&other, text).unwrap();
        super::check_output(&other, &path).unwrap();
    }
}

#[test]
fn a_result_goes_where_whoever_asks_is() {
    let output = Path::new("out.toml");
    let asked = Options { output: Some(output), ..options("/data/drive.lode") };
    let found = super::output_of(&Probe::new("/"), &asked, Kind::File, Path::new("/data/drive.lode"));
    assert_eq!(found, std::env::current_dir().unwrap().join(output));
}
