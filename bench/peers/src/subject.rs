//! A peer that runs and can be asked.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use lode_bench::floor::FloorError;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use thiserror::Error;

use crate::engine_process::ERROR;
use crate::figures::Figures;
use crate::floors::{self, MeasureFloor};
use crate::limit::MemoryLimit;
use crate::options::RunOptions;
use crate::page_cache;
use crate::peers::{Kind, Peer, in_path};
use crate::points::Point;

/// A server that does not answer by then will not.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is asked meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// Where servers listen.
const HOST: &str = "127.0.0.1";
/// Bytes of a key, and of a record beside its key and value.
const KEY_AND_HEAD_BYTES: u64 = 46;
/// Drives and files for records are so many percent of them, and a GiB longer.
const DRIVE_PERCENT: u64 = 250;
/// Partitions of lode's table.
const PARTITIONS: &str = "64";
/// A turn that only loads is measured as long as this.
const MOMENT: Duration = Duration::from_millis(200);

/// Why a peer could not be measured.
#[derive(Debug, Error)]
pub enum SubjectError {
    /// Its process could not be started, or its files not be written.
    #[error("{what}: {error}")]
    Start {
        /// What failed.
        what: String,
        /// What the operating system said.
        error: io::Error,
    },
    /// It ended, or does not answer.
    #[error("it ended, or does not answer; its last words: {0}")]
    Silent(String),
    /// A load on it failed.
    #[error("{0}")]
    Load(String),
    /// The floor could not be measured.
    #[error(transparent)]
    Floor(#[from] FloorError),
    /// The floor on glommio could not be measured.
    #[error("glommio: {0}")]
    Glommio(String),
    /// There is nothing to read for the floor.
    #[error("there is no drive of lode's at {0} yet: let lode have its turn first")]
    NoDrive(PathBuf),
    /// The floor knows only GETs.
    #[error("the floor is of GETs alone")]
    OnlyGets,
}

/// How it is asked.
enum Door {
    Engine { stdin: Option<ChildStdin>, stdout: BufReader<ChildStdout> },
    Server { addr: String, protocol: &'static str },
    Floor { file: PathBuf, measure: MeasureFloor },
}

/// A peer that runs. Its process is ended when this is dropped.
pub struct Subject {
    door: Door,
    child: Option<Child>,
    log: PathBuf,
}

/// Where and how a peer is started.
pub struct Start<'a> {
    /// Which.
    pub peer: &'a Peer,
    /// What was asked for.
    pub options: &'a RunOptions,
    /// The limit on its memory, where it has one.
    pub limit: Option<&'a MemoryLimit>,
}

/// Bytes of all records.
pub fn data_bytes(options: &RunOptions) -> u64 {
    options.records * (u64::from(options.value_size) + KEY_AND_HEAD_BYTES)
}

impl Start<'_> {
    /// The peer's directory, made where it is missing.
    fn home(&self) -> Result<PathBuf, SubjectError> {
        let home = self.options.dir.join(&self.peer.name);
        let start = |error| SubjectError::Start { what: home.display().to_string(), error };
        fs::create_dir_all(&home).map_err(start)?;
        // Children are started elsewhere than here, and some change their directory.
        home.canonicalize().map_err(start)
    }

    /// Starts the peer, with nothing of its files in the page cache, and waits until it answers.
    pub fn start(&self) -> Result<Subject, SubjectError> {
        let home = self.home()?;
        let log = home.join("log");
        page_cache::drop_files(&home)
            .map_err(|error| SubjectError::Start { what: home.display().to_string(), error })?;
        let drive = || self.options.dir.join("lode/drive.lode");
        let floor = |measure| {
            let file = drive();
            let is_there = file.is_file();
            let door = Door::Floor { file: file.clone(), measure };
            let subject = Subject { door, child: None, log: log.clone() };
            if is_there { Ok(subject) } else { Err(SubjectError::NoDrive(file)) }
        };
        match &self.peer.kind {
            Kind::FloorReads => floor(floors::reads),
            Kind::FloorEcho => floor(floors::echo),
            Kind::FloorGlommio => floor(floors::echo_on_glommio),
            Kind::Engine => self.engine(&home, log),
            Kind::Address(addr) => {
                let door = Door::Server { addr: addr.clone(), protocol: "resp" };
                Ok(Subject { door, child: None, log })
            }
            Kind::Lode => self.lode(&home, log),
            Kind::Redis(fsync) => self.redis(&home, log, fsync),
            Kind::Memcached => self.memcached(&home, log),
        }
    }

