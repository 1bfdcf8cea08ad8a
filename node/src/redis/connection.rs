//! One connection: bytes in, commands begun in their order, replies out in that order.
//!
//! Commands of one pipeline are under way together where none is in another's way, so that their writes share the
//! device's; what they are told, and what each sees of those before it, is as if they were done one by one.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use lode_net::resp::{Parser, Protocol, Reply, Request};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::door::{Door, Peer};
use super::limits::{
    LEAST_HELD_BYTES, MAX_IN_WORK, MAX_READ_AHEAD_BYTES, MAX_REQUEST_BYTES, MAX_STRANGER_BYTES, STALL_TIMEOUT,
};
use super::memory::Held;
use super::output::Output;
use super::refusal::Refusal;
use super::session::{Begun, Order, Session, Task};

/// Room for what is received at once.
const READ_BYTES: usize = 16 << 10;
/// Between two looks for a stalled peer.
const LOOK_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// A command in its turn.
struct Turn {
    protocol: Protocol,
    access: Option<Order>,
    /// It is not gone on with where the connection has ended.
    may_be_left: bool,
    state: State,
}

enum State {
    Done(Answer),
    Running(JoinHandle<Answer>),
}

/// A reply, and what it is counted for until it is in the output.
struct Answer {
    reply: Reply,
    _held: Option<Held>,
}

/// What a connection has.
struct Connection {
    door: Rc<Door>,
    session: Session,
    parser: Parser,
    input: BytesMut,
    /// Begun, in their order.
    turns: VecDeque<Turn>,
    /// The next one, where something is in its way.
    waiting: Option<(Protocol, Task)>,
    out: Output,
    /// What the answers behind the first that is not there hold, in bytes.
    answered_bytes: Rc<Cell<usize>>,
    /// What the input takes in memory.
    input_bytes: usize,
    /// A request was forgotten because memory was short.
    is_forgotten: bool,
    /// No more requests are taken.
    is_closing: bool,
    /// The peer has said all that it will: nothing more is received, and what is here is still taken.
    is_at_end: bool,
    /// The parser wants more bytes.
    is_hungry: bool,
    /// A command is on its way that changes what the next ones mean.
    is_settling: bool,
    held_bytes: usize,
    received_at: Instant,
    sent_at: Instant,
}

/// What woke a connection.
enum Woken {
    Received(io::Result<usize>),
    Sent(io::Result<usize>),
    Flushed,
    Answered,
    Look,
    Stop,
}

/// Serves a connection to its end.
pub async fn serve(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    door: Rc<Door>,
    peer: Rc<Peer>,
    mut stop: watch::Receiver<bool>,
) {
    let number = peer.number;
    let mut connection = Connection::new(door.clone(), peer);
    let mut look = tokio::time::interval(LOOK_EVERY);
    // What was written may wait to be encrypted or sent until it is handed on.
    let mut is_flushed = true;
    loop {
        connection.advance();
        if connection.is_over() {
            break;
        }
        let (may_receive, has_output) = (connection.may_receive(), connection.has_output());
        let is_stopping = *stop.borrow();
        if may_receive && connection.input.capacity() - connection.input.len() < READ_BYTES / 4 {
            connection.input.reserve(READ_BYTES);
        }
        let woken = tokio::select! {
            biased;
            () = front(&mut connection.turns) => Woken::Answered,
            sent = hand_on(&mut writer, connection.out.next()), if has_output || !is_flushed => {
                is_flushed = !has_output;
                match sent {
                    Ok(_) if is_flushed => Woken::Flushed,
                    sent => Woken::Sent(sent),
                }
            }
            received = reader.read_buf(&mut connection.input), if may_receive => Woken::Received(received),
            _ = look.tick() => Woken::Look,
            _ = stop.changed(), if !is_stopping => Woken::Stop,
        };
        if !connection.wake(woken) {
            break;
        }
    }
    connection.leave();
    door.leave(number);
    // What was answered last is to arrive before the end of the connection does.
    let _ = writer.shutdown().await;
}

/// Sends what there is; behind the last of it, what still waits below to be encrypted or sent.
async fn hand_on(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        [] => writer.flush().await.map(|()| 0),
        bytes => writer.write(bytes).await,
    }
}

/// Waits until the first command that is not answered is done.
async fn front(turns: &mut VecDeque<Turn>) {
    let Some(Turn { state, .. }) = turns.front_mut() else { return std::future::pending().await };
    let State::Running(running) = state else { return };
    let done = poll_fn(|context| match Pin::new(&mut *running).poll(context) {
        Poll::Ready(done) => Poll::Ready(done),
        Poll::Pending => Poll::Pending,
    });
    *state = State::Done(answer_of(done.await));
}

fn answer_of(done: Result<Answer, tokio::task::JoinError>) -> Answer {
    // A task ends otherwise only by a panic, which has aborted the process, or while the door closes.
    done.unwrap_or_else(|error| {
        let refusal = Refusal::new(format_args!("the command was not finished: {error}"));
        Answer { reply: refusal.into(), _held: None }
    })
}

