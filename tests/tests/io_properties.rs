//! From a measurement to a node that goes by it: measured, served, doctored, served without.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use lode_net::io_properties::{FILE_NAME, IoProperties};
use lode_tests::node::{Home, Node, tune_binary};
use lode_tests::{table, value};
use serde_json::Value;

fn file_of(home: &Home) -> PathBuf {
    home.drive().with_file_name(FILE_NAME)
}

fn line(node: &Node, start: &str) -> String {
    let lines = node.log();
    let found = lines.iter().find_map(|line| Some(&line[line.find(start)?..]));
    found.unwrap_or_else(|| panic!("no line of {start} in:\n{}", lines.join("\n"))).to_owned()
}

/// One value of the node's, and where it comes from.
fn told(node: &Node, name: &str) -> (u64, String) {
    let told: Value = node.stats()["io"]["values"][name].clone();
    let number = told["value"].as_u64().unwrap_or_else(|| panic!("no {name}: {told}"));
    (number, told["origin"].as_str().expect("an origin").to_owned())
}

#[test]
fn a_node_goes_by_what_was_measured_of_its_drive_and_by_nothing_else() {
    let home = Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "128MiB"]);
    let measure = Command::new(tune_binary())
        .args(["measure", "--area", "4MiB", "--point", "0.01", "--drive"])
        .arg(home.drive())
        .output()
        .expect("lode-tune runs");
    assert!(measure.status.success(), "{}", String::from_utf8_lossy(&measure.stderr));
    assert!(!home.drive().exists(), "measuring makes no drive");

    // The drive is made only now, in the place that was measured.
    let node = home.start();
    let io = line(&node, "io: ");
    assert!(io.starts_with("io: as measured (") && io.contains("(measured)"), "{io}");
    assert!(!io.contains("(default)"), "{io}");
    assert_eq!(told(&node, "requests_of_one").1, "measured");
    let (window_us, _) = told(&node, "commit_window_us");
    assert!(
        (50..=2000).contains(&window_us) && io.contains(&format!("commit_window_us {window_us} ")),
        "{io}"
    );
    let mut client = node.client();
    client.create_table(table::durable("t", 4)).unwrap();
    for number in 0u64..200 {
        let key = number.to_be_bytes();
        client.put("t", &key, &value::make(&key, number, 3000)).unwrap();
    }
    drop(client);
    assert!(node.stop().success());

    // Another kernel's, as after an upgrade.
    let path = file_of(&home);
    let text = fs::read_to_string(&path).unwrap();
    let measured = IoProperties::parse(&path, &text).unwrap();
    let kernel = format!("kernel = \"{}\"", measured.drive.kernel);
    fs::write(&path, text.replace(&kernel, "kernel = \"5.19.0-other\"")).unwrap();
    let node = home.start();
    let warning = line(&node, "the drive's measurement is not used: ");
    assert!(
        warning.contains("the kernel was 5.19.0-other, is ") && warning.contains("measure anew"),
        "{warning}"
    );
    assert!(line(&node, "io: ").contains("commit_window_us 500 (default)"), "{}", line(&node, "io: "));
    assert_eq!(told(&node, "requests_of_one"), (128, "default".to_owned()));
    assert_eq!(node.client().count("t", b"", None).unwrap(), 200);
    assert!(node.stop().success());

    // Cut short, as by a full file system.
    fs::write(&path, &text[..text.len() / 3]).unwrap();
    let node = home.start();
    let warning = line(&node, "the drive's measurement is not used: ");
    assert!(warning.contains(FILE_NAME) && warning.contains("lode-tune measure"), "{warning}");
    assert_eq!(node.client().count("t", b"", None).unwrap(), 200);
    assert!(node.stop().success());

    // What is said by hand counts, whatever was measured.
    fs::write(&path, &text).unwrap();
    let mut command = home.command();
    command.args(["--commit-window", "300us"]);
    let node = home.start_with(command);
    assert_eq!(told(&node, "commit_window_us"), (300, "given".to_owned()));
    assert_eq!(told(&node, "spin_us").1, "measured");
}
