//! The program as people run it, on a machine of a few files.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A machine with one drive and a few settings.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a file of the fixture");
    for (path, text) in [
        ("proc/sys/kernel/osrelease", "6.12.0"),
        ("proc/sys/kernel/io_uring_disabled", "0"),
        ("proc/sys/kernel/random/boot_id", "this-boot"),
        ("proc/sys/net/core/somaxconn", "128"),
        ("proc/sys/vm/stat_interval", "1"),
        ("sys/devices/pci/nvme0/serial", "SERIAL-A"),
        ("sys/devices/pci/nvme0/nvme0n1/queue/nomerges", "0"),
        ("sys/devices/pci/nvme0/nvme0n1/queue/iostats", "1"),
        ("sys/devices/pci/nvme0/nvme0n1/queue/logical_block_size", "4096"),
    ] {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a file of the fixture")).expect("a file of the fixture");
        fs::write(path, format!("{text}\n")).expect("a file of the fixture");
    }
    fs::create_dir_all(root.path().join("sys/block")).expect("a file of the fixture");
    let link = |target: &str, path: &str| {
        std::os::unix::fs::symlink(target, root.path().join(path)).expect("a file of the fixture")
    };
    link("../devices/pci/nvme0/nvme0n1", "sys/block/nvme0n1");
    link("..", "sys/devices/pci/nvme0/nvme0n1/device");
    root
}

fn tune(root: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lode-tune"));
    command.args(arguments).arg("--sysroot").arg(root).output().expect("lode-tune runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

const WANTED: [&str; 4] = ["--profile", "generic-nvme", "--drive", "id:SERIAL-A"];

fn with<'a>(verb: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [verb, &WANTED, more].concat()
}

#[test]
fn check_apply_check_revert_check() {
    let root = machine();
    let settings = || {
        [
            "proc/sys/net/core/somaxconn",
            "proc/sys/vm/stat_interval",
            "sys/block/nvme0n1/queue/nomerges",
            "sys/block/nvme0n1/queue/iostats",
        ]
        .map(|path| fs::read_to_string(root.path().join(path)).unwrap())
    };
    let before = settings();
    let checked = tune(root.path(), &with(&["check"], &["--json"]));
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert_eq!(json(&checked)["warn"], 4, "{}", text(&checked.stdout));
    let planned = tune(root.path(), &with(&["tune", "plan"], &["--json"]));
    assert_eq!(planned.status.code(), Some(0));
    assert_eq!(json(&planned)["writes"].as_array().unwrap().len(), 4);
    assert_eq!(settings(), before, "a plan changes nothing");
    let applied = tune(root.path(), &with(&["tune", "apply"], &["--json"]));
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    let attempts = json(&applied)["attempts"].as_array().unwrap().clone();
    assert!(
        attempts.len() == 4 && attempts.iter().all(|attempt| attempt["outcome"] == "done"),
        "{attempts:?}"
    );
    assert_eq!(tune(root.path(), &with(&["check"], &[])).status.code(), Some(0));
    assert!(root.path().join("var/lib/lode-tune/journal").exists());
    let reverted = tune(root.path(), &["tune", "revert"]);
    assert_eq!(reverted.status.code(), Some(0), "{reverted:?}");
    assert!(
        text(&reverted.stdout).contains("4 restored and read back, 0 failed"),
        "{}",
        text(&reverted.stdout)
    );
    assert_eq!(settings(), before);
    assert!(!root.path().join("var/lib/lode-tune/journal").exists());
}

#[test]
fn render_writes_files_below_a_directory() {
    let root = machine();
    let output = root.path().join("out");
    let rendered = tune(root.path(), &with(&["tune", "render"], &["--output", output.to_str().unwrap()]));
    assert_eq!(rendered.status.code(), Some(0), "{rendered:?}");
    let sysctl = fs::read_to_string(output.join("etc/sysctl.d/90-lode.conf")).unwrap();
    assert!(sysctl.contains("net.core.somaxconn = 4096"), "{sysctl}");
    let printed = tune(root.path(), &with(&["tune", "render"], &["--json"]));
    assert_eq!(json(&printed)["etc/sysctl.d/90-lode.conf"], sysctl);
    use std::os::unix::fs::PermissionsExt;
    let script = fs::metadata(output.join("usr/local/sbin/lode-tune-now")).unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o755);
}

