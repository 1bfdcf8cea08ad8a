//! What follows from a measurement, and which file is taken.

use std::path::Path;

use lode_net::io_properties::{FILE_NAME, Identity, Measurement, Point, VERSION};

use super::*;

/// A curve of a drive that does `at_once` of these at a time, each of which takes so long.
fn curve(operation: Operation, block_bytes: u32, at_once: u32, us: f64) -> Curve {
    let point = |depth: u32| {
        let iops = f64::from(depth.min(at_once)) / us * 1e6;
        let p50_us = f64::from(depth) / iops * 1e6;
        let bytes_per_s = iops * f64::from(block_bytes);
        Point { depth, iops, bytes_per_s, p50_us, p99_us: p50_us * 2.0, p999_us: p50_us * 4.0 }
    };
    Curve::new(operation, block_bytes, (0..=9).map(|n| point(1 << n)).collect())
}

fn properties(path: &Path, curves: Vec<Curve>) -> IoProperties {
    IoProperties {
        version: VERSION,
        drive: Identity::of(Path::new("/"), path).unwrap(),
        measurement: Measurement {
            unix_s: 0,
            by: "a test".into(),
            area_bytes: 1 << 30,
            preconditioned: false,
            direct: true,
            point_s: 1.0,
            points: curves.iter().map(|curve| curve.points.len()).sum(),
        },
        mixed: None,
        curves,
    }
}

fn drive(reads_at_once: u32, read_us: f64, writes_at_once: u32, write_us: f64) -> IoProperties {
    let curves = vec![
        curve(Operation::Read, 4096, reads_at_once, read_us),
        curve(Operation::DurableWrite, FRAME_BYTES, writes_at_once, write_us),
    ];
    properties(&std::env::temp_dir(), curves)
}

#[test]
fn a_wide_and_quick_drive_and_a_narrow_and_slow_one() {
    let quick = IoLimits::measured(&drive(256, 80.0, 8, 40.0), 4);
    assert_eq!((quick.most_running, quick.free_running, quick.free_among_many), (128, 32, 16));
    assert_eq!((quick.frames_in_flight, quick.commit_window), (2, Duration::from_micros(80)));
    assert_eq!(quick.longest_spin, Duration::from_micros(120));
    // 256 reads in 80 us are 3.2 million a second, of 4 KiB; 8 frames in 40 us are 13.1 GB/s: 4 KiB for each read.
    assert_eq!((quick.read_bytes_per_cost, quick.write_bytes_per_cost), (4096, 4096));
    let slow = IoLimits::measured(&drive(1, 5_000.0, 1, 9_000.0), 4);
    assert_eq!((slow.most_running, slow.free_running, slow.free_among_many), (64, 8, 4));
    assert_eq!((slow.frames_in_flight, slow.commit_window), (1, Duration::from_millis(2)));
    assert_eq!(slow.longest_spin, LEAST_SPIN, "looking for 5 ms costs more than waking");
    assert_eq!((slow.read_bytes_per_cost, slow.write_bytes_per_cost), (4096, 36_408));
}

#[test]
fn values_stay_within_their_bounds() {
    let most = IoLimits::measured(&drive(512, 1.0, 512, 1e6), 1);
    assert_eq!((most.most_running, most.free_running, most.frames_in_flight), (512, 32, MOST_FRAMES));
    assert_eq!((most.longest_spin, most.write_bytes_per_cost), (LEAST_SPIN, 1024));
    let least = IoLimits::measured(&drive(1, 1.0, 1, 1.0), 256);
    assert_eq!((least.most_running, least.free_running, least.frames_in_flight), (64, 8, 1));
    assert_eq!(least.commit_window, Duration::from_micros(50));
    let at = |us| IoLimits::measured(&drive(1, us, 1, 1.0), 1).longest_spin;
    assert_eq!((at(QUICK_READ_US), at(QUICK_READ_US + 1.0)), (Duration::from_micros(225), LEAST_SPIN));
    let sparse = properties(
        &std::env::temp_dir(),
        vec![curve(Operation::Read, 1 << 20, 2, 10.0), curve(Operation::DurableWrite, 4096, 2, 10.0)],
    );
    assert_eq!(IoLimits::measured(&sparse, 1).frames_in_flight, 2, "the nearest curves that there are");
}

