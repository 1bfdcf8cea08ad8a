//! The list of deliberate faults fits the product as it is: a fault that can no longer be made proves nothing.

use lode_tests::{mutations, source};

#[test]
fn every_deliberate_fault_can_be_made() {
    let root = source::root();
    let all = mutations::all(&root).expect("every fault is well written");
    assert!(all.len() >= 25, "{} faults", all.len());
    for mutation in &all {
        let made = mutation.made(|path| std::fs::read_to_string(root.join(path)).ok());
        let files = made.unwrap_or_else(|error| panic!("{}: {error}", mutation.name));
        assert!(!files.is_empty());
    }
}

#[test]
fn the_table_in_the_docs_tells_of_every_fault() {
    let root = source::root();
    let table = std::fs::read_to_string(root.join("docs/mutations.md")).expect("docs/mutations.md");
    for mutation in mutations::all(&root).expect("every fault is well written") {
        let (name, what) = (&mutation.name, &mutation.what);
        let row = table.lines().find(|line| line.starts_with(&format!("| {name} |")));
        let row = row
            .unwrap_or_else(|| panic!("docs/mutations.md has no row of {name}: `just mutations` prints it"));
        assert!(
            row.contains(what.as_str()) && row.contains("| caught: "),
            "{name} is another fault now, or was missed"
        );
    }
}
