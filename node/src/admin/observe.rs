//! The observer: a thread that asks every shard once a second what it has counted, adds it up, and keeps what happened.
//!
//! It makes the shards no work but what `reactor::observe` says, and takes none of their locks: there are none. It runs at a low
//! priority, so that where cores are short it is this that waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lode_engine::ShardId;

use super::State;
use super::health::Health;
use super::limits::{LIVE_TICKS, SILENCE, STEP_S, TICK, TOP_PARTITIONS};
use super::partitions::{Partitions, table_names, top};
use super::view::{ShardView, View, sums};
use crate::control::stats::resident_bytes;
use crate::mailbox::{Mail, Mailbox};
use crate::reactor::latency::Latencies;
use crate::reactor::meter::Kind;
use crate::reactor::{Observation, Sample};

/// How long the shards may take within a tick before the picture is made of what there is.
const PATIENCE: Duration = Duration::from_millis(200);
/// What the observer gives way by, as of `nice`.
const NICENESS: i32 = 10;
/// Ticks whose requests count as recent.
const RECENT_TICKS: usize = 10;

/// The thread; ends when told to, or when dropped.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Begins to observe the shards of these mailboxes.
    pub fn begin(mailboxes: Arc<[Mailbox]>, begun: Instant, state: Arc<State>) -> std::io::Result<Observer> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let body = move || Observing::new(mailboxes, begun, state).run(&stopped);
        let thread = std::thread::Builder::new().name("lode-observer".into()).spawn(body)?;
        Ok(Observer { stop, thread: Some(thread) })
    }

    /// Ends it.
    pub fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A thread that panicked has told why, and the node can do without it.
            let _ = thread.join();
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets this thread wait where cores are short. Refused, it runs as any other.
pub fn give_way() {
    let _ = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS);
}

/// What is known of one shard.
struct Watched {
    /// The room for its next answer; away while it answers.
    room: Option<Box<Sample>>,
    heard: Instant,
    view: ShardView,
}

struct Observing {
    mailboxes: Arc<[Mailbox]>,
    begun: Instant,
    state: Arc<State>,
    back: Sender<(ShardId, Box<Sample>)>,
    samples: Receiver<(ShardId, Box<Sample>)>,
    watched: Vec<Watched>,
    partitions: Partitions,
    view: View,
    /// Latencies at the ends of the last ticks, the oldest first.
    before: std::collections::VecDeque<[Latencies; Kind::ALL.len()]>,
    ticks: u64,
    ticked: Instant,
    live_since: Instant,
}

impl Observing {
    fn new(mailboxes: Arc<[Mailbox]>, begun: Instant, state: Arc<State>) -> Observing {
        let (back, samples) = channel();
        let now = Instant::now();
        let watch = |id| Watched {
            room: Some(Box::new(Sample::empty())),
            heard: now,
            view: ShardView { id, ..ShardView::default() },
        };
        Observing {
            watched: (0..mailboxes.len() as u16).map(watch).collect(),
            mailboxes,
            begun,
            state,
            back,
            samples,
            partitions: Partitions::default(),
            view: View::empty(),
            before: std::collections::VecDeque::new(),
            ticks: 0,
            ticked: now,
            live_since: now,
        }
    }

    fn run(mut self, stopped: &AtomicBool) {
        give_way();
        let mut next = Instant::now();
        while !stopped.load(Ordering::Relaxed) {
            self.ask();
            self.listen(Instant::now() + PATIENCE);
            self.tick();
            next = (next + TICK).max(Instant::now());
            while Instant::now() < next && !stopped.load(Ordering::Relaxed) {
                std::thread::park_timeout(next.saturating_duration_since(Instant::now()));
            }
        }
    }

    /// Asks every shard that has answered.
    fn ask(&mut self) {
        for (watched, mailbox) in self.watched.iter_mut().zip(self.mailboxes.iter()) {
            let Some(sample) = watched.room.take() else { continue };
            let observation = Box::new(Observation { sample, back: self.back.clone() });
            // A full box is asked again in the next tick.
            if let Err(Mail::Observe(observation)) = mailbox.post(Mail::Observe(observation)) {
                watched.room = Some(observation.sample);
            }
        }
    }

