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

/// Binds the sockets of `shards` shards. Their own ports follow the shared one where those are free.
pub fn bind(addr: SocketAddr, shards: u16) -> Result<NodeSockets, ListenError> {
    let refused = |error: rustix::io::Errno| match error {
        rustix::io::Errno::ADDRINUSE => ListenError::InUse(addr),
        error => ListenError::System { addr, error: error.into() },
    };
    if addr.port() != 0 {
        // Sockets that share a port would share it with another node's too; this one does not share.
        let alone = open(addr, false).map_err(refused)?;
        listen(&alone).map_err(refused)?;
    }
    let first = open(addr, true).map_err(refused)?;
    let shared = local_addr(&first).map_err(refused)?;
    let mut listeners = vec![vec![first]];
    for _ in 1..shards {
        listeners.push(vec![open(shared, true).map_err(refused)?]);
    }
    let mut ports = Vec::new();
    for shard in 0..shards {
        let own = open_own(shared, shard).map_err(refused)?;
        ports.push(local_addr(&own).map_err(refused)?.port());
        listeners[usize::from(shard)].push(own);
    }
    Ok(NodeSockets { addr: shared, ports, listeners })
}

/// Begins to listen on a bound socket.
pub fn listen(socket: &OwnedFd) -> rustix::io::Result<()> {
    rustix::net::listen(socket, BACKLOG)
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
    let socket = open(addr, false).map_err(refused)?;
    if addr.port() != 0 {
        // Beside a listening socket a bind may work, and listening fails: a second one tells that now.
        let probe = open(addr, false).map_err(refused)?;
        listen(&probe).map_err(refused)?;
    }
    Ok(socket)
}

/// Begins to listen on a bound socket that is handed on.
pub fn begin(socket: OwnedFd) -> Result<TcpListener, ListenError> {
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)));
    let refused = |error: rustix::io::Errno| ListenError::System { addr, error: error.into() };
    rustix::net::listen(&listener, BACKLOG).map_err(refused)?;
    Ok(listener)
}

fn open_own(shared: SocketAddr, shard: u16) -> rustix::io::Result<OwnedFd> {
    let next = shared.port().checked_add(1).and_then(|port| port.checked_add(shard));
    let near = next.and_then(|port| {
        let near = open(SocketAddr::new(shared.ip(), port), false).ok()?;
        // Bound beside a listening socket or not, only listening tells.
        listen_would_work(&near, port).then_some(near)
    });
    match near {
        Some(near) => Ok(near),
        None => open(SocketAddr::new(shared.ip(), 0), false),
    }
}

/// With `SO_REUSEADDR` a bind beside another bound socket works, and listening fails later: for
/// ephemeral ports of connections in passing that is the usual case.
fn listen_would_work(socket: &OwnedFd, port: u16) -> bool {
    local_addr(socket).is_ok_and(|addr| addr.port() == port)
}

fn open(addr: SocketAddr, share: bool) -> rustix::io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, share)?;
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
        let sockets = bind("127.0.0.1:0".parse().expect("an address"), 3).expect("bound");
        assert_eq!((sockets.ports.len(), sockets.listeners.len()), (3, 3));
        let mut ports = sockets.ports.clone();
        ports.push(sockets.addr.port());
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), 4);
        sockets.listeners.iter().flatten().for_each(|socket| listen(socket).expect("listening"));
        assert!(matches!(bind(sockets.addr, 1), Err(ListenError::InUse(_))));
    }
}
