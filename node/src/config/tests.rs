//! What a node can be told, in a file and on the command line.

use clap::Parser;

use super::file::FromFile;
use super::*;
use crate::cli::args::{Cli, Command};

fn flags(words: &[&str]) -> Result<ServeOptions, clap::Error> {
    let words = ["lode", "serve"].iter().chain(words);
    Cli::try_parse_from(words).map(|cli| match cli.command {
        Command::Serve(args) => args.options,
        other => panic!("{other:?}"),
    })
}

fn file(text: &str) -> Result<ServeOptions, ConfigErrors> {
    FromFile::from_toml("node.toml", text).map(|file| file.options)
}

const WHOLE: &str = r#"
    data = "/data/one.lode"
    size = "20GiB"
    shards = 4
    listen = "0.0.0.0:7500"
    redis = "0.0.0.0:6379"
    admin = 9411
    admin-hosts = "lode.example.com,*.lode.svc"
    memory = 2147483648
    cache = "512MiB"
    io-properties = "/data/p.toml"
    commit-window = "200us"
    scrub-rate = "1MiB"
    name = "n1"
    max-connections = 10
    segment = "8MiB"
    max-value = "64KiB"
    no-format = true
    no-pin = false
    log = "json"
    log-level = "debug"
    tokens = "/etc/lode/tokens.toml"
    tls-cert = "/etc/lode/cert.pem"
    tls-key = "/etc/lode/key.pem"
    client-connections = 100
    client-requests-per-s = 5000
    [table-defaults]
    store = "memory"
    partitions = 8
"#;

#[test]
fn file_and_flags_say_the_same() {
    let file = file(WHOLE).unwrap();
    let flags = flags(&[
        "--data=/data/one.lode",
        "--size=20GiB",
        "--shards=4",
        "--listen=0.0.0.0:7500",
        "--redis=0.0.0.0:6379",
        "--admin=127.0.0.1:9411",
        "--admin-hosts=lode.example.com,*.lode.svc",
        "--memory=2GiB",
        "--cache=512MiB",
        "--io-properties=/data/p.toml",
        "--commit-window=200us",
        "--scrub-rate=1MiB",
        "--name=n1",
        "--max-connections=10",
        "--segment=8MiB",
        "--max-value=64KiB",
        "--no-format",
        "--no-pin=false",
        "--log=json",
        "--log-level=debug",
        "--tokens=/etc/lode/tokens.toml",
        "--tls-cert=/etc/lode/cert.pem",
        "--tls-key=/etc/lode/key.pem",
        "--client-connections=100",
        "--client-requests-per-s=5000",
        "--table-defaults=store=memory,partitions=8",
    ]);
    assert_eq!(format!("{file:?}"), format!("{:?}", flags.unwrap()));
    assert_eq!(file.table_defaults.unwrap().placement, PlacementName::Hash);
}

#[test]
fn flags_win_over_the_file() {
    let file = file(WHOLE).unwrap();
    let merged = flags(&["--shards=2", "--data=here.lode"]).unwrap().or(file);
    assert_eq!(merged.shards, Some(2));
    assert_eq!(merged.data, Some("here.lode".into()));
    assert_eq!(merged.size, Some(Size(20 << 30)));
    let config = merged.to_config().unwrap();
    assert_eq!((config.data, config.shards, config.size), ("here.lode".into(), Some(2), 20 << 30));
    assert_eq!((config.may_format, config.pin, config.segment_bytes), (false, true, Some(8 << 20)));
    assert_eq!(config.table_defaults["store"], "memory");
}

#[test]
fn nothing_told_is_as_the_node_has_it() {
    let config = ServeOptions::default().to_config().unwrap();
    let as_is = ServeConfig { table_defaults: config.table_defaults.clone(), ..ServeConfig::default() };
    assert_eq!(format!("{config:?}"), format!("{as_is:?}"));
    assert_eq!(config.table_defaults["partitions"], 64);
}

