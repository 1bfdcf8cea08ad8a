//! The file: what it may say, and what it is told where it says something else.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn point(depth: u32, iops: f64) -> Point {
    let us = f64::from(depth) / iops * 1e6;
    Point { depth, iops, bytes_per_s: iops * 4096.0, p50_us: us, p99_us: us * 2.0, p999_us: us * 3.0 }
}

fn properties() -> IoProperties {
    let directory = tempfile::tempdir().unwrap();
    IoProperties {
        version: VERSION,
        drive: Identity::of(Path::new("/nowhere"), directory.path()).unwrap(),
        measurement: Measurement {
            unix_s: 1_800_000_000,
            by: "lode-tune".into(),
            area_bytes: 1 << 30,
            preconditioned: false,
            direct: true,
            point_s: 1.0,
            points: 5,
        },
        mixed: Some(Mixed {
            act_multiple: 3,
            trial_s: 2.0,
            above_1_ms_percent: 4.0,
            above_8_ms_percent: 0.5,
            above_64_ms_percent: 0.0,
        }),
        curves: vec![
            Curve::new(Operation::Read, 4096, vec![point(1, 1000.0), point(2, 1990.0), point(4, 2000.0)]),
            Curve::new(Operation::DurableWrite, 4096, vec![point(1, 500.0)]),
            Curve::new(Operation::Flush, 4096, vec![point(1, 900.0)]),
        ],
    }
}

fn parse(text: &str) -> Result<IoProperties, String> {
    IoProperties::parse(Path::new("p.toml"), text).map_err(|error| error.to_string())
}

/// What is said of a file that was changed.
fn said(change: impl FnOnce(&mut IoProperties)) -> Option<String> {
    let mut properties = properties();
    change(&mut properties);
    properties.measurement.points = properties.curves.iter().map(|curve| curve.points.len()).sum();
    parse(&properties.to_toml()).err()
}

#[test]
fn what_is_written_is_read() {
    let whole = properties();
    assert_eq!(parse(&whole.to_toml()).unwrap(), whole);
    let without = IoProperties { mixed: None, ..whole };
    assert_eq!(parse(&without.to_toml()).unwrap(), without);
}

#[test]
fn the_knee_is_the_least_depth_with_nine_tenths_of_the_most() {
    let knee = |iops: &[f64]| {
        let points = iops.iter().enumerate().map(|(place, iops)| point(1 << place, *iops)).collect();
        Curve::new(Operation::Read, 4096, points).knee_depth
    };
    // Eight at once, and no more.
    assert_eq!(knee(&[100.0, 200.0, 400.0, 800.0, 800.0, 800.0]), 8);
    assert_eq!(knee(&[100.0, 100.0, 100.0]), 1, "one after the other");
    assert_eq!(knee(&[100.0, 200.0, 400.0]), 4, "there may be more");
    assert_eq!(knee(&[89.0, 100.0, 60.0]), 2);
    assert_eq!(knee(&[90.0, 100.0, 60.0]), 1);
    assert_eq!(knee(&[5.0]), 1);
}

#[test]
fn a_file_that_ends_early_anywhere_is_refused() {
    let text = properties().to_toml();
    let whole = text.trim_end().len();
    for end in (0..whole).filter(|end| text.is_char_boundary(*end)) {
        // The last number may be cut to a shorter one, which is no number of this point any more.
        let error = parse(&text[..end]);
        let is_shorter_number = end > text.rfind('=').unwrap() + 1;
        assert!(error.is_err() || is_shorter_number, "{end}: {:?}", &text[..end]);
    }
    let without_flush = &text[..text.rfind("[[curves]]").unwrap()];
    assert!(parse(without_flush).unwrap_err().contains("4 points, and was written with 5"));
    assert!(parse("").unwrap_err().contains("p.toml"), "{:?}", parse(""));
}

#[test]
fn other_versions_and_keys_are_named() {
    let text = properties().to_toml();
    for version in [0, VERSION + 1] {
        let other = text.replacen("version = 1", &format!("version = {version}\nnew = 1"), 1);
        let error = parse(&other).unwrap_err();
        assert!(error.contains(&format!("p.toml has version {version}, this program knows 1")), "{error}");
    }
    let error = parse(&text.replacen("point_s", "piont_s", 1)).unwrap_err();
    assert!(error.contains("p.toml, line ") && error.contains("unknown field `piont_s`"), "{error}");
    let error = parse(&text.replacen("\"durable-write\"", "\"trim\"", 1)).unwrap_err();
    assert!(error.contains("unknown variant `trim`"), "{error}");
    let error = parse(&text.replacen("version = 1", "version = \"1\"", 1)).unwrap_err();
    assert!(error.contains("line 3") && error.contains("lode-tune measure"), "{error}");
}

