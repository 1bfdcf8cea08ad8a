//! Makes faults in a copy of the tree, one after the other, and runs the tests that should find them.

use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::Mutation;

/// How long a test may take before the fault counts as found: it hangs.
const TEST_PATIENCE: Duration = Duration::from_secs(400);
const BUILD_PATIENCE: Duration = Duration::from_secs(1_200);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What became of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The test failed, with this line.
    Caught(String),
    /// The test did not end.
    Hung,
    /// The test passed.
    Missed,
    /// The product cannot be built with it.
    NotBuilt(String),
}

/// How a command ended.
enum Ended {
    Well,
    Badly(String),
    Never,
}

/// A copy of the tree, and its builds.
pub struct Runner {
    from: PathBuf,
    tree: PathBuf,
    target: PathBuf,
}

impl Runner {
    /// Copies what git knows of the tree at `from` to a folder in `work`; what was built there before is of use again.
    pub fn new(from: &Path, work: &Path) -> io::Result<Runner> {
        let (tree, target) = (work.join("tree"), work.join("target"));
        let listed = Command::new("git").arg("-C").arg(from).args(["ls-files", "-z"]).output()?;
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        for path in listed.split('\0').filter(|path| !path.is_empty()) {
            copy(&from.join(path), &tree.join(path))?;
        }
        Ok(Runner { from: from.to_owned(), tree, target })
    }

    /// Whether the test passes without any fault: else it tells nothing. The line with which it fails, if it does.
    pub fn baseline(&self, caught_by: &str) -> io::Result<Option<String>> {
        Ok(match self.judge(caught_by)? {
            Verdict::Missed => None,
            Verdict::Caught(line) | Verdict::NotBuilt(line) => Some(line),
            Verdict::Hung => Some("it does not end".to_owned()),
        })
    }

    /// Makes a fault, runs the test that should find it, and takes the fault back.
    pub fn run(&self, mutation: &Mutation) -> io::Result<Verdict> {
        let read = |path: &str| std::fs::read_to_string(self.tree.join(path)).ok();
        let files = mutation.made(read).map_err(|error| io::Error::other(error.to_string()))?;
        for (path, text) in &files {
            std::fs::write(self.tree.join(path), text)?;
        }
        let verdict = self.judge(&mutation.caught_by);
        for (path, _) in &files {
            std::fs::copy(self.from.join(path), self.tree.join(path))?;
        }
        verdict
    }

    fn judge(&self, caught_by: &str) -> io::Result<Verdict> {
        match self.cargo(&build_of(caught_by), BUILD_PATIENCE)? {
            Ended::Well => {}
            Ended::Badly(line) => return Ok(Verdict::NotBuilt(line)),
            Ended::Never => return Ok(Verdict::NotBuilt("the build does not end".to_owned())),
        }
        Ok(match self.cargo(caught_by, TEST_PATIENCE)? {
            Ended::Well => Verdict::Missed,
            Ended::Badly(line) => Verdict::Caught(line),
            Ended::Never => Verdict::Hung,
        })
    }

    fn cargo(&self, arguments: &str, patience: Duration) -> io::Result<Ended> {
        let mut command = Command::new("cargo");
        for word in arguments.split_whitespace() {
            match word
                .split_once('=')
                .filter(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
            {
                Some((name, value)) => command.env(name, value),
                None => command.arg(word),
            };
        }
        let said = self.target.with_file_name("said");
        let out = std::fs::File::create(&said)?;
        let err = out.try_clone()?;
        command
            .current_dir(&self.tree)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_TERM_COLOR", "never");
        command.env("CARGO_PROFILE_DEV_DEBUG", "0");
        // A group of its own, so that a test that hangs ends with what it started.
        let mut child = command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0).spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > patience {
                let group = rustix::process::Pid::from_child(&child);
                rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
                child.wait()?;
                return Ok(Ended::Never);
            }
            std::thread::sleep(LOOK_INTERVAL);
        };
        if status.success() {
            return Ok(Ended::Well);
        }
        let said = String::from_utf8_lossy(&std::fs::read(&said)?).into_owned();
        Ok(Ended::Badly(telling_line(&said)))
    }
}

/// What builds what a command runs, and runs nothing.
fn build_of(caught_by: &str) -> String {
    let (cargo, _) = caught_by.split_once(" -- ").unwrap_or((caught_by, ""));
    let words: Vec<&str> =
        cargo.split_whitespace().map(|word| if word == "run" { "build" } else { word }).collect();
    let built = words.join(" ");
    if words.contains(&"test") { format!("{built} --no-run") } else { built }
}

/// The line that says most of why a command failed.
fn telling_line(said: &str) -> String {
    let is_compiler = |line: &&str| line.starts_with("error");
    let panicked = said.lines().zip(said.lines().skip(1)).find(|(line, _)| line.contains("panicked at"));
    let told = said.lines().skip_while(|line| *line != "}").nth(1);
    let line = panicked
        .map(|(_, message)| message)
        .or(told)
        .or_else(|| said.lines().find(is_compiler))
        .or_else(|| said.lines().last())
        .unwrap_or_default();
    line.trim().chars().take(160).collect()
}

/// Copies a file unless the copy is the same already, so that what was built of it stays built.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let wanted = match std::fs::read(from) {
        Ok(wanted) => wanted,
        // Deleted, and git does not know yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if std::fs::read(to).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(to, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_built_first() {
        assert_eq!(build_of("A=1 test -p x --test y -- --nocapture"), "A=1 test -p x --test y --no-run");
        assert_eq!(build_of("run -p x --bin sim -- --seeds 3"), "build -p x --bin sim");
    }

    #[test]
    fn a_failure_is_told_in_one_line() {
        assert_eq!(telling_line("x\nthread 'a' panicked at b.rs:1:2:\nit is wrong\nmore"), "it is wrong");
        assert_eq!(telling_line("seed 1: FAILED\nPlan {\n}\nregister a\n"), "register a");
        assert_eq!(telling_line("a\nerror[E0]: b\nc"), "error[E0]: b");
        assert_eq!(telling_line(""), "");
    }
}
