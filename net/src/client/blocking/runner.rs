//! Runs calls over the shards' connections: pipelined, with retries, each within its timeout.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::client::blocking::link::{self, Link, Settled, Ticket};
use crate::client::call::{Attempts, Call, Course, Loss, Next};
use crate::client::connection::OwnedReply;
use crate::client::error::{ConnectError, Failure};
use crate::client::link::failure_of_encode;
use crate::client::options::ClientOptions;
use crate::client::view::NodeView;
use crate::wire::{MapVersion, RequestView, ShardId};

/// The connections of one blocking client.
pub(super) struct Runner {
    addr: String,
    pub(super) options: ClientOptions,
    pub(super) view: NodeView,
    /// By shard; a node that was started again may answer for one shard by another's connection.
    links: Vec<Option<Link>>,
    turn: usize,
    runs: u64,
    buffer: Vec<u8>,
}

/// One call on its way.
struct Flight<'c, 'a> {
    call: &'c Call<'a>,
    attempts: Attempts,
    /// Set when it is first tried.
    deadline: Option<Instant>,
    course: Option<Course>,
    sent: bool,
    done: Option<Result<OwnedReply, Failure>>,
}

/// All calls of one run.
struct Run<'c, 'a> {
    number: u64,
    flights: Vec<Flight<'c, 'a>>,
    ready: VecDeque<usize>,
    delayed: Vec<(Instant, usize)>,
    /// Waiting for the map.
    parked: Vec<usize>,
    map_asked: bool,
    /// All before this one are done.
    oldest: usize,
}

impl Runner {
    pub(super) fn connect(addr: &str, mut options: ClientOptions) -> Result<Runner, ConnectError> {
        options.normalize(addr);
        let mut view = NodeView::unknown();
        let link = Link::open(addr, &options, options.connect_timeout, &mut view)?;
        let mut runner = Runner {
            addr: addr.to_owned(),
            options,
            view,
            links: Vec::new(),
            turn: 0,
            runs: 0,
            buffer: Vec::new(),
        };
        let shard = link.shard;
        *runner.place_of(shard) = Some(link);
        Ok(runner)
    }

    /// One call.
    pub(super) fn call(&mut self, call: &Call<'_>) -> Result<OwnedReply, Failure> {
        self.run(std::slice::from_ref(call)).pop().expect("one call has one answer")
    }

    /// Asks for the map where there is a newer one. A failure shows in the call that needs the map.
    pub(super) fn refresh_map(&mut self) {
        let _ = self.call(&Call::on_node(RequestView::Map));
    }