    fn command(&self, program: &Path) -> Command {
        match self.limit {
            Some(limit) => limit.command(program),
            None => Command::new(program),
        }
    }

    fn spawn(&self, mut command: Command, log: &Path) -> Result<Child, SubjectError> {
        let start = |error| SubjectError::Start { what: self.peer.name.clone(), error };
        command.stderr(File::create(log).map_err(start)?);
        command.spawn().map_err(start)
    }

    fn engine(&self, home: &Path, log: PathBuf) -> Result<Subject, SubjectError> {
        let start = |error| SubjectError::Start { what: "this program".to_owned(), error };
        let mut command = self.command(&std::env::current_exe().map_err(start)?);
        command.args(["engine", "--engine", &self.peer.name, "--dir"]).arg(home);
        command.args(["--memory", &self.options.memory.to_string()]);
        command.args(["--data", &data_bytes(self.options).to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = self.spawn(command, &log)?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("stdout is piped"));
        Ok(Subject { door: Door::Engine { stdin, stdout }, child: Some(child), log })
    }

    fn lode(&self, home: &Path, log: PathBuf) -> Result<Subject, SubjectError> {
        let mut command = self.command(&self.options.node);
        let mib = |bytes: u64| format!("{}MiB", bytes >> 20);
        let size = data_bytes(self.options) * DRIVE_PERCENT / 100 + (1 << 30);
        command.arg("serve").arg("--data").arg(home.join("drive.lode")).arg("--end-with-parent");
        command.args(["--size", &mib(size), "--memory", &mib(self.options.memory * 85 / 100)]);
        self.server(command, log, "lode", &|command, port| {
            command.args(["--listen", &format!("{HOST}:{port}")]);
        })
    }

    fn redis(&self, home: &Path, log: PathBuf, fsync: &str) -> Result<Subject, SubjectError> {
        let mut command = self.command(&in_path("redis-server").unwrap_or_default());
        command.args(["--bind", HOST, "--dir"]).arg(home);
        command.args(["--appendonly", "yes", "--appendfsync", fsync, "--save", "", "--daemonize", "no"]);
        self.server(command, log, "resp", &|command, port| {
            command.args(["--port", &port.to_string()]);
        })
    }

    fn memcached(&self, home: &Path, log: PathBuf) -> Result<Subject, SubjectError> {
        let mut command = self.command(&in_path("memcached").unwrap_or_default());
        let mib = |bytes: u64| (bytes >> 20).to_string();
        let file = home.join("values");
        let size = mib(data_bytes(self.options) * DRIVE_PERCENT / 100);
        let storage =
            format!("ext_page_size=8,ext_wbuf_size=4,ext_threads=8,ext_path={}:{size}M", file.display());
        command.args(["-u", "root", "-l", HOST, "-U", "0", "-t", "2", "-c", "4096"]);
        command.args(["-m", &mib(self.options.memory * 75 / 100), "-o", &storage]);
        self.server(command, log, "memcached", &|command, port| {
            command.args(["-p", &port.to_string()]);
        })
    }

    fn server(
        &self,
        mut command: Command,
        log: PathBuf,
        protocol: &'static str,
        listen: &dyn Fn(&mut Command, u16),
    ) -> Result<Subject, SubjectError> {
        let start = |error| SubjectError::Start { what: "a free port".to_owned(), error };
        let free = TcpListener::bind((HOST, 0)).and_then(|listener| listener.local_addr());
        let addr = free.map_err(start)?;
        listen(&mut command, addr.port());
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = self.spawn(command, &log)?;
        let door = Door::Server { addr: addr.to_string(), protocol };
        let mut subject = Subject { door, child: Some(child), log };
        let until = Instant::now() + PATIENCE;
        while !answers(&addr.to_string(), protocol) {
            let has_ended = subject.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
            if has_ended || Instant::now() > until {
                return Err(subject.silent());
            }
            std::thread::sleep(LOOK);
        }
        Ok(subject)
    }
}

/// Whether a server is ready: one of RESP may take connections while it still loads.
fn answers(addr: &str, protocol: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(addr) else {
        return false;
    };
    if protocol != "resp" {
        return true;
    }
    let mut answer = [0; 5];
    let asked = stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.write_all(b"PING\r\n"));
    asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && &answer == b"+PONG"
}

