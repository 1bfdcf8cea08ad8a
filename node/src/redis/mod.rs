//! The RESP door: Redis clients at a listener of their own.
//!
//! It stands beside the shards, on one thread with a tokio runtime, and asks them as any client of lode does, by the
//! node's own listener: what holds for that one (durability, limits, quotas, what is atomic) holds here. Nothing of it
//! is on the way of a request of lode's own protocol.

mod access;
mod commands;
mod connection;
mod cursors;
mod door;
mod glob;
mod key_op;
mod keys_op;
pub mod limits;
mod memory;
mod numbers;
mod output;
mod parse;
mod refusal;
mod server;
mod session;
mod slowlog;
mod store;
mod table_op;
mod tally;
mod times;
mod transaction;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use lode_net::client::{
    Client, ClientOptions, ConnectError, Dial, Placement, Quota, Store, TableError, TableOptions, Token,
};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::LocalSet;

use self::door::{Door, FIRST_TABLE, Peer};
use self::limits::STOP_PATIENCE;
use crate::access::{AccessBook, Addresses};
use crate::tls::Tls;
pub use tally::Tally;

/// Requests that all connections together have with one shard; the rest wait their turn in the door.
const IN_FLIGHT: usize = 1024;
/// After accepting has failed, for want of descriptors most likely, until it is tried again.
const ACCEPT_PAUSE: std::time::Duration = std::time::Duration::from_millis(100);