    /// Takes answers until every shard has given one, or for so long.
    fn listen(&mut self, until: Instant) {
        while self.watched.iter().any(|watched| watched.room.is_none()) {
            match self.samples.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((shard, sample)) => self.take(shard, sample),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => unreachable!("a sender is kept"),
            }
        }
    }

    fn take(&mut self, shard: ShardId, mut sample: Box<Sample>) {
        let watched = &mut self.watched[usize::from(shard.0)];
        watched.heard = Instant::now();
        watched.view.engine = sample.engine.take().unwrap_or_default();
        watched.view.reactor = sample.reactor.clone();
        self.partitions.sizes(shard.0, &sample.sizes, sample.is_round);
        for (partition, counts) in sample.meter.rows() {
            self.partitions.count(*partition, counts);
        }
        for (all, new) in self.view.latencies.iter_mut().zip(sample.meter.latencies()) {
            all.merge(new);
        }
        for (all, new) in self.view.statuses.iter_mut().zip(sample.meter.statuses()) {
            *all += new;
        }
        if !Arc::ptr_eq(&self.view.map, &sample.map) {
            self.view.map = Arc::clone(&sample.map);
            self.view.tables = Arc::new(table_names(&sample.map));
        }
        sample.meter.clear();
        watched.room = Some(sample);
    }

    /// Makes the picture of this second, and adds it to the history.
    fn tick(&mut self) {
        let now = Instant::now();
        let seconds = now.duration_since(self.ticked).as_secs_f64().max(1e-3);
        self.ticked = now;
        self.ticks += 1;
        for watched in &mut self.watched {
            let silent = now.duration_since(watched.heard);
            watched.view.silent_s = (silent > SILENCE).then_some(silent.as_secs());
        }
        let view = &mut self.view;
        let cpu_of = |watched: &Watched| {
            let before =
                view.shards.get(usize::from(watched.view.id)).map_or(0, |shard| shard.reactor.cpu_us);
            watched.view.reactor.cpu_us.saturating_sub(before) as f64 * 1e-6 / seconds
        };
        view.busiest_shard = self.watched.iter().map(cpu_of).fold(0.0, f64::max);
        view.shards = self.watched.iter().map(|watched| watched.view.clone()).collect();
        let totals = sums(&view.shards);
        let rate = |(name, total): (&&'static str, &u64)| {
            let before = view.totals.get(name).copied().unwrap_or(*total);
            (*name, total.saturating_sub(before) as f64 / seconds)
        };
        view.rates = totals.iter().map(rate).collect();
        view.totals = totals;
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        view.at_ms = since_epoch.as_millis() as u64;
        view.uptime_s = self.begun.elapsed().as_secs_f64();
        view.resident_bytes = resident_bytes().unwrap_or(0);
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        view.cpu_s = cpu.tv_sec as f64 + cpu.tv_nsec as f64 * 1e-9;
        view.health = Health::of_shards(&view.shards, view.rate("busy"));
        let oldest = self.before.front();
        for (kind, recent) in view.recent.iter_mut().enumerate() {
            let all = &view.latencies[kind];
            *recent = oldest.map_or_else(|| all.clone(), |before| all.since(&before[kind]));
        }
        self.before.push_back(view.latencies.clone());
        if self.before.len() > RECENT_TICKS {
            self.before.pop_front();
        }
        if self.ticks.is_multiple_of(LIVE_TICKS) {
            view.live = Arc::new(self.partitions.take_live());
            view.live_s = now.duration_since(self.live_since).as_secs_f64().max(1e-3);
            self.live_since = now;
            view.top = Arc::new(top(&view.live, TOP_PARTITIONS));
            view.left_out = self.partitions.left_out();
        }
        let (time_s, ends_step) = (view.at_ms / 1000, self.ticks.is_multiple_of(STEP_S));
        const WHOLE: &str = "nobody panics while holding it";
        self.state.node_history.lock().expect(WHOLE).push(time_s, view, ends_step);
        self.state.show(view.clone());
        if ends_step {
            let step = self.partitions.take_step();
            self.state.history.lock().expect(WHOLE).push(time_s, &step);
        }
    }
}