#[test]
fn limits_are_the_same_in_file_and_flags() {
    let long = "n".repeat(129);
    for (name, good, bad) in [
        ("data", &["d"][..], &[""][..]),
        ("size", &["1", "10GiB"], &["0", "-1", "ten", "10PiB", "99999999999999999999"]),
        ("shards", &["1", "256"], &["0", "257", "65536", "-1", "1.5", "two", ""]),
        (
            "listen",
            &["127.0.0.1:0", "[::1]:65535"],
            &["127.0.0.1", "127.0.0.1:65536", "localhost:80", "7411"],
        ),
        ("redis", &["127.0.0.1:0", "[::1]:65535"], &["127.0.0.1", "localhost:6379", "6379"]),
        ("admin", &["9411", "0.0.0.0:9411", "[::1]:0"], &["localhost:9411", "65536", "-1", "127.0.0.1"]),
        ("admin-hosts", &["lode", "a.example, *.b.example", "*"], &["", "a:9411", "http://a", "a b"]),
        ("memory", &["1", "64MiB"], &["0", "-1", "true"]),
        ("cache", &["0", "64MiB"], &["-1", "true", "half"]),
        ("io-properties", &["p.toml"], &[""]),
        ("commit-window", &["0us", "1s"], &["1000001us", "2s", "500", "-1us"]),
        ("scrub-rate", &["0", "1GiB"], &["-1", "fast"]),
        ("name", &["n", &long[..128]], &["", &long]),
        ("max-connections", &["1", "1000000"], &["0", "1000001", "-1", "1e6"]),
        ("segment", &["4096", "1GiB"], &["0", "3MiB", "1025MiB", "2GiB", "8GiB"]),
        ("max-value", &["1", "1MiB"], &["0", "1048577", "8GiB"]),
        ("no-format", &["true", "false"], &["yes", "1"]),
        ("no-pin", &["true"], &["no"]),
        ("log", &["text", "json"], &["", "xml"]),
        ("tokens", &["t.toml"], &[""]),
        ("client-connections", &["1", "1000000"], &["0", "1000001", "-1", "many"]),
        ("client-requests-per-s", &["1", "1000000000"], &["0", "1000000001", "-1"]),
        ("log-level", &["error", "warn", "info", "debug"], &["", "trace", "5"]),
        (
            "table-defaults",
            &["", "store=memory", "partitions=1000000"],
            &["store", "store=disk", "partitions=0"],
        ),
    ] {
        let said_in_file = |value: &str| {
            let bare = value.parse::<f64>().is_ok() || value.parse::<bool>().is_ok();
            let quote = if bare { "" } else { "'" };
            file(&format!("\n{name} = {quote}{value}{quote}"))
        };
        let on_line = |value: &str| {
            let parsed = flags(&[&format!("--{name}={value}")]);
            parsed
                .map_err(|error| error.to_string())
                .and_then(|options| options.to_config().map(|_| options).map_err(|error| error.to_string()))
        };
        for value in good {
            let (file, flag) = (said_in_file(value), on_line(value));
            assert_eq!(format!("{:?}", file.unwrap()), format!("{:?}", flag.unwrap()), "{name} {value}");
        }
        for value in bad {
            let error = said_in_file(value).unwrap_err().to_string();
            let begin = format!("the configuration node.toml, line 2: {name} cannot be ");
            let end = format!("; it is {}", allowed(name));
            assert!(
                error.starts_with(&begin)
                    && error.ends_with(&end)
                    && error.contains(&value[..value.len().min(9)]),
                "{error}"
            );
            let error = on_line(value).unwrap_err();
            assert!(error.contains(&format!("--{name}")) && !error.contains("digit"), "{error}");
        }
    }
}

