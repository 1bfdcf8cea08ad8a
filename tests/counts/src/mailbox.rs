//! Mail between shards: the node's own box, with letters as long as its mail is.
//!
//! The node itself takes minutes to build for counting, and nothing of it is walked here but the box.

use std::hint::black_box;
use std::sync::Arc;

use lode_net::ring::Waker;

use crate::Ready;
use postbox::{PostBox, Weight};

#[path = "../../../node/src/mailbox/postbox.rs"]
mod postbox;

/// What the box is made of in the node.
mod parts {
    pub use std::sync::atomic::{AtomicUsize, Ordering};

    pub use crossbeam_queue::ArrayQueue;
    pub use lode_net::ring::Waker;
}

/// Each path's name, and what makes it ready.
pub const PATHS: &[(&str, Ready)] = &[("mailbox_16_posts_and_takes", posts_and_takes)];

/// Mail that waits together.
const TOGETHER: u32 = 16;
/// As the node's: `MAILBOX_CAPACITY`.
const CAPACITY: usize = 4096;
/// Of a letter beside its kind; a test of the node holds that its mail is as long.
const REST: usize = 13;

/// What the node sends as `Mail`.
struct Letter {
    kind: u64,
    rest: [u64; REST],
}

impl Weight for Letter {
    fn value_bytes(&self) -> usize {
        if self.kind == 1 { self.rest[0] as usize } else { 0 }
    }

    fn request_bytes(&self) -> usize {
        if self.kind == 2 { self.rest[0] as usize } else { 0 }
    }
}

/// To a shard that is awake, as one under load is.
fn posts_and_takes() -> Box<dyn FnMut()> {
    let waker = Arc::new(Waker::new().expect("an eventfd"));
    let mailbox = PostBox::with_capacity(CAPACITY, Arc::clone(&waker));
    assert!(Arc::ptr_eq(mailbox.waker(), &waker));
    Box::new(move || {
        for kind in 0..TOGETHER {
            let letter = Letter { kind: u64::from(kind % 3), rest: [1; REST] };
            assert!(mailbox.post(black_box(letter)).is_ok(), "there is room");
        }
        // What a shard looks at before it takes more.
        black_box((mailbox.value_bytes(), mailbox.request_bytes(), mailbox.is_empty()));
        for _ in 0..TOGETHER {
            black_box(mailbox.take().expect("it was posted"));
        }
    })
}
