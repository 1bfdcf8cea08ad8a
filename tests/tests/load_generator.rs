//! The load generator against a real node, as people run it: every workload, open and closed, the search for a rate, the
//! comparison of two loads, and the report, which a real browser renders.

use std::path::Path;
use std::process::{Command, Output};

use lode_tests::browser::{self, BROWSERS};
use lode_tests::node::{Home, Node, bench_binary, binary};
use serde_json::Value;

fn bench(node: &Node, line: &str) -> Output {
    let mut command = Command::new(bench_binary());
    let mut words = line.split(' ');
    command.arg(words.next().expect("a verb")).args(["--addr", &node.addr.to_string()]).args(words);
    command.output().expect("the load generator can be run")
}

fn json(output: &Output) -> Value {
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{}", String::from_utf8_lossy(&output.stdout));
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

const SMALL: &str = "--records 3000 --partitions 8 --value-size 200 --connections 4 --depth 4 --duration 500ms --warmup 0s --most-lateness 1m --json";

#[test]
fn every_workload_ends_without_a_wrong_answer() {
    let home = Home::new();
    let node = home.start();
    let kinds = [
        ("ycsb-a", vec!["get_us", "put_us"]),
        ("ycsb-b", vec!["get_us", "put_us"]),
        ("ycsb-c", vec!["get_us"]),
        ("ycsb-d", vec!["get_us", "insert_us"]),
        ("ycsb-e --table ordered", vec!["scan_us", "insert_us"]),
        ("ycsb-f", vec!["get_us", "rmw_us"]),
        ("transaction", vec!["transaction_us"]),
        ("get --value-size 10:1,5000:1 --table lengths", vec!["get_us"]),
        ("mixed --tables 3 --table many --tenant-skew 0.9 --read-percent 50", vec!["get_us", "put_us"]),
        ("put --key-order ordered --key-size 40 --table keys --churn 0.5", vec!["put_us"]),
    ];
    for (workload, classes) in kinds {
        let report = json(&bench(&node, &format!("run {SMALL} --workload {workload}")));
        for name in ["missing", "wrong", "refused", "unsent"] {
            assert_eq!(report[name], 0, "{workload}: {name} in {report}");
        }
        for class in classes {
            assert!(report[class]["count"].as_u64() > Some(0), "{workload}: {class} in {report}");
        }
    }
    let scans =
        json(&bench(&node, &format!("run {SMALL} --workload scan --table ordered --scan-length 900")));
    let (records, count) = (scans["scanned_per_s"].as_f64().unwrap(), scans["ops_per_s"].as_f64().unwrap());
    assert!(records / count > 200.0, "scans go on in the next of 8 partitions of 375 records: {scans}");
}

#[test]
fn an_open_loop_offers_its_rate_and_says_what_was_offered() {
    let home = Home::new();
    let node = home.start();
    let report = json(&bench(&node, &format!("run {SMALL} --workload get --rate 400 --duration 2s")));
    assert_eq!(report["mode"], "open");
    let offered = report["offered_per_s"].as_f64().unwrap();
    assert!((250.0..550.0).contains(&offered), "800 arrivals of a Poisson process: {offered}");
    assert!(report["get_us"]["count"].as_u64() > Some(0), "{report}");
    // A machine that does something else at the very end leaves requests that were due and have not gone out: these count
    // as failed, and nothing else does.
    for name in ["missing", "wrong", "refused", "busy", "throttled", "conflicts"] {
        assert_eq!(report[name], 0, "{name} in {report}");
    }
    assert!(report["errors"].as_u64() <= report["unsent"].as_u64(), "{report}");
}

#[test]
fn what_this_server_cannot_do_is_refused_in_words() {
    let home = Home::new();
    let node = home.start();
    for (line, word) in [
        ("run --duration 0s --records 10 --partitions 2", "--duration"),
        ("run --protocol resp", "does not speak RESP"),
    ] {
        let output = bench(&node, line);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains(word), "{line}: {told}");
    }
}

fn report_of(node: &Node, directory: &Path) -> Value {
    let line = format!("run {SMALL} --workload ycsb-a --rate 500 --duration 2s --slo get:p50<10s --report");
    json(&bench(node, &format!("{line} {}", directory.display())));
    let text = std::fs::read(directory.join("report.json")).expect("the report is there");
    serde_json::from_slice(&text).expect("it is JSON")
}

#[test]
fn a_report_has_its_parts_and_compares_with_another() {
    let home = Home::new();
    let node = home.start();
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let report = report_of(&node, &one);
    assert_eq!(report["holds"], true, "{}", report["verdicts"]);
    assert_eq!(report["verdicts"][0]["objective"], "get:p50<10s");
    assert_eq!(report["partitions"], 8);
    assert!(report["slices"].as_array().unwrap().len() >= 2);
    assert!(report["split"]["cpu"].as_f64() > Some(0.0), "{}", report["split"]);
    assert!(report["device"]["fill_percent"].as_f64() > Some(0.0));
    assert_eq!(report["fingerprint"]["drive"]["kind"], "file");
    let log = std::fs::read_to_string(one.join("histograms.hlog")).unwrap();
    assert!(log.contains("Tag=get,") && log.contains("Tag=put,"), "{log}");
    let slo = std::fs::read_to_string(one.join("openslo-get.yaml")).unwrap();
    assert!(slo.starts_with("apiVersion: openslo/v1\nkind: SLO\n"), "{slo}");
    report_of(&node, &two);
    let mut command = Command::new(bench_binary());
    command.arg("compare").args([one.join("report.json"), two.join("report.json")]).arg("--json");
    let comparison = json(&command.output().unwrap());
    assert_eq!(comparison["differing"], serde_json::json!([]));
    assert_eq!(comparison["figures"][0]["name"], "ops_per_s");
}

