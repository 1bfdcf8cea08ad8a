//! Profiles, built in and others.

use super::{BUILT_IN, KNOBS, Profile, Want};
use crate::tests::fixture::Fixture;

fn parse(rest: &str) -> Result<Profile, String> {
    let text = format!("version = 1\nname = \"x\"\nabout = \"y\"\n{rest}");
    Profile::parse("x.toml", &text).map_err(|error| error.to_string())
}

#[test]
fn all_that_are_built_in_load_and_bear_their_names() {
    for (name, _) in BUILT_IN {
        let profile = Profile::load(name).unwrap();
        assert_eq!(profile.name, name);
        assert!(!profile.about.is_empty());
    }
}

#[test]
fn the_profile_of_nvme_drives_says_something_of_every_knob() {
    let profile = Profile::load("generic-nvme").unwrap();
    for (name, _) in KNOBS {
        assert_ne!(*profile.want(name), Want::Keep, "{name}");
    }
}

#[test]
fn every_name_in_a_profile_is_a_knob_of_the_report() {
    let machine = Fixture::good();
    let knobs = machine.knobs();
    for (name, _) in KNOBS {
        // This one is a part of `isolation`.
        if name != "housekeeping_cores" {
            assert!(knobs.iter().any(|knob| knob.name == name), "{name}");
        }
    }
}

#[test]
fn a_profile_extends_another() {
    let profile =
        parse("extends = \"azure-lsv4\"\n[knobs]\nswappiness = \"keep\"\nsomaxconn = 9000").unwrap();
    assert_eq!(*profile.want("swappiness"), Want::Keep);
    assert_eq!(profile.number("somaxconn"), Some(9000));
    assert_eq!(profile.number("netdev_max_backlog"), Some(32768));
    assert_eq!(profile.drives.models, ["Microsoft NVMe Direct Disk v2"]);
    let own = parse("extends = \"azure-lsv4\"\n[drives]\nids = [\"SERIAL\"]").unwrap();
    assert!(own.drives.models.is_empty());
}

#[test]
fn what_is_wrong_is_said_with_what_may_be() {
    for (rest, part) in [
        ("[knobs]\nswapiness = 1", "there is no knob \"swapiness\"; there are add_random, "),
        ("[knobs]\nswappiness = 500", "swappiness cannot be 500; it is a number from 0 to 200"),
        ("[knobs]\nswappiness = -1", "swappiness cannot be -1"),
        ("[knobs]\nswappiness = \"auto\"", "swappiness cannot be \"auto\""),
        ("[knobs]\nscheduler = \"noop\"", "it is \"none\", \"mq-deadline\", \"kyber\", \"bfq\" or \"keep\""),
        ("[knobs]\nmemlock = 1.5", "\"auto\" or \"keep\""),
        ("[knobs]\nscheduler = [1]", "scheduler cannot be [1]"),
        (
            "extends = \"mine\"",
            "extends \"mine\", which is neither a built-in profile nor the absolute path of a file",
        ),
        ("colour = 1", "colour"),
        ("[drives]\nnames = [\"nvme0n1\"]", "names"),
        ("knobs = 1", "knobs"),
        ("[", "TOML parse error"),
    ] {
        let error = parse(rest).unwrap_err();
        assert!(error.starts_with("x.toml: ") && error.contains(part), "{rest}: {error}");
    }
    let other = Profile::parse("x.toml", "version = 2\nname = \"x\"\nabout = \"y\"").unwrap_err().to_string();
    assert!(other.contains("version 2"), "{other}");
}

#[test]
fn what_is_neither_built_in_nor_a_file_is_said() {
    let unknown = Profile::load("azure").unwrap_err().to_string();
    assert!(unknown.contains("built in are azure-lsv3"), "{unknown}");
    let missing = Profile::load("/nowhere/x.toml").unwrap_err().to_string();
    assert!(missing.starts_with("/nowhere/x.toml: "), "{missing}");
    let directory = tempfile::tempdir().unwrap();
    let long = directory.path().join("long.toml");
    std::fs::File::create(&long).unwrap().set_len(17 << 20).unwrap();
    let error = Profile::load(long.to_str().unwrap()).unwrap_err().to_string();
    assert!(error.contains("longer than 16 MiB"), "{error}");
}

#[test]
fn a_file_extends_another_but_not_itself() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, extends: &str, knobs: &str| {
        let path = directory.path().join(name).to_str().unwrap().to_owned();
        let text =
            format!("version = 1\nname = \"x\"\nabout = \"y\"\nextends = {extends:?}\n[knobs]\n{knobs}\n");
        std::fs::write(&path, text).unwrap();
        path
    };
    let base = write("base", "generic-nvme", "somaxconn = 77\nswappiness = 7");
    let top = write("top.toml", &base, "swappiness = 9");
    let profile = Profile::load(&top).unwrap();
    assert_eq!((profile.number("somaxconn"), profile.number("swappiness")), (Some(77), Some(9)));
    write("base", &top, "");
    let round = Profile::load(&top).unwrap_err().to_string();
    assert!(round.contains("go round in a circle"), "{round}");
}
