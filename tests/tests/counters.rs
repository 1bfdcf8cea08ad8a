//! Counters of a real node: increments of many clients add up, and SIGKILL takes none that was acknowledged
//! and counts none twice.

use lode_net::client::blocking::{Answer, Client};
use lode_net::client::{IncrementError, Store, WriteError};
use lode_tests::node::Home;
use lode_tests::table;

const CLIENTS: usize = 4;
const IN_FLIGHT: usize = 50;

/// What became of one client's increments.
#[derive(Default)]
struct Ledger {
    acknowledged: i64,
    unknown: i64,
}

/// Increments one counter until the node is gone, or for so many rounds.
fn count(mut client: Client, rounds: usize) -> Ledger {
    let mut ledger = Ledger::default();
    for _ in 0..rounds {
        let mut pipeline = client.pipeline();
        for _ in 0..IN_FLIGHT {
            pipeline.increment("t", b"hot", 1);
        }
        let mut gone = false;
        for answer in pipeline.run() {
            match answer {
                Answer::Increment(Ok(_)) => ledger.acknowledged += 1,
                Answer::Increment(Err(IncrementError::Write(error))) => {
                    gone = true;
                    ledger.unknown += i64::from(matches!(error, WriteError::Unknown { .. }));
                }
                other => panic!("{other:?}"),
            }
        }
        if gone {
            break;
        }
    }
    ledger
}

#[test]
fn increments_of_many_clients_add_up() {
    let home = Home::new();
    let node = home.start();
    for store in [Store::Durable, Store::Memory] {
        let mut client = node.client();
        client.create_table(table::of_store("t", store, 4)).expect("the table is new");
        let rounds = 20;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| node.client())
            .map(|c| std::thread::spawn(move || count(c, rounds)))
            .collect();
        let ledgers = clients.into_iter().map(|client| client.join().expect("no client panics"));
        let acknowledged: i64 = ledgers.map(|ledger| ledger.acknowledged).sum();
        assert_eq!(acknowledged, (CLIENTS * IN_FLIGHT * rounds) as i64);
        let counted = client.increment("t", b"hot", 0).expect("counted");
        assert_eq!(counted.number, acknowledged);
        client.drop_table("t").expect("the table is there");
    }
}

#[test]
fn a_killed_node_counts_what_it_acknowledged_and_nothing_twice() {
    let home = Home::new();
    let (mut acknowledged, mut unknown) = (0, 0);
    for round in 0..3 {
        let node = home.start();
        if round == 0 {
            node.client().create_table(table::durable("t", 4)).expect("the table is new");
        }
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| node.client())
            .map(|client| std::thread::spawn(move || count(client, usize::MAX)))
            .collect();
        std::thread::sleep(std::time::Duration::from_millis(200 + 100 * round));
        node.kill();
        for client in clients {
            let ledger = client.join().expect("no client panics");
            acknowledged += ledger.acknowledged;
            unknown += ledger.unknown;
        }
    }
    let node = home.start();
    let number = node.client().increment("t", b"hot", 0).expect("counted").number;
    assert!(acknowledged > 0, "nothing was counted");
    assert!(
        (acknowledged..=acknowledged + unknown).contains(&number),
        "{number} is not within {acknowledged} acknowledged and {unknown} unknown"
    );
}