impl Connection {
    fn new(door: Rc<Door>, peer: Rc<Peer>) -> Connection {
        let now = Instant::now();
        Connection {
            session: Session::new(door.clone(), peer),
            parser: Parser::new(if door.access.is_some() { MAX_STRANGER_BYTES } else { MAX_REQUEST_BYTES }),
            door,
            input: BytesMut::new(),
            turns: VecDeque::new(),
            waiting: None,
            out: Output::default(),
            answered_bytes: Rc::default(),
            input_bytes: 0,
            is_forgotten: false,
            is_closing: false,
            is_at_end: false,
            is_hungry: true,
            is_settling: false,
            held_bytes: 0,
            received_at: now,
            sent_at: now,
        }
    }

    fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    fn is_over(&self) -> bool {
        self.is_closing && self.turns.is_empty() && self.waiting.is_none() && !self.has_output()
    }

    /// More is received for a request that is not whole, and ahead of those that are, within the limits.
    fn may_receive(&self) -> bool {
        let may_read_ahead = || self.input.len() < self.door.share().min(MAX_READ_AHEAD_BYTES);
        !self.is_closing && !self.is_at_end && (self.is_hungry || may_read_ahead())
    }

    /// Commands are begun while the replies that wait are within theirs.
    fn may_begin(&self) -> bool {
        let is_settled = self.waiting.is_none() && !self.is_settling;
        let replies = self.out.next().len() + self.answered_bytes.get();
        is_settled && self.turns.len() < MAX_IN_WORK && replies < self.door.share()
    }

    /// Takes in what happened; false: the connection is to end.
    fn wake(&mut self, woken: Woken) -> bool {
        match woken {
            Woken::Received(Ok(0)) => {
                self.is_at_end = true;
                true
            }
            Woken::Received(Ok(_)) => {
                self.received_at = Instant::now();
                true
            }
            Woken::Sent(Ok(bytes)) if bytes > 0 => {
                self.out.took(bytes);
                self.sent_at = Instant::now();
                true
            }
            Woken::Received(Err(_)) | Woken::Sent(_) => false,
            Woken::Answered | Woken::Flushed => true,
            Woken::Look => !self.has_stalled() && !self.session.is_stranger_for_too_long(),
            Woken::Stop => {
                self.is_closing = true;
                true
            }
        }
    }

    fn has_stalled(&self) -> bool {
        let amid = self.is_hungry && !self.is_at_end && self.parser.is_amid(&self.input);
        let stops = amid && self.received_at.elapsed() > STALL_TIMEOUT;
        stops || self.has_output() && self.sent_at.elapsed() > STALL_TIMEOUT
    }

    /// Goes on as far as it can without waiting.
    fn advance(&mut self) {
        loop {
            self.collect();
            if let Some((protocol, task)) = self.waiting.take() {
                self.start(protocol, task);
            }
            if self.is_closing || !self.may_begin() {
                break;
            }
            if let Some(most) = self.session.request_bytes() {
                self.parser.set_max_held_bytes(most);
            }
            match self.parser.next(&mut self.input) {
                Ok(Some(Request::Command(args))) => self.take(args),
                Ok(Some(Request::TooLarge)) => {
                    let refusal = self.too_large();
                    let begun = self.session.refuse(refusal);
                    self.push(begun);
                }
                Ok(None) => {
                    // Of a request that will never be whole, nothing is done.
                    self.is_closing |= self.is_at_end;
                    self.is_hungry = true;
                    self.bound();
                    return;
                }
                Err(error) => {
                    self.push(Begun::Last(Reply::error(error)));
                    break;
                }
            }
        }
        self.is_hungry = false;
        self.bound();
    }

    /// The peer has gone, and with it what is only for him: what goes through whole tables would else go on for nobody, and
    /// whoever connects again and again would have any number of them under way.
    fn leave(&mut self) {
        for turn in self.turns.iter().filter(|turn| turn.may_be_left) {
            if let State::Running(task) = &turn.state {
                task.abort();
            }
        }
        self.hold(0);
    }

    /// Counts what is held; where that is too much of all, a request that is large is forgotten.
    fn bound(&mut self) {
        self.collect();
        self.input_bytes = self.input_bytes.max(self.input.capacity());
        let is_within = self.parser.held_bytes() > 0;
        if self.input_bytes > LEAST_HELD_BYTES && self.input.len() <= READ_BYTES && !is_within {
            // What was long is over, and its room is to be free.
            self.input = BytesMut::from(&self.input[..]);
            self.input_bytes = self.input.capacity();
        }
        self.count();
        let is_over = self.held_bytes + self.answered_bytes.get() > self.door.share();
        if self.door.memory.is_short() && is_over && self.parser.held_bytes() > LEAST_HELD_BYTES {
            self.parser.forget();
            self.is_forgotten = true;
            self.input = BytesMut::from(&self.input[..]);
            self.input_bytes = self.input.capacity();
            self.count();
        }
    }

