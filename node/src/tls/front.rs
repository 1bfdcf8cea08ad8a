//! Lode's own protocol over TLS: threads beside the shards' shake hands, decrypt and encrypt. Each connection becomes one end of a pair
//! of sockets for its shard, which sees a connection like any other, from the address that it came from.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use lode_net::client::Dial;
use lode_net::wire::Status;
use lode_net::wire::server::unsolicited;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::warn;

use super::Tls;
use crate::mailbox::{Mail, Mailbox};

/// What is on its way in each direction of a connection, at most, between the two sockets.
const COPY_BYTES: usize = 16 << 10;
/// After accepting has failed, for want of descriptors most likely, until it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long last answers have to arrive when the node stops.
const STOP_PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks at how long the certificate is still good.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3600);
/// Most threads that do nothing but this.
const MAX_THREADS: usize = 8;

/// What all connections share.
struct Shared {
    tls: Arc<Tls>,
    mailboxes: Arc<[Mailbox]>,
    open: AtomicUsize,
}

/// The way in that is encrypted; ends when dropped.
pub struct Front {
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    runtime: Option<Runtime>,
}

impl Front {
    /// Serves at these sockets, which listen: those of the first shard, of the second, and so on.
    pub fn open(
        tls: Arc<Tls>,
        mailboxes: Arc<[Mailbox]>,
        listeners: Vec<Vec<std::net::TcpListener>>,
    ) -> io::Result<Front> {
        let threads = mailboxes.len().div_ceil(2).min(MAX_THREADS);
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(threads).thread_name("lode-tls").enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let shared = Arc::new(Shared { tls, mailboxes, open: AtomicUsize::new(0) });
        {
            let _within = runtime.enter();
            for (shard, sockets) in listeners.into_iter().enumerate() {
                for socket in sockets {
                    socket.set_nonblocking(true)?;
                    let listener = TcpListener::from_std(socket)?;
                    tokio::spawn(accept(listener, shard, Arc::clone(&shared), stopped.clone()));
                }
            }
            tokio::spawn(watch_certificate(Arc::clone(&shared)));
        }
        Ok(Front { shared, stop, runtime: Some(runtime) })
    }

    /// Takes no new connections.
    pub fn refuse(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.refuse();
        // The shards have closed their ends: what they said last is on its way.
        let until = Instant::now() + STOP_PATIENCE;
        while self.shared.open.load(Ordering::Relaxed) > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn watch_certificate(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        for warning in shared.tls.warnings() {
            warn!(event = "warning", "{warning}");
        }
    }
}

async fn accept(listener: TcpListener, shard: usize, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    while !*stop.borrow() {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let shared = Arc::clone(&shared);
                    shared.open.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        serve(stream, peer.ip(), shard, &shared).await;
                        shared.open.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            _ = stop.changed() => {}
        }
    }
}

/// One connection, from its handshake to its end: as either side ends, so does the other.
async fn serve(stream: tokio::net::TcpStream, ip: IpAddr, shard: usize, shared: &Shared) {
    let told = "this port speaks TLS: connect with --tls, or --tls-ca FILE";
    let plain = unsolicited(Status::Malformed, told);
    let Some(mut secured) = shared.tls.shake(stream, ip, &plain).await else { return };
    let near = hand_over(&shared.mailboxes[shard], ip).and_then(|near| {
        near.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(near)
    });
    // A full mailbox is that of a shard which has far too much to do.
    let Ok(mut near) = near else { return };
    // That one of them is gone is no news to anybody but the other.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut secured, &mut near, COPY_BYTES, COPY_BYTES).await;
}

/// A connection to a shard from within the node, as if it came from this address.
fn hand_over(mailbox: &Mailbox, ip: IpAddr) -> io::Result<UnixStream> {
    let (near, far) = UnixStream::pair()?;
    let mail = Mail::Connection { socket: OwnedFd::from(far), ip };
    match mailbox.post(mail) {
        Ok(()) => Ok(near),
        Err(_) => Err(io::Error::other("the shard's mailbox is full")),
    }
}

/// How the node's own parts reach it, where strangers have to speak TLS: by no network at all. `ports` are the shards'.
pub fn dial(ports: Vec<u16>, mailboxes: Arc<[Mailbox]>) -> Dial {
    let turn = AtomicUsize::new(0);
    Dial::new(move |addr: SocketAddr| {
        let known = ports.iter().position(|port| *port == addr.port());
        let shard = known.unwrap_or_else(|| turn.fetch_add(1, Ordering::Relaxed) % mailboxes.len());
        hand_over(&mailboxes[shard], addr.ip())
    })
}
