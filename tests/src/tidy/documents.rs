//! Documents that keep step with what they describe.

use std::path::Path;

use super::Broken;

/// Relative links of a Markdown document that lead nowhere. `exists` tells of a path from the root.
pub fn broken_links(path: &str, text: &str, exists: &dyn Fn(&str) -> bool) -> Vec<Broken> {
    let directory = Path::new(path).parent().unwrap_or(Path::new(""));
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split([')', ' ', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            if !exists(&normal(&directory.join(target))) {
                broken.push(Broken::new(path, number + 1, format!("the link to {target} leads nowhere")));
            }
        }
    }
    broken
}

/// Names in backquotes that end in `()`, such as `Shard::step()`, of which `defined` knows nothing.
pub fn missing_names(path: &str, text: &str, defined: &dyn Fn(&str) -> bool) -> Vec<Broken> {
    let mut broken = Vec::new();
    for (number, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let Some(name) = quoted.strip_suffix("()") else {
                continue;
            };
            let name = name.rsplit(['.', ':']).next().unwrap_or(name);
            if !defined(name) {
                broken.push(Broken::new(path, number + 1, format!("there is no function {quoted}")));
            }
        }
    }
    broken
}

/// A path without `..`.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in path.to_string_lossy().split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part.to_owned()),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_must_lead_somewhere() {
        let text = "[a](b.md) [c](../d.md#e)\n[x](https://x.y) [gone](gone.md)";
        let exists = |path: &str| ["docs/b.md", "d.md"].contains(&path);
        let broken = broken_links("docs/a.md", text, &exists);
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert_eq!((broken[0].line, broken[0].what.contains("gone.md")), (2, true));
    }

    #[test]
    fn a_named_function_must_exist() {
        let text = "`Shard::step()` then `reactor.turn()`, not `turn` nor `cargo run`";
        assert!(missing_names("a.md", text, &|name| name == "step" || name == "turn").is_empty());
        assert_eq!(missing_names("a.md", text, &|name| name == "step").len(), 1);
    }
}
