//! Bounded mailboxes: how shards and the control thread leave work for a shard, whether it sleeps or not.

mod postbox;

use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use lode_engine::{OwnerId, Quota, RequestBody, RequestId, ShardId};
use lode_net::ring::Waker;
use lode_net::wire;
use lode_net::wire::server::{NodeInfo, Principal};
use lode_net::wire::{Frame, PublishedMap};

use crate::access::{Access, Rights};
use crate::dispatch::Answer;
use crate::reactor::Observation;
use crate::slow::Stages;

pub use postbox::{PostBox, Weight};

/// What a mailbox is made of.
mod parts {
    pub use std::sync::atomic::{AtomicUsize, Ordering};

    pub use crossbeam_queue::ArrayQueue;
    pub use lode_net::ring::Waker;
}

/// Most pieces of mail that wait for one shard.
pub const MAILBOX_CAPACITY: usize = 4096;

/// Names a piece of work of the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Partition ids of a [`Page`].
const PAGE_PARTITIONS: usize = 256;

/// The places of the partitions with consecutive ids, where there are such partitions.
type Page = [Option<Place>; PAGE_PARTITIONS];

/// What is to be known of a partition whenever it is asked for something.
#[derive(Clone, Copy, Debug)]
struct Place {
    shard: ShardId,
    /// Where its terms are.
    terms: u32,
}

/// What partitions have in common that may take the same, and belong to tables with which everybody may do the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Terms {
    quota: Quota,
    /// Where the rights to its table are.
    rights: u32,
}

/// The partition map as a node's threads use it.
#[derive(Debug)]
pub struct NodeMap {
    /// As clients see it.
    pub published: Arc<PublishedMap>,
    /// By the partition id's upper bits, then by its lower: looked at for every request.
    pages: Vec<Option<Box<Page>>>,
    /// Those that there are, each once.
    terms: Vec<Terms>,
    /// What each token may do, by the token's number, with all tables that are alike in that; empty where there are no
    /// tokens.
    rights: Vec<Vec<Rights>>,
    /// The tokens, where there are any.
    access: Option<Arc<Access>>,
}

impl NodeMap {
    /// Makes the short way from a partition to its shard, its quota, and what each token may do with it.
    pub fn new(
        published: Arc<PublishedMap>,
        quota_of: impl Fn(wire::PartitionId) -> Quota,
        access: Option<Arc<Access>>,
    ) -> NodeMap {
        let mut pages: Vec<Option<Box<Page>>> = Vec::new();
        let (mut terms, mut known) = (vec![Terms::default()], HashMap::from([(Terms::default(), 0)]));
        let (mut all_rights, mut known_rights) = (vec![Vec::new()], HashMap::from([(Vec::new(), 0)]));
        for table in published.map.tables() {
            let rights = access.as_ref().map_or_else(Vec::new, |access| access.rights_of_all(&table.name));
            let rights = *known_rights.entry(rights).or_insert_with_key(|rights| {
                all_rights.push(rights.clone());
                all_rights.len() as u32 - 1
            });
            for partition in table.partitions() {
                let of_it = Terms { quota: quota_of(partition.id), rights };
                let of_it = *known.entry(of_it).or_insert_with(|| {
                    terms.push(of_it);
                    terms.len() as u32 - 1
                });
                let (page, place) = page_of(partition.id);
                if pages.len() <= page {
                    pages.resize_with(page + 1, || None);
                }
                let page = pages[page].get_or_insert_with(|| Box::new([None; PAGE_PARTITIONS]));
                page[place] = Some(Place { shard: ShardId(partition.shard.0), terms: of_it });
            }
        }
        NodeMap { published, pages, terms, rights: all_rights, access }
    }

    /// The tokens, where there are any.
    pub fn access(&self) -> Option<&Access> {
        self.access.as_deref()
    }

    /// What a token may do with a partition; nothing where it was withdrawn, and nothing known of a partition that is not
    /// there.
    pub fn rights(&self, partition: wire::PartitionId, principal: Principal) -> Option<Rights> {
        let terms = &self.terms[self.place_of(partition)?.terms as usize];
        Some(self.rights[terms.rights as usize].get(principal.0 as usize).copied().unwrap_or(Rights::NONE))
    }

    /// A map of no tables, before the first is published.
    pub fn empty() -> NodeMap {
        NodeMap::new(NodeMap::publish(wire::control::MapBody::default()), |_| Quota::default(), None)
    }

    /// The map as clients see it, of a body that this node itself has made.
    pub fn publish(body: wire::control::MapBody) -> Arc<PublishedMap> {
        Arc::new(PublishedMap::new(body).expect("the catalog holds no table and no range twice"))
    }

    /// The shard that a partition lives in.
    pub fn shard_of(&self, partition: wire::PartitionId) -> Option<ShardId> {
        self.place_of(partition).map(|place| place.shard)
    }

    /// What a partition may take; of one that is not there, what one may that says nothing.
    pub fn quota_of(&self, partition: wire::PartitionId) -> &Quota {
        let place = self.place_of(partition).map_or(0, |place| place.terms);
        &self.terms[place as usize].quota
    }

    fn place_of(&self, partition: wire::PartitionId) -> Option<Place> {
        let (page, place) = page_of(partition);
        self.pages.get(page)?.as_ref()?[place]
    }
}

