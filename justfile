# What people do daily. `just` lists it.

_default:
    @just --list

# The tests, as the README says.
test *ARGS:
    cargo test --workspace {{ARGS}}

# Format and lints, as CI has them.
lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# A whole node and its clients in one thread, from a seed: `just sim 7`, `just sim --seeds 1000`, `just sim --help`.
sim *ARGS:
    cargo run --release -q -p lode-tests --bin sim -- {{ARGS}}

# The engine against a plain map, on N seeds from START; a failure prints its seed.
model SEEDS="1000" START="1":
    LODE_SEEDS={{SEEDS}} LODE_SEED_START={{START}} cargo test --release -p lode-engine --test model

# Each deliberate fault of `tests/mutations`, made in a copy, and the test that must find it: `just mutations`, `just mutations journal`.
mutations *ARGS:
    cargo run -q -p lode-tests --bin mutations -- {{ARGS}}

# Look for bytes that break TARGET (fuzz/fuzz_targets), for so many seconds; stable Rust will do. `cargo install cargo-fuzz` first.
fuzz TARGET SECONDS="60":
    cargo fuzz run -s none {{TARGET}} -- -max_total_time={{SECONDS}} -max_len=4096

# The rooms with unsafe code, where no kernel is needed, under Miri. Needs nightly with `miri`.
miri:
    RUSTFLAGS="--cfg rustix_use_libc" cargo +nightly miri test --target-dir target/miri -p lode-net --lib -- \
        ring::slab ring::chunks ring::outgoing

# SIGKILL under load, ROUNDS times, with a ledger of what was acknowledged.
kill9 ROUNDS="100":
    LODE_KILL_ROUNDS={{ROUNDS}} cargo test --release -p lode-tests --test kill9_ledger -- --nocapture

# One load against a node that runs; see `lode-bench run --help`.
bench *ARGS:
    cargo run --release -q -p lode-bench -- run {{ARGS}}

# What one tenant's flood costs the others, against a node that runs; see `lode-bench tenants --help`.
tenants *ARGS:
    cargo run --release -q -p lode-bench -- tenants {{ARGS}}

# What is left of the throughput at three times what a running node can do; `--workload put` for PUTs.
overload *ARGS:
    cargo run --release -q -p lode-bench -- overload {{ARGS}}

# What a request costs with 100, 1,000 and 10,000 partitions: starts a node for each.
partitions DIR="/tmp" *ARGS="":
    cargo build --release -q -p lode-node && cargo run --release -q -p lode-bench -- partitions --dir {{DIR}} {{ARGS}}

# What hostile clients cost the others, and the node in memory: starts a node of its own.
hostile DIR="/tmp" *ARGS="":
    cargo build --release -q -p lode-node && cargo run --release -q -p lode-bench -- hostile --dir {{DIR}} {{ARGS}}

# The node against the bare device, in turns: starts a node of its own.
report DATA="/tmp/lode-report":
    bench/report {{DATA}}

# lode beside what a user would pick instead (docs/peers.md): `just peers run --dir /tmp/peers`, `just peers list`.
peers *ARGS:
    cargo build --release -q -p lode-node -p lode-bench
    cargo run --release -q --manifest-path bench/peers/Cargo.toml --features "${LODE_PEERS:-}" -- {{ARGS}}

# How long the hot paths take; CRATE is lode-engine, lode-net or lode-node.
criterion CRATE *ARGS:
    cargo bench -p {{CRATE}} --bench '*' -- {{ARGS}}

# How many instructions the hot paths take, against tests/counts/counts.txt: fails above 5 % more. Needs valgrind.
counts *ARGS:
    cargo run --release -q -p lode-counts -- {{ARGS}}

# What cleaning costs, in the engine alone on a simulated drive, beside other ways of cleaning.
cleaning *ARGS:
    cargo run --release -q -p lode-engine --example cleaning_bench -- {{ARGS}}

# What of this machine would hold a node back: `just tune check`; and what changes that: `just tune tune plan`.
tune *ARGS:
    cargo run --release -q -p lode-tune -- {{ARGS}}

# Build an image, and hold a node on it to its promises in QEMU, with power cuts and media errors; left out where there is no QEMU.
vm-test IMAGE="target/lode.img" *ARGS:
    #!/usr/bin/env bash
    set -euo pipefail
    if ! command -v qemu-system-x86_64 >/dev/null; then
        echo "vm-test: left out: there is no qemu-system-x86_64 (apt-get install qemu-system-x86 ovmf)"
        exit 0
    fi
    cargo build --release -q -p lode-node -p lode-tune
    test -e {{IMAGE}} || target/release/lode-tune image build --output {{IMAGE}}
    target/release/lode-tune image boot-test {{IMAGE}} {{ARGS}}

# Everything that must hold before a change goes in.
ci:
    .ci/run
