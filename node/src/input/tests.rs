//! Every reader: what it gives, what it refuses, and that it goes on from any position without loss.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A directory that goes away with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("lode-input-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn options(path: &Path, key: Option<&str>) -> InputOptions {
    InputOptions { path: path.to_owned(), key: key.map(str::to_owned), kind: None, skip: Vec::new() }
}

fn drain(reader: &mut dyn Reader) -> (Vec<(String, Vec<u8>)>, Vec<String>) {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    while let Some(next) = reader.next() {
        match next {
            Ok(record) => good.push((String::from_utf8(record.key).unwrap(), record.value)),
            Err(error) => bad.push(error.to_string()),
        }
    }
    (good, bad)
}

/// From every position that a reader gives out, the rest comes: at least what was not given out yet.
fn assert_resumes(options: &InputOptions) {
    let (all, _) = drain(open(options, &Position::Start).unwrap().as_mut());
    let mut reader = open(options, &Position::Start).unwrap();
    let mut given = 0;
    loop {
        let json = serde_json::to_string(&reader.position()).unwrap();
        let position = serde_json::from_str(&json).unwrap();
        let (rest, _) = drain(open(options, &position).unwrap().as_mut());
        assert!(rest.len() >= all.len() - given, "{json}: {} of {}", rest.len(), all.len() - given);
        assert_eq!(rest, all[all.len() - rest.len()..], "{json}");
        match reader.next() {
            None => break assert!(rest.is_empty()),
            Some(next) => given += usize::from(next.is_ok()),
        }
    }
    assert_eq!(given, all.len());
}

#[test]
fn a_directory_gives_paths_and_contents_in_order() {
    let scratch = Scratch::new("dir");
    for name in ["b/two", "a", "b/one", "b-x", "c/d/e/deep", "z"] {
        scratch.write(name, name);
    }
    scratch.write("empty", "");
    symlink("/etc/passwd", scratch.0.join("link")).unwrap();
    let options = options(&scratch.0, None);
    let (good, bad) = drain(open(&options, &Position::Start).unwrap().as_mut());
    let keys: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "b/one", "b/two", "b-x", "c/d/e/deep", "empty", "z"]);
    assert!(good.iter().all(|(key, value)| value.is_empty() == (key == "empty")));
    assert!(bad.is_empty(), "{bad:?}");
    assert_eq!(total_bytes(&options).unwrap(), good.iter().map(|(_, value)| value.len() as u64).sum::<u64>());
    assert_resumes(&options);
}

#[test]
fn what_is_to_be_skipped_is_neither_read_nor_counted() {
    let scratch = Scratch::new("skip");
    for name in ["a", "drive", "dir/x", "dir/y", "dirt"] {
        scratch.write(name, name);
    }
    let root = fs::canonicalize(&scratch.0).unwrap();
    let options =
        InputOptions { skip: vec![root.join("drive"), root.join("dir")], ..options(&scratch.0, None) };
    let (good, _) = drain(open(&options, &Position::Start).unwrap().as_mut());
    let keys: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["a", "dirt"]);
    assert_eq!(total_bytes(&options).unwrap(), 5);
}

#[test]
fn a_file_over_the_value_limit_comes_in_parts_that_join() {
    let scratch = Scratch::new("parts");
    let contents: Vec<u8> = (0..2 * MAX_VALUE_BYTES + 17).map(|i| (i % 251) as u8).collect();
    scratch.write("big", &contents);
    scratch.write("exact", &contents[..MAX_VALUE_BYTES]);
    scratch.write("over", &contents[..MAX_VALUE_BYTES + 1]);
    scratch.write("zlast", "z");
    let options = options(&scratch.0, None);
    let (good, bad) = drain(open(&options, &Position::Start).unwrap().as_mut());
    let keys: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(
        keys,
        ["big#000000", "big#000001", "big#000002", "exact", "over#000000", "over#000001", "zlast"]
    );
    let joined: Vec<u8> = good[..3].iter().flat_map(|(_, value)| value.clone()).collect();
    assert_eq!(joined, contents);
    assert_eq!(good[5].1.len(), 1);
    assert!(bad.is_empty(), "{bad:?}");
    assert_resumes(&options);
}

#[test]
fn a_part_that_would_overwrite_another_file_is_refused() {
    let scratch = Scratch::new("taken");
    scratch.write("big", vec![7; MAX_VALUE_BYTES + 1]);
    scratch.write("big#000000", "mine");
    let (good, bad) = drain(open(&options(&scratch.0, None), &Position::Start).unwrap().as_mut());
    assert_eq!(good, [("big#000000".to_owned(), b"mine".to_vec())]);
    assert_eq!(bad.len(), 1);
    assert!(bad[0].contains("big#000000") && bad[0].contains("another file"), "{}", bad[0]);
}

