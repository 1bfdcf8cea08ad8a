//! The world of a run: one queue of what happens when, and everything that it happens to.

mod audit;
mod clients;
mod damage;
mod drive;
mod faults;
mod miswrites;
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
use super::plan::{Cut, Kept, MS, Plan};
use super::trace::{Trace, Verbosity};
use super::work::{Ask, End, Keys};
use super::{account, list, loss, register};
use crate::value::Dice;

/// Linux: the device failed it; the peer broke the connection.
const IO_ERROR: i32 = 5;
const CONNECTION_RESET: i32 = 104;
/// How long everything may take to come to rest when nothing goes wrong any more.
const REST_NS: u64 = 120_000 * MS;
/// Most things that happen in a run.
const MAX_HAPPENINGS: u64 = 20_000_000;
/// So often at most a plan with a cut is cut again.
const SECOND_CUTS: usize = 2;
/// A short life of the process: what a start takes, and a few writes.
const MOST_SHORT_LIFE_NS: u64 = 8 * MS;

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
    /// Blocks that were damaged or misread.
    pub damages: u64,
    /// Whether it ended early, for the node said that its drive is too damaged to be opened.
    pub is_lost: bool,
    /// What went wrong, or would have.
    pub faults: u64,
    /// Requests of the last life that took long.
    pub slow: Box<[SlowEntry]>,
    /// The last that happened, in words.
    pub end: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operations: u64 = self.tally.values().sum();
        let hours = self.virtual_ns as f64 / 3_600e9;
        write!(f, "{operations} operations, {hours:.5} virtual hours, {} lives", self.lives)?;
        write!(
            f,
            ", {} faults, {} damages, {} lost drives",
            self.faults,
            self.damages,
            u64::from(self.is_lost)
        )?;
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
    pub outcome: Box<Outcome>,
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
    /// A client says that it will send no more.
    HalfClose,
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

impl Season {
    fn in_words(self) -> &'static str {
        match self {
            Season::Tables => "the tables are to be made",
            Season::Setup => "the accounts are to be filled",
            Season::Work => "clients work",
            Season::Rest => "nothing goes wrong any more",
            Season::Audit => "all is to be read",
            Season::Calm => "nobody asks for anything any more",
        }
    }
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
    late: Vec<miswrites::Late>,
    oracles: oracles::Oracles,
    drive_events: u64,
    /// By moment at which the power might be cut next, the writes that are not durable, where that is asked for.
    risks: Option<Vec<u32>>,
    /// What would go wrong, counted.
    faults: u64,
    is_cut: bool,
    is_cut_again: bool,
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

/// Runs a plan to its end, and gives for each moment at which the power may be cut how many writes are not durable then; of
/// a plan with a cut, for each at which it may be cut again.
pub fn moments(plan: &Plan) -> Vec<u32> {
    let mut world = World::new(plan, Verbosity::Digest);
    world.risks = Some(Vec::new());
    let wrong = world.live();
    assert!(wrong.is_empty(), "{wrong:?}");
    world.risks.unwrap_or_default()
}

/// A plan with a cut, cut again: at some moments of the life that follows at which there is something to lose, until all was read.
/// The plan with the next cut has the next moments, and each the next way to lose what is there.
pub fn second_cuts(plan: &Plan) -> Vec<Plan> {
    let some: Vec<(u64, u32)> = (1..).zip(moments(plan)).filter(|(_, writes)| *writes > 0).collect();
    let turn = plan.cut.map_or(0, |cut| cut.at as usize);
    let step = some.len().div_ceil(SECOND_CUTS).max(1);
    let again = |(at, writes): &(u64, u32)| {
        let ways = Kept::of(*writes);
        let second_cut = Some(Cut { at: *at, kept: ways[(turn + *at as usize) % ways.len()] });
        Plan { second_cut, ..plan.clone() }
    };
    some.iter().skip(turn % step).step_by(step).map(again).collect()
}