#[test]
fn inspect_tells_the_drives() {
    let root = machine();
    let told = json(&tune(root.path(), &["inspect", "--json"]));
    assert_eq!(told["drives"][0]["id"], "SERIAL-A");
    assert!(text(&tune(root.path(), &["inspect"]).stdout).contains("drive nvme0n1 (SERIAL-A):"));
}

#[test]
fn a_second_one_waits_for_nobody() {
    let root = machine();
    let directory = root.path().join("var/lib/lode-tune");
    fs::create_dir_all(&directory).unwrap();
    let held = fs::File::open(&directory).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused = tune(root.path(), &with(&["tune", "apply"], &[]));
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("another lode-tune is at work"), "{refused:?}");
    assert_eq!(fs::read_to_string(root.path().join("proc/sys/net/core/somaxconn")).unwrap(), "128\n");
}

#[test]
fn what_is_wrong_with_the_command_line_is_said() {
    let root = machine();
    for (arguments, part) in [
        (vec!["check", "--profile", "nothing"], "there is no profile \"nothing\""),
        (vec!["check", "--profile", "/nowhere.toml"], "/nowhere.toml: No such file"),
        (vec!["check", "--colour"], "--colour"),
        (vec!["tune"], "Usage"),
    ] {
        let refused = tune(root.path(), &arguments);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        assert!(text(&refused.stderr).contains(part), "{refused:?}");
    }
    let nowhere = tune(Path::new("/nowhere"), &["inspect"]);
    assert_eq!(nowhere.status.code(), Some(64));
    assert!(text(&nowhere.stderr).contains("there is no directory /nowhere"));
}

#[test]
fn a_file_without_an_end_is_not_read_to_the_end_of_memory() {
    let root = machine();
    let path = root.path().join("proc/sys/vm/stat_interval");
    fs::File::create(&path).unwrap().set_len(17 << 20).unwrap();
    let applied = tune(root.path(), &with(&["tune", "apply"], &[]));
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    let checked = json(&tune(root.path(), &with(&["check"], &["--json"])));
    let knobs = checked["knobs"].as_array().unwrap();
    let knob = knobs.iter().find(|knob| knob["name"] == "stat_interval").unwrap();
    assert_eq!(knob["severity"], "not_applicable");
    assert!(knob["why"].as_str().unwrap().contains("longer than 16 MiB"), "{knob}");
    let endless = tune(root.path(), &["check", "--profile", "/dev/zero"]);
    assert_eq!(endless.status.code(), Some(64), "{endless:?}");
}