#[test]
fn hostile_clients_are_told_by_what_they_do() {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let line = "hostile --kinds damaged,drops,slow-hello --rounds 1 --duration 300ms --warmup 300ms --records 2000 \
                --rate 500 --slow-connections 100 --wave 50 --size 256MiB --memory-mib 160 --json";
    let mut command = Command::new(bench_binary());
    command.args(line.split_whitespace()).arg("--node").arg(binary()).arg("--dir").arg(home.path());
    let output = command.output().expect("the load generator can be run");
    // Whether the limits hold is for a machine that does nothing else.
    let report: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let rows = report["rows"].as_array().expect("a row for each kind");
    assert_eq!(rows.len(), 3);
    for row in rows {
        assert!(row["deeds"]["connections"].as_u64() > Some(10), "{row}");
        assert_eq!(
            (&row["left_open"], &row["turns"][0]["unsound"]),
            (&Value::from(0), &Value::from(0)),
            "{row}"
        );
        assert!(row["peak_bytes"].as_u64() > report["idle_bytes"].as_u64(), "{row}");
    }
    assert!(rows[0]["closed"]["protocol"].as_u64() > Some(10), "{}", rows[0]);
    assert!(rows[1]["closed"]["by_peer"].as_u64() > Some(10), "{}", rows[1]);
}

#[test]
fn a_search_ends_at_a_rate_that_holds() {
    let home = Home::new();
    let node = home.start();
    let directory = tempfile::tempdir().unwrap();
    let line = format!(
        "search {SMALL} --slo get:p50<10s --high 300 --confirm 1 --report {}",
        directory.path().display()
    );
    let found = json(&bench(&node, &line));
    assert_eq!(found["rate"], 300, "{found}");
    assert_eq!(found["probes"].as_array().unwrap().len(), 2, "once, and again: {found}");
    assert!(directory.path().join("report.html").exists());
    let none = bench(&node, &format!("search {SMALL} --slo get:p50<1us --high 300 --confirm 0"));
    assert!(!none.status.success());
    assert!(String::from_utf8_lossy(&none.stdout).contains("\"rate\": null"));
}

#[test]
fn the_certification_load_is_told_by_slices() {
    let home = Home::new();
    let node = home.start();
    let small = "--records 2000 --partitions 8 --duration 1s --slice 500ms --warmup 0s --json";
    let output = bench(&node, &format!("act {small}"));
    // Whether it passes is the machine's.
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!(output.status.success(), report["passes"] == true, "{report}");
    assert_eq!(report["slices"].as_array().map(Vec::len), Some(2), "{report}");
    assert_eq!(report["run"]["value_size"], "1536");
    assert_eq!(report["run"]["mix"], "get=2000,put=1000");
    assert!(report["slices"][0]["reads"].as_u64() > Some(500), "{report}");
}

/// Runs the browser on a page: with `argument`, in light (1) or dark (0), so wide.
fn browse(browser: &Path, page: &Path, argument: &str, scheme: u8, width: u32) -> Output {
    let profile = tempfile::tempdir().expect("a temporary directory can be made");
    let mut command = Command::new(browser);
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", argument]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!("--blink-settings=preferredColorScheme={scheme}"));
    command.arg(format!("--window-size={width},2400")).arg(format!("file://{}", page.display()));
    command.output().expect("the browser can be run")
}

#[test]
fn a_browser_renders_the_report() {
    let Some(browser) = browser::find() else {
        eprintln!("no browser of {BROWSERS:?} is on this machine: the report was not rendered");
        return;
    };
    let home = Home::new();
    let node = home.start();
    let directory = tempfile::tempdir().unwrap();
    report_of(&node, directory.path());
    let page = directory.path().join("report.html");
    let text = std::fs::read_to_string(&page).unwrap();
    for needed in ["http://", "https://", "<script", "<link", "src="] {
        assert!(!text.contains(needed), "the page needs {needed}");
    }
    let dom = browse(&browser, &page, "--dump-dom", 1, 1200);
    let dom = String::from_utf8_lossy(&dom.stdout);
    assert_eq!(dom.matches("<svg").count(), 3, "{dom}");
    assert_eq!(
        dom.matches("</section>").count(),
        text.matches("</section>").count(),
        "what is open is closed"
    );
    assert!(dom.contains("Objectives hold"), "{dom}");
    for (scheme, width) in [(1, 1200), (0, 420)] {
        let picture = directory.path().join(format!("page-{width}.png"));
        browse(&browser, &page, &format!("--screenshot={}", picture.display()), scheme, width);
        let bytes = std::fs::metadata(&picture).map_or(0, |picture| picture.len());
        assert!(bytes > 20_000, "an empty picture of {bytes} bytes");
    }
}
