//! Quickstart on inputs that are not as they should be: each is called what it is, in one JSON object.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

const LODE: &str = env!("CARGO_BIN_EXE_lode");

fn quickstart(input: &Path, drive: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(LODE);
    command.args(["quickstart", "--json", "--duration", "200ms", "--shards", "1", "--size", "256MiB"]);
    command.args(["--memory", "64MiB", "--partitions", "16", "--input"]).arg(input);
    command.arg("--data").arg(drive).args(words);
    command
}

fn one_object(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stdout)))
}

#[test]
fn an_input_that_changes_meanwhile_is_no_lost_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let input = dir.path().join("input");
    fs::create_dir(&input).expect("made");
    (0..50).for_each(|n| fs::write(input.join(format!("file-{n}")), [n; 100]).expect("written"));
    let mut child = quickstart(&input, &dir.path().join("drive.lode"), &[])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let mut said = String::new();
    for line in BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok) {
        // Everything was loaded and read back; it is read again after the crash.
        if line.contains("open-loop load for") {
            fs::write(input.join("file-7"), "somebody saves it").expect("written");
        }
        said.push_str(&line);
        said.push('\n');
    }
    let mut stdout = Vec::new();
    child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("read");
    let status = child.wait().expect("it ends");
    let found = one_object(&Output { status, stdout, stderr: Vec::new() });
    assert_eq!(status.code(), Some(6), "{found}\n{said}");
    assert_eq!((&found["verified"], &found["acknowledged_lost"]), (&false.into(), &0.into()), "{found}");
    assert_eq!((&found["error"]["kind"], &found["error"]["exit_code"]), (&"input".into(), &6.into()));
    let message = found["error"]["message"].as_str().expect("words");
    assert!(message.contains("the input was changed") && message.contains("file-7"), "{message}");
    assert!(!message.contains("file-8"), "{message}");
}

#[test]
fn bad_rows_are_refused_or_counted_and_keys_are_counted_once() {
    let dir = tempfile::tempdir().expect("a directory");
    let (rows, drive) = (dir.path().join("rows.csv"), dir.path().join("drive.lode"));
    fs::write(&rows, "id,n\n1,one\nbad\n2,two\n,no key\n1,again\n").expect("written");
    let refused = quickstart(&rows, &drive, &["--key", "id"]).output().expect("the binary runs");
    assert_eq!(refused.status.code(), Some(6), "{refused:?}");
    let told = one_object(&refused);
    let message = told["error"]["message"].as_str().expect("words");
    assert!(message.contains("line 3") && message.contains("--skip-bad"), "{message}");

    let taken = quickstart(&rows, &drive, &["--key", "id", "--skip-bad"]).output().expect("the binary runs");
    assert_eq!(taken.status.code(), Some(0), "{taken:?}");
    let found = one_object(&taken);
    assert_eq!((&found["records"], &found["skipped"]), (&2.into(), &2.into()), "{found}");
    assert_eq!(found["verified"], true, "{found}");
}

#[test]
fn more_memory_than_there_is_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().expect("a directory");
    let drive = dir.path().join("drive.lode");
    let mut command = Command::new(LODE);
    command.args(["quickstart", "--json", "--memory", "900TiB", "--input"]).arg(dir.path());
    let refused = command.arg("--data").arg(&drive).output().expect("the binary runs");
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let told = one_object(&refused);
    assert!(
        told["error"]["message"].as_str().is_some_and(|text| text.contains("this machine has")),
        "{told}"
    );
    assert!(!drive.exists());
}