#[test]
fn every_option_has_its_words_and_no_value_of_another_kind_is_taken() {
    use clap::Args;
    let command = ServeOptions::augment_args(clap::Command::new("serve"));
    let names: Vec<_> = command.get_arguments().filter_map(|arg| arg.get_long()).collect();
    assert_eq!(names, ALLOWED.map(|(name, _)| name));
    for name in names {
        let taken = match name {
            "size" | "memory" | "cache" | "scrub-rate" | "segment" | "max-value" => "4096",
            "shards" | "max-connections" | "admin" | "client-connections" | "client-requests-per-s" => "4",
            "no-format" | "no-pin" => "true",
            "listen" | "redis" => "'127.0.0.1:1'",
            "commit-window" | "slow-request" => "'1ms'",
            "table-defaults" => "{}",
            "log" => "'json'",
            "log-level" => "'warn'",
            _ => "'text'",
        };
        for value in
            ["4096", "4", "true", "''", "1.5", "inf", "[1, 2]", "{ a = 1 }", "1979-05-27", "-4", "'?'"]
        {
            let line = format!("{name} = {value}");
            match file(&line).err().map(|error| error.to_string()) {
                Some(error) => {
                    let leaks = [
                        "struct", "u16", "usize", "i128", "integer", "sequence", "map", "invalid", "expected",
                    ];
                    assert!(error.contains(name) && error.contains("line 1"), "{line}: {error}");
                    assert!(!leaks.iter().any(|leak| error.contains(leak)), "{line}: {error}");
                }
                None if value == "''" || value == "'?'" => {
                    assert!(
                        ["data", "io-properties", "name", "table-defaults", "tokens", "tls-cert", "tls-key"]
                            .contains(&name),
                        "{line}"
                    )
                }
                None => assert!(taken.parse::<u64>().is_ok() || taken == value, "{line}"),
            }
        }
        assert!(file(&format!("{name} = {taken}")).is_ok(), "{name} = {taken}");
    }
}

#[test]
fn table_defaults_are_told_piece_by_piece() {
    let good = file("[table-defaults]\nstore = 'memory'\nplacement = 'range'\npartitions = 1000000").unwrap();
    let text = file("table-defaults = 'store=memory,placement=range,partitions=1000000'").unwrap();
    assert_eq!(good.table_defaults, text.table_defaults);
    let compact = file("[table-defaults]\nstore = 'compact'").unwrap().table_defaults.unwrap();
    assert_eq!((compact.store, "store=compact".parse()), (StoreName::Compact, Ok(compact)));
    let quota =
        "weight = 10000\nrequests-per-s = 1099511627776\nread-bytes-per-s = '1MiB'\nwrite-bytes-per-s = 5";
    let good = file(&format!("[table-defaults]\n{quota}\nburst = '5m'")).unwrap().table_defaults.unwrap();
    let text = "weight=10000,requests-per-s=1099511627776,read-bytes-per-s=1MiB,write-bytes-per-s=5,burst=5m";
    assert_eq!(Ok(good.clone()), text.parse());
    let quota = Quota { weight: 10_000, burst_ms: 300_000, requests_per_s: 1 << 40, ..Quota::default() };
    assert_eq!(good.quota(), Quota { read_bytes_per_s: 1 << 20, write_bytes_per_s: 5, ..quota });
    for (line, told) in [
        ("store = 'disk'", "table-defaults.store cannot be 'disk'; it is durable, memory or compact"),
        ("store = 5", "table-defaults.store cannot be 5; it is durable, memory or compact"),
        ("placement = true", "table-defaults.placement cannot be true; it is hash or range"),
        ("partitions = 0", "table-defaults.partitions cannot be 0; it is a whole number from 1 to 1000000"),
        ("partitions = 1000001", "cannot be 1000001; it is a whole number from 1 to 1000000"),
        ("partitions = 5000000000", "cannot be 5000000000; it is a whole number"),
        ("partitions = '8'", "cannot be '8'; it is a whole number"),
        ("weight = 0", "table-defaults.weight cannot be 0; it is a whole number from 1 to 10000"),
        ("weight = 10001", "cannot be 10001"),
        ("requests-per-s = '9'", "cannot be '9'; it is a whole number"),
        ("requests-per-s = 1099511627777", "cannot be 1099511627777"),
        ("read-bytes-per-s = '2TiB'", "cannot be '2TiB'; it is a number of bytes"),
        ("write-bytes-per-s = true", "cannot be true; it is a number of bytes"),
        ("burst = '6m'", "cannot be '6m'; it is a time of 1ms to 5m"),
        ("burst = 5", "cannot be 5; it is a time"),
        (
            "stor = 'memory'",
            "there is no option table-defaults.stor; there are store, placement, partitions, weight, requests-per-s,",
        ),
    ] {
        let error = file(&format!("# a comment\n[table-defaults]\n{line}")).unwrap_err().to_string();
        assert!(error.contains("node.toml, line 3: ") && error.contains(told), "{error}");
    }
}

