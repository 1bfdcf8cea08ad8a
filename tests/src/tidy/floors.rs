//! Imports only descend.

use super::Broken;
use crate::source::{Source, line_of, words};

/// Each room, and the rooms of ours that it may import. Tests import all; nobody imports tests.
pub const CARGO_FLOORS: [(&str, &[&str]); 9] = [
    ("engine", &[]),
    ("net", &[]),
    ("node", &["lode-engine", "lode-net"]),
    ("bench", &["lode-net"]),
    ("bench/peers", &["lode-bench", "lode-net"]),
    ("hw-tuning", &["lode-net"]),
    ("tests", &["lode-engine", "lode-net", "lode-node"]),
    ("tests/counts", &["lode-engine", "lode-net"]),
    ("fuzz", &["lode-tests"]),
];
/// What the engine may import from outside: nothing that touches the world.
const ENGINE_IMPORTS: [&str; 8] =
    ["ahash", "bytes", "crc32c", "memmap2", "prefetch-index", "quick_cache", "smallvec", "thiserror"];
/// The one file where requests of the wire and requests of the engine meet.
const MEETING: &str = "node/src/dispatch.rs";

/// Dependencies in a room's `Cargo.toml` that climb.
pub fn manifest_floors(room: &str, manifest: &str) -> Vec<Broken> {
    let path = format!("{room}/Cargo.toml");
    let Some((_, below)) = CARGO_FLOORS.iter().find(|(name, _)| *name == room) else {
        return vec![Broken::new(
            &path,
            1,
            "this room has no floor; give it one in tests/src/tidy/floors.rs",
        )];
    };
    let mut broken = Vec::new();
    let mut section = "";
    for (number, line) in manifest.lines().enumerate() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
            continue;
        }
        let name = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if !section.ends_with("dependencies") || name.is_empty() || name.starts_with('#') {
            continue;
        }
        if name.starts_with("lode-") && !below.contains(&name) {
            broken.push(Broken::new(&path, number + 1, format!("{room} may not import {name}")));
        }
        if room == "engine" && section == "dependencies" && !ENGINE_IMPORTS.contains(&name) {
            broken.push(Broken::new(&path, number + 1, format!("the engine may not import {name}")));
        }
    }
    broken
}

/// Uses of rooms that a file's room may not import, and second meetings of wire and engine.
pub fn source_floors(source: &Source) -> Vec<Broken> {
    let Some((_, below)) = CARGO_FLOORS.iter().find(|(name, _)| *name == source.room()) else {
        return vec![Broken::new(&source.path, 1, "this room has no floor")];
    };
    let mut broken = Vec::new();
    for (room, _) in CARGO_FLOORS {
        let package = format!("lode-{}", if room == "hw-tuning" { "tune" } else { room });
        let name = package.replace('-', "_");
        // A crate may name itself: its tests and binaries do.
        if room == source.room() || below.contains(&package.as_str()) {
            continue;
        }
        for at in words(&source.code, &name) {
            let line = line_of(&source.code, at);
            broken.push(Broken::new(&source.path, line, format!("{} may not import {name}", source.room())));
        }
    }
    broken.extend(second_meeting(source));
    broken
}

/// The engine's requests and the wire's request views named in one file, other than where they meet.
fn second_meeting(source: &Source) -> Option<Broken> {
    if !source.path.starts_with("node/src/") || source.path == MEETING {
        return None;
    }
    let engine = words(&source.code, "RequestBody").next();
    let wire = words(&source.code, "RequestView").next();
    let line = line_of(&source.code, engine.max(wire)?);
    let both = engine.is_some() && wire.is_some();
    let what = format!("engine and wire requests meet in {MEETING}, and nowhere else");
    both.then(|| Broken::new(&source.path, line, what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_not_climb() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nlode-net.workspace = true\nbytes = \"1\"\n";
        assert!(manifest_floors("bench", manifest).is_empty());
        assert_eq!(manifest_floors("engine", manifest)[0].line, 4);
        let dev = "[dev-dependencies]\nlode-node = { path = \"../node\" }\n";
        assert_eq!(manifest_floors("bench", dev).len(), 1);
        assert_eq!(manifest_floors("attic", dev).len(), 1);
    }

    #[test]
    fn the_engine_imports_only_what_is_pure() {
        assert_eq!(manifest_floors("engine", "[dependencies]\ntokio.workspace = true\n").len(), 1);
        assert!(manifest_floors("engine", "[dev-dependencies]\ntempfile.workspace = true\n").is_empty());
    }

    #[test]
    fn a_use_may_not_climb() {
        assert_eq!(source_floors(&Source::new("net/src/a.rs", "\nuse lode_engine::Seq;"))[0].line, 2);
        assert_eq!(source_floors(&Source::new("bench/src/a.rs", "lode_node::serve()")).len(), 1);
        assert!(
            source_floors(&Source::new("node/src/a.rs", "use lode_engine::Seq; // lode_tests")).is_empty()
        );
        assert!(source_floors(&Source::new("net/tests/a.rs", "use lode_net::wire;")).is_empty());
    }

    #[test]
    fn wire_and_engine_requests_meet_once() {
        let text = "use lode_engine::RequestBody;\nuse lode_net::wire::RequestView;";
        assert_eq!(source_floors(&Source::new("node/src/reactor/mod.rs", text)).len(), 1);
        assert!(source_floors(&Source::new(MEETING, text)).is_empty());
        assert!(source_floors(&Source::new("node/src/a.rs", "use lode_engine::RequestBody;")).is_empty());
    }
}
