//! Tables come and go, small and large, while another table is written and read: every request of
//! everybody is answered, with the right thing.
//!
//! `LODE_SEED` says from which seed, `LODE_CHURN_SECONDS` for how long (5 by default),
//! `LODE_CHURN_WORKERS` and `LODE_CHURN_MAKERS` how many write and read, and make and drop tables.
//! A request that waits for long is told at once, with the node's process id, so that one can look.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lode_net::client::ClientOptions;
use lode_net::client::blocking::Client;
use lode_tests::node::Home;
use lode_tests::table;
use lode_tests::value::{self, Dice};

const TABLE: &str = "stays";
/// Keys of one worker.
const KEYS: u64 = 300;
/// Longest value: the workers' records take about a third of the drive, so that cleaning goes on, too.
const MOST_VALUE_BYTES: u64 = 20_000;
const MOST_PARTITIONS: u64 = 1500;
/// Longer than any answer takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// After this long a waiting request is worth a word.
const WORTH_A_WORD: Duration = Duration::from_secs(2);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

/// What somebody waits for, and how long the longest wait was.
struct Wait {
    from: Instant,
    /// Milliseconds after `from` at which the request under way began, plus one; 0: none is.
    begun_ms: AtomicU64,
    longest_us: AtomicU64,
    requests: AtomicU64,
}

impl Wait {
    fn new() -> Wait {
        let zero = || AtomicU64::new(0);
        Wait { from: Instant::now(), begun_ms: zero(), longest_us: zero(), requests: zero() }
    }

    fn of<T>(&self, request: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        self.begun_ms.store((begun - self.from).as_millis() as u64 + 1, Ordering::Relaxed);
        let answer = request();
        self.begun_ms.store(0, Ordering::Relaxed);
        self.longest_us.fetch_max(begun.elapsed().as_micros() as u64, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        answer
    }

    fn waits_for(&self) -> Duration {
        match self.begun_ms.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            begun_ms => self.from.elapsed().saturating_sub(Duration::from_millis(begun_ms)),
        }
    }
}

/// Writes and reads its own keys, and knows what each must hold.
fn work(mut client: Client, worker: u64, seed: u64, wait: &Wait, stop: &AtomicBool) {
    let mut dice = Dice::new(seed.wrapping_mul(1000) + worker);
    let mut versions = vec![0u64; KEYS as usize];
    while !stop.load(Ordering::Relaxed) {
        let chosen = dice.below(KEYS) as usize;
        let key = format!("{worker} {chosen}").into_bytes();
        if dice.below(2) == 0 {
            versions[chosen] += 1;
            let bytes = value::make(&key, versions[chosen], dice.below(MOST_VALUE_BYTES) as usize + 64);
            wait.of(|| client.put(TABLE, &key, &bytes)).expect("a write is taken");
        } else {
            let found = wait.of(|| client.get(TABLE, &key)).expect("a read is answered");
            let version = found.and_then(|record| value::version(&key, &record.value));
            assert_eq!(version.unwrap_or(0), versions[chosen], "worker {worker}, key {chosen}");
        }
    }
}

/// Makes and drops tables of its own; some of them it writes to, some it leaves for a while.
fn churn(mut client: Client, maker: u64, seed: u64, wait: &Wait, stop: &AtomicBool) {
    let mut dice = Dice::new(seed.wrapping_mul(7000) + maker);
    let mut left = Vec::new();
    for turn in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let partitions = match dice.below(3) {
            0 => 1,
            1 => MOST_PARTITIONS,
            _ => dice.below(MOST_PARTITIONS) + 1,
        };
        let name = format!("goes {maker} {turn}");
        wait.of(|| client.create_table(table::durable(&name, partitions as u32))).expect("there is room");
        for write in 0..dice.below(20) {
            let key = write.to_be_bytes();
            wait.of(|| client.put(&name, &key, &[7; 500])).expect("a write is taken");
        }
        left.push(name);
        if left.len() as u64 > dice.below(4) {
            let name = left.swap_remove(dice.below(left.len() as u64) as usize);
            wait.of(|| client.drop_table(&name)).expect("it was made");
        }
    }
}

#[test]
fn everybody_is_answered_while_tables_come_and_go() {
    let seed = number("LODE_SEED", 1);
    let seconds = number("LODE_CHURN_SECONDS", 5);
    let (workers, makers) = (number("LODE_CHURN_WORKERS", 6), number("LODE_CHURN_MAKERS", 1));
    println!("LODE_SEED={seed} LODE_CHURN_WORKERS={workers} LODE_CHURN_MAKERS={makers}");
    let home = Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "256MiB"]);
    let node = home.start();
    let options = || ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
    node.client_with(options()).create_table(table::durable(TABLE, 16)).expect("the node is empty");
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for one in 0..workers + makers {
        let (client, stop, wait) = (node.client_with(options()), Arc::clone(&stop), Arc::new(Wait::new()));
        let of_thread = Arc::clone(&wait);
        let is_worker = one < workers;
        let thread = thread::spawn(move || match is_worker {
            true => work(client, one, seed, &of_thread, &stop),
            false => churn(client, one, seed, &of_thread, &stop),
        });
        threads.push((if is_worker { "worker" } else { "maker" }, wait, thread));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until && threads.iter().all(|(_, _, thread)| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(100));
        let waits = threads.iter().map(|(_, wait, _)| wait.waits_for());
        if let Some(longest) = waits.max().filter(|longest| *longest > WORTH_A_WORD) {
            eprintln!("node {} lets somebody wait for {} ms", node.pid(), longest.as_millis());
        }
    }
    stop.store(true, Ordering::Relaxed);
    for (kind, wait, thread) in threads {
        let ended = thread.join();
        let count = wait.requests.load(Ordering::Relaxed);
        println!("{kind}: {count} requests, the longest {} us", wait.longest_us.load(Ordering::Relaxed));
        assert!(ended.is_ok(), "a {kind} ended early");
        assert!(count > 0, "a {kind} got nothing done");
    }
    assert!(node.stop().success());
}