#[test]
fn what_cannot_be_is_told_at_and_beyond_each_limit() {
    let first = |change: fn(&mut Point)| said(|p| change(&mut p.curves[1].points[0]));
    let cases: [(Option<String>, &str); 14] = [
        (first(|p| p.depth = 0), "a depth is 1 to 1024"),
        (first(|p| p.depth = 1025), "a depth is 1 to 1024"),
        (first(|p| p.iops = 0.0), "0 operations a second"),
        (first(|p| p.iops = -1.0), "-1 operations a second"),
        (first(|p| p.iops = f64::NAN), "NaN operations a second"),
        (first(|p| p.iops = f64::INFINITY), "inf operations a second"),
        (first(|p| p.bytes_per_s *= 1.02), "are not"),
        (first(|p| p.p50_us = p.p99_us * 1.1), "p50, p99 and p99.9"),
        (first(|p| p.p999_us = 3.7e9), "p50, p99 and p99.9"),
        (first(|p| p.p50_us = -1.0), "p50, p99 and p99.9"),
        (said(|p| p.curves[0].knee_depth = 4), "its knee is at depth 2, not 4"),
        (said(|p| p.curves[0].points.swap(0, 1)), "its depths do not rise"),
        (said(|p| p.mixed.as_mut().unwrap().above_1_ms_percent = 100.1), "mixed says"),
        (said(|p| p.measurement.point_s = 0.0), "measurement.point_s is 0"),
    ];
    for (error, words) in cases {
        let error = error.unwrap_or_else(|| panic!("taken: {words}"));
        assert!(error.contains(words) && error.contains("measure anew"), "{words}: {error}");
    }
    assert_eq!(first(|p| p.bytes_per_s *= 1.009), None);
    assert_eq!(said(|p| (p.curves[1].points[0].depth, p.curves[1].knee_depth) = (1024, 1024)), None);
    for block_bytes in [0, 2048, 12288, 2 << 20] {
        let error = said(|p| p.curves[0].block_bytes = block_bytes).unwrap();
        assert!(error.contains("a block is a power of two"), "{error}");
    }
}

#[test]
fn there_are_neither_too_few_nor_too_many_curves_and_points() {
    assert!(said(|p| p.curves.clear()).unwrap().contains("0 curves"));
    assert!(said(|p| p.curves[0].points.clear()).unwrap().contains("0 points"));
    assert!(said(|p| drop(p.curves.remove(0))).unwrap().contains("no curve of read"));
    assert!(said(|p| drop(p.curves.remove(1))).unwrap().contains("no curve of durable-write"));
    assert!(said(|p| p.curves.push(p.curves[0].clone())).unwrap().contains("is there twice"));
    assert!(said(|p| p.curves.resize(MAX_CURVES + 1, p.curves[0].clone())).unwrap().contains("65 curves"));
    let points = |n: u32| (1..=n).map(|depth| point(depth, 1000.0)).collect::<Vec<_>>();
    assert_eq!(said(|p| p.curves[1].points = points(MAX_POINTS as u32)), None);
    let error = said(|p| p.curves[1].points = points(MAX_POINTS as u32 + 1)).unwrap();
    assert!(error.contains("65 points"), "{error}");
}

#[test]
fn files_that_are_missing_too_long_or_no_text_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join(FILE_NAME);
    let load = || IoProperties::load(&path);
    assert!(matches!(load(), Err(IoPropertiesError::Missing(_))));
    let padded = |bytes: usize| {
        let text = properties().to_toml();
        text.clone() + &"#".repeat(bytes - text.len())
    };
    fs::write(&path, padded(MAX_FILE_BYTES as usize)).unwrap();
    load().unwrap();
    fs::write(&path, padded(MAX_FILE_BYTES as usize + 1)).unwrap();
    assert!(matches!(load(), Err(IoPropertiesError::TooLong(_))));
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(matches!(load(), Err(IoPropertiesError::Form { .. })));
    assert!(matches!(IoProperties::load(directory.path()), Err(IoPropertiesError::Io { .. })));
}

/// A machine with one disk, on which `directory` lies.
fn machine(directory: &Path) -> tempfile::TempDir {
    use std::os::unix::fs::MetadataExt;
    let root = tempfile::tempdir().unwrap();
    let device = fs::metadata(directory).unwrap().dev();
    let disk = root.path().join("sys/devices/nvme0n1");
    let set = |path: PathBuf, text: &str| {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, format!("{text} \n")).unwrap();
    };
    for (file, text) in [
        ("device/serial", "S1"),
        ("device/model", "A Drive"),
        ("device/firmware_rev", "F2"),
        ("queue/logical_block_size", "512"),
        ("queue/scheduler", "mq-deadline [none]"),
        ("queue/nr_requests", "1023"),
        ("nvme0n1p1/partition", "1"),
    ] {
        set(disk.join(file), text);
    }
    set(root.path().join("proc/sys/kernel/osrelease"), "6.12.1");
    fs::create_dir_all(root.path().join("sys/dev/block")).unwrap();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // The file lies on a partition; what is told of the disk is told there.
    symlink(disk.join("nvme0n1p1"), root.path().join("sys/dev/block").join(number)).unwrap();
    root
}

