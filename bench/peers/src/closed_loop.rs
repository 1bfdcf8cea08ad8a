//! A load on an engine in this process: so many threads with one request each, drawn and counted as `lode-bench` does.

use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use lode_bench::draw::{Dice, ValueSizes, Values, belongs};
use lode_bench::node_stats::NodeDelta;
use lode_bench::options::{Mode, RunOptions};
use lode_bench::report::RunReport;
use lode_bench::run::ask::{Ask, Step};
use lode_bench::run::{Choice, Routes, Tally};
use lode_bench::workload::Operation;
use thiserror::Error;

use crate::engines::{Engine, Failure};

/// Records written at a time while loading.
const LOADED_AT_A_TIME: u64 = 2_000;
/// Threads count into so many tallies: one for each would take more memory than some engines have.
const TALLIES: usize = 4;

/// Why an engine could not be measured.
#[derive(Debug, Error)]
pub enum LoopError {
    /// The engine failed.
    #[error("the engine failed: {0}")]
    Engine(#[from] Failure),
    /// What is asked for is not to be had in process.
    #[error("engines in process are asked in a closed loop, without tables, churn or fill: leave out {0}")]
    NotInProcess(&'static str),
    /// What is asked for needs more than one step with the engine.
    #[error("transactions are not asked of engines in process")]
    Transaction,
}

/// When counting begins and ends.
#[derive(Debug, Clone, Copy)]
struct Window {
    origin: Instant,
    from: Duration,
    until: Duration,
}

/// One thread's part of a load.
struct Worker<'a> {
    engine: &'a dyn Engine,
    choice: Choice,
    dice: Dice,
    values: Values,
    sizes: &'a ValueSizes,
    read: Vec<u8>,
    tally: &'a Mutex<Tally>,
}

/// Writes all records, in the order in which `lode-bench` does.
pub fn load(engine: &dyn Engine, options: &RunOptions) -> Result<(), LoopError> {
    let data = &options.data;
    let (keys, mut dice) = (data.keys(), Dice::new(data.seed()));
    let mut values = Values::new(data.value_size.clone(), data.seed());
    let mut first = 0;
    while first < data.records {
        let last = (first + LOADED_AT_A_TIME).min(data.records);
        let mut record = |index| {
            let mut key = Vec::new();
            keys.write(index, &mut key);
            (key, values.next(index, &mut dice).to_vec())
        };
        engine.load(&(first..last).map(&mut record).collect::<Vec<_>>())?;
        first = last;
    }
    Ok(engine.settle()?)
}

/// Runs the load with as many threads as there would be connections, and reports as `lode-bench run` does. The CPU is that
/// of the whole process: the engine's, and what drawing the requests takes.
pub fn measure(engine: &dyn Engine, options: &RunOptions) -> Result<RunReport, LoopError> {
    refuse(options)?;
    let seed = options.data.seed();
    let choice = Choice::new(options, Routes::of_server(), seed);
    let tallies: [Mutex<Tally>; TALLIES] = std::array::from_fn(|_| Mutex::new(Tally::new(options.slice())));
    let threads: Vec<Worker<'_>> = (0..usize::from(options.connections))
        .map(|place| {
            let seed = seed.wrapping_add(place as u64);
            Worker {
                engine,
                choice: choice.with_seed(seed),
                dice: Dice::new(seed),
                values: Values::new(options.data.value_size.clone(), seed),
                sizes: &options.data.value_size,
                read: Vec::new(),
                tally: &tallies[place % TALLIES],
            }
        })
        .collect();
    let until = options.warmup + options.duration;
    let window = Window { origin: Instant::now(), from: options.warmup, until };
    let mut cpu = Duration::ZERO;
    thread::scope(|scope| {
        let running: Vec<_> =
            threads.into_iter().map(|worker| scope.spawn(move || worker.run(window))).collect();
        let cpu_at = |at: Duration| {
            thread::sleep(at.saturating_sub(window.origin.elapsed()));
            own_cpu()
        };
        let before = cpu_at(window.from);
        cpu = cpu_at(window.until).saturating_sub(before);
        for thread in running {
            // A panic in a worker is a bug of this program; it goes on where it was.
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<(), LoopError>(())
    })?;
    let mut tally = Tally::new(options.slice());
    for part in &tallies {
        tally.add(&locked(part));
    }
    let node = NodeDelta { cpu_us: cpu.as_micros() as u64, ..NodeDelta::default() };
    Ok(RunReport::new(options, seed, 0, &tally, 0.0, &node))
}

fn refuse(options: &RunOptions) -> Result<(), LoopError> {
    for (is_asked_for, what) in [
        (options.mode() == Mode::Open, "--rate"),
        (options.data.tables > 1, "--tables"),
        (options.fill_percent.is_some(), "--fill-percent"),
        (options.churn > 0.0, "--churn"),
        (options.depth > 1, "--depth"),
        (options.report.is_some(), "--report"),
    ] {
        if is_asked_for {
            return Err(LoopError::NotInProcess(what));
        }
    }
    if options.mix().has(Operation::Transaction) { Err(LoopError::Transaction) } else { Ok(()) }
}

impl Worker<'_> {
    fn run(mut self, window: Window) -> Result<(), LoopError> {
        let (from, until) = (window.from.as_nanos() as u64, window.until.as_nanos() as u64);
        let now_ns = || window.origin.elapsed().as_nanos() as u64;
        let mut begun = now_ns();
        while begun < until {
            let (ask, _) = self.choice.next(&mut self.dice, None, begun);
            let is_right = self.execute(&ask)?;
            let ended = now_ns();
            self.choice.ended(&ask, is_right);
            if (from..until).contains(&ended) {
                self.count(&ask, is_right, ended - begun, ended - from);
            }
            begun = ended;
        }
        Ok(())
    }

    /// `false` where a record was missing, or was another's.
    fn execute(&mut self, ask: &Ask) -> Result<bool, LoopError> {
        self.read.clear();
        match ask.step {
            Step::Read => {
                let key = self.choice.key_of(ask.index);
                let is_there = self.engine.get(key, &mut self.read)?;
                if ask.operation == Operation::ReadModifyWrite {
                    let value = self.values.next(ask.index, &mut self.dice);
                    self.engine.put(key, value)?;
                }
                Ok(is_there && belongs(&self.read, ask.index, self.sizes))
            }
            Step::Write => {
                let value = self.values.next(ask.index, &mut self.dice);
                self.engine.put(self.choice.key_of(ask.index), value)?;
                Ok(true)
            }
            Step::Scan => {
                let key = self.choice.key_of(ask.index);
                let count = self.engine.scan(key, ask.left, &mut self.read)?;
                locked(self.tally).scanned += u64::from(count);
                Ok(count > 0)
            }
            _ => Err(LoopError::Transaction),
        }
    }

    fn count(&self, ask: &Ask, is_right: bool, latency_ns: u64, since_ns: u64) {
        let (mut tally, operation) = (locked(self.tally), ask.operation);
        if is_right {
            tally.answered += 1;
            tally.latencies[operation as usize].record(latency_ns);
            tally.slices.record(since_ns, operation, latency_ns);
            return;
        }
        tally.errors[operation as usize] += 1;
        if self.read.is_empty() { tally.missing += 1 } else { tally.wrong += 1 }
    }
}

fn locked(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().expect("nothing panics while it is held")
}

/// CPU time that this process has used.
fn own_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine_process::run_options;