/// A program in a directory of its own, for `PATH`.
fn program(directory: &Path, name: &str, script: &str) {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(directory).expect("written");
    fs::write(directory.join(name), format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(directory.join(name), fs::Permissions::from_mode(0o755)).expect("written");
}

#[test]
fn a_drive_is_formatted_only_by_its_id_and_only_empty() {
    let root = machine();
    let at = |path: &str| root.path().join(path);
    fs::create_dir_all(at("dev")).unwrap();
    fs::File::create(at("dev/nvme0n1")).unwrap().set_len(4 << 20).unwrap();
    let block = at("sys/block/nvme0n1/queue/logical_block_size");
    fs::write(&block, "512\n").unwrap();
    let script = format!("echo \"$@\" >> {}; echo 4096 > {}", at("asked").display(), block.display());
    program(&at("bin"), "nvme", &script);
    let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap_or_default());
    let format = |drive: &str, size: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lode-tune"));
        command
            .args(["format-lba", "--json", "--drive", drive, "--block", size, "--sysroot"])
            .arg(root.path());
        command.env("PATH", &path).output().expect("lode-tune runs")
    };
    for (drive, size, code, words) in [
        ("/dev/nvme0n1", "4096", 64, "another drive after the next boot"),
        ("id:SERIAL-A", "8192", 64, "512 or 4096"),
        ("id:NOBODY", "4096", 2, "no disk has the serial number"),
    ] {
        let refused = format(drive, size);
        assert_eq!(refused.status.code(), Some(code), "{refused:?}");
        assert!(text(&refused.stderr).contains(words), "{refused:?}");
    }
    let mut content = vec![0; 4 << 20];
    content[..4].copy_from_slice(b"LODE");
    fs::write(at("dev/nvme0n1"), &content).unwrap();
    let refused = format("id:SERIAL-A", "4096");
    assert!(text(&refused.stderr).contains("holds a lode drive"), "{refused:?}");
    fs::write(at("dev/nvme0n1"), vec![0; 4 << 20]).unwrap();
    let held = fs::File::open(at("dev/nvme0n1")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(text(&format("id:SERIAL-A", "4096").stderr).contains("has it open"));
    drop(held);
    assert!(!at("asked").exists(), "nothing was asked of the drive until now");
    assert_eq!(json(&format("id:SERIAL-A", "4096"))["to_bytes"], 4096);
    assert!(fs::read_to_string(at("asked")).unwrap().ends_with("dev/nvme0n1 --block-size=4096 --force\n"));
    // Already so: nothing is asked.
    assert_eq!(json(&format("id:SERIAL-A", "4096"))["from_bytes"], 4096);
    assert_eq!(fs::read_to_string(at("asked")).unwrap().lines().count(), 1);
}

#[test]
fn a_drive_that_nothing_uses_is_asked_for_its_formats() {
    let root = machine();
    let at = |path: &str| root.path().join(path);
    let script = format!(
        "echo \"$@\" >> {}; echo '{{\"lbafs\":[{{\"ms\":0,\"ds\":9}},{{\"ms\":0,\"ds\":12}}]}}'",
        at("asked").display()
    );
    let inspected = || {
        let path = format!("{}:{}", at("bin").display(), std::env::var("PATH").unwrap_or_default());
        let mut command = Command::new(env!("CARGO_BIN_EXE_lode-tune"));
        command.args(["inspect", "--json", "--sysroot"]).arg(root.path()).env("PATH", path);
        json(&command.output().expect("lode-tune runs"))["drives"][0]["lba_formats"].clone()
    };
    program(&at("bin"), "nvme", &script);
    assert!(inspected()["unknown"].as_str().unwrap().contains("run as root"), "{}", inspected());
    fs::create_dir_all(at("dev")).unwrap();
    fs::write(at("dev/nvme0n1"), vec![0; 4096]).unwrap();
    let held = fs::File::open(at("dev/nvme0n1")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(inspected()["unknown"].as_str().unwrap().contains("a node has it open"), "{}", inspected());
    drop(held);
    assert!(!at("asked").exists(), "nothing was asked until now");
    // The drive of the fixture has blocks of 4096 bytes.
    assert_eq!(inspected(), serde_json::json!([512]));
    assert!(fs::read_to_string(at("asked")).unwrap().ends_with("dev/nvme0n1 --output-format=json\n"));
    fs::create_dir_all(at("sys/devices/pci/nvme0/nvme0n1/holders/dm-0")).unwrap();
    assert!(inspected()["unknown"].as_str().unwrap().contains("it is in use"), "{}", inspected());
    fs::remove_dir_all(at("sys/devices/pci/nvme0/nvme0n1/holders")).unwrap();
    program(&at("bin"), "nvme", "echo no such drive; exit 1");
    assert!(inspected()["unknown"].as_str().unwrap().contains("did not answer"), "{}", inspected());
}

#[test]
fn a_copy_of_a_machine_is_left_as_it_was_to_the_byte() {
    let root = machine();
    let at = |path: &str| root.path().join(path);
    let texts = [
        ("sys/devices/pci/nvme0/nvme0n1/queue/scheduler", "none  [mq-deadline] kyber\n"),
        ("sys/devices/pci/nvme0/nvme0n1/queue/nr_requests", "64"),
        ("sys/devices/pci/nvme0/nvme0n1/queue/rq_affinity", "1 \n\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never\n"),
    ];
    for (path, text) in texts {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), text).unwrap();
    }
    let applied = tune(root.path(), &with(&["tune", "apply"], &["--json"]));
    assert_eq!(applied.status.code(), Some(0), "{applied:?}");
    assert_eq!(fs::read_to_string(at(texts[0].0)).unwrap(), "[none]  mq-deadline kyber\n");
    assert_eq!(fs::read_to_string(at(texts[3].0)).unwrap(), "always [madvise] never\n");
    assert_eq!(tune(root.path(), &with(&["check"], &[])).status.code(), Some(0));
    assert_eq!(tune(root.path(), &["tune", "revert"]).status.code(), Some(0));
    for (path, text) in texts {
        assert_eq!(fs::read_to_string(at(path)).unwrap(), text, "{path}");
    }
}

