//! Questions to shards, and answers to clients.

use std::time::Instant;

use lode_engine::{CheckpointError, PartitionInfo, RequestBody, RequestId, ShardId, ShardStats, TableSpec};
use lode_net::wire::Status;

use super::{Control, ControlEvent, ShardReply, stats};
use crate::dispatch::{Answer, AnswerBody, Asked, ControlQuestion, checkpoint_error_answer};
use crate::mailbox::{JobId, Mail};
use crate::reactor::ReactorStats;

/// The tables of one shard, and what their partitions there hold.
pub type ShardTables = Vec<(TableSpec, Vec<PartitionInfo>)>;

/// A checkpoint that shards are writing while the control thread goes on.
#[derive(Debug)]
pub struct CheckpointJob {
    job: JobId,
    shard: ShardId,
    ticket: RequestId,
    asked: Asked,
    missing: usize,
    failure: Option<CheckpointError>,
}

impl Control {
    /// Answers a client's question.
    pub(super) fn answer(
        &mut self,
        shard: ShardId,
        ticket: RequestId,
        asked: Asked,
        question: ControlQuestion,
    ) {
        let answer = match question {
            ControlQuestion::CreateTable { table, ttl_ms, quota } => {
                self.create_table(asked, table, ttl_ms, quota)
            }
            ControlQuestion::SetQuota(wish) => self.set_quota(asked, &wish),
            ControlQuestion::Quotas => self.list_quotas(asked),
            ControlQuestion::TableTtls => self.table_ttls(asked),
            ControlQuestion::DropTable(drop) => self.drop_table(asked, &drop.name),
            ControlQuestion::ListTables => self.list_tables(asked),
            ControlQuestion::Stats => self.node_stats(asked),
            ControlQuestion::Scrub => self.begin_scrub(asked),
            ControlQuestion::Checkpoint => return self.begin_checkpoint(shard, ticket, asked),
        };
        self.post(shard, Mail::Answer { ticket, answer: Box::new(answer), stages: None });
    }

    /// Asks every shard for which `body` has a question, and waits for the answers, by shard.
    pub(super) fn ask_all(
        &mut self,
        body: impl Fn(ShardId) -> Option<RequestBody<'static>>,
    ) -> Vec<(ShardId, ShardReply)> {
        self.ask_all_until(body, None)
    }

    /// The same, giving up at `deadline`.
    pub(super) fn ask_all_until(
        &mut self,
        body: impl Fn(ShardId) -> Option<RequestBody<'static>>,
        deadline: Option<Instant>,
    ) -> Vec<(ShardId, ShardReply)> {
        let job = self.next_job();
        let mut missing = 0;
        for shard in (0..self.mailboxes.len() as u16).map(ShardId) {
            if let Some(body) = body(shard) {
                missing += 1;
                self.post(shard, Mail::Command { job, body });
            }
        }
        let mut replies = Vec::with_capacity(missing);
        while replies.len() < missing {
            match self.waits.event(deadline) {
                Some(ControlEvent::Reply { job: of, shard, reply }) if of == job => {
                    replies.push((shard, reply));
                }
                Some(other) => self.deferred.push_back(other),
                None => break,
            }
        }
        replies.sort_by_key(|(shard, _)| *shard);
        replies
    }

    /// The tables of all shards.
    pub(super) fn ask_tables(&mut self) -> Vec<(ShardId, ShardTables)> {
        let replies = self.ask_all(|_| Some(RequestBody::ListTables));
        replies
            .into_iter()
            .map(|(shard, reply)| match reply {
                ShardReply::Tables(tables) => (shard, tables),
                other => unreachable!("a listing is answered with tables, not {other:?}"),
            })
            .collect()
    }

    /// An answer that nobody waits for here: of a checkpoint.
    pub(super) fn late_reply(&mut self, job: JobId, _shard: ShardId, reply: ShardReply) {
        let Some(place) = self.checkpoints.iter().position(|checkpoint| checkpoint.job == job) else {
            return;
        };
        let ShardReply::Checkpoint(result) = reply else {
            unreachable!("a checkpoint is answered with its outcome, not {reply:?}")
        };
        let checkpoint = &mut self.checkpoints[place];
        checkpoint.missing -= 1;
        checkpoint.failure = checkpoint.failure.take().or(result.err());
        if checkpoint.missing == 0 {
            let CheckpointJob { shard, ticket, asked, failure, .. } = self.checkpoints.swap_remove(place);
            let answer = match failure {
                None => asked.plain(Status::Ok),
                Some(error) => checkpoint_error_answer(asked, &error),
            };
            self.post(shard, Mail::Answer { ticket, answer: Box::new(answer), stages: None });
        }
    }

    fn begin_checkpoint(&mut self, shard: ShardId, ticket: RequestId, asked: Asked) {
        let job = self.next_job();
        let missing = self.mailboxes.len();
        self.checkpoints.push(CheckpointJob { job, shard, ticket, asked, missing, failure: None });
        self.post_all(|| Mail::Command { job, body: RequestBody::Checkpoint });
    }

    /// The counters of all shards.
    pub(super) fn ask_stats(&mut self) -> Vec<(ShardId, ShardStats, ReactorStats)> {
        let replies = self.ask_all(|_| Some(RequestBody::Stats));
        let stats = |(shard, reply)| match reply {
            ShardReply::Stats { engine, reactor } => (shard, *engine, *reactor),
            other => unreachable!("stats are answered with stats, not {other:?}"),
        };
        replies.into_iter().map(stats).collect()
    }

    fn node_stats(&mut self, asked: Asked) -> Answer {
        let shards = self.ask_stats();
        let json = stats::to_json(&self.facts, &self.node, self.map.published.map.version(), shards);
        Answer { head: asked.head(Status::Ok), body: AnswerBody::Bytes(json.to_string().into_bytes()) }
    }

    /// Shards answer at once; how far they are is told by the statistics.
    fn begin_scrub(&mut self, asked: Asked) -> Answer {
        self.ask_all(|_| Some(RequestBody::Scrub));
        asked.plain(Status::Ok)
    }

    fn next_job(&mut self) -> JobId {
        self.next_job += 1;
        JobId(self.next_job)
    }
}