    #[derive(Default)]
    struct Map(Mutex<BTreeMap<Vec<u8>, Vec<u8>>>);

    impl Engine for Map {
        fn put(&self, key: &[u8], value: &[u8]) -> Result<(), Failure> {
            self.0.lock().unwrap().insert(key.to_vec(), value.to_vec());
            Ok(())
        }
        fn get(&self, key: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
            Ok(self.0.lock().unwrap().get(key).map(|value| out.extend_from_slice(value)).is_some())
        }
        fn scan(&self, from: &[u8], limit: u32, out: &mut Vec<u8>) -> Result<u32, Failure> {
            let map = self.0.lock().unwrap();
            let found = map.range(from.to_vec()..).take(limit as usize);
            Ok(found.map(|(_, value)| out.extend_from_slice(value)).count() as u32)
        }
        fn load(&self, records: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Failure> {
            records.iter().try_for_each(|(key, value)| self.put(key, value))
        }
        fn settle(&self) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn report(map: &Map, line: &str) -> Result<RunReport, LoopError> {
        let line = format!("--records 500 --value-size 100 --duration 100ms --warmup 0s --depth 1 {line}");
        measure(map, &run_options(line.split(' ')).unwrap())
    }

    #[test]
    fn every_kind_of_request_is_asked_and_counted() {
        let map = Map::default();
        let loading = run_options("--records 500 --value-size 100".split(' ')).unwrap();
        load(&map, &loading).unwrap();
        assert_eq!(map.0.lock().unwrap().len(), 500);
        for workload in ["ycsb-a", "ycsb-c", "ycsb-d", "ycsb-e", "ycsb-f", "scan", "put"] {
            let report = report(&map, &format!("--workload {workload} --connections 3")).unwrap();
            assert!(report.is_sound() && report.errors == 0, "{workload}: {}", report.to_text());
            let latencies = report.latencies();
            assert!(!latencies.is_empty() && latencies.iter().all(|(_, summary)| summary.count > 0));
        }
        let scans = report(&map, "--workload scan --scan-length 10 --even-scans").unwrap();
        assert!(scans.scanned_per_s / scans.ops_per_s > 9.0, "{}", scans.to_text());
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        let map = Map::default();
        let nothing = report(&map, "--workload get").unwrap();
        assert!(nothing.missing > 0 && !nothing.is_sound());
        let other = run_options("--records 500 --value-size 99".split(' ')).unwrap();
        load(&map, &other).unwrap();
        let others = report(&map, "--workload get").unwrap();
        assert!(others.wrong > 0 && others.missing == 0);
        for refused in ["--rate 10", "--tables 2", "--workload transaction", "--churn 1"] {
            assert!(report(&map, refused).is_err(), "{refused}");
        }
    }
}
