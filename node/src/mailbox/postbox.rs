//! A bounded box that many threads leave mail in and one takes it out of: what waits is counted, and no mail is slept over.
//!
//! Its parts are `std`'s and crossbeam's in the node, and loom's where `tests/tests/sleep_under_loom.rs` tries every order of
//! the steps.

use std::sync::Arc;

use super::parts::{ArrayQueue, AtomicUsize, Ordering, Waker};

/// What a piece of mail takes of the memory of those it waits for.
pub trait Weight {
    /// Bytes of values and pages in an answer.
    fn value_bytes(&self) -> usize;
    /// Bytes of the body of a request.
    fn request_bytes(&self) -> usize;
}

/// A box of mail.
#[derive(Debug)]
pub struct PostBox<M> {
    queue: ArrayQueue<M>,
    /// See [`PostBox::value_bytes`].
    value_bytes: AtomicUsize,
    /// See [`PostBox::request_bytes`].
    request_bytes: AtomicUsize,
    waker: Arc<Waker>,
}

impl<M: Weight> PostBox<M> {
    /// An empty one for so many pieces.
    pub fn with_capacity(capacity: usize, waker: Arc<Waker>) -> PostBox<M> {
        PostBox {
            queue: ArrayQueue::new(capacity),
            value_bytes: AtomicUsize::new(0),
            request_bytes: AtomicUsize::new(0),
            waker,
        }
    }

    /// Leaves mail, and wakes the shard if it sleeps. Gives the mail back where the box is full.
    pub fn post(&self, mail: M) -> Result<(), M> {
        // Counted before it is there, so that whoever takes it never subtracts first.
        let (value_bytes, request_bytes) = (mail.value_bytes(), mail.request_bytes());
        self.value_bytes.fetch_add(value_bytes, Ordering::Relaxed);
        self.request_bytes.fetch_add(request_bytes, Ordering::Relaxed);
        if let Err(mail) = self.queue.push(mail) {
            self.value_bytes.fetch_sub(value_bytes, Ordering::Relaxed);
            self.request_bytes.fetch_sub(request_bytes, Ordering::Relaxed);
            return Err(mail);
        }
        self.waker.wake();
        Ok(())
    }

    /// Takes the oldest mail.
    pub fn take(&self) -> Option<M> {
        let mail = self.queue.pop()?;
        self.value_bytes.fetch_sub(mail.value_bytes(), Ordering::Relaxed);
        self.request_bytes.fetch_sub(mail.request_bytes(), Ordering::Relaxed);
        Some(mail)
    }

    /// Bytes of values and pages in the answers that wait in it.
    pub fn value_bytes(&self) -> usize {
        self.value_bytes.load(Ordering::Relaxed)
    }

    /// Bytes of the bodies of the requests that wait in it.
    pub fn request_bytes(&self) -> usize {
        self.request_bytes.load(Ordering::Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What wakes its shard.
    pub fn waker(&self) -> &Arc<Waker> {
        &self.waker
    }
}
