//! The world of a run: one queue of what happens when, and everything that it happens to.

mod damage;
mod faults;
mod network;
mod oracles;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fmt;

use lode_engine::{DriveIdentity, Geometry, Now, format_drive};
use lode_node::slow::SlowEntry;

use super::client::SimClient;
use super::drive::{DriveOp, SimDrive};
use super::history::History;
use super::io::Asked;
use super::link::{Arrival, Link, LinkId, NodeEnd};
use super::node::{SimNode, UUID};
use super::plan::{MS, Plan};
use super::trace::{Trace, Verbosity};
use super::work::{Ask, End, Keys, OpId};
use super::{account, loss, register};
use crate::value::Dice;

/// Linux: the way to the device took too long; the write failed; the peer broke the connection.
const TIMED_OUT: i32 = 110;
const IO_ERROR: i32 = 5;
const CONNECTION_RESET: i32 = 104;
/// How long a client waits for any answer before it gives its connection up.
const PATIENCE_NS: u64 = 2_000 * MS;
/// How long everything may take to come to rest when nothing goes wrong any more.
const REST_NS: u64 = 120_000 * MS;
/// Most things that happen in a run.
const MAX_HAPPENINGS: u64 = 20_000_000;
/// How long it takes at most until somebody sees that a shard takes no writes, and starts the node again.
const OPERATOR_NS: u64 = 200 * MS;
/// A short life of the process: what a start takes, and a few writes.
const MOST_SHORT_LIFE_NS: u64 = 8 * MS;
const DRIVE_NS: u64 = 80_000;
const NETWORK_NS: u64 = 60_000;

/// How a run ended well.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What all that happened makes up.
    pub digest: u64,
    /// How much happened.
    pub notes: u64,
    /// Virtual nanoseconds.
    pub virtual_ns: u64,
    /// Operations, by how they ended.
    pub tally: BTreeMap<&'static str, u64>,
    /// Lives of the node.
    pub lives: u64,
    /// Beginnings and ends of drive operations while clients worked.
    pub drive_events: u64,
    /// Blocks that were damaged or misread.
    pub damages: u64,
    /// Whether it ended early, for the node said that its drive is too damaged to be opened.
    pub is_lost: bool,
    /// Requests of the last life that took long.
    pub slow: Box<[SlowEntry]>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: u64 = self.tally.values().sum();
        let hours = self.virtual_ns as f64 / 3_600e9;
        write!(f, "{operations} operations, {hours:.5} virtual hours, {} lives", self.lives)?;
        write!(f, ", {} damages, {} lost drives", self.damages, u64::from(self.is_lost))?;
        for (end, count) in &self.tally {
            write!(f, ", {count} {end}")?;
        }
        write!(f, ", {} happenings, digest {:016x}", self.notes, self.digest)
    }
}

/// How a run ended badly.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What is wrong, in words.
    pub wrong: Vec<String>,
    /// How it went until then.
    pub outcome: Outcome,
}

/// What happens at some time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    /// A drive operation ends.
    Drive(u64),
    /// Something arrives at the node.
    ToServer(LinkId),
    /// Something arrives at a client.
    ToClient(LinkId),
    /// The network takes more of what the node sends.
    Send(LinkId),
    /// A client may do something.
    Client(u32),
    /// The process ends.
    Crash,
    /// The operator ends it: the drive has failed a write.
    Restart,
    /// The process ends again, soon after its start, if this is still the life that was meant.
    EarlyEnd(u64),
    /// It starts again.
    Start,
    /// A connection breaks.
    Reset,
    /// A connection goes silent.
    Silence,
    /// The wall clock jumps.
    ClockJump,
    /// Something on the drive is damaged.
    Damage,
}

/// What the world does now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Season {
    /// The tables are made, one after the other.
    Tables,
    /// The accounts are filled; nothing goes wrong.
    Setup,
    /// Clients ask, and things go wrong.
    Work,
    /// Nothing goes wrong any more, and nobody asks anything new.
    Rest,
    /// Everything is read once more.
    Audit,
    /// Nobody asks for anything, until nothing is under way.
    Calm,
}

struct UnderWay {
    shard: u16,
    token: u64,
    op: DriveOp,
    error: Option<i32>,
}

