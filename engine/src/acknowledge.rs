//! From the durable frame to the reply: what was written takes place, and whoever wrote it is answered.

use crate::apply::Effects;
use crate::catalog::Catalog;
use crate::facts::KnownKeys;
use crate::format::record::RecordKind;
use crate::ids::PartitionId;
use crate::io::Io;
use crate::location::Location;
use crate::log::{AckKind, LogFrame};
use crate::owned::OwnedWrite;
use crate::prefetch::CHANGES_AT_ONCE;
use crate::reply::{Delay, ReplyBody, WriteError, Written};
use crate::shard::Shard;
use crate::space::Space;
use crate::transactions::history::Write;

/// What came of one record of a frame.
struct Done {
    was_there: bool,
    /// The partition that it was for, where that is gone.
    void: Option<PartitionId>,
    /// A record that cannot be read, where it may be one of the key that was deleted.
    stays: Option<Location>,
}

impl Shard {
    pub(crate) fn count_written(&mut self, kind: AckKind, user_bytes: u64) {
        self.stats.user_bytes += user_bytes;
        match kind {
            AckKind::Put => self.stats.puts += 1,
            AckKind::Delete => self.stats.deletes += 1,
            AckKind::Batch => self.stats.batches += 1,
            AckKind::Increment => self.stats.increments += 1,
            AckKind::Expire => self.stats.expiry_changes += 1,
            AckKind::Catalog | AckKind::Silent => {}
        }
    }

    /// Applies the frames that became durable, as fast as the journal takes it, and answers those who waited for them.
    pub(crate) fn apply_durable(&mut self, io: &mut Io<'_>) {
        while self.journal.has_room() && self.may_apply(io) {
            let Some(frame) = self.log.take_durable() else { return };
            let number = frame.builder.number;
            self.apply_frame(&frame, io);
            self.cover_applied(&frame);
            self.space.clock.advance(frame.builder.frame_len() as u64, io.now.wall_ns);
            io.buffers.release(frame.builder.buffer);
            let (ready, waiting) =
                std::mem::take(&mut self.waiters).into_iter().partition(|(frame, _)| *frame <= number);
            self.waiters = waiting;
            let ready: Vec<(_, OwnedWrite)> = ready;
            self.take_up(ready.into_iter().map(|(_, owned)| owned).collect(), io);
            self.space_may_have_changed();
        }
    }

    fn apply_frame(&mut self, frame: &LogFrame, io: &mut Io<'_>) {
        let number = frame.builder.number;
        let mut done = Vec::with_capacity(frame.builder.records() as usize);
        let now = self.clock.now();
        let Shard { catalog, space, cache, log, journal, transactions, facts, .. } = self;
        let own = Some((&frame.builder, &*io.buffers));
        let mut effects = Effects { catalog, space, cache, journal: Some(journal), facts, own, now };
        let mut ahead = frame.builder.records_in(&*io.buffers);
        frame.builder.for_each_record(&*io.buffers, |record, location| {
            if done.len().is_multiple_of(CHANGES_AT_ONCE) {
                let next = ahead.by_ref().take(CHANGES_AT_ONCE).map(|(record, _)| record);
                effects.catalog.prefetch_for_change(next.map(|record| (record.partition, record.key)));
            }
            let place = (record.partition, record.key);
            let write = if record.kind == RecordKind::Put { Write::Put } else { Write::Delete };
            let facts = &*effects.facts;
            let locate = |catalog: &Catalog, space: &Space| {
                let keys = KnownKeys { facts, space, partition: record.partition, own };
                keys.locate(catalog, record.key).expect("what a frame needs is known before it is applied")
            };
            transactions.before_change(effects.catalog, effects.space, place, write, locate);
            transactions.applied(record.partition, record.key, number);
            let stays = (record.kind == RecordKind::Delete).then(|| {
                let keys = KnownKeys { facts, space: effects.space, partition: record.partition, own };
                keys.unreadable(effects.catalog, record.key)
            });
            let was_there = effects.user(&record, location);
            // Written behind the drop of its partition, while that was on its way.
            let is_void = !was_there && effects.catalog.get(record.partition).is_none();
            let void = is_void.then_some(record.partition);
            done.push(Done { was_there, void, stays: stays.flatten() });
            if log.applied(number, &record) {
                // The next increment of a counter that is in use shall not have to read it.
                let generation = frame.builder.place.generation;
                effects.cache.insert(
                    location,
                    generation,
                    frame.builder.record_bytes(&*io.buffers, location, record.len()),
                );
            }
        });
        drop(ahead);
        self.acknowledge(frame, &done, io);
    }

    /// Answers those whose writes have taken place.
    fn acknowledge(&mut self, frame: &LogFrame, done: &[Done], io: &mut Io<'_>) {
        let mut rest = done;
        for ack in &frame.acks {
            let (of_ack, others) = rest.split_at(ack.records as usize);
            rest = others;
            let first = &of_ack[0];
            io.delay = frame.delay(ack, io.now.monotonic_ns);
            if let Some(partition) =
                first.void.filter(|_| !matches!(ack.kind, AckKind::Silent | AckKind::Catalog))
            {
                let error = WriteError::UnknownPartition(partition);
                io.reply(ack.id, ReplyBody::Write(Err(error)));
                continue;
            }
            self.count_written(ack.kind, ack.user_bytes);
            match ack.kind {
                AckKind::Silent => {}
                AckKind::Catalog => {
                    self.catalog_settled(ack.id);
                    self.end_transactions_of_dropped();
                    io.reply(ack.id, ReplyBody::Catalog(Ok(())));
                }
                kind => {
                    // Another expiry is written only where the record is there: should it be due by now, it was not then.
                    let existed = first.was_there || kind == AckKind::Expire;
                    let written =
                        Ok(Written { seq: ack.seq, existed, number: ack.number, bytes: ack.user_bytes });
                    let stays = of_ack.iter().find_map(|done| done.stays);
                    let may_return = |location: Location| {
                        Err(WriteError::MayReturn { at: self.place.area_at.0 + location.offset() })
                    };
                    io.reply(ack.id, ReplyBody::Write(stays.map_or(written, may_return)));
                }
            }
        }
        io.delay = Delay::default();
        assert!(rest.is_empty(), "every record of a frame is somebody's");
    }
}
