//! What the page of the clients shows is a program that runs.

use lode_tests::node::Home;
use lode_tests::source;

#[path = "../../net/examples/tour.rs"]
#[expect(dead_code, reason = "its own way in is not called")]
mod tour;

#[test]
fn the_tour_of_the_clients_goes_through() {
    let home = Home::with(&["--size", "256MiB", "--shards", "2", "--memory", "256MiB"]);
    let node = home.start();
    let addr = node.addr.to_string();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(tour::tour(&addr)).expect("the tour of the client for tokio");
    tour::blocking_tour(&addr).expect("the tour of the client for threads");
}

#[test]
fn every_example_of_the_page_is_a_part_of_the_tour() {
    let root = source::root();
    let page = std::fs::read_to_string(root.join("docs/client.md")).expect("docs/client.md");
    let tour = std::fs::read_to_string(root.join("net/examples/tour.rs")).expect("the tour");
    let plain = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let tour = plain(&tour);
    let examples: Vec<_> =
        page.split("```rust\n").skip(1).map(|rest| rest.split("```").next().expect("it ends")).collect();
    assert!(examples.len() >= 8, "{} examples", examples.len());
    for example in examples {
        assert!(tour.contains(&plain(example)), "the tour does not have this of docs/client.md:\n{example}");
    }
}