    fn count(&mut self) {
        // A request under way lies in the input, most of it.
        let asked = self.input_bytes.max(self.parser.held_bytes());
        self.hold(asked + self.out.held_bytes() + self.session.held_bytes());
    }

    /// Why a request was not kept.
    fn too_large(&mut self) -> Refusal {
        if std::mem::take(&mut self.is_forgotten) {
            return Refusal::short_of_memory();
        }
        let most = self.session.request_bytes().unwrap_or(MAX_REQUEST_BYTES);
        Refusal::new(format_args!("the request is larger than {most} bytes; nothing was done"))
    }

    fn hold(&mut self, bytes: usize) {
        self.door.memory.hold(self.held_bytes, bytes);
        self.held_bytes = bytes;
        self.door.tally.held_bytes.set(self.door.memory.held_bytes());
    }

    fn take(&mut self, args: Vec<Bytes>) {
        let begun = self.session.begin(args);
        self.push(begun);
    }

    fn push(&mut self, begun: Begun) {
        let protocol = self.session.protocol();
        match begun {
            Begun::Told(reply) => self.tell(protocol, reply),
            Begun::Last(reply) => {
                self.tell(protocol, reply);
                self.is_closing = true;
            }
            Begun::Cut => self.is_closing = true,
            Begun::Work(task) => self.start(protocol, task),
            Begun::Settles(work) => {
                self.is_settling = true;
                self.start(protocol, Task { order: Order::Alone, reply_bytes: 0, may_be_left: false, work });
            }
        }
    }

    /// Puts what is answered already in its turn.
    fn tell(&mut self, protocol: Protocol, reply: Reply) {
        let mut held = self.held(0);
        held.settle(reply.size_bytes());
        let state = State::Done(Answer { reply, _held: Some(held) });
        self.turns.push_back(Turn { protocol, access: None, may_be_left: false, state });
    }

    fn held(&self, promised: usize) -> Held {
        Held::new(&self.door.memory, &self.answered_bytes, promised)
    }

    /// Begins a command, or keeps it until nothing is in its way. Where there is no room for what its answer may be,
    /// those before it are answered first.
    fn start(&mut self, protocol: Protocol, task: Task) {
        let is_on_its_way = |turn: &&Turn| matches!(&turn.state, State::Running(task) if !task.is_finished());
        let mut on_their_way = self.turns.iter().filter(is_on_its_way);
        let is_blocked =
            on_their_way.any(|turn| turn.access.as_ref().is_some_and(|other| other.conflicts(&task.order)));
        let has_room = self.turns.is_empty() || self.door.memory.has_room(task.reply_bytes);
        if is_blocked || !has_room {
            self.waiting = Some((protocol, task));
            return;
        }
        let Task { order, reply_bytes, may_be_left, work } = task;
        let mut held = self.held(reply_bytes);
        let state = State::Running(tokio::task::spawn_local(async move {
            let reply = work.await;
            held.settle(reply.size_bytes());
            Answer { reply, _held: Some(held) }
        }));
        self.turns.push_back(Turn { protocol, access: Some(order), may_be_left, state });
    }

    /// Moves answers that are next to the output.
    fn collect(&mut self) {
        while let Some(Turn { state: State::Done(_), .. }) = self.turns.front() {
            let Some(Turn { protocol, state: State::Done(answer), .. }) = self.turns.pop_front() else {
                break;
            };
            let Answer { reply, _held } = answer;
            if reply.is_error() {
                self.door.tally.errors.count();
            }
            if !self.has_output() {
                self.sent_at = Instant::now();
            }
            self.out.push(&reply, protocol);
        }
        self.is_settling &= !self.turns.is_empty() || self.waiting.is_some();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_wait_for_those_in_their_way_and_no_others() {
        let of = |hashes: &[u64], writes| Order::of(hashes.iter().copied(), writes);
        for (a, b, conflict) in [
            (of(&[1], false), of(&[1], false), false),
            (of(&[1], true), of(&[1], false), true),
            (of(&[1], true), of(&[1], true), true),
            (of(&[1, 2], true), of(&[3, 2], false), true),
            (of(&[1, 2], true), of(&[3, 4], true), false),
            (of(&[], false), of(&[1], true), false),
            (of(&[], false), Order::Alone, true),
            (Order::Alone, Order::Alone, true),
            // Of many keys, none is compared.
            (Order::of(0..100_000, true), Order::of(100_000..200_000, true), true),
            (Order::of(0..64, true), Order::of(64..128, true), false),
        ] {
            assert_eq!((a.conflicts(&b), b.conflicts(&a)), (conflict, conflict), "{a:?} {b:?}");
        }
    }
}
