use lode_net::client::blocking::Client;
use lode_net::client::{ClientOptions, Placement, ScanOptions, Store, TableOptions};

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
    TableOptions { name: name.into(), store, placement: Placement::Hash { partitions: 8 } }
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
    let missing = ServeConfig { may_format: false, data: dir.path().join("no"), ..config(dir.path(), 1) };
    assert!(matches!(start(missing, &mut |_| {}), Err(ServeError::Drive(OpenDriveError::Missing(_)))));
    let (node, _client) = serve(dir.path(), 2);
    let second = start(config(dir.path(), 2), &mut |_| {});
    assert!(matches!(second, Err(ServeError::Drive(OpenDriveError::InUse(_)))));
    let elsewhere = ServeConfig { listen: node.addr, ..config(&dir.path().join("other"), 1) };
    assert!(matches!(start(elsewhere, &mut |_| {}), Err(ServeError::Listen(ListenError::InUse(_)))));
}