impl Subject {
    /// Loads what is missing.
    pub fn load(&mut self, options: &RunOptions) -> Result<(), SubjectError> {
        if let Door::Floor { .. } = self.door {
            return Ok(());
        }
        let moment = RunOptions { duration: MOMENT, warmup: Duration::ZERO, ..options.clone() };
        self.measure(&moment, Point::Get, options.seed).map(drop)
    }

    /// Measures one point.
    pub fn measure(
        &mut self,
        options: &RunOptions,
        point: Point,
        seed: u64,
    ) -> Result<Figures, SubjectError> {
        let ms = |time: Duration| format!("{}ms", time.as_millis());
        let mut line: Vec<String> = point.arguments().iter().map(|word| (*word).to_owned()).collect();
        for (name, value) in [
            ("--records", options.records.to_string()),
            ("--value-size", options.value_size.to_string()),
            ("--connections", options.clients.to_string()),
            ("--duration", ms(options.duration)),
            ("--warmup", ms(options.warmup)),
            ("--seed", seed.to_string()),
        ] {
            line.extend([name.to_owned(), value]);
        }
        let report = match &mut self.door {
            Door::Floor { .. } if point != Point::Get => return Err(SubjectError::OnlyGets),
            Door::Floor { file, measure } => return measure(file, options),
            Door::Server { addr, protocol } => ask_server(&options.bench, addr, protocol, &line)?,
            Door::Engine { stdin, stdout } => {
                let mut answer = String::new();
                let stdin = stdin.as_mut().expect("it is taken when this is dropped");
                let asked = writeln!(stdin, "{}", line.join(" ")).and_then(|()| stdin.flush());
                if asked.and_then(|()| stdout.read_line(&mut answer)).unwrap_or(0) == 0 {
                    return Err(self.silent());
                }
                answer
            }
        };
        if let Some(error) = report.strip_prefix(ERROR) {
            return Err(SubjectError::Load(error.trim().to_owned()));
        }
        let json: Option<Value> = serde_json::from_str(&report).ok();
        let figures = json.as_ref().and_then(Figures::of_report);
        figures.ok_or_else(|| SubjectError::Load(format!("no report: {report}")))
    }

    fn silent(&mut self) -> SubjectError {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = log.trim().lines().rev().take(3).collect();
        let mut words: Vec<String> = last.into_iter().rev().map(str::to_owned).collect();
        // It may just be ending.
        std::thread::sleep(MOMENT);
        if let Some(Ok(Some(status))) = self.child.as_mut().map(Child::try_wait) {
            let killed = status.signal() == Some(Signal::KILL.as_raw());
            words.push(format!("{status}{}", if killed { ": out of memory?" } else { "" }));
        }
        SubjectError::Silent(words.join(" / "))
    }
}

fn ask_server(bench: &Path, addr: &str, protocol: &str, line: &[String]) -> Result<String, SubjectError> {
    let mut command = Command::new(bench);
    command.args(["run", "--json", "--addr", addr, "--protocol", protocol, "--depth", "1"]);
    if protocol == "lode" {
        command.args(["--placement", "range", "--partitions", PARTITIONS]);
    }
    let start = |error| SubjectError::Start { what: bench.display().to_string(), error };
    let output = command.args(line).stdin(Stdio::null()).output().map_err(start)?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    // With some wrong answers there is a report, which counts them.
    if report.is_empty() {
        let told = String::from_utf8_lossy(&output.stderr).trim().replace('\n', " ");
        return Err(SubjectError::Load(told));
    }
    Ok(report)
}

impl Drop for Subject {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        match &mut self.door {
            // An engine ends when its stdin does, and closes its files first.
            Door::Engine { stdin, .. } => drop(stdin.take()),
            // It may have ended by itself.
            _ => drop(kill_process(Pid::from_child(&child), Signal::TERM)),
        }
        let until = Instant::now() + PATIENCE;
        while matches!(child.try_wait(), Ok(None)) && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
        let _ = child.kill();
        let _ = child.wait();
    }
}
