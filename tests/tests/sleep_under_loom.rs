//! A shard that goes to sleep, and threads that leave mail for it: every order of their steps, and every value that the memory
//! model lets a load give, tried by loom. A wake that is lost would leave the shard asleep for ever, which loom reports.

/// What the flag is made of, under loom.
mod atomic {
    pub use loom::sync::atomic::{AtomicBool, Ordering, fence};
}
#[path = "../../net/src/ring/sleep.rs"]
mod sleep;

use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Condvar, Mutex};
use loom::thread;

use sleep::SleepFlag;

/// A shard's end of its mailbox, and its eventfd.
struct Shard {
    flag: SleepFlag,
    /// Mail that waits. With no more order than a queue must give: who sees a piece sees what was done before it.
    mail: AtomicUsize,
    /// The eventfd: wakes that were not read.
    wakes: Mutex<usize>,
    woken: Condvar,
}

impl Shard {
    fn new() -> Shard {
        Shard {
            flag: SleepFlag::new(),
            mail: AtomicUsize::new(0),
            wakes: Mutex::new(0),
            woken: Condvar::new(),
        }
    }

    /// As `Mailbox::post` does.
    fn post(&self) {
        self.mail.fetch_add(1, Ordering::Release);
        if self.flag.must_be_woken() {
            *self.wakes.lock().expect("nobody panics") += 1;
            self.woken.notify_one();
        }
    }

    /// As the reactor's thread does: takes mail until it has so many pieces, and sleeps where there is none.
    fn serve(&self, pieces: usize) {
        let mut taken = 0;
        loop {
            taken += self.mail.swap(0, Ordering::Acquire);
            if taken == pieces {
                return;
            }
            self.flag.announce_sleep();
            if self.mail.load(Ordering::Acquire) == 0 {
                self.sleep();
            }
            self.flag.awake();
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

/// `preemptions`: how often a thread is interrupted at most, or loom does not end.
fn with_posters(posters: usize, pieces: usize, preemptions: Option<usize>) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = preemptions;
    model.check(move || {
        let shard = Arc::new(Shard::new());
        let poster = |_| {
            let shard = Arc::clone(&shard);
            thread::spawn(move || (0..pieces).for_each(|_| shard.post()))
        };
        let posters: Vec<_> = (0..posters).map(poster).collect();
        shard.serve(posters.len() * pieces);
        posters.into_iter().for_each(|thread| thread.join().expect("it posts and ends"));
    });
}

#[test]
fn mail_of_one_thread_is_never_slept_over() {
    with_posters(1, 2, None);
}

#[test]
fn mail_of_two_threads_is_never_slept_over() {
    with_posters(2, 1, Some(3));
}
