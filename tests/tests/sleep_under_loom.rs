//! A shard that goes to sleep, and threads that leave mail for it: every order of their steps, and every value that the memory
//! model lets a load give, tried by loom. A wake that is lost would leave the shard asleep for ever, which loom reports. The mailbox
//! and the flag are the node's own; the queue and the eventfd are modelled.

/// What the flag is made of, under loom.
mod atomic {
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
}
/// What the mailbox is made of, under loom.
mod parts {
    pub use super::{ArrayQueue, Waker};
    pub use loom::sync::atomic::{AtomicUsize, Ordering};
}
#[path = "../../node/src/mailbox/postbox.rs"]
mod postbox;
#[path = "../../net/src/ring/sleep.rs"]
mod sleep;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::sync::{Condvar, Mutex};
use loom::thread;
use std::sync::Arc;

use postbox::{PostBox, Weight};
use sleep::SleepFlag;

/// Pieces of mail that a box has room for.
const CAPACITY: usize = 4;
/// Bytes of a piece, as an answer and as a request.
const VALUE_BYTES: usize = 3;
const REQUEST_BYTES: usize = 5;

/// A piece of mail.
#[derive(Debug)]
struct Piece;

impl Weight for Piece {
    fn value_bytes(&self) -> usize {
        VALUE_BYTES
    }

    fn request_bytes(&self) -> usize {
        REQUEST_BYTES
    }
}

/// A bounded queue that one takes from, with no more order than a queue must give: who sees a piece sees what was done before it
/// was there.
#[derive(Debug)]
pub struct ArrayQueue<T> {
    slots: Vec<Slot<T>>,
    head: AtomicUsize,
    tail: AtomicUsize,
}

#[derive(Debug)]
struct Slot<T> {
    is_full: AtomicBool,
    piece: Mutex<Option<T>>,
}

impl<T> ArrayQueue<T> {
    fn new(capacity: usize) -> ArrayQueue<T> {
        let slot = |_| Slot { is_full: AtomicBool::new(false), piece: Mutex::new(None) };
        let (head, tail) = (AtomicUsize::new(0), AtomicUsize::new(0));
        ArrayQueue { slots: (0..capacity).map(slot).collect(), head, tail }
    }

    fn push(&self, piece: T) -> Result<(), T> {
        let mut tail = self.tail.load(Ordering::Relaxed);
        loop {
            // What was loaded of the tail may be older than what is now the head.
            if tail >= self.head.load(Ordering::Acquire) + self.slots.len() {
                return Err(piece);
            }
            match self.tail.compare_exchange(tail, tail + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => break,
                Err(newer) => tail = newer,
            }
        }
        let slot = &self.slots[tail % self.slots.len()];
        *slot.piece.lock().expect("nobody panics") = Some(piece);
        slot.is_full.store(true, Ordering::Release);
        Ok(())
    }

    fn pop(&self) -> Option<T> {
        let head = self.head.load(Ordering::Relaxed);
        let slot = &self.slots[head % self.slots.len()];
        if !slot.is_full.load(Ordering::Acquire) {
            return None;
        }
        let piece = slot.piece.lock().expect("nobody panics").take();
        slot.is_full.store(false, Ordering::Relaxed);
        self.head.store(head + 1, Ordering::Release);
        piece
    }

    fn is_empty(&self) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        !self.slots[head % self.slots.len()].is_full.load(Ordering::Acquire)
    }
}

/// The flag, and the eventfd.
#[derive(Debug)]
pub struct Waker {
    flag: SleepFlag,
    /// Wakes that were not read.
    wakes: Mutex<usize>,
    woken: Condvar,
}

impl Waker {
    fn new() -> Waker {
        Waker { flag: SleepFlag::new(), wakes: Mutex::new(0), woken: Condvar::new() }
    }

    /// As the ring's does.
    fn wake(&self) {
        if self.flag.must_be_woken() {
            *self.wakes.lock().expect("nobody panics") += 1;
            self.woken.notify_one();
        }
    }

    fn sleep(&self) {
        let mut wakes = self.wakes.lock().expect("nobody panics");
        while *wakes == 0 {
            wakes = self.woken.wait(wakes).expect("nobody panics");
        }
        *wakes = 0;
    }
}

/// As the reactor's thread does: takes mail until it has so many pieces, and sleeps where there is none.
fn serve(mailbox: &PostBox<Piece>, pieces: usize) {
    let mut taken = 0;
    loop {
        while mailbox.take().is_some() {
            taken += 1;
            // Whoever takes never subtracts what was not counted yet.
            assert!(mailbox.value_bytes() <= (pieces - taken) * VALUE_BYTES);
            assert!(mailbox.request_bytes() <= (pieces - taken) * REQUEST_BYTES);
        }
        if taken == pieces {
            return assert!(mailbox.is_empty());
        }
        let waker = mailbox.waker();
        waker.flag.announce_sleep();
        if mailbox.is_empty() {
            waker.sleep();
        }
        waker.flag.awake();
    }
}

/// `preemptions`: how often a thread is interrupted at most, or loom does not end.
fn with_posters(posters: usize, pieces: usize, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let mailbox = Arc::new(PostBox::with_capacity(CAPACITY, Arc::new(Waker::new())));
        let poster = |_| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (0..pieces).for_each(|_| mailbox.post(Piece).expect("there is room")))
        };
        let posters: Vec<_> = (0..posters).map(poster).collect();
        serve(&mailbox, posters.len() * pieces);
        posters.into_iter().for_each(|thread| thread.join().expect("it posts and ends"));
    });
}

#[test]
fn mail_of_one_thread_is_never_slept_over() {
    with_posters(1, 2, Some(3));
}

#[test]
fn mail_of_two_threads_is_never_slept_over() {
    with_posters(2, 1, Some(2));
}
