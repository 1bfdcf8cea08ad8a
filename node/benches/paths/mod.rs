//! Mail between shards, ready to be walked again and again: timed by criterion (`cargo bench -p lode-node`), and counted in
//! instructions (`just counts`).

use std::hint::black_box;
use std::sync::Arc;

use lode_engine::OwnerId;
use lode_net::ring::Waker;
use lode_node::mailbox::{Mail, Mailbox};

/// One operation with all that it needs.
pub type Path = Box<dyn FnMut()>;
/// What makes a path ready.
pub type Ready = fn() -> Path;

/// Mail that waits together.
const TOGETHER: u32 = 16;

/// Each path's name, and what makes it ready.
pub const PATHS: &[(&str, Ready)] = &[("mailbox_16_posts_and_takes", posts_and_takes)];

/// To a shard that is awake, as one under load is.
fn posts_and_takes() -> Path {
    let mailbox = Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
    Box::new(move || {
        for _ in 0..TOGETHER {
            mailbox.post(black_box(Mail::EndTransactions(OwnerId(1)))).expect("there is room");
        }
        for _ in 0..TOGETHER {
            black_box(mailbox.take().expect("it was posted"));
        }
    })
}