#[test]
fn csv_rows_become_json_objects() {
    let scratch = Scratch::new("csv");
    let path = scratch.write(
        "rows.csv",
        "id,name,note\n1,Ann,\"two\nlines\"\n2,\"B, C\",\n\n3,only two\n,no key,x\n4,D,\"q \"\"x\"\"\"\n",
    );
    let options = options(&path, Some("id"));
    let (good, bad) = drain(open(&options, &Position::Start).unwrap().as_mut());
    let keys: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["1", "2", "4"]);
    let rows: Vec<serde_json::Value> =
        good.iter().map(|(_, value)| serde_json::from_slice(value).unwrap()).collect();
    assert_eq!(rows[0], serde_json::json!({"id": "1", "name": "Ann", "note": "two\nlines"}));
    assert_eq!(rows[1]["name"], "B, C");
    assert_eq!(rows[2]["note"], "q \"x\"");
    assert_eq!(bad.len(), 2, "{bad:?}");
    assert!(bad[0].contains("2 fields"), "{}", bad[0]);
    assert!(bad[1].contains("line 7") && bad[1].contains("the key is empty"), "{}", bad[1]);
    assert_resumes(&options);
}

#[test]
fn csv_needs_a_column_that_exists() {
    let scratch = Scratch::new("column");
    let path = scratch.write("rows.csv", "id,name\n1,Ann\n");
    let without = open(&options(&path, None), &Position::Start).err().unwrap().to_string();
    assert!(without.contains("--key COLUMN") && without.contains("id, name"), "{without}");
    let wrong = open(&options(&path, Some("uid")), &Position::Start).err().unwrap().to_string();
    assert!(wrong.contains("\"uid\"") && wrong.contains("id, name"), "{wrong}");
}

#[test]
fn json_lines_by_field_and_by_line_number() {
    let scratch = Scratch::new("jsonl");
    let path = scratch.write(
        "rows.jsonl",
        "{\"id\":\"a\",\"v\":1}\n\n{\"id\":7}\r\n{\"id\":null}\nnot json\n[1,2]\n{\"id\":\"last\"}",
    );
    let by_field = options(&path, Some("id"));
    let (good, bad) = drain(open(&by_field, &Position::Start).unwrap().as_mut());
    assert_eq!(good[0], ("a".to_owned(), b"{\"id\":\"a\",\"v\":1}".to_vec()));
    assert_eq!(good[1], ("7".to_owned(), b"{\"id\":7}".to_vec()));
    assert_eq!(good[2].0, "last");
    assert_eq!(bad.len(), 3, "{bad:?}");
    assert!(bad[0].contains("line 4") && bad[1].contains("line 5") && bad[2].contains("line 6"));
    assert_resumes(&by_field);

    let by_number = options(&path, None);
    let (good, _) = drain(open(&by_number, &Position::Start).unwrap().as_mut());
    let keys: Vec<&str> = good.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["000000000001", "000000000003", "000000000004", "000000000006", "000000000007"]);
    assert_resumes(&by_number);
}

#[test]
fn keys_and_values_at_the_limits() {
    let scratch = Scratch::new("limits");
    let line = |key: usize, total: usize| {
        let head = format!("{{\"k\":\"{}\",\"v\":\"", "k".repeat(key));
        format!("{head}{}\"}}\n", "v".repeat(total - head.len() - 2))
    };
    let text = [
        line(MAX_KEY_BYTES, MAX_VALUE_BYTES),
        line(MAX_KEY_BYTES + 1, 8192),
        line(1, MAX_VALUE_BYTES + 1),
        line(2, MAX_VALUE_BYTES * 3),
        line(3, 100),
    ]
    .concat();
    let path = scratch.write("rows.ndjson", text);
    let (good, bad) = drain(open(&options(&path, Some("k")), &Position::Start).unwrap().as_mut());
    assert_eq!(good.iter().map(|(key, _)| key.len()).collect::<Vec<_>>(), [MAX_KEY_BYTES, 3]);
    assert_eq!(good[0].1.len(), MAX_VALUE_BYTES);
    assert!(bad[0].contains("line 2") && bad[0].contains("4097 bytes"), "{}", bad[0]);
    assert!(bad[1].contains("line 3") && bad[1].contains("1048577 bytes"), "{}", bad[1]);
    assert!(bad[2].contains("line 4") && bad[2].contains("3145728 bytes"), "{}", bad[2]);
}

#[test]
fn the_kind_is_found_or_asked_for() {
    let scratch = Scratch::new("kind");
    let path = scratch.write("rows.txt", "{}\n");
    assert!(matches!(kind_of(&options(&path, None)), Err(InputError::UnknownKind { .. })));
    let told = InputOptions { kind: Some(InputKind::JsonLines), ..options(&path, None) };
    assert_eq!(kind_of(&told).unwrap(), InputKind::JsonLines);
    let wrong = InputOptions { kind: Some(InputKind::Csv), ..options(&scratch.0, None) };
    assert!(matches!(kind_of(&wrong), Err(InputError::KindMismatch { .. })));
    assert!(matches!(kind_of(&options(&scratch.0.join("none"), None)), Err(InputError::Io { .. })));
}
