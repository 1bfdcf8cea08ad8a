use lode_net::client::blocking::Client;
use lode_net::client::{ClientOptions, Placement, Quota, ScanOptions, Store, TableOptions};

use super::*;

fn config(dir: &std::path::Path, shards: u16) -> ServeConfig {
    ServeConfig {
        data: dir.join("drive.lode"),
        size: 64 << 20,
        shards: Some(shards),
        segment_bytes: Some(1 << 20),
        max_value_bytes: 64 << 10,
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        memory_bytes: u64::from(shards) * MIN_MEMORY_PER_SHARD,
        pin: false,
        ..ServeConfig::default()
    }
}

fn serve(dir: &std::path::Path, shards: u16) -> (RunningNode, Client) {
    let node = start(config(dir, shards), &mut |_| {}).expect("a node");
    let client = Client::connect(&node.addr.to_string(), ClientOptions::default()).expect("connected");
    (node, client)
}

fn options(name: &str, store: Store) -> TableOptions {
    TableOptions {
        name: name.into(),
        store,
        placement: Placement::Hash { partitions: 8 },
        ttl: None,
        quota: Quota::default(),
    }
}

#[test]
fn what_is_put_is_got_on_every_shard_and_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let (node, mut client) = serve(dir.path(), 2);
    client.create_table(options("t", Store::Durable)).expect("made");
    client.create_table(options("m", Store::Memory)).expect("made");
    let value = |n: u32| vec![n as u8; (n * 37 % 9000) as usize];
    for n in 0..300u32 {
        client.put("t", &n.to_be_bytes(), &value(n)).expect("put");
        client.put("m", &n.to_be_bytes(), &value(n)).expect("put");
    }
    for n in 0..300u32 {
        assert_eq!(client.get("t", &n.to_be_bytes()).expect("got").expect("there").value, value(n));
    }
    assert_eq!(client.count("m", b"", None).expect("counted"), 300);
    assert!(client.get("t", b"nothing").expect("got").is_none());
    drop(client);
    node.stop();
    let (node, mut client) = serve(dir.path(), 2);
    for n in 0..300u32 {
        assert_eq!(client.get("t", &n.to_be_bytes()).expect("got").expect("there").value, value(n));
    }
    assert_eq!(client.count("m", b"", None).expect("counted"), 0);
    let scanned: Result<Vec<_>, _> = client.scan("t", ScanOptions::default()).collect();
    assert_eq!(scanned.expect("scanned").len(), 300);
    let last = client.create_table(options("last", Store::Durable)).expect("made").id;
    client.drop_table("last").expect("dropped");
    assert_eq!(client.list_tables().expect("listed").len(), 2);
    drop(client);
    node.stop();
    let (_node, mut client) = serve(dir.path(), 2);
    assert_eq!(client.list_tables().expect("listed").len(), 2);
    let next = client.create_table(options("next", Store::Durable)).expect("made").id;
    assert!(next > last, "table id {last} is given again");
}

#[test]
fn statistics_and_checkpoints_reach_every_shard() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_node, mut client) = serve(dir.path(), 2);
    client.create_table(options("t", Store::Durable)).expect("made");
    for n in 0..100u32 {
        client.put("t", &n.to_be_bytes(), &[1; 100]).expect("put");
    }
    client.checkpoint().expect("written");
    let stats = client.stats().expect("stats");
    assert_eq!(stats["totals"]["puts"], 100);
    assert_eq!(stats["shards"].as_array().map(Vec::len), Some(2));
    assert!(stats["totals"]["checkpoints"].as_u64().is_some_and(|count| count >= 2));
    assert!(stats["totals"]["write_amplification"].as_f64().is_some_and(|ratio| ratio > 0.0));
}

#[test]
fn what_cannot_start_says_why() {
    let dir = tempfile::tempdir().expect("a directory");
    let little = ServeConfig { memory_bytes: MIN_MEMORY_PER_SHARD, ..config(dir.path(), 2) };
    assert!(matches!(start(little, &mut |_| {}), Err(ServeError::Memory { shards: 2, .. })));
    let (data, machine) = (dir.path().join("huge"), machine_bytes());
    for memory_bytes in [machine + 1, 900 << 40] {
        let huge = ServeConfig { data: data.clone(), memory_bytes, ..config(dir.path(), 1) };
        let error = start(huge, &mut |_| {}).err().expect("refused").to_string();
        assert!(error.contains(&memory_bytes.to_string()) && error.contains(&machine.to_string()), "{error}");
        assert!(!data.exists());
    }
    let missing = ServeConfig { may_format: false, data: dir.path().join("no"), ..config(dir.path(), 1) };
    assert!(matches!(start(missing, &mut |_| {}), Err(ServeError::Drive(OpenDriveError::Missing(_)))));
    let (node, _client) = serve(dir.path(), 2);
    let second = start(config(dir.path(), 2), &mut |_| {});
    assert!(matches!(second, Err(ServeError::Drive(OpenDriveError::InUse(_)))));
    let elsewhere = ServeConfig { listen: node.addr, ..config(&dir.path().join("other"), 1) };
    assert!(matches!(start(elsewhere, &mut |_| {}), Err(ServeError::Listen(ListenError::InUse(_)))));
}

#[test]
fn no_drive_is_made_by_a_node_that_cannot_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let config = ServeConfig {
        data: dir.path().join("new/drive.lode"),
        listen: taken.local_addr().expect("bound"),
        ..config(dir.path(), 1)
    };
    let small = ServeConfig { memory_bytes: MIN_MEMORY_PER_SHARD - 1, ..config.clone() };
    let mut formatted = false;
    let mut watch = |event| formatted |= matches!(event, StartEvent::Formatting(_));
    assert!(matches!(start(small, &mut watch), Err(ServeError::Memory { .. })));
    assert!(matches!(start(config, &mut watch), Err(ServeError::Listen(ListenError::InUse(_)))));
    assert!(!formatted && !dir.path().join("new").exists());
}

#[test]
fn a_header_that_was_damaged_is_repaired_at_the_start_and_that_is_said() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().expect("a directory");
    serve(dir.path(), 1).0.stop();
    let path = dir.path().join("drive.lode");
    let mut header = vec![0; 4096];
    std::fs::File::open(&path).expect("there").read_exact_at(&mut header, 0).expect("read");
    for (block, at) in [("first", 0), ("last", (64 << 20) - 4096)] {
        let file = std::fs::File::options().read(true).write(true).open(&path).expect("there");
        file.write_all_at(&[9; 4096], at).expect("damaged");
        let mut warnings = Vec::new();
        let mut watch = |event| {
            if let StartEvent::Warning(text) = event {
                warnings.push(text);
            }
        };
        start(config(dir.path(), 1), &mut watch).expect("a node").stop();
        let said = |text: &&String| text.contains(block) && text.contains("written again");
        assert_eq!(warnings.iter().filter(said).count(), 1, "{warnings:?}");
        let mut again = vec![0; 4096];
        file.read_exact_at(&mut again, at).expect("read");
        assert!(again == header, "the {block} block is whole again");
    }
}