fn page_of(partition: wire::PartitionId) -> (usize, usize) {
    (partition.0 as usize / PAGE_PARTITIONS, partition.0 as usize % PAGE_PARTITIONS)
}

/// A piece of mail for a shard.
#[derive(Debug)]
pub enum Mail {
    /// A request that came to the wrong shard.
    Request {
        /// Where it came.
        origin: ShardId,
        /// That shard's name for it.
        ticket: RequestId,
        /// Whose its transactions are.
        owner: OwnerId,
        /// The request.
        frame: Frame<'static>,
    },
    /// The answer to a request that this shard sent on. Holds no buffer of the other shard.
    Answer {
        /// This shard's name for it.
        ticket: RequestId,
        /// The answer.
        answer: Box<Answer>,
        /// Where its time went there; nothing of what is the control thread's.
        stages: Option<Stages>,
    },
    /// Nobody waits any more for the answers to these requests, which were sent on.
    Gone {
        /// The shard that sent them.
        origin: ShardId,
        /// That shard's names for them; some may be answered already, or be other shards'.
        tickets: Vec<RequestId>,
    },
    /// A connection of another shard is gone: its transactions end.
    EndTransactions(OwnerId),
    /// A question of the control thread.
    Command {
        /// Its name for it.
        job: JobId,
        /// The question.
        body: RequestBody<'static>,
    },
    /// Somebody observes the node.
    Observe(Box<Observation>),
    /// A connection that was made elsewhere, and the address that it comes from.
    Connection {
        /// One end of it.
        socket: OwnedFd,
        /// Who has the other.
        ip: IpAddr,
    },
    /// A new partition map.
    Map(Arc<NodeMap>),
    /// Begin to serve.
    Serve {
        /// The node.
        node: Arc<NodeInfo>,
        /// The listening sockets of this shard.
        listeners: Vec<OwnedFd>,
    },
    /// Accept no more, and answer every new request that the node stops.
    Refuse,
    /// Close everything and end.
    Exit,
}

impl Weight for Mail {
    fn value_bytes(&self) -> usize {
        match self {
            Mail::Answer { answer, .. } => answer.value_bytes(),
            _ => 0,
        }
    }

    fn request_bytes(&self) -> usize {
        match self {
            Mail::Request { frame, .. } => frame.body().len(),
            _ => 0,
        }
    }
}

/// One shard's mailbox, and what the shard lets those know who leave mail in it.
#[derive(Debug)]
pub struct Mailbox {
    mail: PostBox<Mail>,
    /// See [`Mailbox::lying_bytes`].
    lying_bytes: AtomicUsize,
}

impl Deref for Mailbox {
    type Target = PostBox<Mail>;

    fn deref(&self) -> &PostBox<Mail> {
        &self.mail
    }
}

impl Mailbox {
    /// An empty one.
    pub fn new(waker: Arc<Waker>) -> Mailbox {
        Mailbox { mail: PostBox::with_capacity(MAILBOX_CAPACITY, waker), lying_bytes: AtomicUsize::new(0) }
    }

    /// Bytes of answers that lie at its shard, for readers that have not taken them, as the shard said last.
    pub fn lying_bytes(&self) -> usize {
        self.lying_bytes.load(Ordering::Relaxed)
    }

    /// The shard says how much that is now.
    pub fn set_lying_bytes(&self, bytes: usize) {
        self.lying_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Whether one more request may wait in it, where the bodies of those that do may have `most` bytes.
    pub fn has_room_for(&self, frame: &Frame<'_>, most: usize) -> bool {
        self.request_bytes() + frame.body().len() <= most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_in_a_box_are_counted_by_their_bytes_until_they_are_taken() {
        let mailbox = Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
        let frame = crate::dispatch::frames::put(100_000);
        let bytes = frame.body().len();
        assert!(bytes > 100_000);
        let mail = |frame: &Frame<'static>| Mail::Request {
            origin: ShardId(0),
            ticket: RequestId(1),
            owner: lode_engine::OwnerId(0),
            frame: frame.clone(),
        };
        assert!(mailbox.has_room_for(&frame, bytes) && !mailbox.has_room_for(&frame, bytes - 1));
        mailbox.post(mail(&frame)).expect("room");
        assert!(mailbox.has_room_for(&frame, 2 * bytes) && !mailbox.has_room_for(&frame, 2 * bytes - 1));
        for _ in 1..MAILBOX_CAPACITY {
            mailbox.post(Mail::Refuse).expect("room");
        }
        assert!(mailbox.post(mail(&frame)).is_err());
        assert!(mailbox.has_room_for(&frame, 2 * bytes), "what was given back does not count");
        assert!(matches!(mailbox.take(), Some(Mail::Request { .. })));
        assert!(mailbox.has_room_for(&frame, bytes));
    }

    #[test]
    fn mail_is_as_long_as_the_letters_whose_posting_is_counted() {
        assert_eq!(size_of::<Mail>(), 112, "tests/counts/src/mailbox.rs says so too");
    }

    #[test]
    fn a_full_box_gives_the_mail_back() {
        let mailbox = Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
        for _ in 0..MAILBOX_CAPACITY {
            mailbox.post(Mail::Refuse).expect("room");
        }
        assert!(matches!(mailbox.post(Mail::Exit), Err(Mail::Exit)));
        assert!(matches!(mailbox.take(), Some(Mail::Refuse)));
        mailbox.post(Mail::Exit).expect("room again");
    }
}
