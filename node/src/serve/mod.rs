//! A node from its configuration to its end: drive, memory, sockets, threads.

mod access;
mod admin_port;
mod facts;
mod listen;
mod manager;
mod memory;
mod shard_thread;
mod ticker;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use lode_engine::Geometry;
use lode_engine::limits::MAX_VALUE_BYTES;
use lode_net::client::{Dial, Token};
use lode_net::io_properties::Identity;
use lode_net::ring::{Features, Ring, RingError, Waker};
use thiserror::Error;
use tracing::info;

use crate::access::{AccessError, Addresses, ClientLimits};
use crate::admin::{AdminError, HostNames, OpenAdmin};
use crate::control::{Control, ControlConfig, ControlSender, RecoverError, Recovered};
use crate::drive::{Drive, FormatError, FormatOptions, FormatProgress, HeaderCopy, OpenDriveError, format};
use crate::io_limits::{self, Chosen, Wanted};
use crate::mailbox::Mailbox;
use crate::redis::{self, DoorConfig, DoorError, OpenDoor};
use crate::slow::SlowLog;
use crate::tls::front::{self, Front};
use crate::tls::{TlsError, TlsFiles};
use access::Keys;
use facts::{node_facts, node_info};
pub use listen::{ListenError, NodeSockets, listen};
use manager::Manager;
use memory::REGISTERED_BYTES;
pub use memory::{MIN_MEMORY_PER_SHARD, MemoryPlan, machine_bytes, plan_memory};
use shard_thread::{ReadyShard, ShardStart, start_shard};
use ticker::Ticker;

/// What a node is told.
#[derive(Clone, Debug)]
pub struct ServeConfig {
    /// The drive: a file, or a block device.
    pub data: PathBuf,
    /// Bytes of a drive file that has to be made.
    pub size: u64,
    /// Shards of a drive that has to be made; one per core by default.
    pub shards: Option<u16>,
    /// Bytes of a segment of a drive that has to be made, if the default does not suit.
    pub segment_bytes: Option<u32>,
    /// Longest value of a drive that has to be made.
    pub max_value_bytes: u32,
    /// Whether a drive that is not there is made.
    pub may_format: bool,
    /// Address to listen at; port 0 takes any.
    pub listen: SocketAddr,
    /// Where Redis clients are served, if they are.
    pub redis: Option<SocketAddr>,
    /// Where health, metrics and the console are served, if they are.
    pub admin: Option<SocketAddr>,
    /// Names that the admin port answers to where it asks for no tokens, beside its own and addresses.
    pub admin_hosts: HostNames,
    /// The most memory, in bytes, that all shards together take for cache, index, memory tables and
    /// buffers.
    pub memory_bytes: u64,
    /// Of that, what the read cache has; as the plan divides it where left out.
    pub cache_bytes: Option<u64>,
    /// What was told of the drive's speed: the file of its measurement, and the commit window.
    pub io: Wanted,
    /// Bytes a second that the scrub of each shard reads; 0 where it begins no round by itself.
    pub scrub_bytes_per_s: u64,
    /// What the node calls itself.
    pub name: String,
    /// Most connections.
    pub max_connections: usize,
    /// Whether shards are pinned to cores, where there are enough.
    pub pin: bool,
    /// What a new table is like where its maker leaves it open; statistics tell it to the command line.
    pub table_defaults: serde_json::Value,
    /// The file of tokens, where the node wants to know who asks.
    pub tokens: Option<PathBuf>,
    /// What one address may take.
    pub client: ClientLimits,
    /// Requests that take this long are kept and told of; none where it is zero.
    pub slow_request: Duration,
    /// The certificate of all doors, where they speak TLS.
    pub tls: Option<TlsFiles>,
}

impl Default for ServeConfig {
    fn default() -> ServeConfig {
        ServeConfig {
            data: PathBuf::from("lode-data/drive.lode"),
            size: 10 << 30,
            shards: None,
            segment_bytes: None,
            max_value_bytes: MAX_VALUE_BYTES as u32,
            may_format: true,
            listen: SocketAddr::from(([127, 0, 0, 1], 7411)),
            redis: None,
            admin: None,
            admin_hosts: HostNames::default(),
            memory_bytes: 1 << 30,
            cache_bytes: None,
            io: Wanted::default(),
            // 1.2 TB a shard in a week. An idle node of two shards takes 1.0 % of a core for it; with 4 MiB/s, and reads
            // of 64 KiB, it was 3.2 %.
            scrub_bytes_per_s: 2 << 20,
            name: "lode".into(),
            max_connections: 4096,
            pin: true,
            table_defaults: serde_json::Value::Null,
            tokens: None,
            client: ClientLimits::default(),
            slow_request: Duration::from_millis(100),
            tls: None,
        }
    }
}

