//! One connection on tokio: one task that moves bytes between a socket and a sans-IO connection.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::client::call::{Call, Course, Loss};
use crate::client::connection::{Connection, ConnectionError, Event, OwnedReply};
use crate::client::error::{ConnectError, Failure};
use crate::client::options::ClientOptions;
use crate::client::stream::AsyncStream;
use crate::client::view::NodeView;
use crate::wire::request::EncodeError;
use crate::wire::{MapVersion, ShardId, Status};

const READ_BUFFER_BYTES: usize = 64 * 1024;
const NOT_READY_WAIT: Duration = Duration::from_millis(50);

/// What a call waits for.
pub(crate) type Answer = Result<OwnedReply, Loss>;

struct Waiter {
    answer: oneshot::Sender<Answer>,
    /// Held until the node has answered, even where nobody waits any more.
    _permit: OwnedSemaphorePermit,
}

/// One open connection, shared by those who submit and the task that moves its bytes.
pub(crate) struct Link {
    /// `None` once it has ended.
    connection: Mutex<Option<Connection<Waiter>>>,
    /// There is output, or the owner is gone.
    wake: Notify,
    permits: Arc<Semaphore>,
    incarnation: u64,
    shard: ShardId,
}

impl Link {
    /// Whether requests may still be submitted.
    pub(crate) fn is_alive(&self) -> bool {
        self.lock().is_some()
    }

    /// The shard it ends at.
    pub(crate) fn shard(&self) -> ShardId {
        self.shard
    }

