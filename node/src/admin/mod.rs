//! The admin port: health, metrics, history and a console, over HTTP.
//!
//! Nothing of it is on the way of a request. One thread observes the shards and makes a picture of the node once a second; another,
//! with a tokio runtime, answers from that picture. However many ask, however slowly they read: the shards notice nothing.

mod answers;
mod console;
mod guard;
mod health;
mod history;
mod hosts;
pub mod limits;
pub mod metrics;
mod observe;
mod partitions;
mod service;
mod slow;
mod view;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use serde_json::Value;
use thiserror::Error;
use tokio::sync::watch;

use crate::access::{AccessBook, ClientLimits};
use crate::mailbox::Mailbox;
use crate::redis::Tally;
use crate::slow::SlowLog;
use crate::tls::Tls;
use guard::Guard;
pub use health::Stage;
use history::{History, NodeHistory};
use hosts::Hosts;
pub use hosts::{HostNames, NoHostNames};
use observe::Observer;
pub use partitions::SERIES;
use view::View;

/// Why the admin port does not open.
#[derive(Debug, Error)]
pub enum AdminError {
    /// The system refused.
    #[error("the admin port could not {doing}: {error}")]
    System {
        /// What it tried.
        doing: &'static str,
        /// The system's answer.
        error: io::Error,
    },
}

/// What every answer is made of.
#[derive(Debug)]
pub struct State {
    /// What the node calls itself.
    name: String,
    guard: Arc<Guard>,
    tls: Option<Arc<Tls>>,
    begun: Instant,
    begun_wall: SystemTime,
    /// From when it serves on.
    slow: OnceLock<Arc<SlowLog>>,
    /// What the RESP door counts, where there is one.
    resp: OnceLock<Arc<Tally>>,
    /// As the node was configured.
    settings: RwLock<Arc<Value>>,
    stage: RwLock<Stage>,
    view: RwLock<Arc<View>>,
    /// Of partitions.
    history: Mutex<History>,
    /// Of the node.
    node_history: Mutex<NodeHistory>,
    connections: AtomicU64,
    refused: AtomicU64,
    refused_requests: AtomicU64,
}

/// A lock that nobody can have left in the middle: what is in it is replaced as a whole.
const WHOLE: &str = "what is behind the lock is replaced at once";

impl State {
    /// Of a node that begins to start.
    fn new(name: &str, guard: Guard, tls: Option<Arc<Tls>>) -> State {
        State {
            name: name.to_owned(),
            guard: Arc::new(guard),
            tls,
            begun: Instant::now(),
            begun_wall: SystemTime::now(),
            slow: OnceLock::new(),
            resp: OnceLock::new(),
            settings: RwLock::new(Arc::new(Value::Null)),
            stage: RwLock::new(Stage::Starting("it opens its drive")),
            view: RwLock::new(Arc::new(View::empty())),
            history: Mutex::default(),
            node_history: Mutex::default(),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            refused_requests: AtomicU64::new(0),
        }
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().expect(WHOLE))
    }

    fn show(&self, view: View) {
        *self.view.write().expect(WHOLE) = Arc::new(view);
    }

    fn stage(&self) -> Stage {
        self.stage.read().expect(WHOLE).clone()
    }

    fn set_stage(&self, stage: Stage) {
        *self.stage.write().expect(WHOLE) = stage;
    }

    fn settings(&self) -> Arc<Value> {
        Arc::clone(&self.settings.read().expect(WHOLE))
    }

    fn history_bytes(&self) -> usize {
        self.history.lock().expect("nobody panics while holding it").bytes()
    }

    fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    fn refused_requests(&self) -> u64 {
        self.refused_requests.load(Ordering::Relaxed)
    }
}

/// An open admin port; closes when dropped.
pub struct OpenAdmin {
    /// Where it listens.
    pub addr: SocketAddr,
    state: Arc<State>,
    observer: Option<Observer>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl OpenAdmin {
    /// Tells what the start is at.
    pub fn starting(&self, at: &'static str) {
        self.state.set_stage(Stage::Starting(at));
    }

    /// The node serves: from here on its shards are observed. `settings` are what is told of the configuration.
    pub fn serves(
        &mut self,
        mailboxes: Arc<[Mailbox]>,
        slow: Arc<SlowLog>,
        resp: Option<Arc<Tally>>,
        settings: Value,
    ) -> Result<(), AdminError> {
        // It serves once.
        let _ = self.state.slow.set(slow);
        resp.into_iter().for_each(|resp| drop(self.state.resp.set(resp)));
        *self.state.settings.write().expect(WHOLE) = Arc::new(settings);
        let observer = Observer::begin(mailboxes, self.state.begun, Arc::clone(&self.state));
        let failed = |error| AdminError::System { doing: "start its observer", error };
        self.observer = Some(observer.map_err(failed)?);
        self.state.set_stage(Stage::Serving);
        Ok(())
    }

    /// The node begins to stop, and is no longer observed; what was seen last is still told.
    pub fn stops(&mut self) {
        self.state.set_stage(Stage::Stopping);
        self.observer = None;
    }
}

impl Drop for OpenAdmin {
    fn drop(&mut self) {
        self.observer = None;
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has told why, and the node can do without it.
            let _ = thread.join();
        }
    }
}

/// Whom the port answers, and how often.
#[derive(Debug)]
pub struct AdminConfig<'a> {
    /// What the node calls itself.
    pub name: &'a str,
    /// Who may do what, where the node wants to know who asks.
    pub access: Option<Arc<AccessBook>>,
    /// What one address may take.
    pub client: ClientLimits,
    /// The certificate, where the port speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Names that it answers to, beside its own and addresses.
    pub hosts: HostNames,
}

/// Opens the admin port of a node that begins to start, on a socket that listens.
pub fn open(listener: std::net::TcpListener, config: AdminConfig<'_>) -> Result<OpenAdmin, AdminError> {
    let failed = |doing| move |error| AdminError::System { doing, error };
    let addr = listener.local_addr().map_err(failed("tell its address"))?;
    listener.set_nonblocking(true).map_err(failed("set up its socket"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(failed("make a runtime"))?;
    // Where it asks for a token, or shows a certificate that names it, no page elsewhere can pass for it.
    let is_open = config.access.is_none() && config.tls.is_none();
    let own = rustix::system::uname();
    let hosts = is_open.then(|| Hosts::new(config.hosts, addr, &own.nodename().to_string_lossy()));
    let guard = Guard::new(config.access, hosts, config.client);
    let state = Arc::new(State::new(config.name, guard, config.tls));
    let (stop, stopped) = watch::channel(false);
    let (opened_in, opened) = mpsc::channel();
    let served = Arc::clone(&state);
    let body = move || {
        observe::give_way();
        runtime.block_on(async move {
            match tokio::net::TcpListener::from_std(listener) {
                Ok(listener) => {
                    // Whoever opened it waits for this.
                    let _ = opened_in.send(Ok(()));
                    service::serve(listener, served, stopped).await;
                }
                Err(error) => drop(opened_in.send(Err(failed("take its socket")(error)))),
            }
        });
    };
    let thread = std::thread::Builder::new().name("lode-admin".into()).spawn(body);
    let thread = thread.map_err(failed("start its thread"))?;
    let admin = OpenAdmin { addr, state, observer: None, stop, thread: Some(thread) };
    let gone = || failed("start")(io::Error::other("its thread has ended"));
    opened.recv().map_err(|_| gone())??;
    Ok(admin)
}
