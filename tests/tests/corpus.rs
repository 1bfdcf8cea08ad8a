//! What fuzzers take is taken here too, without a fuzzer: every input that is kept, and some hundred random changes of each
//! target's inputs.

use std::fs;
use std::path::PathBuf;

use lode_tests::fuzz::{TARGETS, Target};
use lode_tests::value::Dice;

/// Changed inputs of each target; more by `LODE_FUZZ_CHANGES`, and others by `LODE_FUZZ_SEED`.
const CHANGES: u64 = 300;

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|number| number.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target.name);
    let entries = fs::read_dir(&root).unwrap_or_else(|error| panic!("{}: {error}", root.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("it can be listed").path()).collect();
    files.sort();
    files.into_iter().map(|path| (path.clone(), fs::read(&path).expect("it can be read"))).collect()
}

#[test]
fn every_target_takes_what_is_kept_for_it() {
    for target in TARGETS {
        let inputs = corpus(target);
        assert!(!inputs.is_empty(), "nothing is kept for {}", target.name);
        for (path, bytes) in inputs {
            println!("{}", path.display());
            (target.run)(&bytes);
        }
    }
}

#[test]
fn every_target_takes_random_changes_of_what_is_kept() {
    let changes = from_environment("LODE_FUZZ_CHANGES").unwrap_or(CHANGES);
    let first_seed = from_environment("LODE_FUZZ_SEED").unwrap_or(0);
    for (seed, target) in (first_seed..).zip(TARGETS) {
        let inputs = corpus(target);
        let mut dice = Dice::new(seed);
        for _ in 0..changes {
            let mut bytes = inputs[dice.below(inputs.len() as u64) as usize].1.clone();
            for _ in 0..=dice.below(6) {
                change(&mut bytes, &mut dice);
            }
            println!("{} {}", target.name, bytes.escape_ascii());
            (target.run)(&bytes);
        }
    }
}

/// Changes, adds or takes away a byte.
fn change(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = dice.below(bytes.len() as u64 + 1) as usize;
    let byte = dice.below(256) as u8;
    match dice.below(4) {
        0 => bytes.insert(at, byte),
        1 if at < bytes.len() => drop(bytes.remove(at)),
        _ if at < bytes.len() => bytes[at] = byte,
        _ => bytes.extend_from_slice(&[byte; 7]),
    }
}