#[test]
fn a_file_is_known_by_the_disk_below_whether_it_is_there_or_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = machine(directory.path());
    let path = directory.path().join("drive.lode");
    let before = Identity::of(root.path(), &path).unwrap();
    assert_eq!(before.serial.as_deref(), Some("S1"));
    assert_eq!(before.model.as_deref(), Some("A Drive"));
    assert_eq!(before.firmware.as_deref(), Some("F2"));
    assert_eq!((before.logical_block_bytes, before.kernel.as_str()), (Some(512), "6.12.1"));
    assert_eq!((before.kind, before.tunables["scheduler"].as_str()), (Kind::File, "none"));
    fs::write(&path, "x").unwrap();
    assert_eq!(Identity::of(root.path(), &path).unwrap(), before);
    assert!(Identity::of(root.path(), &directory.path().join("no/drive")).is_err());
}

#[test]
fn what_lies_out_of_the_root_is_not_told_and_a_pipe_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let root = machine(directory.path());
    let path = directory.path().join("drive.lode");
    let outside = directory.path().join("outside");
    fs::write(&outside, "secret").unwrap();
    let disk = root.path().join("sys/devices/nvme0n1");
    fs::remove_file(disk.join("device/serial")).unwrap();
    symlink(&outside, disk.join("device/serial")).unwrap();
    fs::remove_file(disk.join("device/model")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(disk.join("device/model")).status().unwrap().success());
    let told = Identity::of(root.path(), &path).unwrap();
    assert_eq!((told.serial, told.model, told.firmware.as_deref()), (None, None, Some("F2")));
}

#[test]
fn another_drive_kernel_or_setting_is_named_and_another_path_on_the_disk_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let root = machine(directory.path());
    let was = Identity::of(root.path(), &directory.path().join("a")).unwrap();
    let now = || Identity::of(root.path(), &directory.path().join("b")).unwrap();
    assert_eq!(was.differences(&now()), Vec::<String>::new());
    let disk = root.path().join("sys/devices/nvme0n1");
    for (file, text, words) in [
        ("queue/scheduler", "[mq-deadline] none", "scheduler was none, is mq-deadline"),
        ("queue/write_cache", "write back", "write_cache was not told, is write back"),
        ("queue/logical_block_size", "4096", "its logical block was 512 bytes, is 4096 bytes"),
        ("device/firmware_rev", "F3", "its firmware was F2, is F3"),
        ("device/serial", "S2", "its serial number was S1, is S2"),
        ("../../../proc/sys/kernel/osrelease", "6.12.2", "the kernel was 6.12.1, is 6.12.2"),
    ] {
        let before = fs::read_to_string(disk.join(file)).ok();
        fs::write(disk.join(file), text).unwrap();
        assert_eq!(was.differences(&now()), [words]);
        match before {
            Some(before) => fs::write(disk.join(file), before).unwrap(),
            None => fs::remove_file(disk.join(file)).unwrap(),
        }
    }
    fs::remove_file(disk.join("device/serial")).unwrap();
    let was = Identity { serial: None, ..was };
    assert!(
        was.differences(&now())[0].starts_with("its path was "),
        "without a serial number the path counts"
    );
    let device = Identity { kind: Kind::BlockDevice, path: now().path, ..was };
    assert_eq!(device.differences(&now()), ["the drive was a block device, is a file"]);
}

#[test]
fn tunables_that_were_edited_are_seen() {
    let error = said(|p| drop(p.drive.tunables.insert("scheduler".into(), "none".into()))).unwrap();
    assert!(error.contains("drive.tunables have the hash"), "{error}");
    let error = said(|p| drop(p.drive.tunables.insert("colour".into(), "red".into()))).unwrap();
    assert!(error.contains("no setting \"colour\""), "{error}");
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("io-properties.toml");
    rustix::fs::mkfifoat(rustix::fs::CWD, &path, rustix::fs::Mode::RUSR).unwrap();
    let refused = IoProperties::load(&path).unwrap_err();
    assert!(refused.to_string().contains("no ordinary file"), "{refused}");
    assert!(IoProperties::load(directory.path()).is_err());
}
