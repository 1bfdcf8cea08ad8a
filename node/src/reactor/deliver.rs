//! What a step gives out: operations go to the ring, answers to connections, other shards or control.

use bytes::Bytes;
use lode_engine::{Completion, Found, Op, Payload, Reply, ReplyBody, ShardId};
use lode_net::ring::Slab;
use lode_net::wire::Status;

use super::connection::Phase;
use super::connection::Surroundings;
use super::counters::ReactorStats;
use super::pending::{Origin, Pending};
use super::slow::{Answered, Timing};
use super::{Reactor, ReactorIo};
use crate::buffers::slab_buffer;
use crate::control::ShardReply;
use crate::dispatch::{Answer, AnswerBody, answer};
use crate::mailbox::Mail;

/// Starts an operation of the engine.
pub fn start(ring: &mut impl ReactorIo, op: Op, writes_need_flush: bool, completions: &mut Vec<Completion>) {
    match op {
        Op::Read { token, buffer, at, len } => ring.read(token.0, slab_buffer(buffer), len, at.0),
        Op::Write { token, buffer, at, len, durable } => {
            let durable = durable && writes_need_flush;
            ring.write(token.0, slab_buffer(buffer), len, at.0, durable);
        }
        Op::Flush { token } if writes_need_flush => ring.flush(token.0),
        // Nothing to flush: what has been written is durable.
        Op::Flush { token } => completions.push(Completion { token, result: Ok(()) }),
        // Only on a block device that takes it, or the engine is not told to.
        Op::Discard { token, at, len } => {
            let len = u32::try_from(len).expect("a segment has at most 1 GiB");
            ring.discard(token.0, at.0, len);
        }
    }
}

impl<I: ReactorIo> Reactor<I> {
    /// Hands every answer to whoever asked.
    pub(super) fn deliver_replies(&mut self, now_ns: u64) {
        let mut replies = std::mem::take(&mut self.outbox.replies);
        for Reply { id, body, delay } in replies.drain(..) {
            let share = self.pending.end_run(id);
            let timing = Timing { delay, ..*self.pending.timing(id) };
            let pending = self.pending.remove(id);
            let read_bytes = read_bytes(&body);
            let rewritten_bytes = share.map_or(0, |share| share.rewritten(written_bytes(&body)));
            if let Some(share) = share {
                let is_refused = matches!(
                    body,
                    ReplyBody::Get(Err(_)) | ReplyBody::Scan(Err(_)) | ReplyBody::Write(Err(_))
                );
                self.fair.done(share, (!is_refused).then_some(read_bytes + rewritten_bytes));
                let quota = self.map.quota_of(share.partition);
                self.throttle.read(share.partition, quota, read_bytes, now_ns);
                self.throttle.rewritten(share.partition, quota, rewritten_bytes, now_ns);
            }
            match pending.origin {
                Origin::Nobody => {}
                Origin::Control(job) => {
                    let reply = self.control_reply(body);
                    self.config.control.reply(job, self.config.shard, reply);
                }
                // A page that would be given up is not even put together.
                origin
                    if matches!(body, ReplyBody::Scan(Ok(_)))
                        && self.is_crowded(origin, read_bytes as usize) =>
                {
                    self.stats.answers_given_up += 1;
                    let answer = pending.asked.plain(Status::Busy);
                    self.count_served(share, (read_bytes, rewritten_bytes), &answer, timing.since_ns);
                    self.deliver(pending, answer, &timing, now_ns);
                }
                _ => {
                    let answer = answer(pending.asked, body);
                    self.count_served(share, (read_bytes, rewritten_bytes), &answer, timing.since_ns);
                    self.deliver(pending, answer, &timing, now_ns);
                }
            }
        }
        self.outbox.replies = replies;
        let mut answers = std::mem::take(&mut self.answers);
        for (id, answer) in answers.drain(..) {
            if let Some(share) = self.pending.end_run(id) {
                self.fair.done(share, None);
            }
            let away_bytes = self.pending.come_back(id) as usize;
            let timing = *self.pending.timing(id);
            let pending = self.pending.remove(id);
            if let Origin::Connection(key) = pending.origin
                && let Some(connection) = self.connections.find(key)
            {
                connection.away_bytes -= away_bytes;
            }
            self.deliver(pending, answer, &timing, now_ns);
        }
        self.answers = answers;
    }

