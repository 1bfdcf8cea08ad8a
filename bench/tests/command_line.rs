//! What the load generator says to those who ask it wrongly; no node is needed for that.

use std::process::Command;

#[test]
fn bad_options_are_refused_in_words() {
    for (line, word) in [
        ("run --workload ycsb-z", "ycsb-a"),
        ("run --mix get=0", "no weight"),
        ("run --slo get:p99", "get:p99.9<1ms"),
        ("run --value-size 2000000", "longer than"),
        ("run --addr nowhere:x", "nowhere:x"),
        ("run --addr 127.0.0.1:1", "127.0.0.1:1"),
        ("run --addr 127.0.0.1:1 --protocol resp --workload ycsb-e", "leave out scans"),
        ("run --addr 127.0.0.1:1 --protocol resp", "does a RESP server run there"),
        ("compare /nowhere/a.json /nowhere/b.json", "/nowhere/a.json"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_lode-bench")).args(line.split(' ')).output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(word), "{line}: {told}");
    }
}
