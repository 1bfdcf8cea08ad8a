//! Damage on the drive is found and told, never passed on as data.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::process::Command;

use lode_net::client::GetError;
use lode_tests::node::{Home, binary};
use lode_tests::{table, value};

const RECORDS: u64 = 400;

fn key(number: u64) -> Vec<u8> {
    format!("{number:06}").into_bytes()
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        // Most of a drive is zeros: the first byte sorts out nearly all places.
        let at = from + bytes[from..].iter().position(|byte| *byte == wanted[0])?;
        if bytes[at..].starts_with(wanted) {
            return Some(at);
        }
        from = at + 1;
    }
}

#[test]
fn a_damaged_record_answers_with_an_error_and_its_neighbours_with_their_values() {
    let home = Home::with(&["--size", "256MiB", "--shards", "1", "--memory", "128MiB"]);
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("t", 4)).unwrap();
    for number in 0..RECORDS {
        client.put("t", &key(number), &value::make(&key(number), number, 20_000)).unwrap();
    }
    assert!(node.stop().success());
    let offline = || Command::new(binary()).arg("check").arg(home.drive()).output().unwrap();
    assert!(offline().status.success(), "an undamaged drive is said to be damaged");

    // One bit in the middle of record 200's value, wherever it lies.
    let damaged = 200;
    let drive = OpenOptions::new().read(true).write(true).open(home.drive()).unwrap();
    let bytes = std::fs::read(home.drive()).unwrap();
    let wanted = value::make(&key(damaged), damaged, 20_000);
    let at = find(&bytes, &wanted[100..164]).expect("the value is on the drive") + 5000;
    drive.write_all_at(&[bytes[at] ^ 0x10], at as u64).unwrap();
    drive.sync_all().unwrap();
    let report = offline();
    assert!(!report.status.success(), "damage was not found: {}", String::from_utf8_lossy(&report.stdout));

    let node = home.start();
    let mut client = node.client();
    let mut told = 0;
    for number in 0..RECORDS {
        match client.get("t", &key(number)) {
            Ok(Some(record)) => {
                assert_eq!(value::version(&key(number), &record.value), Some(number));
            }
            Ok(None) => panic!("record {number} was silently dropped"),
            Err(GetError::Corrupt { .. } | GetError::Quarantined { .. }) => told += 1,
            Err(error) => panic!("record {number}: {error}"),
        }
    }
    assert!(told >= 1, "the damaged record was given out");
    assert!(told <= 20, "{told} records are lost to one bit");
    let refused = client.get("t", &key(damaged));
    let is_told = matches!(refused, Err(GetError::Corrupt { .. } | GetError::Quarantined { .. }));
    assert!(is_told, "{refused:?}");
    // The node finds it by itself when it is told to look, lists it, and says so in the exit code.
    let scrub = |words: &[&str]| {
        let out =
            Command::new(binary()).args(["--node", &node.addr.to_string()]).args(words).output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stdout).into_owned())
    };
    let (code, text) = scrub(&["scrub"]);
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("damaged: table t partition") && text.contains("key 000200"), "{text}");
    let (_, stats) = scrub(&["stats"]);
    assert!(stats.contains("table t partition") && stats.contains("key 000200"), "{stats}");
    // Writing it again mends it.
    client.put("t", &key(damaged), &value::make(&key(damaged), 7, 100)).unwrap();
    let record = client.get("t", &key(damaged)).unwrap().expect("it was written again");
    assert_eq!(value::version(&key(damaged), &record.value), Some(7));
    let told: Vec<u64> = (0..RECORDS).filter(|number| client.get("t", &key(*number)).is_err()).collect();
    for number in told {
        client.put("t", &key(number), &value::make(&key(number), number, 100)).unwrap();
    }
    let (code, text) = scrub(&["scrub", "--json"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("\"damaged_records\":0"), "{text}");
}