    fn deliver(&mut self, pending: Pending, answer: Answer, timing: &Timing, now_ns: u64) {
        self.end_orphan(&pending, &answer);
        match pending.origin {
            Origin::Connection(key) => {
                let Some(connection) = self.connections.find(key) else {
                    return give_up(answer, self.ring.slab_mut());
                };
                connection.server.request_done();
                if connection.phase == Phase::Closing {
                    return give_up(answer, self.ring.slab_mut());
                }
                let mut answer = answer;
                if connection.is_too_much(&answer, self.ring.slab(), &self.spares) {
                    self.stats.answers_given_up += 1;
                    give_up(answer, self.ring.slab_mut());
                    answer = pending.asked.plain(Status::Busy);
                }
                if let Some(meter) = &mut self.meter {
                    meter.answered(answer.head.opcode, answer.head.status, timing.since_ns);
                }
                let answered = Answered {
                    timing: *timing,
                    answered_ns: now_ns,
                    opcode: answer.head.opcode,
                    status: answer.head.status,
                    answer_bytes: answer.value_bytes() as u64,
                };
                let mut surroundings = Surroundings {
                    slab: self.ring.slab_mut(),
                    map: &self.map,
                    spares: &mut self.spares,
                    stats: &mut self.stats,
                    now_ns,
                };
                connection.push_answer(answer, &mut surroundings);
                connection.note(&answered, self.config.slow.threshold_ns());
                self.connections.touch(key.socket);
            }
            Origin::Hop { shard, ticket } => {
                let answer = if answer.may_be_given_up() && self.is_mail_crowded(shard, answer.value_bytes())
                {
                    self.stats.answers_given_up += 1;
                    give_up(answer, self.ring.slab_mut());
                    pending.asked.plain(Status::Busy)
                } else {
                    detach(answer, self.ring.slab_mut(), &mut self.stats)
                };
                let stages = Some(timing.stages(now_ns));
                self.post(shard, Mail::Answer { ticket, answer: Box::new(answer), stages });
            }
            Origin::Control(_) | Origin::Nobody => {
                unreachable!("the control thread gets engine's replies, and nobody gets any")
            }
        }
    }

    fn control_reply(&self, body: ReplyBody) -> ShardReply {
        match body {
            ReplyBody::Catalog(result) => ShardReply::Catalog(result),
            ReplyBody::Tables(tables) => ShardReply::Tables(tables),
            ReplyBody::Stats(engine) => ShardReply::Stats { engine, reactor: Box::new(self.stats()) },
            ReplyBody::Checkpoint(result) => ShardReply::Checkpoint(result),
            ReplyBody::Scrub(_) => ShardReply::Scrub,
            ReplyBody::Get(_)
            | ReplyBody::TimeToLive(_)
            | ReplyBody::Write(_)
            | ReplyBody::Scan(_)
            | ReplyBody::Begin(_)
            | ReplyBody::Rollback
            | ReplyBody::Count(_) => unreachable!("the control thread asks for no records"),
        }
    }

    /// Posts mail that must arrive: where the box is full it waits here.
    pub(super) fn post(&mut self, shard: ShardId, mail: Mail) {
        if !self.backlog.is_empty() {
            return self.backlog.push_back((shard, mail));
        }
        if let Err(mail) = self.config.mailboxes[usize::from(shard.0)].post(mail) {
            self.backlog.push_back((shard, mail));
        }
    }

    /// Posts what waits, in order.
    pub(super) fn post_backlog(&mut self) {
        while let Some((shard, mail)) = self.backlog.pop_front() {
            if let Err(mail) = self.config.mailboxes[usize::from(shard.0)].post(mail) {
                return self.backlog.push_front((shard, mail));
            }
        }
    }
}

/// Bytes of keys and values that a write wrote.
fn written_bytes(body: &ReplyBody) -> u64 {
    match body {
        ReplyBody::Write(Ok(written)) => written.bytes,
        _ => 0,
    }
}

/// Bytes of keys and values that a read gives.
fn read_bytes(body: &ReplyBody) -> u64 {
    match body {
        ReplyBody::Get(Ok(Some(Found { value: Payload::Shared(bytes), .. }))) => bytes.len() as u64,
        ReplyBody::Get(Ok(Some(Found { value: Payload::Buffer { len, .. }, .. }))) => u64::from(*len),
        ReplyBody::Scan(Ok(page)) => {
            page.records.iter().map(|record| (record.key.len() + record.value.len()) as u64).sum()
        }
        _ => 0,
    }
}

/// The answer without the buffer of this shard's slab that its value lies in: another shard cannot
/// give it back.
fn detach(answer: Answer, slab: &mut Slab, stats: &mut ReactorStats) -> Answer {
    match answer.body {
        AnswerBody::Value(Payload::Buffer { buffer, start, len }) => {
            let buffer = slab_buffer(buffer);
            let value = Bytes::copy_from_slice(&slab.bytes(buffer)[start as usize..][..len as usize]);
            stats.value_bytes_copied += u64::from(len);
            slab.release(buffer);
            Answer { head: answer.head, body: AnswerBody::Value(Payload::Shared(value)) }
        }
        body => Answer { head: answer.head, body },
    }
}

/// Nobody wants the answer any more.
fn give_up(answer: Answer, slab: &mut Slab) {
    if let AnswerBody::Value(Payload::Buffer { buffer, .. }) = answer.body {
        slab.release(slab_buffer(buffer));
    }
}
