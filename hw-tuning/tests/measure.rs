//! `lode-tune measure` as people run it, on a file, and on devices whose answers are known.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a device may take to appear.
/// Most measurements of one device.
const ATTEMPTS: u32 = 6;
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a device.
const DEVICE_BYTES: u64 = 16 << 20;

fn measure(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lode-tune"));
    command.arg("measure").args(arguments).output().expect("lode-tune runs")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

fn curve<'a>(properties: &'a Value, operation: &str, block_bytes: u64) -> &'a Value {
    let curves = properties["curves"].as_array().expect("curves");
    let found = curves.iter().find(|c| c["operation"] == operation && c["block_bytes"] == block_bytes);
    found.unwrap_or_else(|| panic!("no curve of {operation} of {block_bytes}"))
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_file_is_measured_without_harm_and_told_as_table_json_and_toml() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("drive.lode");
    fs::write(&path, "precious").expect("written");
    let drive = path.to_str().expect("a path");
    let quick = ["--drive", drive, "--area", "8MiB", "--point", "0.01"];
    let output = measure(&quick);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for words in ["operation", "p99.9 us", "durable-write", "flush", "knee", "ACT's", "written to"] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    assert_eq!(fs::read(&path).expect("read"), b"precious");
    assert_eq!(names(directory.path()), ["drive.lode", "io-properties.toml"]);
    let told = json(&measure(&[&quick[..], &["--json", "--precondition"]].concat()));
    let properties = &told["properties"];
    assert_eq!(told["output"], directory.path().join("io-properties.toml").to_str().expect("a path"));
    assert_eq!(properties["measurement"]["preconditioned"], true);
    assert_eq!(properties["drive"]["kind"], "file");
    for (operation, block_bytes) in
        [("read", 262_144), ("write", 65_536), ("durable-write", 4096), ("flush", 4096)]
    {
        let points = curve(properties, operation, block_bytes)["points"].as_array().expect("points");
        assert!(points.len() >= 3 && points[0]["depth"] == 1, "{points:?}");
    }
    let written = fs::read_to_string(directory.path().join("io-properties.toml")).expect("the file");
    assert!(written.contains("\nversion = 1\n") && written.contains("tunables_hash = \""), "{written}");
}

#[test]
fn under_a_root_the_drive_the_facts_and_the_file_are_those_below_it() {
    let root = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(root.path().join("proc/sys/kernel")).expect("made");
    fs::create_dir_all(root.path().join("data")).expect("made");
    fs::write(root.path().join("proc/sys/kernel/osrelease"), "1.2.3-fixture\n").expect("written");
    let at = root.path().to_str().expect("a path");
    let quick = ["--sysroot", at, "--area", "4MiB", "--point", "0.01", "--json"];
    let told =
        json(&measure(&[&quick[..], &["--drive", "/data/drive.lode", "--output", "/out/p.toml"]].concat()));
    assert_eq!(told["properties"]["drive"]["kernel"], "1.2.3-fixture");
    assert_eq!(told["properties"]["drive"]["path"], "/data/drive.lode");
    assert!(root.path().join("out/p.toml").exists());
    assert_eq!(names(&root.path().join("data")), Vec::<String>::new());
}

#[test]
fn wrong_usage_is_told() {
    for (arguments, words) in [
        (["--point", "0.009"], "0.01 to 60"),
        (["--point", "60.1"], "0.01 to 60"),
        (["--area", "4XiB"], "as 4GiB"),
        (["--area", "99999999TiB"], "as 4GiB"),
        (["--sysroot", "/no/such"], "there is no directory"),
    ] {
        let output = measure(&arguments);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && text.contains(words), "{arguments:?}: {text}");
    }
}

/// A device of qemu's storage daemon, exported by FUSE as a file. Gone when dropped.
struct Device {
    daemon: Child,
    directory: tempfile::TempDir,
}