/// What is chosen for a drive in a directory with this text beside it.
fn chosen(directory: &Path, wanted: Wanted) -> Chosen {
    let now = Identity::of(Path::new("/"), &directory.join("drive.lode"));
    choose(&wanted, 2, now.map_err(|error| error.to_string()))
}

#[test]
fn a_file_of_this_drive_counts_and_what_is_given_counts_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("drive.lode");
    let own = chosen(directory.path(), Wanted::default());
    assert_eq!((own.limits, own.origin, own.refused), (IoLimits::default(), Origin::Default, false));
    assert!(own.to_text().contains("lode-tune measure writes one"), "{}", own.to_text());
    let whole =
        IoProperties { drive: Identity::of(Path::new("/"), &path).unwrap(), ..drive(64, 90.0, 4, 100.0) };
    std::fs::write(directory.path().join(FILE_NAME), whole.to_toml()).unwrap();
    let measured = chosen(directory.path(), Wanted::default());
    assert_eq!(
        (measured.origin, measured.window_origin, measured.refused),
        (Origin::Measured, Origin::Measured, false)
    );
    assert_eq!(measured.limits, IoLimits::measured(&whole, 2));
    let window = Some(Duration::from_micros(77));
    let given = chosen(directory.path(), Wanted { file: None, commit_window: window });
    assert_eq!((given.origin, given.window_origin), (Origin::Measured, Origin::Given));
    assert_eq!(given.limits, IoLimits { commit_window: Duration::from_micros(77), ..measured.limits });
    let text = given.to_text();
    assert!(
        text.contains("commit_window_us 77 (given)") && text.contains("spin_us 135 (measured)"),
        "{text}"
    );
    assert_eq!(given.to_json()["values"]["commit_window_us"]["origin"], "given");
    assert_eq!(given.to_json()["values"]["requests_of_one"]["value"], measured.limits.most_running);
}

#[test]
fn another_drives_file_a_broken_one_and_a_missing_one_are_refused_and_defaults_count() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("p.toml");
    let refused = |words: &str| {
        let wanted = Wanted { file: Some(file.clone()), commit_window: None };
        let chosen = chosen(directory.path(), wanted);
        assert_eq!(
            (chosen.limits, chosen.origin, chosen.refused),
            (IoLimits::default(), Origin::Default, true)
        );
        assert!(chosen.source.contains(words), "{words}: {}", chosen.source);
        assert!(chosen.to_text().starts_with("lode's own values: requests_of_one 128 (default)"));
    };
    refused("there is no ");
    let mut whole = drive(64, 90.0, 4, 100.0);
    whole.drive = Identity::of(Path::new("/"), &directory.path().join("drive.lode")).unwrap();
    whole.drive.kernel = "1.2.3".into();
    std::fs::write(&file, whole.to_toml()).unwrap();
    refused("the kernel was 1.2.3, is ");
    refused("measure anew (lode-tune measure --drive ");
    let text = whole.to_toml();
    std::fs::write(&file, &text[..text.len() / 2]).unwrap();
    refused("measure anew");
    std::fs::write(&file, text.replace("version = 1", "version = 9")).unwrap();
    refused("has version 9");
}

#[test]
fn what_a_file_says_takes_one_line_of_a_log_and_a_short_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(FILE_NAME);
    let mut of_another = properties(directory.path(), vec![curve(Operation::Read, 4096, 8, 100.0)]);
    of_another.drive.kernel = format!("6\nlistening at 6.6.6.6:1\u{1b}[31m{}", "x".repeat(900_000));
    std::fs::write(&path, of_another.to_toml()).expect("written");
    let found = chosen(directory.path(), Wanted { file: Some(path), ..Wanted::default() });
    assert!(found.refused, "{}", found.source);
    assert!(!found.source.chars().any(char::is_control), "{}", found.source);
    assert!(found.source.len() < 1_100, "{} bytes", found.source.len());
}
