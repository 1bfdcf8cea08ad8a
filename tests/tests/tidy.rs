//! The rules of the house, held against this checkout. That each rule can fail is shown beside it.

use std::collections::HashSet;

use lode_tests::source::{self, Source};
use lode_tests::tidy::{self, Broken};

fn assert_tidy(broken: Vec<Broken>) {
    let lines: Vec<String> = broken.iter().map(Broken::to_string).collect();
    assert!(lines.is_empty(), "{} broken:\n{}", lines.len(), lines.join("\n"));
}

fn all_sources(rule: fn(&Source) -> Vec<Broken>) {
    let sources = source::rust();
    assert!(sources.len() > 20, "found only {} files: looking in the wrong place", sources.len());
    assert_tidy(sources.iter().flat_map(rule).collect());
}

#[test]
fn files_stay_short() {
    all_sources(tidy::file_lines);
}

#[test]
fn functions_stay_short() {
    all_sources(tidy::function_lines);
}

#[test]
fn uses_only_descend() {
    all_sources(tidy::source_floors);
}

#[test]
fn dependencies_only_descend() {
    let manifests = source::files("toml").into_iter();
    let rooms =
        manifests.filter_map(|(path, text)| Some((path.strip_suffix("/Cargo.toml")?.to_owned(), text)));
    let rooms: Vec<_> = rooms.collect();
    assert_eq!(rooms.len(), tidy::CARGO_FLOORS.len(), "every room has a floor, and every floor a room");
    assert_tidy(rooms.iter().flat_map(|(room, text)| tidy::manifest_floors(room, text)).collect());
}

#[test]
fn the_engine_is_pure() {
    all_sources(tidy::engine_calls);
}

#[test]
fn unsafe_stays_in_its_room() {
    all_sources(tidy::unsafe_rooms);
}

#[test]
fn unwrap_stays_in_tests() {
    all_sources(tidy::unwraps);
}

#[test]
fn nothing_is_left_over() {
    all_sources(tidy::left_over);
}

#[test]
fn links_in_documents_lead_somewhere() {
    let root = source::root();
    let exists = |path: &str| root.join(path).exists();
    let documents = source::files("md");
    assert_tidy(documents.iter().flat_map(|(path, text)| tidy::broken_links(path, text, &exists)).collect());
}

#[test]
fn functions_named_in_documents_exist() {
    let defined: HashSet<String> =
        source::rust().iter().flat_map(Source::functions).map(|(name, _, _)| name).collect();
    let documents = source::files("md").into_iter();
    let documents: Vec<_> =
        documents.filter(|(path, _)| path == "README.md" || path.starts_with("docs/")).collect();
    assert!(documents.len() > 3, "found only {} documents", documents.len());
    let broken = |(path, text): &(String, String)| tidy::missing_names(path, text, &|f| defined.contains(f));
    assert_tidy(documents.iter().flat_map(broken).collect());
}