impl Device {
    /// A device of these layers, the last of which is called `out`; `None`, with a line, where there can be none.
    fn new(layers: &[String]) -> Option<Device> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("device");
        fs::write(&path, "").expect("made");
        let mut command = Command::new("qemu-storage-daemon");
        command.args(layers);
        command
            .arg("--export")
            .arg(format!("type=fuse,id=e,node-name=out,mountpoint={},writable=on", path.display()));
        let daemon = match command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn() {
            Ok(daemon) => daemon,
            Err(error) => {
                println!("no qemu-storage-daemon here ({error}): known devices were not measured");
                return None;
            }
        };
        let mut device = Device { daemon, directory };
        let begun = Instant::now();
        while fs::metadata(&path).map_or(0, |metadata| metadata.len()) != DEVICE_BYTES {
            let ended = device.daemon.try_wait().expect("asked");
            if ended.is_some() || begun.elapsed() > PATIENCE {
                println!(
                    "qemu-storage-daemon exports nothing here ({ended:?}): known devices were not measured"
                );
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(device)
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("device")
    }

    /// Measures it, with some milliseconds for each point.
    fn measured(&self, point: &str) -> Value {
        let path = self.path();
        let output = self.directory.path().join("p.toml");
        let words = ["--drive", path.to_str().expect("a path"), "--output", output.to_str().expect("a path")];
        json(&measure(&[&words[..], &["--destroy-data", "--point", point, "--json"]].concat()))["properties"]
            .clone()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // It may have ended by itself; its mount ends with it.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = Command::new("umount").arg("-l").arg(self.path()).stderr(Stdio::null()).status();
    }
}

fn layers(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

/// Others may want the machine at the same time: what is known of the device shows in one measurement of several.
fn measured_as_known(device: &Device, point: &str, judge: impl Fn(&Value) -> Result<(), String>) -> Value {
    let mut said = String::new();
    for _ in 0..ATTEMPTS {
        let properties = device.measured(point);
        match judge(&properties) {
            Ok(()) => return properties,
            Err(error) => said = error,
        }
    }
    panic!("{ATTEMPTS} measurements, none as the device is known; the last: {said}");
}

#[test]
fn a_device_with_a_known_rate_is_measured_near_it() {
    let Some(device) = Device::new(&layers(&[
        "--object",
        "throttle-group,id=t,x-iops-total=500,x-iops-total-max=500",
        "--blockdev",
        &format!("null-co,node-name=n,size={DEVICE_BYTES}"),
        "--blockdev",
        "throttle,node-name=out,throttle-group=t,file=n",
    ])) else {
        return;
    };
    let properties = measured_as_known(&device, "0.1", |properties| {
        for (operation, block_bytes) in [("read", 4096), ("write", 4096), ("read", 65_536)] {
            let curve = curve(properties, operation, block_bytes);
            for point in curve["points"].as_array().expect("points").iter().skip(1) {
                let iops = number(&point["iops"]);
                if !(350.0..=650.0).contains(&iops) {
                    return Err(format!("{operation} of {block_bytes}: {iops} a second, 500 allowed"));
                }
            }
        }
        Ok(())
    });
    assert_eq!(properties["mixed"]["act_multiple"], 0, "500 a second are less than ACT's least");
}

#[test]
fn a_device_with_a_known_latency_is_measured_near_it() {
    let Some(device) = Device::new(&layers(&[
        "--blockdev",
        &format!("null-co,node-name=out,size={DEVICE_BYTES},latency-ns=5000000"),
    ])) else {
        return;
    };
    measured_as_known(&device, "0.05", |properties| {
        for operation in ["read", "write", "durable-write"] {
            let alone = &curve(properties, operation, 4096)["points"][0];
            let p50_us = number(&alone["p50_us"]);
            if !(5_000.0..=10_000.0).contains(&p50_us) {
                return Err(format!("{operation}: {p50_us} us, 5,000 are known"));
            }
            let iops = number(&alone["iops"]);
            if !(80.0..=205.0).contains(&iops) {
                return Err(format!("{operation}: {iops} a second one at a time"));
            }
        }
        Ok(())
    });
}

/// A loop device over a file. Gone when dropped.
struct Loop(PathBuf);

impl Loop {
    /// `None`, with a line, where there can be none.
    fn over(file: &Path, more: &[&str]) -> Option<Loop> {
        let output = Command::new("losetup").args(["--find", "--show"]).args(more).arg(file).output();
        match output {
            Ok(output) if output.status.success() => {
                Some(Loop(String::from_utf8_lossy(&output.stdout).trim().into()))
            }
            told => {
                println!("no loop devices here ({told:?}): block devices were not measured");
                None
            }
        }
    }

    /// Measures it, shortly: how it ended, and what was said.
    fn measured(&self, more: &[&str]) -> (Option<i32>, String) {
        let output = self.0.with_extension("toml");
        let output = std::env::temp_dir().join(output.file_name().expect("a name"));
        let words =
            ["--drive", self.0.to_str().expect("a path"), "--output", output.to_str().expect("a path")];
        let told = measure(&[&words[..], &["--point", "0.01"], more].concat());
        // It is not there where nothing was measured.
        let _ = fs::remove_file(&output);
        (told.status.code(), String::from_utf8_lossy(&told.stderr).into_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

#[test]
fn a_block_device_that_was_measured_is_empty_still_and_one_with_data_is_not() {
    use std::os::unix::fs::FileExt;
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("device");
    fs::File::create(&file).and_then(|file| file.set_len(16 << 20)).expect("made");
    let Some(device) = Loop::over(&file, &[]) else { return };
    for _ in 0..2 {
        let (code, told) = device.measured(&[]);
        assert_eq!(code, Some(0), "{told}");
    }
    let writable = fs::OpenOptions::new().write(true).open(&device.0).expect("opened");
    writable.write_all_at(&[7; 64 << 10], 9 << 20).and_then(|()| writable.sync_all()).expect("written");
    drop(writable);
    let (code, told) = device.measured(&[]);
    assert!(code == Some(2) && told.contains("holds data of a kind that is not known at byte"), "{told}");
    let words = ["--drive", file.to_str().expect("a path"), "--destroy-data"];
    let told = String::from_utf8_lossy(&measure(&words).stderr).into_owned();
    assert!(told.contains("is made of it"), "{told}");
    let Some(read_only) = Loop::over(&file, &["--read-only"]) else { return };
    let (code, told) = read_only.measured(&["--destroy-data"]);
    assert!(code == Some(2) && told.contains("is read-only, and nothing was tried"), "{told}");
}