struct World<'p> {
    plan: &'p Plan,
    geometry: Geometry,
    dice: Dice,
    trace: Trace,
    now_ns: u64,
    wall_offset_ns: i64,
    queue: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    /// Orders what happens at the same time.
    queued: u64,
    drive: SimDrive,
    node: Option<SimNode>,
    lives: u64,
    under_way: BTreeMap<u64, UnderWay>,
    next_under_way: u64,
    links: BTreeMap<LinkId, Link>,
    next_link: u64,
    clients: Vec<SimClient>,
    /// When each client last heard anything.
    heard_ns: Vec<u64>,
    history: History,
    keys: Keys,
    season: Season,
    /// What is still to be asked before the next season.
    to_do: Vec<Ask>,
    damage: damage::Damage,
    oracles: oracles::Oracles,
    drive_events: u64,
    is_cut: bool,
    /// What was done to the drive, in order, and what it gave, where that is asked for.
    record: Option<Vec<(DriveOp, Vec<u8>)>>,
}

/// All that was done to a drive.
pub struct Record {
    /// The drive before.
    pub before: Vec<u8>,
    /// What was done, in order, and what was read.
    pub operations: Vec<(DriveOp, Vec<u8>)>,
    /// The drive after.
    pub after: Vec<u8>,
}

/// Runs a plan to its end, and gives all that was done to the drive.
pub fn record(plan: &Plan) -> Record {
    let mut world = World::new(plan, Verbosity::Digest);
    let before = world.drive.bytes().to_vec();
    world.record = Some(Vec::new());
    let wrong = world.live();
    assert!(wrong.is_empty(), "{wrong:?}");
    Record { before, operations: world.record.unwrap_or_default(), after: world.drive.bytes().to_vec() }
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, verbosity: Verbosity) -> Result<Outcome, Failure> {
    let mut world = World::new(plan, verbosity);
    let mut wrong = world.live();
    wrong.append(&mut world.history.violations);
    wrong.extend(register::check(&world.history, &world.keys));
    wrong.extend(account::check(&world.history, plan.accounts as usize));
    wrong.extend(loss::check(&world.history, plan));
    let outcome = Outcome {
        digest: world.trace.digest(),
        notes: world.trace.len(),
        virtual_ns: world.now_ns,
        tally: world.history.tally(),
        lives: world.lives,
        drive_events: world.drive_events,
        damages: world.damage.count,
        is_lost: world.damage.is_told,
        slow: world.node.as_ref().map_or_else(Vec::new, SimNode::slow).into(),
    };
    if verbosity == Verbosity::Print {
        for (id, op) in world.history.ops() {
            println!("{:>14} ns  operation {} {:?} -> {:?}", op.called_ns, id.0, op.ask, op.end);
        }
    }
    if wrong.is_empty() { Ok(outcome) } else { Err(Failure { wrong, outcome }) }
}

