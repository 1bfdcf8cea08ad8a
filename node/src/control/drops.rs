//! Asking shards that may be busy, full or closed: tried again where that can help. A drop that they do not take is
//! remembered, and never told as done.

use std::time::Duration;

use lode_engine::{CatalogError, RequestBody, ShardId, TableId};

use super::{Control, ShardReply};

/// How often a shard that is busy or full is asked, one pause after the other.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

impl Control {
    /// Drops a table from these shards; one that does not know it has nothing to drop. What stays is remembered, and
    /// tried again before the next change of the catalog; gives the first shard of it, and why.
    pub(super) fn drop_from(
        &mut self,
        table: TableId,
        shards: impl Iterator<Item = ShardId>,
    ) -> Result<(), (ShardId, CatalogError)> {
        self.undropped.extend(shards.map(|shard| (table, shard)));
        self.patiently(|control| control.drop_once(table))
    }

    /// Tries what shards may be too busy or too full for, a few times. They can be had again in a moment; a closed log
    /// stays closed until the node restarts.
    pub(super) fn patiently(
        &mut self,
        mut once: impl FnMut(&mut Control) -> Result<(), (ShardId, CatalogError)>,
    ) -> Result<(), (ShardId, CatalogError)> {
        for _ in 1..ATTEMPTS {
            match once(self) {
                Err((_, CatalogError::Busy | CatalogError::Full)) if self.waits.pause(PAUSE) => {}
                done => return done,
            }
        }
        once(self)
    }

    /// Tries again what could not be dropped before.
    pub(super) fn drop_leftovers(&mut self) {
        let mut tables: Vec<TableId> = self.undropped.iter().map(|(table, _)| *table).collect();
        tables.dedup();
        for table in tables {
            // It is still remembered where it fails again.
            let _ = self.drop_once(table);
        }
    }

    /// Asks every shard that still holds something of the table, once.
    fn drop_once(&mut self, table: TableId) -> Result<(), (ShardId, CatalogError)> {
        let left: Vec<ShardId> =
            self.undropped.iter().filter(|(of, _)| *of == table).map(|(_, shard)| *shard).collect();
        let replies = self.ask_all(|shard| left.contains(&shard).then_some(RequestBody::DropTable { table }));
        let mut first = Ok(());
        for (shard, reply) in replies {
            match reply {
                ShardReply::Catalog(Ok(()) | Err(CatalogError::UnknownTable(_))) => {
                    self.undropped.remove(&(table, shard));
                }
                // One that will be free in a moment goes before one that will not: it is worth another attempt.
                ShardReply::Catalog(Err(error)) => {
                    let passing = matches!(error, CatalogError::Busy | CatalogError::Full);
                    if first.is_ok() || passing {
                        first = Err((shard, error));
                    }
                }
                other => unreachable!("a drop is answered with its outcome, not {other:?}"),
            }
        }
        first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::mpsc::channel;
    use std::sync::{Arc, Mutex};

    use lode_engine::OwnerId;
    use lode_net::ring::Waker;
    use lode_net::wire::control as wire;
    use lode_net::wire::{RequestId, Status};

    use super::*;
    use crate::control::ControlSender;
    use crate::control::tests::control_over;
    use crate::dispatch::Asked;
    use crate::mailbox::{Mail, Mailbox};

    /// What the shards answer to drops, each in its turn; `Ok` where nothing is left.
    type Script = Arc<Mutex<Vec<VecDeque<CatalogError>>>>;

    /// A control thread's state over two shards that answer as the script says.
    fn control(script: &Script) -> Control {
        let shard = |_| Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
        let mailboxes: Arc<[Mailbox]> = (0..2).map(shard).collect();
        let (events_in, events) = channel();
        for shard in 0..2u16 {
            let (mailboxes, sender) = (Arc::clone(&mailboxes), ControlSender::new(events_in.clone()));
            let script = Arc::clone(script);
            std::thread::spawn(move || {
                loop {
                    let Some(mail) = mailboxes[usize::from(shard)].take() else {
                        std::thread::yield_now();
                        continue;
                    };
                    let reply = match mail {
                        Mail::Command { job, body: RequestBody::DropTable { .. } } => {
                            let error = script.lock().expect("no panic")[usize::from(shard)].pop_front();
                            (job, error.map_or(Ok(()), Err))
                        }
                        Mail::Command { job, .. } => (job, Ok(())),
                        Mail::Exit => return,
                        _ => continue,
                    };
                    sender.reply(reply.0, ShardId(shard), ShardReply::Catalog(reply.1));
                }
            });
        }
        control_over(mailboxes, Box::new(events))
    }

    fn asked() -> Asked {
        Asked { request_id: RequestId(1), opcode: 10, flags: 0, owner: OwnerId(0) }
    }

    fn make(control: &mut Control) -> Status {
        let placement = wire::Placement::Hash { partitions: 4 };
        let create = wire::CreateTable { name: "t".into(), store: wire::Store::Durable, placement };
        control.create_table(asked(), create, None, lode_net::wire::Quota::default()).head.status
    }

    fn end(control: &mut Control) {
        control.post_all(|| Mail::Exit);
    }

    #[test]
    fn a_shard_that_is_busy_is_asked_again_and_one_that_stays_so_is_told() {
        let script: Script = Arc::new(Mutex::new(vec![VecDeque::new(); 2]));
        let mut control = control(&script);
        assert_eq!(make(&mut control), Status::Ok);
        script.lock().expect("no panic")[1].extend([CatalogError::Busy, CatalogError::Full]);
        assert_eq!(control.drop_table(asked(), "t").head.status, Status::Ok);
        assert!(script.lock().expect("no panic")[1].is_empty() && control.undropped.is_empty());

        for lasting in [vec![CatalogError::Busy; 100], vec![CatalogError::Poisoned]] {
            assert_eq!(make(&mut control), Status::Ok);
            script.lock().expect("no panic")[1].extend(lasting);
            assert_eq!(control.drop_table(asked(), "t").head.status, Status::DropUnfinished);
            assert_eq!(control.undropped.len(), 1);
            assert_eq!(control.drop_table(asked(), "t").head.status, Status::UnknownTable);
            // When it can be done, the next change does it.
            script.lock().expect("no panic")[1].clear();
            control.drop_leftovers();
            assert!(control.undropped.is_empty());
        }
        end(&mut control);
    }
}
