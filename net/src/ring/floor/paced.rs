//! Operations begun at fixed rates, whether or not earlier ones have ended.

use std::collections::VecDeque;
use std::fs::File;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::core::{Event, Ring};
use super::super::slab::SlabBuffer;
use super::{
    FloorError, FloorReport, MAX_DEPTH, MAX_IN_FLIGHT_BYTES, Operation, Order, Places, blocks_of, fill, look,
    ring_on, wait,
};

/// Nobody looks for an end, but before the next operation is due.
const LONGEST_WAIT: Duration = Duration::from_millis(100);
/// Just before an operation is due it is looked for: a timer comes late by about as much.
const SPIN: Duration = Duration::from_micros(100);

/// Operations of one kind, at one rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stream {
    /// What each does; a flush is none of these.
    pub operation: Operation,
    /// Bytes of each: a power of two, 4096 at least.
    pub block_bytes: u32,
    /// How many are due in a second.
    pub per_second: f64,
}

/// One of the streams, under way.
struct Running {
    stream: Stream,
    places: Places,
    /// Operations that have been due so far.
    begun: u64,
    /// When each was due that has ended, and how long it took from then.
    ended: Vec<(Duration, Duration)>,
}

impl Running {
    fn count(&mut self, due: Duration, now: Duration) {
        self.ended.push((due, now.saturating_sub(due)));
    }

    fn next_due(&self) -> Duration {
        Duration::from_secs_f64(self.begun as f64 / self.stream.per_second)
    }
}

/// Runs the streams beside each other on random blocks within `area` of `file` (opened with `O_DIRECT`), for `warmup` and then
/// for `time`; what is due in the latter counts. A latency counts from the moment at which the operation was due, so a stall
/// is not hidden; what was due and had not begun when the time was over counts as if it had ended then. Writes destroy what is
/// there.
pub fn paced(
    file: File,
    area: &Range<u64>,
    streams: &[Stream],
    warmup: Duration,
    time: Duration,
) -> Result<Vec<FloorReport>, FloorError> {
    let mut running = Vec::new();
    for (number, stream) in (0u32..).zip(streams) {
        assert!(stream.operation != Operation::Flush, "a flush has no block of its own");
        assert!(stream.per_second > 0.0, "a stream of {} operations a second", stream.per_second);
        let places = Places::new(Order::Random(number + 1), blocks_of(area, stream.block_bytes)?);
        running.push(Running { stream: *stream, places, begun: 0, ended: Vec::new() });
    }
    let mut pacing = Pacing {
        ring: ring_on(file, MAX_IN_FLIGHT_BYTES / 2)?,
        slots: Vec::new(),
        free: VecDeque::new(),
        in_flight: 0,
        begun: Instant::now(),
        area_start: area.start,
    };
    let ends = warmup + time;
    pacing.run(&mut running, ends)?;
    Ok(running.into_iter().map(|stream| stream.finish(warmup, ends)).collect())
}

impl Running {
    /// What was due between the warm-up and the end.
    fn finish(mut self, warmup: Duration, ends: Duration) -> FloorReport {
        // Due, and never begun.
        while self.next_due() < ends {
            self.count(self.next_due(), ends);
            self.begun += 1;
        }
        let counted = self.ended.iter().filter(|(due, _)| *due >= warmup);
        let mut latencies_ns: Vec<u64> = counted.map(|(_, latency)| latency.as_nanos() as u64).collect();
        latencies_ns.sort_unstable();
        let seconds = (ends - warmup).as_secs_f64();
        FloorReport { operations: latencies_ns.len() as u64, seconds, latencies_ns, ..FloorReport::default() }
    }
}

/// An operation in flight: whose, since when it was due, and its buffer.
struct Slot {
    stream: usize,
    due: Duration,
    buffer: SlabBuffer,
}

struct Pacing {
    ring: Ring,
    slots: Vec<Option<Slot>>,
    free: VecDeque<usize>,
    in_flight: usize,
    begun: Instant,
    area_start: u64,
}

impl Pacing {
    fn run(&mut self, running: &mut [Running], time: Duration) -> Result<(), FloorError> {
        let mut events = Vec::new();
        loop {
            let now = self.begun.elapsed();
            if now < time {
                self.begin_due(now, running);
            } else if self.in_flight == 0 {
                return Ok(());
            }
            let next = running.iter().map(Running::next_due).min().unwrap_or(time).min(time);
            let until = next.saturating_sub(self.begun.elapsed());
            if now < time && until <= SPIN {
                look(&mut self.ring, until);
            } else {
                let longest = if now < time { (until - SPIN).min(LONGEST_WAIT) } else { LONGEST_WAIT };
                wait(&mut self.ring, Duration::ZERO, longest);
            }
            self.ring.take_events(&mut events);
            let now = self.begun.elapsed();
            for event in events.drain(..) {
                let Event::Drive { token, result } = event else {
                    continue;
                };
                result.map_err(FloorError::Drive)?;
                self.ended(token as usize, now, running);
            }
        }
    }

    /// Begins what is due, as far as there are buffers.
    fn begin_due(&mut self, now: Duration, running: &mut [Running]) {
        for (number, stream) in running.iter_mut().enumerate() {
            while stream.next_due() <= now && self.in_flight < MAX_DEPTH {
                let len = stream.stream.block_bytes;
                let Some(buffer) = self.ring.slab_mut().acquire(len as usize) else { return };
                let slot = Some(Slot { stream: number, due: stream.next_due(), buffer });
                let token = self.free.pop_front().unwrap_or_else(|| {
                    self.slots.push(None);
                    self.slots.len() - 1
                });
                self.slots[token] = slot;
                let at = self.area_start + stream.places.draw() * u64::from(len);
                if stream.stream.operation == Operation::Read {
                    self.ring.read(token as u64, buffer, len, at);
                } else {
                    fill(&mut self.ring, buffer, stream.begun as u32);
                    let durable = stream.stream.operation == Operation::DurableWrite;
                    self.ring.write(token as u64, buffer, len, at, durable);
                }
                stream.begun += 1;
                self.in_flight += 1;
            }
        }
    }

    fn ended(&mut self, token: usize, now: Duration, running: &mut [Running]) {
        let slot = self.slots[token].take().expect("what has ended was in flight");
        self.ring.slab_mut().release(slot.buffer);
        self.free.push_back(token);
        self.in_flight -= 1;
        running[slot.stream].count(slot.due, now);
    }
}
