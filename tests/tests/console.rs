//! The console in a real browser: what it shows of a node that works, what one can do with it, and what it shows of a dead one.

use lode_node::admin::SERIES;
use lode_tests::browser::{self, BROWSERS, Browser};
use lode_tests::http::get;
use lode_tests::node::{Home, Node};
use lode_tests::{source, table};

const HOSTILE: &str = "<img src=x onerror=document.title='owned'> \"quoted\" & more";

fn write(node: &Node, table: &str, records: u32) {
    let mut client = node.client();
    for n in 0..records {
        client.put(table, &n.to_be_bytes(), &[7; 300]).expect("put");
        client.get(table, &n.to_be_bytes()).expect("got");
    }
}

#[test]
fn the_page_may_do_no_more_than_it_needs_and_fetches_nothing_from_elsewhere() {
    let home = Home::observed(&[]);
    let node = home.start();
    let page = get(node.admin_addr(), "/");
    let policy = page.header("content-security-policy").expect("a policy").to_owned();
    assert!(
        policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
        "{policy}"
    );
    for file in ["index.html", "console.css", "console.js", "slow.js"] {
        let path = source::root().join("node/src/admin/console").join(file);
        let text = std::fs::read_to_string(path).expect("there");
        for bad in
            ["http:", "https:", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
        {
            assert!(!text.contains(bad), "{file} has {bad}");
        }
        let served = if file == "index.html" { "/".to_owned() } else { format!("/{file}") };
        assert_eq!(get(node.admin_addr(), &served).text(), text, "{file} is the one that was built in");
    }
    let script = get(node.admin_addr(), "/console.js").text();
    assert!(script.contains("const [id, table, shard, reads, writes, readBytes, writeBytes, failed, limited, latency, longest, records, size]"));
    assert_eq!(SERIES.len(), 10, "the script takes the stream's columns by their places");
}

#[test]
fn a_person_sees_searches_opens_and_is_told_when_the_node_is_dead() {
    let Some(program) = browser::find() else {
        eprintln!("left out: no browser of {BROWSERS:?} is on this machine");
        return;
    };
    let home = Home::observed(&[]);
    let node = home.start();
    let origin = format!("http://{}/", node.admin_addr());
    let mut client = node.client();
    client.create_table(table::durable("users", 1100)).expect("made");
    client.create_table(table::durable(HOSTILE, 3)).expect("made");
    write(&node, "users", 300);
    write(&node, HOSTILE, 3);

    let mut page = Browser::start(&program);
    page.resize(1300, 900, false);
    page.prefer("light");
    page.open(&origin);
    page.until("document.querySelector('#health')?.textContent === 'green'");
    page.until("document.querySelector('#partition-count')?.textContent === '1103'");
    assert_eq!(page.text("#name"), "seen");
    assert_eq!(page.value("document.documentElement.dataset.theme"), "light");

    sees_what_is_new(&mut page, &node);
    searches_and_sorts(&mut page);
    opens_partitions_by_pointer_and_by_keys(&mut page);
    fits_a_phone_and_the_dark(&mut page);

    let asked = page.asked();
    assert!(
        asked.len() > 5 && asked.iter().all(|url| url.starts_with(&origin) || url == "data:,"),
        "{asked:#?}"
    );
    assert_eq!(page.complaints(), Vec::<String>::new());
    node.kill();
    page.until("document.querySelector('#health').textContent === 'dead'");
    page.until("document.querySelector('#dead').innerText.includes('does not answer since')");
    assert_eq!(page.value("document.body.classList.contains('dead')"), true);
    page.resize(1300, 900, false);
    page.picture("dead");
}

/// What is written while the page is open is seen without doing anything.
fn sees_what_is_new(page: &mut Browser, node: &Node) {
    let requests =
        "Array.from(document.querySelectorAll('#shards tbody tr')).map(row => row.cells[1].innerText).join()";
    let before = page.value(requests);
    write(node, "users", 300);
    page.until(&format!("{requests} !== {before}"));
    page.until("Number.parseFloat(document.querySelector('#cards dd').innerText) >= 0");
    page.until("kept.live.times.length > 3");
    let drawn = "(() => { const c = document.querySelector('#chart-throughput'); \
                 return c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(byte => byte > 0); })()";
    page.until(drawn);
    page.picture("wide");
}

fn searches_and_sorts(page: &mut Browser) {
    page.click("#search", None);
    page.type_text("img SRC");
    page.until("document.querySelector('#partition-count').textContent === '3 of 1103'");
    let first = page.text("#list tbody td");
    assert_eq!(first, HOSTILE, "a name is shown as it is");
    assert_eq!(page.value("document.querySelectorAll('img').length"), 0);
    assert!(!page.value("document.title").as_str().unwrap_or("owned").contains("owned"));
    page.value("(() => { const s = document.querySelector('#search'); s.value = ''; s.dispatchEvent(new Event('input')); })()");
    page.until("document.querySelector('#partition-count').textContent === '1103'");
    page.value("(() => { const s = document.querySelector('#sort'); s.value = 'size'; s.dispatchEvent(new Event('change')); })()");
    let sorted = "(() => { const sizes = arranged.map(p => p.bytes); return sizes.every((b, n) => n === 0 || sizes[n - 1] >= b) && sizes[0] > 0; })()";
    page.until(sorted);
    page.value("(() => { const s = document.querySelector('#colour'); s.value = 'size'; s.dispatchEvent(new Event('change')); })()");
    page.until("document.querySelector('#scale-high').textContent.endsWith('B')");
}

fn opens_partitions_by_pointer_and_by_keys(page: &mut Browser) {
    page.click("#partitions", Some((3.0, 3.0)));
    page.until("document.querySelector('#detail').open");
    page.until("document.querySelector('#detail-facts').innerText.includes('Hashes from')");
    let title = page.text("#detail-title");
    assert!(title.starts_with("users · partition "), "{title}");
    page.picture("detail");
    page.press("Escape", 27);
    page.until("!document.querySelector('#detail').open");
    page.value("document.querySelector('#partitions').focus()");
    let before = page.text("#cell");
    page.press("ArrowRight", 39);
    page.until(&format!("document.querySelector('#cell').innerText !== {}", serde_json::json!(before)));
    page.press("Enter", 13);
    page.until("document.querySelector('#detail').open");
    page.press("Escape", 27);
    page.until("!document.querySelector('#detail').open");
    // From the top of the page with the keys alone: the skip link comes first, then the switch.
    page.value("document.activeElement.blur(), document.body.focus()");
    let reach = "Array.from(document.querySelectorAll('button, input, select, [tabindex]')).every(e => e.tabIndex >= 0)";
    assert_eq!(page.value(reach), true, "everything is reached by Tab");
}

fn fits_a_phone_and_the_dark(page: &mut Browser) {
    page.prefer("dark");
    page.until("document.documentElement.dataset.theme === 'dark'");
    page.picture("dark");
    page.click("#theme", None);
    page.until("document.documentElement.dataset.theme === 'light' && document.querySelector('#theme').innerText === 'Light'");
    page.resize(390, 844, true);
    page.until("innerWidth === 390");
    assert_eq!(
        page.value("document.documentElement.scrollWidth <= 390"),
        true,
        "nothing sticks out sideways"
    );
    page.picture("phone");
}

#[test]
fn slow_requests_are_listed_sorted_and_searched() {
    let Some(program) = browser::find() else {
        eprintln!("left out: no browser of {BROWSERS:?} is on this machine");
        return;
    };
    let home = Home::observed(&["--slow-request", "1us"]);
    let node = home.start();
    let mut client = node.client();
    client.create_table(table::durable("users", 4)).expect("made");
    client.create_table(table::durable(HOSTILE, 1)).expect("made");
    write(&node, "users", 20);
    write(&node, HOSTILE, 3);
    let mut page = Browser::start(&program);
    page.resize(1300, 900, false);
    page.open(&format!("http://{}/", node.admin_addr()));
    page.until("document.querySelectorAll('#slow tbody tr').length > 10");
    page.until("document.querySelector('#slow-told').innerText.startsWith('Took < 1 µs or longer')");
    assert_eq!(page.value("document.querySelectorAll('img').length"), 0);
    let took =
        "Array.from(document.querySelectorAll('#slow tbody tr')).map(row => row.cells[2].innerText).join()";
    let latest = page.value(took);
    page.value("(() => { const s = document.querySelector('#slow-sort'); s.value = 'total'; s.dispatchEvent(new Event('change')); })()");
    page.until(&format!("{took} !== {latest}"));
    page.until("(() => { const all = slow.requests.map(one => one.total_us); return document.querySelector('#slow tbody tr').cells[2].innerText === micros(Math.max(...all)); })()");
    page.click("#slow-search", None);
    page.type_text("IMG SRC");
    page.until("document.querySelectorAll('#slow tbody tr').length > 0 && Array.from(document.querySelectorAll('#slow tbody tr')).every(row => row.cells[0].innerText.includes('<img src=x'))");
    page.until("document.querySelector('#slow .stages').getAttribute('aria-label').length > 5");
    page.picture("slow");
    assert_eq!(page.complaints(), Vec::<String>::new());
}
