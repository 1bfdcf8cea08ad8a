//! How long mail between shards takes: `cargo bench -p lode-node`.

mod paths;

use criterion::{Criterion, criterion_group, criterion_main};

fn walk(criterion: &mut Criterion) {
    for (name, ready) in paths::PATHS {
        let mut path = ready();
        criterion.bench_function(name, |bencher| bencher.iter(&mut path));
    }
}

criterion_group!(benches, walk);
criterion_main!(benches);
