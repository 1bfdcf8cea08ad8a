//! The connections of one client on tokio, by shard, opened as they are needed; and calls with retries.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::call::{Attempts, Call, Course, Loss, Next};
use crate::client::connection::OwnedReply;
use crate::client::error::{ConnectError, Failure};
use crate::client::link::{self, Link};
use crate::client::options::ClientOptions;
use crate::client::view::NodeView;
use crate::wire::{MapVersion, RequestView, ShardId};

/// Between two looks for the map that a change of tables brings.
const MAP_WAIT: Duration = Duration::from_millis(2);

/// Place for one connection.
#[derive(Default)]
struct Slot {
    link: Mutex<Option<Arc<Link>>>,
    /// Held while it is opened, so that those who wait do not all connect.
    opening: tokio::sync::Mutex<()>,
}

impl Slot {
    fn live(&self) -> Option<Arc<Link>> {
        let link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        link.as_ref().filter(|link| link.is_alive()).cloned()
    }

    fn set(&self, new: Arc<Link>) {
        let mut link = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = link.replace(new) {
            old.end("replaced by a new connection");
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(link) = self.link.lock().unwrap_or_else(PoisonError::into_inner).take() {
            link.end("the client was closed");
        }
    }
}

struct ShardSlots {
    turn: AtomicUsize,
    slots: Vec<Slot>,
}

/// The connections of one client.
pub(crate) struct Pool {
    addr: String,
    options: ClientOptions,
    view: Arc<RwLock<NodeView>>,
    /// By shard number; grows as shards are heard of.
    shards: RwLock<Vec<Arc<ShardSlots>>>,
    turn: AtomicUsize,
}

impl Pool {
    /// Connects once, to learn of the shards and the map.
    pub(crate) async fn connect(addr: &str, mut options: ClientOptions) -> Result<Pool, ConnectError> {
        options.normalize(addr);
        let view = Arc::new(RwLock::new(NodeView::unknown()));
        let link = link::open(addr, &options, &view).await?;
        let pool = Pool {
            addr: addr.to_owned(),
            options,
            view,
            shards: RwLock::default(),
            turn: AtomicUsize::new(0),
        };
        pool.slots_of(link.shard()).slots[0].set(link);
        Ok(pool)
    }

    /// The node as last heard of.
    pub(crate) fn view(&self) -> NodeView {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn slots_of(&self, shard: ShardId) -> Arc<ShardSlots> {
        let place = usize::from(shard.0);
        if let Some(slots) = self.shards.read().unwrap_or_else(PoisonError::into_inner).get(place) {
            return slots.clone();
        }
        let mut shards = self.shards.write().unwrap_or_else(PoisonError::into_inner);
        while shards.len() <= place {
            let slots = (0..self.options.connections_per_shard).map(|_| Slot::default()).collect();
            shards.push(Arc::new(ShardSlots { turn: AtomicUsize::new(0), slots }));
        }
        shards[place].clone()
    }

    /// A turn for calls that must all go by the same connection.
    pub(crate) fn next_turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// A connection to the shard; to any, and any of its connections, by turns, where it does not matter.
    async fn link_to(&self, shard: Option<ShardId>, turn: Option<usize>) -> Result<Arc<Link>, ConnectError> {
        let shard = shard.unwrap_or_else(|| {
            let count = self.view().shard_count().max(1);
            ShardId((self.turn.fetch_add(1, Ordering::Relaxed) % count) as u16)
        });
        let slots = self.slots_of(shard);
        let turn = turn.unwrap_or_else(|| slots.turn.fetch_add(1, Ordering::Relaxed));
        let slot = &slots.slots[turn % slots.slots.len()];
        if let Some(link) = slot.live() {
            return Ok(link);
        }
        let _opening = slot.opening.lock().await;
        if let Some(link) = slot.live() {
            return Ok(link);
        }
        let link = self.open(shard).await?;
        slot.set(link.clone());
        Ok(link)
    }

    /// Opens a connection to the shard's own port; where nobody answers there, to the node's address: a node
    /// that was started again has other ports, and any shard serves any request, by a hop.
    async fn open(&self, shard: ShardId) -> Result<Arc<Link>, ConnectError> {
        let known = self.view().shard_address(shard);
        if let Some(known) = known
            && let Ok(link) = link::open(&known.to_string(), &self.options, &self.view).await
        {
            return Ok(link);
        }
        let link = link::open(&self.addr, &self.options, &self.view).await?;
        match self.view().shard_address(shard) {
            Some(now) if link.shard() != shard && Some(now) != known => {
                Ok(link::open(&now.to_string(), &self.options, &self.view).await.unwrap_or(link))
            }
            _ => Ok(link),
        }
    }

    /// One call with all its retries, within the client's timeout.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<OwnedReply, Failure> {
        let timeout = self.options.request_timeout;
        let mut attempts = Attempts::new(self.options.retries);
        let mut maybe_sent = false;
        let answered = self.call_until_answered(call, &mut attempts, &mut maybe_sent);
        match tokio::time::timeout(timeout, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(attempts.after_timeout(call, timeout, maybe_sent)),
        }
    }