impl<'p> World<'p> {
    fn new(plan: &'p Plan, verbosity: Verbosity) -> World<'p> {
        let geometry =
            Geometry::plan(plan.drive_bytes, plan.shards, Some(plan.segment_bytes), plan.longest_value_bytes);
        let geometry = geometry.unwrap_or_else(|error| panic!("the plan's drive cannot be: {error}"));
        let mut drive =
            SimDrive::new(geometry.drive_bytes as usize, plan.seed ^ 0xd71e, plan.faults.drive_lies);
        for (at, block) in format_drive(&geometry, DriveIdentity { uuid: UUID, created_wall_ns: 1 }) {
            drive.put(at.0 as usize, &block);
        }
        if plan.has_damage() {
            drive.remember();
        }
        let keys = Keys::new(plan);
        World {
            plan,
            geometry,
            dice: Dice::new(plan.seed),
            trace: Trace::new(verbosity),
            now_ns: 1,
            // Not so early that the clock could be set back to before all time.
            wall_offset_ns: 1_000_000_000 * MS as i64,
            queue: BinaryHeap::new(),
            queued: 0,
            drive,
            node: None,
            lives: 0,
            under_way: BTreeMap::new(),
            next_under_way: 0,
            links: BTreeMap::new(),
            next_link: 0,
            clients: (0..plan.clients).map(|_| SimClient::new(plan)).collect(),
            heard_ns: vec![0; plan.clients as usize],
            history: History::default(),
            to_do: keys.first_changes().into_iter().rev().collect(),
            keys,
            season: Season::Tables,
            damage: damage::Damage::default(),
            oracles: oracles::Oracles::default(),
            drive_events: 0,
            is_cut: false,
            record: None,
        }
    }

    /// Everything happens, season by season. Gives what is wrong.
    fn live(&mut self) -> Vec<String> {
        self.at(1, Happening::Start);
        for client in 0..self.plan.clients {
            self.at(1, Happening::Client(client));
        }
        let wrong = self.season(Season::Tables, REST_NS).and_then(|()| {
            self.to_do = self.keys.accounts().into_iter().map(|key| Ask::Deposit { key }).collect();
            self.season(Season::Setup, REST_NS)?;
            self.begin_faults();
            self.season(Season::Work, self.plan.duration_ns)?;
            self.season(Season::Rest, REST_NS)?;
            self.to_do = self.everything();
            self.season(Season::Audit, REST_NS)?;
            self.season(Season::Calm, REST_NS)
        });
        if wrong.is_ok() && !self.damage.is_told {
            self.look_at_rest();
        }
        wrong.err().into_iter().collect()
    }

    /// Reads of all that there is.
    fn everything(&self) -> Vec<Ask> {
        let gets = self.keys.registers().into_iter().map(|key| Ask::Get { key });
        gets.chain([Ask::Audit]).collect()
    }

    /// Until the season's work is done; work itself is done when its time is over.
    fn season(&mut self, season: Season, within_ns: u64) -> Result<(), String> {
        self.season = season;
        self.trace.note(self.now_ns, "season", &[season as u64]);
        let end_ns = self.now_ns + within_ns;
        loop {
            let is_over = match season {
                Season::Work => self.is_cut,
                Season::Calm => self.is_at_rest() && self.not_calm().is_empty(),
                _ => self.is_at_rest(),
            };
            if is_over || self.damage.is_told {
                return Ok(());
            }
            if self.now_ns >= end_ns || self.trace.len() > MAX_HAPPENINGS {
                return if season == Season::Work { Ok(()) } else { Err(self.stuck()) };
            }
            self.step();
        }
    }

    fn is_at_rest(&self) -> bool {
        self.to_do.is_empty()
            && self.history.open() == 0
            && self.node.as_ref().is_some_and(SimNode::is_serving)
    }

    fn stuck(&self) -> String {
        let open: Vec<String> = self
            .history
            .ops()
            .filter(|(_, op)| op.end == End::Open)
            .map(|(id, op)| format!("\n    {} asked at {} ns: {:?}", id.0, op.called_ns, op.ask))
            .collect();
        let (season, left) = (self.season, self.to_do.len());
        format!(
            "{season:?} does not come to its end: {left} left to ask, {:?}, {} open:{}",
            self.not_calm(),
            open.len(),
            open.concat()
        )
    }

    fn at(&mut self, at_ns: u64, happening: Happening) {
        self.queued += 1;
        self.queue.push(Reverse((at_ns, self.queued, happening)));
    }

    /// The next thing happens.
    fn step(&mut self) {
        let next_ns = self.queue.peek().map_or(u64::MAX, |Reverse((at_ns, ..))| *at_ns);
        let turn = self.node.as_ref().map(SimNode::next_turn).filter(|(turn_ns, _)| *turn_ns <= next_ns);
        if let Some((turn_ns, shard)) = turn {
            self.now_ns = self.now_ns.max(turn_ns);
            self.history.wall(self.now().wall_ns / MS);
            return self.turn(shard);
        }
        let Some(Reverse((at_ns, _, happening))) = self.queue.pop() else {
            // Nothing will ever happen: whoever waits for something is told so by the end of the season.
            self.now_ns = u64::MAX;
            return;
        };
        self.now_ns = self.now_ns.max(at_ns);
        self.history.wall(self.now().wall_ns / MS);
        self.happen(happening);
    }

    fn now(&self) -> Now {
        let wall_ns = self.now_ns.saturating_add_signed(self.wall_offset_ns);
        Now { monotonic_ns: self.now_ns, wall_ns }
    }

    fn turn(&mut self, shard: u16) {
        let (now, delay_ns) = (self.now(), self.dice.roll());
        let Some(node) = &mut self.node else { return };
        let was_serving = node.is_serving();
        node.turn(shard, now, delay_ns);
        let (is_serving, is_damaged) = (node.is_serving(), node.is_damaged());
        let asked = node.io(shard).take_asked();
        self.trace.note(self.now_ns, "turn", &[u64::from(shard), asked.len() as u64]);
        for asked in asked {
            // The power may be cut between two operations.
            if self.node.is_some() {
                self.asked(shard, asked);
            }
        }
        self.watch(shard);
        if is_serving && !was_serving {
            self.serves();
        }
        if is_damaged {
            self.cannot_open();
        }
    }

    fn asked(&mut self, shard: u16, asked: Asked) {
        match asked {
            Asked::Drive { token, op } => self.start_drive(shard, token, op),
            Asked::Send { socket, bytes } => {
                if let Some(link) = self.link_of(shard, socket) {
                    self.links.get_mut(&link).expect("it was found").begin_send(bytes);
                    let pause_ns = self.dice.below(NETWORK_NS);
                    self.at(self.now_ns + pause_ns, Happening::Send(link));
                }
            }
            Asked::FinishSending(socket) => self.send_to_client(shard, socket, Arrival::End),
            Asked::Close(socket) => {
                self.send_to_client(shard, socket, Arrival::Reset);
                if let Some(link) = self.link_of(shard, socket) {
                    self.links.get_mut(&link).expect("it was found").node_end = NodeEnd::Closed;
                }
            }
        }
    }

    fn start_drive(&mut self, shard: u16, token: u64, op: DriveOp) {
        let faults = &self.plan.faults;
        let (read_ppm, write_ppm, slow_ppm) =
            (faults.read_errors_ppm, faults.write_errors_ppm, faults.slow_operations_ppm);
        let is_serving = self.node.as_ref().is_some_and(SimNode::is_serving);
        let error = match op {
            // What cannot be read at a start is taken for damage: see the runs with damage.
            DriveOp::Read { .. } => (is_serving && self.happens(read_ppm)).then_some(TIMED_OUT),
            DriveOp::Write { .. } | DriveOp::Flush => self.happens(write_ppm).then_some(IO_ERROR),
            DriveOp::Discard { .. } => None,
        };
        let slowness = if self.happens(slow_ppm) { 100 } else { 1 };
        let pause_ns = DRIVE_NS / 4 + self.dice.below(slowness * DRIVE_NS);
        let id = self.next_under_way;
        self.next_under_way += 1;
        self.under_way.insert(id, UnderWay { shard, token, op, error });
        self.at(self.now_ns + pause_ns, Happening::Drive(id));
        self.drive_event();
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Drive(id) => self.end_drive(id),
            Happening::ToServer(link) => self.arrive_at_server(link),
            Happening::ToClient(link) => self.arrive_at_client(link),
            Happening::Send(link) => self.take_sending(link),
            Happening::Client(client) => self.act(client),
            Happening::Start => self.start(),
            Happening::Crash if self.season == Season::Work => {
                let faults = self.plan.faults;
                self.after_interval(faults.crash_interval_ns, Happening::Crash);
                if self.node.as_ref().is_some_and(|node| node.is_serving() || faults.crash_in_recovery) {
                    self.crash();
                }
            }
            Happening::Restart => self.crash(),
            Happening::EarlyEnd(life) if self.season == Season::Work && life == self.lives => self.crash(),
            Happening::Reset if self.season == Season::Work => self.reset(),
            Happening::Silence if self.season == Season::Work => self.silence(),
            Happening::ClockJump if self.season == Season::Work => self.jump(),
            Happening::Damage if self.season == Season::Work => self.damage(),
            Happening::Crash
            | Happening::EarlyEnd(_)
            | Happening::Reset
            | Happening::Silence
            | Happening::ClockJump
            | Happening::Damage => {}
        }
    }

