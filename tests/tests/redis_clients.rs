//! Redis's own tools and the clients of three languages, as they are, against the RESP door of a real node. Those that are not
//! installed are left out with a line that says so.

use std::path::Path;
use std::process::Command;

use lode_tests::node::{Home, Node};
use redis::{Commands, ExistenceCheck, SetExpiry, SetOptions};

fn node() -> (Home, Node) {
    let home =
        Home::with(&["--size", "192MiB", "--shards", "2", "--memory", "128MiB", "--redis", "127.0.0.1:0"]);
    let node = home.start();
    (home, node)
}

/// What a program prints; `None`, and a line about it, where it cannot be run.
fn output_of(what: &str, command: &mut Command) -> Option<String> {
    let Ok(output) = command.output() else {
        println!("left out: {what} is not installed");
        return None;
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} failed:\n{out}\n{err}");
    Some(out.into_owned())
}

#[test]
fn redis_cli_reads_and_writes() {
    let (_home, node) = node();
    let port = node.redis_addr().port().to_string();
    let cli =
        |args: &[&str]| output_of("redis-cli", Command::new("redis-cli").args(["-p", &port]).args(args));
    let Some(set) = cli(&["SET", "k", "hello world"]) else { return };
    assert_eq!(set, "OK\n");
    assert_eq!(cli(&["GET", "k"]).as_deref(), Some("hello world\n"));
    assert_eq!(cli(&["-3", "--no-raw", "GET", "nosuch"]).as_deref(), Some("(nil)\n"));
    assert_eq!(cli(&["--scan", "--pattern", "k*"]).as_deref(), Some("k\n"));
    assert!(cli(&["INFO", "server"]).is_some_and(|info| info.contains("lode_version:")));
    assert_eq!(
        cli(&["LPUSH", "l", "1"]).expect("it was there").lines().next().map(|line| &line[..19]),
        Some("ERR unknown command")
    );
    // 2,000 commands in one stream, as bulk loads are done.
    let mut stream = Vec::new();
    (0..2000)
        .for_each(|n| stream.extend(lode_tests::resp::request(&["SET", &format!("p{n}"), &n.to_string()])));
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), &stream).expect("it can be written");
    let input = std::fs::File::open(file.path()).expect("it is there");
    let piped = output_of("redis-cli", Command::new("redis-cli").args(["-p", &port, "--pipe"]).stdin(input));
    assert!(piped.is_some_and(|told| told.contains("errors: 0, replies: 2000")));
    assert_eq!(cli(&["GET", "p1999"]).as_deref(), Some("1999\n"));
}

#[test]
fn redis_benchmark_runs_to_its_end() {
    let (_home, node) = node();
    let port = node.redis_addr().port().to_string();
    for pipeline in ["1", "16"] {
        let tests = "ping_inline,ping_mbulk,set,get,incr,mset";
        let args =
            ["-p", &port, "-t", tests, "-n", "1000", "-c", "10", "-r", "1000", "-P", pipeline, "--csv"];
        let Some(told) = output_of("redis-benchmark", Command::new("redis-benchmark").args(args)) else {
            return;
        };
        assert_eq!(told.lines().count(), 7, "{told}");
        assert!(!told.to_lowercase().contains("error"), "{told}");
    }
}

#[test]
fn the_redis_crate_speaks_both_versions() {
    let (_home, node) = node();
    for version in ["", "?protocol=resp3"] {
        let client =
            redis::Client::open(format!("redis://{}/{version}", node.redis_addr())).expect("an address");
        let mut redis = client.get_connection().expect("connected");
        let set: () = redis.set("k", b"\x00\xff").expect("set");
        assert_eq!((set, redis.get::<_, Vec<u8>>("k").expect("got")), ((), vec![0, 255]));
        assert_eq!(redis.get::<_, Option<String>>("nosuch").expect("got"), None);
        let options =
            SetOptions::default().conditional_set(ExistenceCheck::NX).with_expiration(SetExpiry::EX(100));
        assert!(
            redis.set_options::<_, _, Option<String>>("fresh", "v", options.clone()).expect("set").is_some()
        );
        assert!(redis.set_options::<_, _, Option<String>>("fresh", "v", options).expect("asked").is_none());
        assert!((99..=100).contains(&redis.ttl::<_, i64>("fresh").expect("told")));
        assert_eq!(redis.incr::<_, _, i64>("n", 5).expect("counted"), 5);
        assert_eq!(redis.incr::<_, _, f64>("f", 0.5).expect("counted"), 0.5);
        let error = redis.incr::<_, _, i64>("k", 1).expect_err("it is no number");
        assert!(error.to_string().contains("not an integer"), "{error}");
        let both: (String, i64) = redis::pipe()
            .atomic()
            .set("a", 1)
            .ignore()
            .get("a")
            .incr("a", 1)
            .query(&mut redis)
            .expect("a transaction");
        assert_eq!(both, ("1".to_owned(), 2));
        let seen: i64 = redis::transaction(&mut redis, &["a"], |redis, pipe| {
            let present: i64 = redis.get("a")?;
            pipe.set("a", present * 10).ignore().get("a").query::<Option<(i64,)>>(redis)
        })
        .map(|(seen,)| seen)
        .expect("a transaction that watches");
        assert_eq!(seen, 20);
        let mut keys: Vec<String> =
            redis.scan_match::<_, String>("*").expect("a scan").map(|key| key.expect("a key")).collect();
        keys.sort();
        assert_eq!(keys, ["a", "f", "fresh", "k", "n"]);
        let values: Vec<Option<i64>> = redis.mget(&["a", "nosuch"]).expect("got");
        assert_eq!(values, [Some(20), None]);
        redis::cmd("FLUSHDB").exec(&mut redis).expect("emptied");
    }
}

