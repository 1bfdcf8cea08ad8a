//! How long mail between shards takes: `cargo bench -p lode-node`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use lode_engine::OwnerId;
use lode_net::ring::Waker;
use lode_node::mailbox::{Mail, Mailbox};

/// Mail that waits together.
const TOGETHER: u32 = 16;

/// To a shard that is awake, as one under load is.
fn posts_and_takes(criterion: &mut Criterion) {
    let mailbox = Mailbox::new(Arc::new(Waker::new().expect("an eventfd")));
    criterion.bench_function("mailbox_16_posts_and_takes", |bencher| {
        bencher.iter(|| {
            for _ in 0..TOGETHER {
                mailbox.post(black_box(Mail::EndTransactions(OwnerId(1)))).expect("there is room");
            }
            for _ in 0..TOGETHER {
                black_box(mailbox.take().expect("it was posted"));
            }
        })
    });
}

criterion_group!(benches, posts_and_takes);
criterion_main!(benches);