/// What happens while a node starts, for whoever watches.
#[derive(Clone, Debug)]
pub enum StartEvent {
    /// A drive is being made.
    Formatting(FormatProgress),
    /// Something is not as it should be, and the node goes on.
    Warning(String),
    /// What the drive is taken to stand, and where that comes from.
    Io(String),
    /// The shards begin to read their parts of the drive.
    Recovering,
    /// The rings, as they were found; one line each.
    Rings(Vec<String>),
}

/// Why a node does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The drive could not be made.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The drive could not be opened.
    #[error(transparent)]
    Drive(#[from] OpenDriveError),
    /// There is too little memory for the shards.
    #[error(
        "{shards} shards need at least {} MiB of memory, {given_bytes} bytes were given; raise --memory, or lower the \
         --shards of a new drive", min_bytes.div_ceil(1 << 20)
    )]
    Memory {
        /// Shards of the drive.
        shards: u16,
        /// The least that would do.
        min_bytes: u64,
        /// What was given.
        given_bytes: u64,
    },
    /// There is more asked for than the machine has.
    #[error(
        "{given_bytes} bytes of memory are asked for, and this machine has {machine_bytes}; lower --memory"
    )]
    MemoryBeyondMachine {
        /// What was given.
        given_bytes: u64,
        /// What there is.
        machine_bytes: u64,
    },
    /// The cache would leave nothing for keys.
    #[error(
        "a cache of {given_bytes} bytes leaves too little of the memory for keys; {shards} shards can give it {most_bytes} at \
         most: lower --cache, or raise --memory"
    )]
    Cache {
        /// The drive's shards.
        shards: u16,
        /// What was given.
        given_bytes: u64,
        /// The most that can be.
        most_bytes: u64,
    },
    /// The address cannot be listened at.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// There are no tokens, where there should be.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// There is no certificate, where there should be.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The RESP door does not open.
    #[error(transparent)]
    Redis(#[from] DoorError),
    /// The admin port does not open.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// There are no rings to be had, and so no node.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// A shard's thread or ring could not be set up.
    #[error("shard {shard} could not be set up: {reason}")]
    Shard {
        /// Which.
        shard: u16,
        /// Why.
        reason: String,
    },
    /// A shard could not recover.
    #[error(transparent)]
    Recover(#[from] RecoverError),
    /// The system refused.
    #[error("the node could not {doing}: {error}")]
    System {
        /// What it tried.
        doing: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// A node that serves. Stops when told to, or when dropped.
pub struct RunningNode {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Each shard's own port.
    pub shard_ports: Vec<u16>,
    /// Where Redis clients are served, if they are.
    pub redis_addr: Option<SocketAddr>,
    /// Where health, metrics and the console are served, if they are.
    pub admin_addr: Option<SocketAddr>,
    door: Option<OpenDoor>,
    admin: Option<OpenAdmin>,
    control: ControlSender,
    threads: Vec<JoinHandle<()>>,
    ticker: Option<Ticker>,
    keys: Keys,
    front: Option<Front>,
    /// How the node's own parts reach it, where strangers have to speak TLS.
    dial: Option<Dial>,
    /// Holds the drive's lock until the threads have ended.
    drive: Option<Drive>,
}

impl RunningNode {
    /// Stops the node: no new requests, a last checkpoint, everything closed.
    pub fn stop(mut self) {
        self.bring_down();
    }

    /// What the node's own parts show it, where it wants to know who asks.
    pub fn own_token(&self) -> Option<Token> {
        self.keys.access.as_ref().map(|book| book.own())
    }

    fn open_door(
        &mut self,
        socket: OwnedFd,
        (max_connections, slow_request): (usize, Duration),
        addresses: Arc<Addresses>,
    ) -> Result<(), ServeError> {
        let Keys { access, tls } = &self.keys;
        let (access, tls, dial) = (access.clone(), tls.clone(), self.dial.clone());
        let wants =
            DoorConfig { node: self.addr, max_connections, access, addresses, tls, dial, slow_request };
        let door = redis::open(listen::begin(socket)?, wants)?;
        self.redis_addr = Some(door.addr);
        self.door = Some(door);
        Ok(())
    }

    /// Serves what speaks TLS at these sockets, where the node has a certificate.
    fn open_front(
        &mut self,
        sockets: Vec<Vec<OwnedFd>>,
        mailboxes: &Arc<[Mailbox]>,
    ) -> Result<(), ServeError> {
        let Some(tls) = self.keys.tls.clone() else { return Ok(()) };
        let begun = |sockets: Vec<OwnedFd>| sockets.into_iter().map(listen::begin).collect();
        let listeners = sockets.into_iter().map(begun).collect::<Result<_, _>>()?;
        let front = Front::open(tls, Arc::clone(mailboxes), listeners);
        self.front = Some(front.map_err(|error| ServeError::System { doing: "open its TLS ports", error })?);
        self.dial = Some(front::dial(self.shard_ports.clone(), Arc::clone(mailboxes)));
        Ok(())
    }

    fn bring_down(&mut self) {
        if let Some(admin) = &mut self.admin {
            admin.stops();
        }
        // Before the shards, which answer what has begun there.
        self.door = None;
        self.front.iter().for_each(Front::refuse);
        self.ticker = None;
        self.control.stop();
        for thread in self.threads.drain(..) {
            // A thread that panicked has aborted the process already.
            let _ = thread.join();
        }
        self.front = None;
        self.drive = None;
        // Last: until here it tells that the node stops.
        self.admin = None;
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.bring_down();
    }
}

/// Runs a node until SIGTERM or SIGINT.
pub fn run(config: ServeConfig, watch: &mut dyn FnMut(StartEvent)) -> Result<(), ServeError> {
    let refused = |error| ServeError::System { doing: "wait for signals", error };
    // Until it serves, a signal simply ends it: nothing would be lost, and a long format must not be in the way.
    let version = env!("CARGO_PKG_VERSION");
    info!(event = "start", version, pid = std::process::id(), "lode {version} starts");
    let node = start(config, watch)?;
    let signals = [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP];
    let mut signals = signal_hook::iterator::Signals::new(signals).map_err(refused)?;
    if let Some(addr) = node.redis_addr {
        info!(event = "resp", %addr, "RESP door at {addr}");
    }
    if let Some(addr) = node.admin_addr {
        let scheme = if node.keys.tls.is_some() { "https" } else { "http" };
        info!(event = "admin", %addr, "admin port at {scheme}://{addr}/");
    }
    let (addr, ports) = (node.addr, &node.shard_ports);
    info!(event = "listening", %addr, shard_ports = ?ports, "listening at {addr}, shards at ports {ports:?}");
    let manager = Manager::from_environment();
    if let Some(manager) = &manager {
        manager.serves(node.addr, node.own_token(), node.dial.clone());
    }
    while signals.forever().next() == Some(signal_hook::consts::SIGHUP) {
        node.reload();
    }
    if let Some(manager) = &manager {
        manager.stops();
    }
    info!(event = "stopping", "stopping; a second signal ends it at once");
    std::thread::spawn(move || {
        if signals.forever().any(|signal| signal != signal_hook::consts::SIGHUP) {
            std::process::exit(130);
        }
    });
    let begun = Instant::now();
    node.stop();
    let ms = begun.elapsed().as_millis() as u64;
    info!(event = "stopped", ms, "stopped in {ms} ms");
    Ok(())
}

/// Starts a node in threads of this process; returns when it serves.
pub fn start(config: ServeConfig, watch: &mut dyn FnMut(StartEvent)) -> Result<RunningNode, ServeError> {
    let begun = Instant::now();
    listen::allow_descriptors(&config, watch);
    let keys = Keys::open(&config, watch)?;
    let addresses = Arc::new(Addresses::new(config.client));
    let redis = config.redis.map(listen::bind_redis).transpose()?;
    // The first of all: it tells that the node starts, which may take long.
    let admin = admin_port::open(&config, &keys)?;
    let (drive, memory, mut sockets) = take_all(&config, watch)?;
    let shards = drive.geometry.shards;
    let mailboxes = make_mailboxes(shards)?;
    let (events_in, events) = channel();
    let control = ControlSender::new(events_in);
    let cores = shard_thread::cores_for(shards, config.pin);
    let io = choose_io(&config.io, &drive, watch);
    watch(StartEvent::Recovering);
    admin.iter().for_each(|admin| admin.starting("its shards read their parts of the drive"));
    let connections = Arc::new(AtomicUsize::new(0));
    let slow = Arc::new(SlowLog::new(config.slow_request, shards));
    let mut threads = start_shards(shards, |shard| ShardStart {
        shard,
        core: cores.as_ref().map(|cores| cores[usize::from(shard)]),
        drive: &drive,
        memory,
        mailboxes: Arc::clone(&mailboxes),
        control: control.clone(),
        connections: Arc::clone(&connections),
        addresses: Arc::clone(&addresses),
        slow: Arc::clone(&slow),
        io: io.limits,
        config: &config,
    })?;
    let facts = node_facts(begun, &drive, memory, cores.is_some(), &config, &io);
    let node = Arc::new(node_info(&config, &drive, &sockets.ports));
    let settings = admin_port::settings(&config, &facts, &sockets);
    let secured = keys.tls.as_ref().map(|_| sockets.take_listeners()).unwrap_or_default();
    let control_config = ControlConfig {
        mailboxes: Arc::clone(&mailboxes),
        waits: Box::new(events),
        sender: control.clone(),
        node,
        listeners: sockets.listeners,
        facts,
        access: keys.access.clone(),
    };
    let started = start_control(control_config, &mut threads)?;
    let mut node = RunningNode {
        addr: sockets.addr,
        shard_ports: sockets.ports,
        redis_addr: None,
        admin_addr: admin.as_ref().map(|admin| admin.addr),
        door: None,
        admin: None,
        control,
        threads,
        ticker: None,
        keys,
        front: None,
        dial: None,
        drive: Some(drive),
    };
    report(&await_start(&started)?, watch);
    node.ticker = Some(Ticker::begin(node.control.clone(), Arc::clone(&slow)));
    node.open_front(secured, &mailboxes)?;
    if let Some(socket) = redis {
        node.open_door(socket, (config.max_connections, config.slow_request), addresses)?;
    }
    node.admin = admin_port::serve(admin, mailboxes, slow, node.door.as_ref(), settings)?;
    Ok(node)
}

/// Starts the threads of all shards; each begins once all are set up.
fn start_shards<'a>(
    shards: u16,
    of: impl Fn(u16) -> ShardStart<'a>,
) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let mut ready = Vec::new();
    for shard in 0..shards {
        match start_shard(of(shard)) {
            Ok(shard) => ready.push(shard),
            Err(reason) => {
                ready.into_iter().for_each(ReadyShard::give_up);
                return Err(ServeError::Shard { shard, reason });
            }
        }
    }
    Ok(ready.into_iter().map(ReadyShard::begin).collect())
}

fn start_control(
    config: ControlConfig,
    threads: &mut Vec<JoinHandle<()>>,
) -> Result<Receiver<Recovered>, ServeError> {
    let (started_in, started) = channel();
    let body = move || Control::run(config, &started_in);
    let thread = std::thread::Builder::new().name("lode-control".into()).spawn(body);
    threads.push(thread.map_err(|error| ServeError::System { doing: "start its control thread", error })?);
    Ok(started)
}

fn await_start(started: &Receiver<Recovered>) -> Result<Vec<Features>, ServeError> {
    let recovered = started.recv().map_err(|_| RecoverError::Stopped)?;
    Ok(recovered?)
}

fn report(features: &[Features], watch: &mut dyn FnMut(StartEvent)) {
    let least = features.iter().map(|found| found.registered_buffer_bytes).min().unwrap_or(0);
    if least < REGISTERED_BYTES {
        watch(StartEvent::Warning(format!(
            "a shard could register {} KiB of buffers and not {} KiB, within the memlock limit, so reads cost a little \
             more CPU; raise the limit (ulimit -l), or wait a moment after another node has ended",
            least >> 10,
            REGISTERED_BYTES >> 10,
        )));
    }
    watch(StartEvent::Rings(features.iter().map(Features::to_string).collect()));
}

/// Drive, memory and sockets. A drive is made only where the rest is to be had: it takes long, and nobody wants
/// one on the wrong path of a node that does not start.
fn take_all(
    config: &ServeConfig,
    watch: &mut dyn FnMut(StartEvent),
) -> Result<(Drive, MemoryPlan, NodeSockets), ServeError> {
    // Before anything is written: where there are no rings, there is no node.
    Ring::try_one()?;
    let rest = |shards: u16| -> Result<(MemoryPlan, NodeSockets), ServeError> {
        let memory = plan_memory(config.memory_bytes, config.cache_bytes, shards)?;
        let doors: Vec<SocketAddr> = [config.redis, config.admin].into_iter().flatten().collect();
        Ok((memory, listen::bind(config.listen, shards, &doors)?))
    };
    let machine_bytes = machine_bytes();
    if (machine_bytes - machine_bytes / 10..=machine_bytes).contains(&config.memory_bytes) {
        watch(StartEvent::Warning(format!(
            "--memory is {} of this machine's {machine_bytes} bytes: little is left for anything else, and the kernel may \
             end the node",
            config.memory_bytes
        )));
    }
    match Drive::open(&config.data) {
        Err(OpenDriveError::Missing(_)) if config.may_format => {
            let options = FormatOptions {
                bytes: Some(config.size),
                shards: config.shards.unwrap_or_else(shard_thread::cores),
                segment_bytes: config.segment_bytes,
                max_value_bytes: config.max_value_bytes,
                overwrite: false,
            };
            Geometry::plan(config.size, options.shards, options.segment_bytes, options.max_value_bytes)
                .map_err(FormatError::from)?;
            let (memory, sockets) = rest(options.shards)?;
            format(&config.data, &options, &mut |progress| watch(StartEvent::Formatting(progress)))?;
            Ok((look_over(Drive::open(&config.data)?, config, watch), memory, sockets))
        }
        opened => {
            let drive = look_over(opened?, config, watch);
            let (memory, sockets) = rest(drive.geometry.shards)?;
            Ok((drive, memory, sockets))
        }
    }
}

/// What the drive is taken to stand; says what, and where that comes from.
fn choose_io(wanted: &Wanted, drive: &Drive, watch: &mut dyn FnMut(StartEvent)) -> Chosen {
    let now = Identity::of(Path::new("/"), &drive.path).map_err(|error| error.to_string());
    let chosen = io_limits::choose(wanted, drive.geometry.shards, now);
    if chosen.refused {
        watch(StartEvent::Warning(format!("the drive's measurement is not used: {}", chosen.source)));
    }
    watch(StartEvent::Io(chosen.to_text()));
    chosen
}

/// Says what is not as it should be, and repairs what can be.
fn look_over(mut drive: Drive, config: &ServeConfig, watch: &mut dyn FnMut(StartEvent)) -> Drive {
    if !drive.direct {
        watch(StartEvent::Warning(format!(
            "the filesystem of {} has no direct I/O: reads and writes go through the page cache",
            drive.path.display()
        )));
    }
    if let Some(copy) = drive.damaged_header {
        let (bad, good) = match copy {
            HeaderCopy::First => ("first", "last"),
            HeaderCopy::Last => ("last", "first"),
        };
        let outcome = match drive.repair_header() {
            Ok(()) => "it was written again".to_owned(),
            Err(error) => {
                format!("it could not be written again ({error}), so one more damage would be the end")
            }
        };
        watch(StartEvent::Warning(format!(
            "the header in the {bad} block of {} was damaged, the one in the {good} block is whole: {outcome}; find out \
             what wrote there (lode check tells more)",
            drive.path.display()
        )));
    }
    if config.shards.is_some_and(|shards| shards != drive.geometry.shards) {
        let shards = drive.geometry.shards;
        watch(StartEvent::Warning(format!("the drive was formatted with {shards} shards, and keeps them")));
    }
    drive
}

fn make_mailboxes(shards: u16) -> Result<Arc<[Mailbox]>, ServeError> {
    let mailbox = |_| {
        let waker = Waker::new().map_err(|error| ServeError::System { doing: "make an eventfd", error })?;
        Ok(Mailbox::new(Arc::new(waker)))
    };
    (0..shards).map(mailbox).collect()
}

#[cfg(test)]
mod tests;