/// Why the door does not open.
#[derive(Debug, Error)]
pub enum DoorError {
    /// The system refused.
    #[error("the RESP door could not {doing}: {error}")]
    System {
        /// What it tried.
        doing: &'static str,
        /// The system's answer.
        error: io::Error,
    },
    /// It cannot reach the node it belongs to.
    #[error("the RESP door cannot reach its own node: {0}")]
    Connect(#[from] ConnectError),
    /// The first table could not be made.
    #[error("the RESP door could not make its table `{FIRST_TABLE}`: {0}")]
    Table(#[from] TableError),
}

/// An open door; closes when told to, or when dropped.
pub struct OpenDoor {
    /// Where it listens.
    pub addr: SocketAddr,
    /// What it counts.
    pub tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl OpenDoor {
    /// Closes it in order: no more connections and requests; those that have begun are answered.
    pub fn close(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has aborted the process already.
            let _ = thread.join();
        }
    }
}

impl Drop for OpenDoor {
    fn drop(&mut self) {
        self.close();
    }
}

/// What a door is told.
pub struct DoorConfig {
    /// Where its node listens.
    pub node: SocketAddr,
    /// Most connections.
    pub max_connections: usize,
    /// The tokens, where the node wants them.
    pub access: Option<Arc<AccessBook>>,
    /// Who has connections, by address.
    pub addresses: Arc<Addresses>,
    /// Commands that take this long are kept; none where it is zero.
    pub slow_request: Duration,
    /// The certificate, where the door speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// How the door's own client reaches the node, where that is not by its address.
    pub dial: Option<Dial>,
}

/// Opens the door of a node, on a socket that listens; returns when clients are served.
pub fn open(listener: std::net::TcpListener, config: DoorConfig) -> Result<OpenDoor, DoorError> {
    let failed = |doing| move |error| DoorError::System { doing, error };
    let addr = listener.local_addr().map_err(failed("tell its address"))?;
    listener.set_nonblocking(true).map_err(failed("set up its socket"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("make a runtime"))?;
    let (stop, stopped) = watch::channel(false);
    let (opened_in, opened) = mpsc::channel::<Result<(), DoorError>>();
    let tally = Arc::<Tally>::default();
    let counted = Arc::clone(&tally);
    let body = move || {
        let local = LocalSet::new();
        local.block_on(&runtime, async move {
            let ready = async {
                let token = config.access.as_ref().map(|book| book.own());
                let client = connect(config.node, token, config.dial.clone()).await?;
                let listener = TcpListener::from_std(listener).map_err(failed("take its socket"))?;
                Ok::<_, DoorError>((client, listener))
            };
            match ready.await {
                Ok((client, listener)) => {
                    let door = Rc::new(Door::new(client, addr, &config, counted, any_number()));
                    // Whoever opened it waits for this.
                    let _ = opened_in.send(Ok(()));
                    run(listener, door, stopped).await;
                }
                Err(error) => drop(opened_in.send(Err(error))),
            }
        });
    };
    let thread = std::thread::Builder::new().name("lode-resp".into()).spawn(body);
    let thread = thread.map_err(failed("start its thread"))?;
    let door = OpenDoor { addr, tally, stop, thread: Some(thread) };
    let gone = || failed("start")(io::Error::other("its thread has ended"));
    opened.recv().map_err(|_| gone())??;
    Ok(door)
}

/// The node's own client, and the table that connections begin with: made where it is not there, with one partition,
/// so that transactions may be of any of its keys.
async fn connect(node: SocketAddr, token: Option<Token>, dial: Option<Dial>) -> Result<Client, DoorError> {
    let ip = match node.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    let options = ClientOptions {
        name: "lode-resp".to_owned(),
        max_in_flight_per_connection: IN_FLIGHT,
        token,
        dial,
        ..ClientOptions::default()
    };
    let client = Client::connect(&SocketAddr::new(ip, node.port()).to_string(), options).await?;
    let first = TableOptions {
        name: FIRST_TABLE.to_owned(),
        store: Store::Durable,
        placement: Placement::Hash { partitions: 1 },
        ttl: None,
        quota: Quota::default(),
    };
    match client.create_table(first).await {
        Ok(_) | Err(TableError::TableExists(_)) => Ok(client),
        Err(error) => Err(error.into()),
    }
}

/// For cursors' first number and random keys: it need not be a secret.
fn any_number() -> u64 {
    ahash::RandomState::new().hash_one(times::now_ms())
}

/// Accepts until it is told to stop, and then waits for the connections to end.
async fn run(listener: TcpListener, door: Rc<Door>, mut stop: watch::Receiver<bool>) {
    let mut connections = tokio::task::JoinSet::new();
    while !*stop.borrow() {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, addr)) => match door.admit(addr) {
                    Some(peer) => {
                        // Small replies are not to wait for each other; one that does is still right.
                        let _ = stream.set_nodelay(true);
                        connections.spawn_local(serve(stream, door.clone(), peer, stop.clone()));
                    }
                    // In the clear nobody would understand it.
                    None if door.tls.is_some() => {}
                    None => drop(tokio::task::spawn_local(turn_away(stream))),
                },
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = stop.changed() => {}
        }
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    // Those who do not take their answers now never will.
    let _ = tokio::time::timeout(STOP_PATIENCE, ended).await;
}

/// One connection, with its handshake where the door speaks TLS.
async fn serve(stream: TcpStream, door: Rc<Door>, peer: Rc<Peer>, stop: watch::Receiver<bool>) {
    const IN_THE_CLEAR: &[u8] = b"-ERR this port speaks TLS\r\n";
    let Some(tls) = door.tls.clone() else {
        let (reader, writer) = stream.into_split();
        return connection::serve(reader, writer, door, peer, stop).await;
    };
    match tls.shake(stream, peer.addr.ip(), IN_THE_CLEAR).await {
        Some(secured) => {
            let (reader, writer) = tokio::io::split(secured);
            connection::serve(reader, writer, door, peer, stop).await;
        }
        None => door.leave(peer.number),
    }
}

/// Says why a connection is not taken in.
async fn turn_away(mut stream: TcpStream) {
    let said = stream.write_all(b"-ERR max number of clients reached\r\n").await;
    if said.is_ok() {
        // It may be gone already.
        let _ = stream.shutdown().await;
    }
}