const PYTHON: &str = r#"
import sys
try:
    import redis
    redis.Redis  # a folder of this name, here, passes for a package without anything in it
except (ImportError, AttributeError):
    print("left out: redis-py is not installed"); sys.exit(0)
for protocol in (2, 3):
    r = redis.Redis(host="127.0.0.1", port=int(sys.argv[1]), protocol=protocol, decode_responses=True)
    assert r.ping() and r.set("k", "v", ex=100) and r.get("k") == "v" and 99 <= r.ttl("k") <= 100
    assert r.set("k", "w", nx=True) is None and r.get("nosuch") is None
    assert r.mset({"a": 1, "b": 2}) and r.mget("a", "b", "c") == ["1", "2", None]
    assert r.incr("n", 5) == 5 and r.incrbyfloat("f", 0.25) == 0.25
    with r.pipeline(transaction=False) as p:
        for n in range(500): p.set(f"p{n}", n)
        assert all(p.execute())
    with r.pipeline() as p:
        p.watch("a"); seen = int(p.get("a")); p.multi(); p.set("a", seen + 10); p.get("a")
        assert p.execute() == [True, "11"]
    def move(p):
        left = int(p.get("a")); p.multi(); p.decrby("a", 1); p.incrby("b", 1); assert left > 0
    assert r.transaction(move, "a", "b") == [10, 3]
    assert sorted(r.scan_iter("p1?")) == [f"p1{n}" for n in range(10)]
    assert len(r.keys("p*")) == 500 and r.dbsize() == 505 and r.delete("p0", "p1", "nosuch") == 2
    assert r.exists("a", "nosuch") == 1 and r.type("a") == "string" and r.rename("a", "c") and r.getdel("c") == "10"
    assert r.expire("b", 50) and r.persist("b") and r.append("k", "w") == 2 and r.getrange("k", 1, 1) == "w"
    assert r.info("server")["redis_mode"] == "standalone" and r.client_setname("py") and r.client_getname() == "py"
    try: r.lpush("l", 1); assert False
    except redis.ResponseError as e: assert "unknown command" in str(e)
    try: r.incr("k"); assert False
    except redis.ResponseError as e: assert "not an integer" in str(e)
    assert r.execute_command("LODE.RANGE", "p10", "p12", "KEYS")[:2] == ["p10", "p100"]
    assert r.flushdb() and r.randomkey() is None
print("redis-py", redis.__version__, "is content")
"#;

#[test]
fn redis_py_is_content() {
    let (_home, node) = node();
    let port = node.redis_addr().port().to_string();
    if let Some(told) = output_of("python3", Command::new("python3").args(["-c", PYTHON, &port])) {
        print!("{told}");
    }
}

const JAVASCRIPT: &str = r#"
let Redis;
try { Redis = require("ioredis"); } catch { console.log("left out: ioredis is not installed"); process.exit(0); }
const assert = require("assert");
(async () => {
  const redis = new Redis({ port: Number(process.argv[1]), host: "127.0.0.1" });
  assert.equal(await redis.set("k", "v", "EX", 100), "OK");
  assert.equal(await redis.get("k"), "v");
  assert.equal(await redis.get("nosuch"), null);
  assert.equal(await redis.set("k", "w", "NX"), null);
  const many = redis.pipeline();
  for (let n = 0; n < 500; n++) many.set(`p${n}`, n);
  assert((await many.exec()).every(([error, reply]) => error === null && reply === "OK"));
  assert.deepEqual(await redis.multi().set("a", 1).incr("a").get("a").exec(), [[null, "OK"], [null, 2], [null, "2"]]);
  await redis.watch("a");
  const other = redis.duplicate();
  await other.incr("a");
  assert.equal(await redis.multi().set("a", 9).exec(), null);
  assert.deepEqual(await redis.mget("a", "nosuch"), ["3", null]);
  let found = 0;
  for await (const keys of redis.scanStream({ match: "p*", count: 100 })) found += keys.length;
  assert.equal(found, 500);
  assert.equal(await redis.incrbyfloat("f", 1.5), "1.5");
  assert.equal((await redis.getBuffer("k")).toString(), "v");
  await assert.rejects(redis.lpush("l", 1), /unknown command/);
  assert.deepEqual(await redis.call("LODE.MIN"), ["a", "3"]);
  assert.equal(await redis.flushdb(), "OK");
  assert.equal(await redis.dbsize(), 0);
  await redis.quit(); await other.quit();
  console.log("ioredis is content");
})().catch((error) => { console.error(error); process.exit(1); });
"#;

#[test]
fn ioredis_is_content() {
    let (_home, node) = node();
    let port = node.redis_addr().port().to_string();
    let mut command = Command::new("node");
    // Where npm puts what is installed for all, beside what NODE_PATH says.
    let paths = std::env::var("NODE_PATH").unwrap_or_default();
    let global = Path::new("/usr/local/lib/node_modules").display().to_string();
    command.env("NODE_PATH", format!("{paths}:{global}:/usr/lib/node_modules"));
    if let Some(told) = output_of("node", command.args(["-e", JAVASCRIPT, &port])) {
        print!("{told}");
    }
}
