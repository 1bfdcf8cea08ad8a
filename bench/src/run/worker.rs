//! The loops of a load: closed, open, and the filling of the table before.

use std::time::{Duration, Instant};

use lode_net::client::connection::Reply;
use lode_net::wire::map::TableRoutes;
use lode_net::wire::{ShardId, Status};

use super::link::{Ask, LinkError};
use super::pool::{Pool, PoolError};
use super::tally::{Operation, Tally};
use crate::draw::{Dice, Popularity, Values, belongs, key};

/// How long answers may take after the end of a load.
const DRAIN: Duration = Duration::from_secs(10);
/// Longest wait for an event, so that the loop looks at the clock now and then.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// How often a record is drawn again because it is another shard's, before it is sent the long way.
const MOST_REDRAWS: u32 = 64;

/// What a worker is to do.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The table and its partitions.
    pub table: TableRoutes,
    /// Which records.
    pub popularity: Popularity,
    /// Share of GETs, 0 to 100.
    pub read_percent: u8,
    /// Requests in flight on each connection.
    pub depth: usize,
    /// Bytes of a value.
    pub value_bytes: usize,
    /// Times of everything below count from here.
    pub origin: Instant,
    /// When to begin counting.
    pub from: Duration,
    /// When to end.
    pub until: Duration,
}

/// One thread's part of a load.
pub struct Worker {
    plan: Plan,
    pool: Pool,
    dice: Dice,
    values: Values,
    tally: Tally,
}

impl Worker {
    /// A worker with connections of its own.
    pub fn new(plan: Plan, pool: Pool, seed: u64) -> Worker {
        let values = Values::new(plan.value_bytes, seed);
        Worker { plan, pool, dice: Dice::new(seed), values, tally: Tally::default() }
    }

    /// Keeps `depth` requests in flight on every connection.
    pub fn run_closed(mut self) -> Result<Tally, PoolError> {
        let (from, until) = (self.plan.from.as_nanos() as u64, self.plan.until.as_nanos() as u64);
        let mut now_ns = self.now_ns();
        while now_ns < until {
            for place in 0..self.pool.links.len() {
                self.top_up(place, now_ns)?;
            }
            self.pool.flush()?;
            self.take_replies(LONGEST_WAIT, |_, now_ns| (from..until).contains(&now_ns))?;
            now_ns = self.now_ns();
        }
        self.drain(|_, _| false)?;
        Ok(self.tally)
    }

    /// Sends each request when its time has come; its latency counts from then.
    pub fn run_open(mut self, per_second: f64) -> Result<Tally, PoolError> {
        // Without it, the kernel rounds each wait up by 50 us.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let (from, until) = (self.plan.from.as_nanos() as u64, self.plan.until.as_nanos() as u64);
        let counts = move |ask: &Ask, _: u64| (from..until).contains(&ask.at_ns);
        let mean_ns = 1e9 / per_second;
        let mut next_ns = self.now_ns() as f64 + self.dice.exponential(mean_ns);
        loop {
            let now_ns = self.now_ns();
            while next_ns as u64 <= now_ns.min(until) {
                let ask = self.draw(None, next_ns as u64);
                self.pool.link_to(ask.1).backlog.push_back(ask.0);
                next_ns += self.dice.exponential(mean_ns);
            }
            if now_ns >= until {
                break;
            }
            self.send_backlog(now_ns, from)?;
            let next = Duration::from_nanos((next_ns as u64).saturating_sub(self.now_ns()));
            self.take_replies(next.min(LONGEST_WAIT), counts)?;
        }
        self.tally.unsent = self.pool.links.iter().map(|link| link.backlog.len() as u64).sum();
        self.drain(counts)?;
        Ok(self.tally)
    }

    /// Writes the records `indexes`, each at least once, and tells `progress` how many were acknowledged.
    pub fn fill(mut self, indexes: std::ops::Range<u64>, progress: &dyn Fn(u64)) -> Result<Tally, PoolError> {
        let (mut next, mut written) = (indexes.start, 0);
        let total = indexes.end - indexes.start;
        while written < total && self.tally.refused == 0 {
            let room = self.plan.depth * self.pool.links.len();
            while next < indexes.end && self.backlog() < room {
                let (ask, shard) = self.ask_of(next, Operation::Put, 0);
                self.pool.link_to(shard).backlog.push_back(ask);
                next += 1;
            }
            self.send_backlog(0, u64::MAX)?;
            let mut busy = Vec::new();
            let tally = &mut self.tally;
            self.pool.wait(LONGEST_WAIT, &mut |ask, reply| match reply.status() {
                Status::Ok => written += 1,
                Status::Busy | Status::Throttled => busy.push(ask),
                _ => refuse(tally, reply),
            })?;
            for ask in busy {
                let (ask, shard) = self.ask_of(ask.index, Operation::Put, 0);
                self.pool.link_to(shard).backlog.push_back(ask);
            }
            progress(written);
        }
        Ok(self.tally)
    }

