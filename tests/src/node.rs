//! A real node to drive: the binary `lode serve` in a process of its own, on a drive in a directory of
//! its own.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use lode_net::client::ClientOptions;
use lode_net::client::blocking::Client;
use serde_json::Value;
use tempfile::TempDir;

/// How long a node may take to say that it listens, before a test gives it up. Generous: nothing is
/// measured by it.
const START_PATIENCE: Duration = Duration::from_secs(120);
/// How long a node may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// The node's binary.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lode-node", "lode"))
}

/// The load generator's binary.
pub fn bench_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lode-bench", "lode-bench"))
}

/// The binary that tunes and measures machines.
pub fn tune_binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| built("lode-tune", "lode-tune"))
}

/// A binary of the running test's profile. It is there already where all of the workspace is tested; else whoever comes
/// first waits for its build, in which cargo may take other features of shared crates, and so build those again.
fn built(package: &str, name: &str) -> PathBuf {
    // target/<profile>/deps/<test>-<hash>
    let test = std::env::current_exe().expect("a running test has a path");
    let profile = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let target = profile.parent().expect("a profile lies in the target directory");
    let binary = profile.join(name);
    if modified(&binary).is_some_and(|made| Some(made) >= newest_source()) {
        return binary;
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "-p", package, "--bin", name, "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let status = build.current_dir(crate::source::root()).status().expect("cargo can be run");
    assert!(status.success(), "{package} does not build");
    binary
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}

/// When anything that a binary is made of was changed last.
fn newest_source() -> Option<SystemTime> {
    let extensions = ["rs", "toml", "lock", "css", "html", "js"];
    let files = extensions.into_iter().flat_map(crate::source::files);
    files.filter_map(|(path, _)| modified(&crate::source::root().join(path))).max()
}

/// How long [`until`] asks.
const PATIENCE: Duration = Duration::from_secs(60);

/// Asks until what comes is as it should be.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let from = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(from.elapsed() < PATIENCE, "never within {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A directory with a drive in it, and the options its nodes are started with. Gone when dropped.
pub struct Home {
    directory: TempDir,
    options: Vec<String>,
}

impl Home {
    /// A drive of 1 GiB with two shards.
    pub fn new() -> Home {
        Home::with(&["--size", "1GiB", "--shards", "2", "--memory", "256MiB"])
    }

    /// A drive and nodes with these options of `lode serve`.
    pub fn with(options: &[&str]) -> Home {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        Home { directory, options: options.iter().map(|option| (*option).to_owned()).collect() }
    }

    /// A small drive and an admin port, and these options; its node calls itself `seen`.
    pub fn observed(more: &[&str]) -> Home {
        let small = ["--size", "256MiB", "--shards", "2", "--memory", "160MiB"];
        Home::with(&[&small[..], &["--admin", "0", "--name", "seen"], more].concat())
    }

    /// The drive's path.
    pub fn drive(&self) -> PathBuf {
        self.directory.path().join("drive.lode")
    }

    /// The command that starts a node here.
    pub fn command(&self) -> Command {
        let mut command = Command::new(binary());
        command.arg("serve").arg("--data").arg(self.drive()).args(["--listen", "127.0.0.1:0"]);
        command.args(&self.options).current_dir(self.directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Starts a node, and waits until it listens.
    pub fn start(&self) -> Node {
        self.start_with(self.command())
    }

    /// Starts a node by a command of [`command`](Home::command) with more options, and waits until it listens.
    pub fn start_with(&self, mut command: Command) -> Node {
        allow_many_files();
        let mut child = command.spawn().expect("the node can be started");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let lines = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                lines.lock().expect("nobody panics while holding it").push(line);
            }
        });
        let mut node = Node { child, addr: SocketAddr::from(([127, 0, 0, 1], 0)), log };
        node.addr = node.wait_for_address();
        node
    }
}