/// Runs a plan to its end.
pub fn run(plan: &Plan, verbosity: Verbosity) -> Result<Outcome, Failure> {
    let mut world = World::new(plan, verbosity);
    let mut wrong = world.live();
    wrong.append(&mut world.history.violations);
    wrong.extend(register::check(&world.history, &world.keys));
    wrong.extend(account::check(&world.history, plan.accounts as usize));
    wrong.extend(list::check(&world.history));
    wrong.extend(loss::check(&world.history, plan));
    let outcome = Outcome {
        digest: world.trace.digest(),
        notes: world.trace.len(),
        virtual_ns: world.now_ns,
        tally: world.history.tally(),
        lives: world.lives,
        damages: world.damage.count,
        is_lost: world.damage.is_told,
        faults: world.faults,
        slow: world.node.as_ref().map_or_else(Vec::new, SimNode::slow).into(),
        end: world.trace.end(),
    };
    if verbosity == Verbosity::Print {
        for (id, op) in world.history.ops() {
            println!("{:>14} ns  operation {} {:?} -> {:?}", op.called_ns, id.0, op.ask, op.end);
        }
    }
    if wrong.is_empty() { Ok(outcome) } else { Err(Failure { wrong, outcome: Box::new(outcome) }) }
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
            late: Vec::new(),
            oracles: oracles::Oracles::default(),
            drive_events: 0,
            risks: None,
            faults: 0,
            is_cut: false,
            is_cut_again: false,
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
            self.audit()?;
            self.season(Season::Calm, REST_NS)
        });
        if wrong.is_ok() && !self.damage.is_told {
            self.look_at_rest();
        }
        wrong.err().into_iter().collect()
    }

    /// Until the season's work is done; work itself is done when its time is over.
    fn season(&mut self, season: Season, within_ns: u64) -> Result<(), String> {
        self.season = season;
        self.trace.note(self.now_ns, season.in_words(), &[]);
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
        let facts = [("shard", u64::from(shard)), ("operations", asked.len() as u64)];
        self.trace.note(self.now_ns, "a shard has its turn", &facts);
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
                    let pause_ns = self.dice.below(self.network_ns());
                    self.at(self.now_ns + pause_ns, Happening::Send(link));
                }
            }
            Asked::FinishSending(socket) => self.send_to_client(shard, socket, Arrival::End),
            Asked::Close(socket) => {
                self.send_to_client(shard, socket, Arrival::End);
                if let Some(link) = self.link_of(shard, socket) {
                    self.links.get_mut(&link).expect("it was found").node_end = NodeEnd::Closed;
                }
            }
        }
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
                let may_end =
                    self.node.as_ref().is_some_and(|node| node.is_serving() || faults.crash_in_recovery);
                if may_end && self.strikes() {
                    self.crash();
                }
            }
            Happening::Restart => self.crash(),
            Happening::EarlyEnd(life) if self.season == Season::Work && life == self.lives => {
                if self.strikes() {
                    self.crash();
                }
            }
            Happening::Reset if self.season == Season::Work => self.reset(),
            Happening::Silence if self.season == Season::Work => self.silence(),
            Happening::HalfClose if self.season == Season::Work => self.half_close(),
            Happening::ClockJump if self.season == Season::Work => self.jump(),
            Happening::Damage if self.season == Season::Work => self.damage(),
            Happening::Crash
            | Happening::EarlyEnd(_)
            | Happening::Reset
            | Happening::Silence
            | Happening::HalfClose
            | Happening::ClockJump
            | Happening::Damage => {}
        }
    }

    fn start(&mut self) {
        self.lives += 1;
        self.trace.note(self.now_ns, "the node starts", &[("life", self.lives)]);
        self.begins();
        self.begins_anew();
        self.node = Some(SimNode::start(self.plan, self.geometry, self.lives, self.now_ns));
        let percent = self.plan.faults.short_lives_percent;
        if self.season == Season::Work && percent > 0 && self.dice.below(100) < percent {
            let pause_ns = self.dice.below(MOST_SHORT_LIFE_NS);
            self.at(self.now_ns + pause_ns, Happening::EarlyEnd(self.lives));
        }
    }
}
