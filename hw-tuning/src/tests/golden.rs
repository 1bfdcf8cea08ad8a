//! Plans and rendered files of whole machines, held against files in `golden/`. Where a change is meant, LODE_GOLDEN=write
//! writes them anew, for review.

use std::path::Path;

use crate::tests::fixture::Fixture;
use crate::tune::plan::Plan;
use crate::{machine::Machine, render};

fn held(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("LODE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (at, (now, then)) in text.lines().zip(golden.lines()).enumerate() {
        assert_eq!(now, then, "line {} of {name}; if it is meant, LODE_GOLDEN=write", at + 1);
    }
    assert_eq!(text.lines().count(), golden.lines().count(), "{name}; if it is meant, LODE_GOLDEN=write");
}

fn machines() -> [(&'static str, Fixture); 4] {
    let mut server = Fixture::untuned();
    server.drives = vec!["id:SERIAL-B".to_owned()];
    let apart = Fixture::untuned().wanting("isolation = \"cpusets\"\npoll_queues = 2");
    [("good", Fixture::good()), ("server", server), ("apart", apart), ("azure", Fixture::azure())]
}

#[test]
fn plans_are_as_they_were() {
    for (name, machine) in machines() {
        held(&format!("{name}.plan"), &machine.look(Plan::make).to_text());
    }
}

#[test]
fn rendered_files_are_as_they_were() {
    for (name, machine) in machines().into_iter().filter(|(name, _)| *name != "good") {
        let files = machine.look(render::all);
        let text: String = files.iter().map(|(path, text)| format!("#### /{path}\n{text}\n")).collect();
        held(&format!("{name}.rendered"), &text);
    }
}

#[test]
fn what_is_told_of_a_machine_is_as_it_was() {
    for (name, machine) in machines() {
        held(&format!("{name}.inspected"), &Machine::read(&machine.probe()).to_text());
    }
}