    async fn call_until_answered(
        &self,
        call: &Call<'_>,
        attempts: &mut Attempts,
        maybe_sent: &mut bool,
    ) -> Result<OwnedReply, Failure> {
        call.check(&self.view())?;
        loop {
            let next = match call.course(&self.view()) {
                Err(failure) => attempts.after_no_course(failure),
                Ok(course) => match self.attempt(call, &course, maybe_sent).await? {
                    Ok(reply) => attempts.after_reply(reply, &course, &self.view()),
                    Err(loss) => attempts.after_loss(call, loss),
                },
            };
            match next {
                Next::Answer(reply) => return Ok(reply),
                Next::Fail(failure) => return Err(failure),
                Next::Again { wait, refresh_map } => {
                    if !wait.is_zero() {
                        tokio::time::sleep(wait).await;
                    }
                    if refresh_map {
                        self.refresh_map().await;
                    }
                }
            }
        }
    }

    /// Sends once, and waits.
    async fn attempt(
        &self,
        call: &Call<'_>,
        course: &Course,
        maybe_sent: &mut bool,
    ) -> Result<Result<OwnedReply, Loss>, Failure> {
        let unsent = |reason: String| Loss { reason, maybe_sent: false };
        let link = match self.link_to(course.shard, call.turn).await {
            Ok(link) => link,
            Err(error) => return Ok(Err(unsent(error.to_string()))),
        };
        let receiver = match link.submit(call, course, self.view().incarnation()).await {
            Ok(receiver) => receiver,
            Err(Failure::Lost { reason, .. }) => return Ok(Err(unsent(reason))),
            Err(failure) => return Err(failure),
        };
        *maybe_sent = true;
        let answer = receiver.await.unwrap_or_else(|_| {
            Err(Loss { reason: "the connection's task has ended".to_owned(), maybe_sent: true })
        });
        // An answer, `Busy` among them, settles what became of it; so does a loss before the first byte.
        *maybe_sent = matches!(&answer, Err(loss) if loss.maybe_sent);
        Ok(answer)
    }

    /// Asks for the map where there is a newer one; what comes is taken in by the connection's task. A failure
    /// shows in the call that needed the map.
    pub(crate) async fn refresh_map(&self) {
        let call = Call::on_node(RequestView::Map);
        if let Ok(course) = call.course(&self.view()) {
            let _ = self.attempt(&call, &course, &mut false).await;
        }
    }

    /// Waits for the map of at least this version, after a change of tables.
    pub(crate) async fn await_map(&self, version: MapVersion) {
        let deadline = Instant::now() + self.options.request_timeout;
        let incarnation = self.view().incarnation();
        let is_old = |view: NodeView| view.map().version() < version && view.incarnation() == incarnation;
        while is_old(self.view()) && Instant::now() < deadline {
            self.refresh_map().await;
            if is_old(self.view()) {
                tokio::time::sleep(MAP_WAIT).await;
            }
        }
    }
}