    fn end_drive(&mut self, id: u64) {
        // Of an earlier life: what becomes of it was decided when that ended.
        let Some(UnderWay { shard, token, op, error }) = self.under_way.remove(&id) else { return };
        let misread = match (&op, error) {
            (DriveOp::Read { at, len }, None) => self.misread(shard, *at, *len),
            _ => None,
        };
        let result = match error {
            None => misread.unwrap_or_else(|| {
                self.is_written(&op);
                self.is_kept(shard, &op);
                let read = self.drive.perform(&op);
                if let Some(record) = &mut self.record {
                    record.push((op.clone(), read.clone()));
                }
                Ok(read)
            }),
            Some(error) => {
                self.drive.fail(&op);
                if !matches!(op, DriveOp::Read { .. }) {
                    let pause_ns = self.dice.below(OPERATOR_NS);
                    self.at(self.now_ns + pause_ns, Happening::Restart);
                }
                Err(error)
            }
        };
        self.trace.note(self.now_ns, "drive", &[u64::from(shard), token, u64::from(error.is_some())]);
        let delay_ns = self.dice.roll();
        let node = self.node.as_mut().expect("operations end with their node");
        node.io(shard).drive_done(token, result);
        node.wake(shard, self.now_ns, delay_ns);
        self.drive_event();
    }

