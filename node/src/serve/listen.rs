//! The node's sockets: one port that all shards share, and one of each shard's own.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind as bind_socket, getsockname, socket_with, sockopt,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::{ServeConfig, StartEvent};

/// Connections that may wait to be accepted, per socket.
const BACKLOG: i32 = 1024;

/// Descriptors that a node needs besides those of its connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// Raises this process's limit on open descriptors to what its connections may take, as far as it may.
pub fn allow_descriptors(config: &ServeConfig, watch: &mut dyn FnMut(StartEvent)) {
    // One that is encrypted takes the two ends of a pair of sockets more.
    let doors = 1 + usize::from(config.redis.is_some()) + 2 * usize::from(config.tls.is_some());
    let connections = config.max_connections.saturating_mul(doors);
    let needed = connections as u64 + OTHER_DESCRIPTORS;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return;
    }
    let most = limit.maximum.map_or(needed, |most| most.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(most), maximum: limit.maximum });
    if raised.is_err() || most < needed {
        watch(StartEvent::Warning(format!(
            "this process may open {most} files and sockets, {connections} connections need {needed}; raise the \
             limit (ulimit -n)"
        )));
    }
}

/// Why an address cannot be listened at.
#[derive(Debug, Error)]
pub enum ListenError {
    /// Somebody else listens there.
    #[error("{0} is in use by another process; give another address to --listen")]
    InUse(SocketAddr),
    /// Somebody else listens where the RESP door should be.
    #[error("{0} is in use by another process; give another address to --redis")]
    RedisInUse(SocketAddr),
    /// Somebody else listens where the admin port should be.
    #[error("{0} is in use by another process; give another address to --admin")]
    AdminInUse(SocketAddr),
    /// The system refused.
    #[error("cannot listen at {addr}: {error}")]
    System {
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        error: io::Error,
    },
}

/// Bound sockets, by shard, not yet listening: until then clients are refused at once.
#[derive(Debug)]
pub struct NodeSockets {
    /// The shared address.
    pub addr: SocketAddr,
    /// Each shard's own port.
    pub ports: Vec<u16>,
    /// Each shard's share of the shared port, and its own.
    pub listeners: Vec<Vec<OwnedFd>>,
}

impl NodeSockets {
    /// Hands the sockets on to somebody else: the shards listen at none.
    pub fn take_listeners(&mut self) -> Vec<Vec<OwnedFd>> {
        let none = self.listeners.iter().map(|_| Vec::new()).collect();
        std::mem::replace(&mut self.listeners, none)
    }
}

/// Binds the sockets of `shards` shards. Their own ports follow the shared one where those are free, and not of the node's other
/// doors, which may not listen yet.
pub fn bind(addr: SocketAddr, shards: u16, doors: &[SocketAddr]) -> Result<NodeSockets, ListenError> {
    let refused = |error: rustix::io::Errno| match error {
        rustix::io::Errno::ADDRINUSE => ListenError::InUse(addr),
        error => ListenError::System { addr, error: error.into() },
    };
    if addr.port() != 0 {
        // Sockets that share a port would share it with another node's too; this one does not share.
        let alone = open(addr, Beside::Lingering).map_err(refused)?;
        listen(&alone).map_err(refused)?;
    }
    let first = open(addr, Beside::Sharing).map_err(refused)?;
    let shared = local_addr(&first).map_err(refused)?;
    let mut listeners = vec![vec![first]];
    for _ in 1..shards {
        listeners.push(vec![open(shared, Beside::Sharing).map_err(refused)?]);
    }
    let mut ports = Vec::new();
    for shard in 0..shards {
        let own = open_own(shared, shard, addr.port() != 0, doors).map_err(refused)?;
        ports.push(local_addr(&own).map_err(refused)?.port());
        listeners[usize::from(shard)].push(own);
    }
    Ok(NodeSockets { addr: shared, ports, listeners })
}

/// Begins to listen on a bound socket.
pub fn listen(socket: &OwnedFd) -> rustix::io::Result<()> {
    rustix::net::listen(socket, BACKLOG)?;
    // For its connections, which inherit it: those that linger after the node's end keep its next life from no port.
    sockopt::set_socket_reuseaddr(socket, true)
}

/// Binds the RESP door's socket, which does not listen yet.
pub fn bind_redis(addr: SocketAddr) -> Result<OwnedFd, ListenError> {
    bind_door(addr, ListenError::RedisInUse)
}

/// Binds the admin port's socket, which does not listen yet.
pub fn bind_admin(addr: SocketAddr) -> Result<OwnedFd, ListenError> {
    bind_door(addr, ListenError::AdminInUse)
}

fn bind_door(addr: SocketAddr, in_use: fn(SocketAddr) -> ListenError) -> Result<OwnedFd, ListenError> {
    let refused = |error: rustix::io::Errno| match error {
        rustix::io::Errno::ADDRINUSE => in_use(addr),
        error => ListenError::System { addr, error: error.into() },
    };
    let socket = open(addr, Beside::Lingering).map_err(refused)?;
    if addr.port() != 0 {
        // Beside a listening socket a bind may work, and listening fails: a second one tells that now.
        let probe = open(addr, Beside::Lingering).map_err(refused)?;
        listen(&probe).map_err(refused)?;
    }
    Ok(socket)
}