    /// Sends a call once there is room for it; the receiver gets its answer.
    pub(crate) async fn submit(
        &self,
        call: &Call<'_>,
        course: &Course,
        view_incarnation: u64,
    ) -> Result<oneshot::Receiver<Answer>, Failure> {
        let gone = || Failure::Lost { reason: "the connection has ended".to_owned(), maybe_sent: false };
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| gone())?;
        let (answer, receiver) = oneshot::channel();
        let mut guard = self.lock();
        let connection = guard.as_mut().ok_or_else(gone)?;
        // The map of another run of the node means nothing to this one.
        let map_is_ours = view_incarnation == self.incarnation;
        connection.set_map_version(if map_is_ours { course.map_version } else { MapVersion(0) });
        let submitted = connection.submit(&call.request(course.target), Waiter { answer, _permit: permit });
        drop(guard);
        submitted.map_err(failure_of_encode)?;
        self.wake.notify_one();
        Ok(receiver)
    }

    /// Ends the connection: whoever waits is told, and its task stops.
    pub(crate) fn end(&self, reason: &str) {
        self.end_with(reason, 0);
    }

    fn end_with(&self, reason: &str, taken_unsent: usize) {
        let ended = self.lock().take();
        self.permits.close();
        self.wake.notify_one();
        for unanswered in ended.into_iter().flat_map(|mut connection| connection.drain(taken_unsent)) {
            let loss = Loss { reason: reason.to_owned(), maybe_sent: unanswered.maybe_sent };
            // A waiter whose call has timed out is not listening; nothing is lost by that.
            let _ = unanswered.tag.answer.send(Err(loss));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Connection<Waiter>>> {
        // Nothing between lock and unlock can leave a connection half-changed but a bug that panics.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) fn failure_of_encode(error: EncodeError) -> Failure {
    match error {
        EncodeError::KeyLength { len } => Failure::KeyLength(len),
        EncodeError::BodyLength { len } => {
            Failure::ValueLength { len, limit: crate::wire::limits::MAX_REQUEST_BODY_BYTES }
        }
    }
}

/// Connects and shakes hands; a node that recovers is waited for. `view` learns what the node says of itself.
pub(crate) async fn open(
    addr: &str,
    options: &ClientOptions,
    view: &Arc<RwLock<NodeView>>,
) -> Result<Arc<Link>, ConnectError> {
    let attempt = async {
        let candidates = resolve(addr).await?;
        loop {
            match open_once(addr, &candidates, options, view).await {
                Err(ConnectError::Refused {
                    source: ConnectionError::Refused { status: Status::NotReady, .. },
                    ..
                }) => tokio::time::sleep(NOT_READY_WAIT).await,
                done => return done,
            }
        }
    };
    let timeout = options.connect_timeout;
    let timed_out = || ConnectError::Timeout { addr: addr.to_owned(), timeout };
    tokio::time::timeout(timeout, attempt).await.map_err(|_| timed_out())?
}

async fn resolve(addr: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    let wrong = |source| ConnectError::Address { addr: addr.to_owned(), source };
    let candidates: Vec<SocketAddr> = tokio::net::lookup_host(addr).await.map_err(wrong)?.collect();
    match candidates.is_empty() {
        true => Err(wrong(io::Error::new(io::ErrorKind::NotFound, "the name has no address"))),
        false => Ok(candidates),
    }
}

async fn open_once(
    addr: &str,
    candidates: &[SocketAddr],
    options: &ClientOptions,
    view: &Arc<RwLock<NodeView>>,
) -> Result<Arc<Link>, ConnectError> {
    let broken = |source| ConnectError::broken(addr, source);
    let (mut stream, peer) = AsyncStream::connect(candidates, options).await.map_err(broken)?;
    let ip = peer.ip();
    let (incarnation, map_version) = {
        let view = view.read().unwrap_or_else(PoisonError::into_inner);
        (view.incarnation(), view.map().version())
    };
    let mut connection =
        Connection::with_token(options.token.as_ref(), &options.name, incarnation, map_version);
    stream.write_all(connection.output()).await.map_err(broken)?;
    stream.flush().await.map_err(broken)?;
    connection.consume_output(connection.output().len());
    let (incarnation, shard) = shake_hands(addr, &mut stream, &mut connection, ip, view).await?;
    let in_flight = {
        let view = view.read().unwrap_or_else(PoisonError::into_inner);
        options.max_in_flight_per_connection.clamp(1, view.limits().in_flight.max(1) as usize)
    };
    let link = Arc::new(Link {
        connection: Mutex::new(Some(connection)),
        wake: Notify::new(),
        permits: Arc::new(Semaphore::new(in_flight)),
        incarnation,
        shard,
    });
    tokio::spawn(run(link.clone(), stream, view.clone()));
    Ok(link)
}

async fn shake_hands(
    addr: &str,
    stream: &mut AsyncStream,
    connection: &mut Connection<Waiter>,
    ip: IpAddr,
    view: &RwLock<NodeView>,
) -> Result<(u64, ShardId), ConnectError> {
    let mut buffer = vec![0u8; READ_BUFFER_BYTES];
    loop {
        let broken = |source| ConnectError::broken(addr, source);
        let read = stream.read(&mut buffer).await.map_err(broken)?;
        if read == 0 {
            return Err(broken(io::ErrorKind::UnexpectedEof.into()));
        }
        let mut input = &buffer[..read];
        let refused = |source| ConnectError::Refused { addr: addr.to_owned(), source };
        if let Some(Event::Opened(hello)) = connection.next_event(&mut input).map_err(refused)? {
            let opened = (hello.incarnation, ShardId(hello.shard));
            let mut view = view.write().unwrap_or_else(PoisonError::into_inner);
            view.adopt_hello(ip, *hello)
                .map_err(|reason| ConnectError::BadMap { addr: addr.to_owned(), reason })?;
            return Ok(opened);
        }
    }
}

async fn run(link: Arc<Link>, stream: AsyncStream, view: Arc<RwLock<NodeView>>) {
    let mut output = Output::default();
    let moved = match stream {
        AsyncStream::Plain(mut tcp) => {
            let (reader, writer) = tcp.split();
            move_bytes(&link, reader, writer, &view, &mut output).await
        }
        stream => {
            let (reader, writer) = tokio::io::split(stream);
            move_bytes(&link, reader, writer, &view, &mut output).await
        }
    };
    let reason = match moved {
        Ok(()) => "the client was closed".to_owned(),
        Err(reason) => reason,
    };
    link.end_with(&reason, output.left().len());
}

/// Bytes taken from the connection and on their way to the socket.
#[derive(Default)]
struct Output {
    bytes: Vec<u8>,
    sent: usize,
}

impl Output {
    fn left(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }
}

/// Reads and writes at once, so that neither side waits for the other to take its bytes.
async fn move_bytes(
    link: &Link,
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Unpin,
    view: &RwLock<NodeView>,
    output: &mut Output,
) -> Result<(), String> {
    let mut received = vec![0u8; READ_BUFFER_BYTES];
    // What was written may wait to be encrypted or sent until it is handed on.
    let mut is_flushed = true;
    loop {
        if output.left().is_empty() {
            output.bytes.clear();
            output.sent = 0;
            match link.lock().as_mut() {
                Some(connection) => connection.take_output(&mut output.bytes),
                None => return Ok(()),
            }
        }
        let idle = output.left().is_empty();
        tokio::select! {
            // Reading comes first: where the node has closed an idle connection, that shows before anything is
            // sent, and the request may go elsewhere.
            biased;
            read = reader.read(&mut received) => match read {
                Ok(0) => return Err("the node closed the connection".to_owned()),
                Ok(bytes) => take_in(link, &received[..bytes], view)?,
                Err(error) => return Err(format!("receiving failed: {error}")),
            },
            sent = hand_on(&mut writer, output.left()), if !idle || !is_flushed => match sent {
                Ok(bytes) => (output.sent, is_flushed) = (output.sent + bytes, idle),
                Err(error) => return Err(format!("sending failed: {error}")),
            },
            () = link.wake.notified(), if idle => {}
        }
    }
}

/// Sends what there is; behind the last of it, what still waits below to be encrypted or sent.
async fn hand_on(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<usize> {
    match bytes {
        [] => writer.flush().await.map(|()| 0),
        bytes => writer.write(bytes).await,
    }
}

fn take_in(link: &Link, mut input: &[u8], view: &RwLock<NodeView>) -> Result<(), String> {
    let mut guard = link.lock();
    let Some(connection) = guard.as_mut() else { return Ok(()) };
    loop {
        match connection.next_event(&mut input) {
            Ok(None) => return Ok(()),
            Ok(Some(Event::Opened(_))) => return Err("the node shook hands twice".to_owned()),
            Ok(Some(Event::Reply { tag, reply, .. })) => {
                // Before the reply is given out, so that its receiver finds the map that came with it.
                if let Some(bytes) = reply.view().map_body() {
                    let mut view = view.write().unwrap_or_else(PoisonError::into_inner);
                    view.adopt_map_bytes(bytes, link.incarnation)?;
                }
                let _ = tag.answer.send(Ok(reply.into_owned()));
            }
            Err(error) => return Err(error.to_string()),
        }
    }
}