#[test]
fn links_and_pipes_of_a_copy_lead_nowhere_else() {
    let root = machine();
    let at = |path: &str| root.path().join(path);
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("setting"), "128\n").unwrap();
    for path in ["proc/sys/net/core/somaxconn", "sys/devices/pci/nvme0/nvme0n1/queue/iostats"] {
        fs::remove_file(at(path)).unwrap();
        std::os::unix::fs::symlink(outside.path().join("setting"), at(path)).unwrap();
    }
    fs::remove_file(at("proc/sys/vm/stat_interval")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("var")).unwrap();
    for path in ["proc/sys/vm/stat_interval", "sys/devices/pci/nvme0/nvme0n1/queue/wbt_lat_usec"] {
        assert!(Command::new("mkfifo").arg(at(path)).status().unwrap().success());
    }
    let applied = tune(root.path(), &with(&["tune", "apply"], &["--json"]));
    assert_eq!(json(&applied)["attempts"].as_array().unwrap().len(), 1, "{applied:?}");
    assert_eq!(fs::read_to_string(outside.path().join("setting")).unwrap(), "128\n");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1, "the journal lies in the copy, too");
    let checked = json(&tune(root.path(), &with(&["check"], &["--json"])));
    let knobs = checked["knobs"].as_array().unwrap();
    let why = |name: &str| knobs.iter().find(|knob| knob["name"] == name).unwrap()["why"].as_str().unwrap();
    assert!(why("stat_interval").contains("no ordinary file"), "{}", why("stat_interval"));
    assert_eq!(tune(root.path(), &["tune", "revert"]).status.code(), Some(0));
}

#[test]
fn a_program_that_an_image_needs_is_named_with_its_package() {
    let root = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_lode-tune"));
        command.arg("image").args(arguments).current_dir(root.path()).env("PATH", root.path());
        command.output().expect("lode-tune runs")
    };
    fs::write(root.path().join("node"), "").unwrap();
    let missing = run(&["build", "--node", "node"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(
        text(&missing.stderr).contains("apt-get install ") && text(&missing.stderr).contains("mmdebstrap")
    );
    let left_out = run(&["boot-test", "node"]);
    assert_eq!(left_out.status.code(), Some(3), "{left_out:?}");
    assert!(text(&left_out.stdout).contains("left out: qemu-system-x86_64 is not installed"), "{left_out:?}");
    fs::write(root.path().join("private"), "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
    for (arguments, words) in [
        (vec!["build", "--node", "nowhere"], "there is no node at nowhere"),
        (vec!["build", "--node", "node", "--profile", "x"], "no built-in profile"),
        (vec!["build", "--node", "node", "--size", "1GiB1"], "--size"),
        (vec!["build", "--node", "node", "--size", "64MiB"], "768MiB or more"),
        (vec!["build", "--node", "node", "--ssh-key", "private"], "line 1 of private is not a public key"),
        (vec!["export", "node", "--format", "tape"], "tape"),
    ] {
        let refused = run(&arguments);
        assert_eq!(refused.status.code(), Some(64), "{refused:?}");
        assert!(text(&refused.stderr).contains(words), "{refused:?}");
    }
}