    fn start(&mut self) {
        self.lives += 1;
        self.trace.note(self.now_ns, "start", &[self.lives]);
        self.begins();
        self.begins_anew();
        self.node = Some(SimNode::start(self.plan, self.geometry, self.lives, self.now_ns));
        let percent = self.plan.faults.short_lives_percent;
        if self.season == Season::Work && percent > 0 && self.dice.below(100) < percent {
            let pause_ns = self.dice.below(MOST_SHORT_LIFE_NS);
            self.at(self.now_ns + pause_ns, Happening::EarlyEnd(self.lives));
        }
    }

    /// The client's connection is over, on its side.
    fn give_up(&mut self, client: u32) {
        let place = client as usize;
        let Some(id) = self.clients[place].link else { return };
        self.trace.note(self.now_ns, "gave up", &[u64::from(client)]);
        self.clients[place].lost(&mut self.history);
        let at_ns = self.now_ns + self.dice.below(NETWORK_NS);
        let link = self.links.get_mut(&id).expect("links stay");
        let at_ns = link.send_to_server(at_ns, Arrival::Reset);
        self.at(at_ns, Happening::ToServer(id));
    }

    /// A client does something, or waits for another moment to.
    fn act(&mut self, client: u32) {
        let think_ns =
            if self.season == Season::Work { self.plan.think_ns } else { self.plan.think_ns.min(MS) };
        let pause_ns = 1 + self.dice.below(2 * think_ns);
        self.at(self.now_ns + pause_ns, Happening::Client(client));
        let place = client as usize;
        if self.clients[place].link.is_none() {
            return self.connect(client);
        }
        if self.now_ns - self.heard_ns[place] > PATIENCE_NS && self.clients[place].in_flight() > 0 {
            return self.give_up(client);
        }
        if !self.clients[place].is_ready() {
            if self.now_ns - self.heard_ns[place] > PATIENCE_NS {
                self.give_up(client);
            }
            return;
        }
        if self.clients[place].in_flight() < self.plan.depth
            && let Some(ask) = self.draw(place)
        {
            let id = self.history.call(ask, self.now_ns);
            if self.clients[place].in_flight() == 0 {
                self.heard_ns[place] = self.now_ns;
            }
            self.clients[place].ask(id, &self.history);
            self.flush(client);
        }
    }

    fn draw(&mut self, client: usize) -> Option<Ask> {
        match self.season {
            Season::Work => {
                let known =
                    |key: &[u8]| -> Option<(OpId, lode_net::wire::Seq)> { self.clients[client].known(key) };
                Some(self.keys.draw(&mut self.dice, &known))
            }
            Season::Tables if client > 0 || self.clients[client].in_flight() > 0 => None,
            Season::Tables | Season::Setup | Season::Audit => self.to_do.pop(),
            Season::Rest | Season::Calm => None,
        }
    }

    fn connect(&mut self, client: u32) {
        let Some(node) = &self.node else { return };
        let (run, shards) = (node.run, u64::from(self.plan.shards));
        let shard = self.dice.below(shards) as u16;
        self.next_link += 1;
        let id = LinkId(self.next_link);
        self.links.insert(id, Link::new(client, shard, run));
        self.clients[client as usize].connect(id);
        self.heard_ns[client as usize] = self.now_ns;
        self.trace.note(self.now_ns, "connect", &[u64::from(client), u64::from(shard)]);
        self.flush(client);
    }
}
