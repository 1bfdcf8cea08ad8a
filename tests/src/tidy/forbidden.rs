//! Words that may not stand in code, or only in one room.

use super::Broken;
use crate::source::{Source, line_of, words};

/// What the engine may not reach: the world. (Its tests and examples may.)
const ENGINE_FORBIDDEN: [&str; 29] = [
    "std::fs",
    "std::net",
    "std::thread",
    "std::env",
    "std::process",
    "std::io",
    "std::os",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::time",
    "Instant::now",
    "SystemTime",
    "rand::",
    "getrandom",
    "RandomState::new",
    "RandomState::default",
    "libc::",
    "rustix::",
    "tokio::",
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "HashMap::new",
    "HashSet::new",
    // Memory may be mapped, files may not.
    "Mmap::map",
    "MmapMut::map_mut",
    "MmapOptions",
    "MmapRaw",
];
/// What is left over from the making.
const LEFT_OVER: [&str; 6] =
    ["todo!", "unimplemented!", "dbg!", "#[ignore", "allow(dead_code", "allow(unused"];
/// The rooms where `unsafe` may stand. A peer of the benchmarks, which is no part of the product, is opened by a call that
/// is unsafe by nature: it maps a file that others could change.
const UNSAFE_ROOMS: [&str; 2] = ["net/src/ring/", "bench/peers/src/engines/lmdb.rs"];

/// Calls from the engine to the world. Hash maps with a hasher seeded by chance count (only those have
/// `new`), for their order of iteration differs from run to run: a seed would not replay.
pub fn engine_calls(source: &Source) -> Vec<Broken> {
    if !source.path.starts_with("engine/") {
        return vec![];
    }
    let mut broken = lines_with(source, &ENGINE_FORBIDDEN, "the engine is pure; take it through `step`");
    // `use std::{fs, io}` hides the paths.
    for (line, code, test) in source.lines() {
        let grouped = code.trim_start().starts_with("use std::{");
        let world = ["fs", "net", "thread", "env", "process", "io", "os", "time"];
        if grouped && !test && world.iter().any(|word| words(code, word).next().is_some()) {
            broken.push(Broken::new(&source.path, line, "the engine is pure; take it through `step`"));
        }
    }
    broken
}

/// Marks of unfinished work, tests that do not run, and code that nobody calls. Tests count too.
pub fn left_over(source: &Source) -> Vec<Broken> {
    let mut broken = Vec::new();
    // Each test binary compiles what several share, and uses a part of it.
    let shared = source.path.ends_with("/tests/support/mod.rs");
    for (number, line, _) in
        source.lines().filter(|(_, line, _)| !shared || !line.contains("#![allow(dead_code"))
    {
        for word in LEFT_OVER.iter().filter(|word| line.contains(**word)) {
            broken.push(Broken::new(&source.path, number, format!("`{word}` may not stay")));
        }
    }
    broken
}

/// `unsafe` outside its rooms.
pub fn unsafe_rooms(source: &Source) -> Vec<Broken> {
    if UNSAFE_ROOMS.iter().any(|room| source.path.starts_with(room)) {
        return vec![];
    }
    let what = format!("`unsafe` may stand only in {}", UNSAFE_ROOMS.join(", "));
    let found = words(&source.code, "unsafe");
    found.map(|at| Broken::new(&source.path, line_of(&source.code, at), what.clone())).collect()
}

/// `unwrap()` outside tests.
pub fn unwraps(source: &Source) -> Vec<Broken> {
    lines_with(
        source,
        &[".unwrap()", ".unwrap_err()"],
        "say why it cannot fail (`expect`), or return an error",
    )
}

/// Lines outside tests that hold one of `forbidden`, each preceded by no part of a longer word.
fn lines_with(source: &Source, forbidden: &[&str], what: &str) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (number, line, _) in source.lines().filter(|(_, _, test)| !test) {
        for word in forbidden {
            let stands_alone = |(at, _): (usize, &str)| {
                let before = line[..at].chars().next_back();
                word.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
            };
            if line.match_indices(word).any(stands_alone) {
                broken.push(Broken::new(&source.path, number, format!("`{word}`: {what}")));
            }
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine(line: &str) -> usize {
        engine_calls(&Source::new("engine/src/a.rs", line)).len()
    }

    #[test]
    fn the_engine_may_not_reach_the_world() {
        for word in ENGINE_FORBIDDEN {
            assert!(engine(&format!("let x = {word}(1);")) > 0, "{word}");
        }
        assert_eq!(engine("use std::{collections::BTreeMap, fs};"), 1);
        assert_eq!(engine("use std::fmt; // not std::fs\nlet x = \"std::fs\";"), 0);
        assert_eq!(engine("let operand::x = my_println!();"), 0);
        assert_eq!(engine("#[cfg(test)]\nmod tests { use std::fs; }"), 0);
        assert!(engine_calls(&Source::new("node/src/a.rs", "use std::fs;")).is_empty());
    }

    #[test]
    fn nothing_is_left_over() {
        for word in LEFT_OVER {
            let source = Source::new("x/src/a.rs", &format!("#[cfg(test)]\nmod tests {{ {word}() }}"));
            assert_eq!(left_over(&source).len(), 1, "{word}");
        }
        let shared = Source::new("x/tests/support/mod.rs", "#![allow(dead_code)]\ntodo!()");
        assert_eq!(left_over(&shared).len(), 1);
        assert!(left_over(&Source::new("x/src/a.rs", "// todo!\nlet x = \"dbg!\";")).is_empty());
    }

    #[test]
    fn unsafe_has_its_room() {
        let text = "fn f() {\n  unsafe { g() }\n}\n#![forbid(unsafe_code)]";
        assert_eq!(unsafe_rooms(&Source::new("node/src/a.rs", text))[0].line, 2);
        assert_eq!(unsafe_rooms(&Source::new("node/src/a.rs", text)).len(), 1);
        assert!(unsafe_rooms(&Source::new("net/src/ring/a.rs", text)).is_empty());
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text =
            "fn f() { g().unwrap(); h().unwrap_or(1) }\n#[cfg(test)]\nmod tests { fn t() { g().unwrap() } }";
        assert_eq!(unwraps(&Source::new("node/src/a.rs", text)).len(), 1);
        assert!(unwraps(&Source::new("node/src/a/tests.rs", text)).is_empty());
    }
}