/// Begins to listen on a bound socket that is handed on.
pub fn begin(socket: OwnedFd) -> Result<TcpListener, ListenError> {
    let addr = local_addr(&socket).unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let refused = |error: rustix::io::Errno| ListenError::System { addr, error: error.into() };
    listen(&socket).map_err(refused)?;
    Ok(TcpListener::from(socket))
}

fn open_own(
    shared: SocketAddr,
    shard: u16,
    chosen: bool,
    doors: &[SocketAddr],
) -> rustix::io::Result<OwnedFd> {
    let next = shared.port().checked_add(1).and_then(|port| port.checked_add(shard));
    let next = next.filter(|port| doors.iter().all(|door| door.port() != *port));
    let near = next.map(|port| SocketAddr::new(shared.ip(), port)).and_then(|near| open_near(near, chosen));
    near.map_or_else(|| open(SocketAddr::new(shared.ip(), 0), Beside::Lingering), Ok)
}

/// A socket at an address that nobody else has, if so. Two that let others in can both be bound, and only one of them can listen
/// later: another node, or another part of this one, that has not begun to listen would be in the way, or have this one in its
/// way. So nobody is let in; only where connections of an earlier life may linger, for its address was `chosen` by the user and
/// not by the system, it is enough that nobody listens.
fn open_near(addr: SocketAddr, chosen: bool) -> Option<OwnedFd> {
    let lingers = || {
        let probe = open(addr, Beside::Lingering).ok()?;
        listen(&probe).ok()?;
        drop(probe);
        open(addr, Beside::Lingering).ok()
    };
    open(addr, Beside::Nobody).ok().or_else(|| chosen.then(lingers).flatten())
}

/// Who may be at a socket's address besides it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Beside {
    Nobody,
    /// Connections of an earlier life, and sockets bound in this way that do not listen either.
    Lingering,
    /// Also sockets bound in this way that listen: they share what comes.
    Sharing,
}

fn open(addr: SocketAddr, beside: Beside) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, beside != Beside::Nobody)?;
    sockopt::set_socket_reuseport(&socket, beside == Beside::Sharing)?;
    // Connections inherit these.
    sockopt::set_tcp_nodelay(&socket, true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    bind_socket(&socket, &addr)?;
    Ok(socket)
}

fn local_addr(socket: &OwnedFd) -> rustix::io::Result<SocketAddr> {
    SocketAddr::try_from(getsockname(socket)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_share_one_port_and_have_their_own() {
        let sockets = bind("127.0.0.1:0".parse().expect("an address"), 3, &[]).expect("bound");
        assert_eq!((sockets.ports.len(), sockets.listeners.len()), (3, 3));
        let mut ports = sockets.ports.clone();
        ports.push(sockets.addr.port());
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);
        sockets.listeners.iter().flatten().for_each(|socket| listen(socket).expect("listening"));
        assert!(matches!(bind(sockets.addr, 1, &[]), Err(ListenError::InUse(_))));
    }

    #[test]
    fn a_port_that_somebody_has_who_does_not_listen_yet_is_nobody_elses() {
        let (other, shared) = loop {
            let shared = local_addr(&free()).expect("bound");
            let next = SocketAddr::new(shared.ip(), shared.port().saturating_add(1));
            if let Ok(other) = open(next, Beside::Lingering) {
                break (other, shared);
            }
        };
        let taken = local_addr(&other).expect("bound");
        let own = open_own(shared, 0, false, &[]).expect("another is free");
        assert_ne!(local_addr(&own).expect("bound"), taken);
        [other, own].iter().for_each(|socket| listen(socket).expect("each has its own"));
    }

    #[test]
    fn a_door_on_the_port_after_the_shared_one_is_no_shards() {
        let (door, shared) = loop {
            let shared = local_addr(&free()).expect("bound");
            let next = SocketAddr::new(shared.ip(), shared.port().saturating_add(1));
            if let Ok(door) = bind_redis(next) {
                break (door, shared);
            }
        };
        let taken = local_addr(&door).expect("bound");
        let Ok(sockets) = bind(shared, 2, &[taken]) else { return };
        assert!(!sockets.ports.contains(&taken.port()));
        begin(door).expect("the door begins to listen");
        sockets.listeners.iter().flatten().for_each(|socket| listen(socket).expect("and so does each shard"));
    }

    #[test]
    fn a_shards_own_port_is_had_again_while_connections_of_an_earlier_life_linger_there() {
        let shared = local_addr(&free()).expect("bound");
        let own = open_own(shared, 0, true, &[]).expect("a port");
        let addr = local_addr(&own).expect("bound");
        let listener = begin(own).expect("listening");
        let client = std::net::TcpStream::connect(addr).expect("connected");
        // Whoever closes first lingers.
        drop(listener.accept().expect("accepted"));
        drop((client, listener));
        assert!(open(addr, Beside::Nobody).is_err(), "nothing lingers, and nothing is tried");
        listen(&open_near(addr, true).expect("had again")).expect("listening");
    }

    fn free() -> OwnedFd {
        open("127.0.0.1:0".parse().expect("an address"), Beside::Lingering).expect("a port")
    }
}