    /// Waits for the map of at least this version, after a change of tables.
    pub(super) fn await_map(&mut self, version: MapVersion) {
        let deadline = Instant::now() + self.options.request_timeout;
        let incarnation = self.view.incarnation();
        let is_old = |view: &NodeView| view.map().version() < version && view.incarnation() == incarnation;
        while is_old(&self.view) && Instant::now() < deadline {
            self.refresh_map();
            if is_old(&self.view) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    /// All calls, pipelined; their answers in order.
    pub(super) fn run(&mut self, calls: &[Call<'_>]) -> Vec<Result<OwnedReply, Failure>> {
        self.runs += 1;
        let mut run = Run::new(self.runs, calls, self.options.retries);
        while !run.is_done() {
            self.submit_ready(&mut run);
            if run.is_done() {
                break;
            }
            let mut settled = Vec::new();
            self.move_bytes(run.wait_until(), &mut settled);
            for (ticket, outcome) in settled {
                run.settle(ticket, outcome, &self.view);
            }
            run.expire(self.options.request_timeout);
        }
        run.flights.into_iter().map(|f| f.done.expect("the run is done")).collect()
    }

    fn submit_ready(&mut self, run: &mut Run<'_, '_>) {
        run.wake_delayed();
        // As often as there were calls ready; those that fail at once come back as ready or delayed.
        for _ in 0..run.ready.len() {
            let Some(place) = run.ready.pop_front() else { return };
            if self.submit(run, place) == Submitted::NoRoom {
                run.ready.push_front(place);
                break;
            }
        }
        if !run.parked.is_empty() && !run.map_asked {
            self.ask_for_map(run);
        }
    }

    fn submit(&mut self, run: &mut Run<'_, '_>, place: usize) -> Submitted {
        let flight = &mut run.flights[place];
        if flight.done.is_some() {
            return Submitted::Yes;
        }
        flight.deadline.get_or_insert_with(|| Instant::now() + self.options.request_timeout);
        if let Err(failure) = flight.call.check(&self.view) {
            run.finish(place, Err(failure));
            return Submitted::Yes;
        }
        let course = match flight.call.course(&self.view) {
            Ok(course) => course,
            Err(failure) => {
                let next = flight.attempts.after_no_course(failure);
                run.follow(place, next);
                return Submitted::Yes;
            }
        };
        let ticket = Ticket::Call { run: run.number, place };
        match self.submit_by(flight.call, &course, ticket) {
            Ok(Submitted::Yes) => (flight.course, flight.sent) = (Some(course), true),
            Ok(Submitted::NoRoom) => return Submitted::NoRoom,
            Err(Failure::Lost { reason, maybe_sent }) => {
                let next = flight.attempts.after_loss(flight.call, Loss { reason, maybe_sent });
                run.follow(place, next);
            }
            Err(failure) => run.finish(place, Err(failure)),
        }
        Submitted::Yes
    }

    fn submit_by(&mut self, call: &Call<'_>, course: &Course, ticket: Ticket) -> Result<Submitted, Failure> {
        let room =
            self.options.max_in_flight_per_connection.min(self.view.limits().in_flight.max(1) as usize);
        let link = self
            .link_to(course.shard)
            .map_err(|error| Failure::Lost { reason: error.to_string(), maybe_sent: false })?;
        if link.connection.in_flight() >= room {
            return Ok(Submitted::NoRoom);
        }
        link.connection.set_map_version(course.map_version);
        let request = call.request(course.target);
        link.connection.submit(&request, ticket).map_err(failure_of_encode)?;
        Ok(Submitted::Yes)
    }

    fn ask_for_map(&mut self, run: &mut Run<'_, '_>) {
        let version = self.view.map().version();
        run.map_asked = match self.link_to(None) {
            Ok(link) => {
                link.connection.set_map_version(version);
                link.connection.submit(&RequestView::Map, Ticket::Map).is_ok()
            }
            Err(_) => false,
        };
        if !run.map_asked {
            // No connection: the calls' own attempts find that out, and say so.
            run.unpark();
        }
    }

    fn place_of(&mut self, shard: ShardId) -> &mut Option<Link> {
        let place = usize::from(shard.0);
        if self.links.len() <= place {
            self.links.resize_with(place + 1, || None);
        }
        &mut self.links[place]
    }

    fn link_to(&mut self, shard: Option<ShardId>) -> Result<&mut Link, ConnectError> {
        let shard = shard.unwrap_or_else(|| {
            self.turn += 1;
            ShardId((self.turn % self.view.shard_count().max(1)) as u16)
        });
        let incarnation = self.view.incarnation();
        let is_old = |link: &Link| link.incarnation != incarnation && link.connection.in_flight() == 0;
        if self.place_of(shard).as_ref().is_none_or(is_old) {
            let link = self.open(shard)?;
            *self.place_of(shard) = Some(link);
        }
        Ok(self.place_of(shard).as_mut().expect("just filled"))
    }

    /// Opens a connection to the shard's own port; where nobody answers there, to the node's address: a node
    /// that was started again has other ports, and any shard serves any request, by a hop.
    fn open(&mut self, shard: ShardId) -> Result<Link, ConnectError> {
        let known = self.view.shard_address(shard);
        if let Some(known) = known
            && let Ok(link) = self.open_at(&known.to_string())
        {
            return Ok(link);
        }
        let addr = self.addr.clone();
        let link = self.open_at(&addr)?;
        match self.view.shard_address(shard) {
            Some(now) if link.shard != shard && Some(now) != known => {
                Ok(self.open_at(&now.to_string()).unwrap_or(link))
            }
            _ => Ok(link),
        }
    }

    /// Within a call, connecting takes no longer than the call may.
    fn open_at(&mut self, addr: &str) -> Result<Link, ConnectError> {
        let timeout = self.options.connect_timeout.min(self.options.request_timeout);
        Link::open(addr, &self.options, timeout, &mut self.view)
    }

    fn move_bytes(&mut self, until: Instant, settled: &mut Vec<Settled>) {
        self.pump_all(settled);
        if settled.is_empty() {
            let timeout = until.saturating_duration_since(Instant::now());
            if link::wait(self.links.iter().flatten(), timeout).is_err() {
                // The system will not poll: do not spin on it.
                std::thread::sleep(timeout.min(Duration::from_millis(10)));
            }
            self.pump_all(settled);
        }
    }

    fn pump_all(&mut self, settled: &mut Vec<Settled>) {
        for place in &mut self.links {
            let Some(link) = place else { continue };
            if let Err(reason) = link.pump(&mut self.buffer, &mut self.view, settled) {
                let ended = place.take().expect("it was there");
                settled.extend(ended.end(&reason));
            }
        }
    }
}

#[derive(PartialEq, Eq)]
enum Submitted {
    Yes,
    NoRoom,
}

impl<'c, 'a> Run<'c, 'a> {
    fn new(number: u64, calls: &'c [Call<'a>], retries: u32) -> Run<'c, 'a> {
        let flight = |call| Flight {
            call,
            attempts: Attempts::new(retries),
            deadline: None,
            course: None,
            sent: false,
            done: None,
        };
        Run {
            number,
            flights: calls.iter().map(flight).collect(),
            ready: (0..calls.len()).collect(),
            delayed: Vec::new(),
            parked: Vec::new(),
            map_asked: false,
            oldest: 0,
        }
    }

    fn is_done(&mut self) -> bool {
        while self.flights.get(self.oldest).is_some_and(|f| f.done.is_some()) {
            self.oldest += 1;
        }
        self.oldest == self.flights.len()
    }

    fn finish(&mut self, place: usize, outcome: Result<OwnedReply, Failure>) {
        self.flights[place].done.get_or_insert(outcome);
    }

    fn follow(&mut self, place: usize, next: Next) {
        match next {
            Next::Answer(reply) => self.finish(place, Ok(reply)),
            Next::Fail(failure) => self.finish(place, Err(failure)),
            Next::Again { refresh_map: true, .. } => self.parked.push(place),
            Next::Again { wait, .. } if wait.is_zero() => self.ready.push_back(place),
            Next::Again { wait, .. } => self.delayed.push((Instant::now() + wait, place)),
        }
    }

    fn settle(&mut self, ticket: Ticket, outcome: Result<OwnedReply, Loss>, view: &NodeView) {
        let place = match ticket {
            Ticket::Map => {
                self.map_asked = false;
                return self.unpark();
            }
            // A late answer to a call that was given up.
            Ticket::Call { run, .. } if run != self.number => return,
            Ticket::Call { place, .. } => place,
        };
        let flight = &mut self.flights[place];
        if flight.done.is_some() {
            return;
        }
        flight.sent = false;
        let course = flight.course.take().expect("a call that was submitted has a course");
        let next = match outcome {
            Ok(reply) => flight.attempts.after_reply(reply, &course, view),
            Err(loss) => flight.attempts.after_loss(flight.call, loss),
        };
        self.follow(place, next);
    }

    /// The map has come, or will not. A stale map may not be news yet: wait a moment, rather than ask at full speed.
    fn unpark(&mut self) {
        let soon = Instant::now() + Duration::from_millis(1);
        self.delayed.extend(self.parked.drain(..).map(|place| (soon, place)));
    }

    fn wake_delayed(&mut self) {
        let now = Instant::now();
        let ready = &mut self.ready;
        self.delayed.retain(|(at, place)| {
            let wakes = *at <= now;
            if wakes {
                ready.push_back(*place);
            }
            !wakes
        });
    }

    /// Until when nothing happens by itself.
    fn wait_until(&self) -> Instant {
        let deadline = self.flights[self.oldest].deadline;
        let delayed = self.delayed.iter().map(|(at, _)| *at).min();
        // The oldest call has been tried, as it was ready first; without a deadline look again at once.
        deadline.into_iter().chain(delayed).min().unwrap_or_else(Instant::now)
    }

    /// Gives up calls whose time is over.
    fn expire(&mut self, timeout: Duration) {
        let now = Instant::now();
        for flight in &mut self.flights[self.oldest..] {
            match flight.deadline {
                // Calls are first tried in order, so nobody further on is due.
                None => break,
                Some(deadline) if deadline > now => {
                    if flight.done.is_none() {
                        break;
                    }
                }
                Some(_) if flight.done.is_some() => {}
                Some(_) => {
                    let failure = flight.attempts.after_timeout(flight.call, timeout, flight.sent);
                    flight.done = Some(Err(failure));
                }
            }
        }
    }
}