    fn backlog(&self) -> usize {
        self.pool.links.iter().map(|link| link.backlog.len()).sum()
    }

    fn now_ns(&self) -> u64 {
        self.plan.origin.elapsed().as_nanos() as u64
    }

    /// Draws requests of the connection's own shard until it has `depth` in flight.
    fn top_up(&mut self, place: usize, now_ns: u64) -> Result<(), LinkError> {
        while self.pool.links[place].in_flight() < self.plan.depth {
            let shard = self.pool.links[place].shard;
            let (ask, _) = self.draw(Some(shard), now_ns);
            self.send(place, ask)?;
        }
        Ok(())
    }

    fn send(&mut self, place: usize, ask: Ask) -> Result<(), LinkError> {
        let value: &[u8] = match ask.operation {
            Operation::Get => &[],
            Operation::Put => self.values.next(ask.index, &mut self.dice),
        };
        self.pool.links[place].ask(ask, &key(ask.index), value)
    }

    /// Sends what has waited, as far as `depth` allows, and counts how late that is.
    fn send_backlog(&mut self, now_ns: u64, from: u64) -> Result<(), PoolError> {
        for place in 0..self.pool.links.len() {
            while self.pool.links[place].in_flight() < self.plan.depth {
                let Some(ask) = self.pool.links[place].backlog.pop_front() else {
                    break;
                };
                if ask.at_ns >= from {
                    self.tally.lateness.record(now_ns.saturating_sub(ask.at_ns));
                }
                self.send(place, ask)?;
            }
        }
        self.pool.flush()
    }

    /// A request for a record drawn by popularity, of the given shard if any.
    fn draw(&mut self, shard: Option<ShardId>, at_ns: u64) -> (Ask, ShardId) {
        let percent = self.dice.below(100);
        let is_get = percent < u64::from(self.plan.read_percent);
        let operation = if is_get { Operation::Get } else { Operation::Put };
        let index = self.plan.popularity.draw(&mut self.dice);
        let mut drawn = self.ask_of(index, operation, at_ns);
        let mut redraws = 0;
        while shard.is_some_and(|shard| shard != drawn.1) && redraws < MOST_REDRAWS {
            let index = self.plan.popularity.draw(&mut self.dice);
            drawn = self.ask_of(index, operation, at_ns);
            redraws += 1;
        }
        drawn
    }

    fn ask_of(&self, index: u64, operation: Operation, at_ns: u64) -> (Ask, ShardId) {
        let route = self.plan.table.route(&key(index)).expect("a hashed table has no gaps");
        (Ask { at_ns, index, operation, target: route.target }, route.shard)
    }

    fn take_replies(
        &mut self,
        timeout: Duration,
        counts: impl Fn(&Ask, u64) -> bool,
    ) -> Result<(), PoolError> {
        let (tally, plan) = (&mut self.tally, &self.plan);
        self.pool.wait(timeout, &mut |ask, reply| {
            let now = plan.origin.elapsed();
            let now_ns = now.as_nanos() as u64;
            // Of an open loop above what the node can do, whoever is answered in this time was due before it.
            if (plan.from..plan.until).contains(&now) && reply.status() == Status::Ok {
                tally.answered += 1;
            }
            if counts(&ask, now_ns) {
                count(tally, &ask, reply, now_ns, plan.value_bytes);
            }
        })
    }

    /// Waits for what is in flight at the end, so that the node is idle when the next load begins.
    fn drain(&mut self, counts: impl Fn(&Ask, u64) -> bool) -> Result<(), PoolError> {
        let until = Instant::now() + DRAIN;
        while self.pool.in_flight() > 0 && Instant::now() < until {
            self.pool.flush()?;
            self.take_replies(LONGEST_WAIT, &counts)?;
        }
        self.tally.unsent += self.pool.in_flight() as u64;
        Ok(())
    }
}

/// Counts one reply.
fn count(tally: &mut Tally, ask: &Ask, reply: &Reply<'_>, now_ns: u64, value_bytes: usize) {
    let latency_ns = now_ns.saturating_sub(ask.at_ns);
    match (reply.status(), ask.operation) {
        (Status::Ok, Operation::Get) => {
            tally.gets.record(latency_ns);
            if !belongs(reply.view().body, ask.index, value_bytes) {
                tally.wrong += 1;
            }
        }
        (Status::Ok, Operation::Put) => tally.puts.record(latency_ns),
        (Status::NotFound, _) => tally.missing += 1,
        (Status::Busy, _) => tally.busy += 1,
        (Status::Throttled, _) => tally.throttled += 1,
        _ => refuse(tally, reply),
    }
}

fn refuse(tally: &mut Tally, reply: &Reply<'_>) {
    tally.refused += 1;
    let message = reply.view().message();
    let text = if message.is_empty() { reply.status().text() } else { message };
    tally.refusal = Some(text.to_owned());
}
