//! The main job, small: quickstart on a directory of its own, and what it leaves behind.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lode_tests::node::binary;
use serde_json::Value;

/// Files of many sizes, in folders, with names that need care.
fn write_input(directory: &Path) -> (u64, u64) {
    let (mut files, mut bytes) = (0, 0);
    for number in 0..1200u64 {
        let folder = directory.join(format!("folder {}", number % 9));
        fs::create_dir_all(&folder).expect("a temporary directory takes folders");
        let len = if number == 77 { 2_500_000 } else { number * 7 % 5000 };
        let text: Vec<u8> = (0..len).map(|i| (i * number % 251) as u8).collect();
        fs::write(folder.join(format!("file {number}.txt")), &text).expect("a file can be written");
        files += 1;
        bytes += len;
    }
    (files, bytes)
}

fn quickstart(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.arg("quickstart").args(["--json", "--duration", "1s", "--input"]).arg(directory.join("input"));
    command.arg("--data").arg(directory.join("data/drive.lode")).args(arguments);
    command.current_dir(directory).output().expect("the binary can be run")
}

fn check(output: &Output, files: u64, bytes: u64) -> Value {
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}\n{words}", output.status);
    let json: Value = serde_json::from_slice(&output.stdout).expect("stdout is one JSON object");
    assert_eq!(json["verified"], true, "{json:#}");
    assert_eq!(json["acknowledged_lost"], 0, "{json:#}");
    assert!(json["acknowledged"].as_u64() > Some(0), "{json:#}");
    assert!(json["records"].as_u64() >= Some(files), "{json:#}");
    assert!(json["bytes"].as_u64() >= Some(bytes), "{json:#}");
    assert!(json["partitions"].as_u64() > Some(1000), "{json:#}");
    assert_eq!(json["device_reads_per_cold_get"], 1.0, "{json:#}");
    for name in ["get_us", "put_us"] {
        let value = |quantile: &str| json[name][quantile].as_u64().expect("a latency is a number");
        assert!(value("p50") <= value("p99") && value("p99") <= value("p999"), "{json:#}");
        assert!(value("p999") <= value("max") && value("max") > 0, "{json:#}");
    }
    json
}

#[test]
fn quickstart_verifies_what_it_claims_and_can_be_run_again() {
    let directory = tempfile::tempdir().unwrap();
    let (files, bytes) = write_input(&directory.path().join("input"));
    let first = check(&quickstart(directory.path(), &[]), files, bytes);
    let drive = directory.path().join("data/drive.lode");
    assert_eq!(first["drive"].as_str(), drive.to_str());
    let offline = Command::new(binary()).arg("check").arg(&drive).output().unwrap();
    assert!(offline.status.success(), "{}", String::from_utf8_lossy(&offline.stdout));
    check(&quickstart(directory.path(), &["--shards", "1"]), files, bytes);
}

#[test]
fn quickstart_leaves_a_drive_alone_that_it_did_not_make() {
    let directory = tempfile::tempdir().unwrap();
    write_input(&directory.path().join("input"));
    let drive = directory.path().join("data/drive.lode");
    fs::create_dir_all(drive.parent().unwrap()).unwrap();
    fs::write(&drive, b"somebody's data").unwrap();
    let output = quickstart(directory.path(), &[]);
    assert!(!output.status.success());
    assert_eq!(fs::read(&drive).unwrap(), b"somebody's data");
}