/// Lets this process and the nodes it starts open as many files as the system allows them.
pub fn allow_many_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })
        .expect("a process may raise its limit to the most it is allowed");
    limit.maximum.unwrap_or(u64::MAX)
}

impl Default for Home {
    fn default() -> Home {
        Home::new()
    }
}

/// A running node; killed when dropped.
pub struct Node {
    child: Child,
    /// Where it listens.
    pub addr: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Node {
    fn wait_for_address(&mut self) -> SocketAddr {
        let from = Instant::now();
        loop {
            // Asked first: what it has said until its end is in the lines then, but for those on their way.
            let ended = self.child.try_wait().expect("the node is a child of this process");
            if ended.is_some() {
                thread::sleep(Duration::from_millis(200));
            }
            let lines = self.log();
            let listening = lines.iter().filter(|line| line.contains("listening"));
            if let Some(addr) =
                listening.flat_map(|line| line.split([' ', ',', ';'])).find_map(|w| w.parse().ok())
            {
                return addr;
            }
            assert!(ended.is_none(), "the node ended with {ended:?}:\n{}", lines.join("\n"));
            assert!(from.elapsed() < START_PATIENCE, "the node does not listen:\n{}", lines.join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Where it serves Redis clients, as it has said.
    pub fn redis_addr(&self) -> SocketAddr {
        let lines = self.log();
        let said = lines.iter().find_map(|line| line.split_once("RESP door at "));
        said.and_then(|(_, addr)| addr.parse().ok())
            .unwrap_or_else(|| panic!("no RESP door:\n{}", lines.join("\n")))
    }

    /// Where it serves health, metrics and the console, as it has said.
    pub fn admin_addr(&self) -> SocketAddr {
        let lines = self.log();
        let said = lines.iter().find_map(|line| line.split_once("admin port at ")?.1.split_once("://"));
        said.and_then(|(_, addr)| addr.trim_end_matches('/').parse().ok())
            .unwrap_or_else(|| panic!("no admin port:\n{}", lines.join("\n")))
    }

    /// What the node has written to stderr.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("nobody panics while holding it").clone()
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        let options = ClientOptions { name: "lode-tests".to_owned(), ..ClientOptions::default() };
        self.client_with(options)
    }

    /// A client of it, with these options.
    pub fn client_with(&self, options: ClientOptions) -> Client {
        let connected = Client::connect(&self.addr.to_string(), options);
        connected.unwrap_or_else(|error| panic!("{error}\n{}", self.log().join("\n")))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The node's counters.
    pub fn stats(&self) -> Value {
        self.client().stats().expect("the node tells its counters")
    }

    /// One counter, summed over the shards.
    pub fn total(&self, name: &str) -> u64 {
        total(&self.stats(), name)
    }

    /// SIGKILL, and wait until it is gone.
    pub fn kill(mut self) {
        self.child.kill().expect("the node runs");
        self.child.wait().expect("the node is a child of this process");
    }

    /// SIGTERM, and wait until it has stopped by itself.
    pub fn stop(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the node runs");
        let from = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the node is a child of this process") {
                return status;
            }
            assert!(from.elapsed() < STOP_PATIENCE, "the node does not stop:\n{}", self.log().join("\n"));
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        self.entries("fd")
    }

    /// How many threads it has.
    pub fn threads(&self) -> usize {
        self.entries("task")
    }

    /// Bytes of memory it has in use.
    pub fn resident_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    /// The most that this ever was.
    pub fn most_resident_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    fn memory_bytes(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the node runs");
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a process has it");
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of kB");
        kib * 1024
    }

    fn entries(&self, directory: &str) -> usize {
        fs::read_dir(format!("/proc/{}/{directory}", self.pid())).expect("the node runs").count()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself, or by `kill`; all that counts is that nothing is left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One counter of an answer to Stats, summed over the shards.
pub fn total(stats: &Value, name: &str) -> u64 {
    let value = &stats["totals"][name];
    value.as_u64().unwrap_or_else(|| panic!("the node does not count {name}: {stats:#}"))
}