#[test]
fn what_is_no_option_and_no_toml_is_told_with_its_place() {
    for (text, told) in [
        ("shrads = 4", "line 1: there is no option shrads; there are data, size, shards, "),
        ("no_format = true", "line 1: there is no option no_format; there are "),
        ("[serve]\nshards = 4", "line 1: there is no option serve; "),
        ("shards = 4\nshards = 5", "line 2, column 1: this is no TOML: duplicate key"),
        ("size = 10GiB", "line 1, column "),
        ("\n\nname = \"x", "line 3, column "),
    ] {
        let error = file(text).unwrap_err().to_string();
        assert!(error.starts_with(&format!("the configuration node.toml, {told}")), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let list = format!("\nname = [\n{}]", "'a long list of names',\n".repeat(20));
    let error = file(&list).unwrap_err().to_string();
    assert!(error.contains("name cannot be [...; it is a text"), "{error}");
}

#[test]
fn table_defaults_are_checked() {
    assert_eq!("".parse(), Ok(TableDefaults::default()));
    for (text, named) in [
        ("store", "NAME=VALUE"),
        ("stor=durable", "\"stor\""),
        ("store=disk", "durable, memory or compact"),
        ("partitions=0", "from 1"),
    ] {
        let error = text.parse::<TableDefaults>().unwrap_err().to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn what_contradicts_each_other_is_told_all_at_once() {
    let told = |words: &[&str]| {
        let wrong = flags(words).expect("each is good by itself").check();
        wrong.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (words, named) in [
        (&["--shards", "4", "--memory", "255MiB"][..], "--shards 4 needs at least 256 MiB"),
        (&["--segment", "8MiB", "--size", "8MiB"], "--segment 8 MiB does not fit"),
        (&["--tls-cert", "c.pem"], "--tls-key, too"),
        (&["--tls-key", "k.pem"], "--tls-cert, too"),
        (&["--listen", "127.0.0.1:7500", "--redis", "127.0.0.1:7500"], "--listen 127.0.0.1:7500 and --redis"),
        (&["--redis", "127.0.0.1:7411"], "--listen 127.0.0.1:7411 and --redis 127.0.0.1:7411 are one port"),
        (
            &["--redis", "127.0.0.1:9411", "--admin", "9411"],
            "--redis 127.0.0.1:9411 and --admin 127.0.0.1:9411",
        ),
        (&["--redis", "0.0.0.0:9411", "--admin", "9411"], "--redis 0.0.0.0:9411 and --admin"),
    ] {
        let told = told(words);
        assert!(told.len() == 1 && told[0].contains(named), "{words:?}: {told:?}");
    }
    for fine in [
        &["--shards", "4", "--memory", "256MiB"][..],
        &["--listen", "127.0.0.1:0", "--redis", "127.0.0.1:0", "--admin", "0"],
        &["--redis", "127.0.0.2:7411"],
        &["--tls-cert", "c.pem", "--tls-key", "k.pem"],
    ] {
        assert_eq!(told(fine), Vec::<String>::new(), "{fine:?}");
    }
    let all =
        told(&["--shards=9", "--memory=64MiB", "--tls-cert=c.pem", "--redis=127.0.0.1:7411", "--admin=7411"]);
    assert_eq!(all.len(), 5, "{all:?}");
}
