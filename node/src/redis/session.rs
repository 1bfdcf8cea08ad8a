//! One connection's commands: what each needs to wait for, and what it does.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ahash::RandomState;
use bytes::Bytes;
use lode_net::resp::{Protocol, Reply};

use super::access::{self, is_for_strangers, need_of, no_auth, no_perm};
use super::commands::{Command, Does, OfSession};
use super::door::{Door, FIRST_TABLE, Peer};
use super::limits::{MAX_KEYS_ABREAST, MAX_REQUEST_BYTES, MAX_STRANGER_BYTES, STRANGER_TIMEOUT};
use super::refusal::Refusal;
use super::server;
use super::slowlog::{slowlog, watched};
use super::store::{Table, time_in_transaction};
use super::transaction::{Queue, Queued, Watched, exec, watch};
use crate::access::{Access, Need, Rights};

/// A command on its way.
pub type Work = Pin<Box<dyn Future<Output = Reply>>>;

/// Which other commands of its connection a command may not meet on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Those of the same keys, unless both only read; keys by their hash, in order.
    Keys { hashes: Vec<u64>, writes: bool },
    /// Any.
    Alone,
}

impl Order {
    /// Of what asks nothing that another could change.
    const NONE: Order = Order::Keys { hashes: Vec::new(), writes: false };

    /// Of a command with these keys. One of many is alone: comparing it with others would take longer than it does.
    pub fn of(hashes: impl IntoIterator<Item = u64>, writes: bool) -> Order {
        let mut hashes: Vec<u64> = hashes.into_iter().take(MAX_KEYS_ABREAST + 1).collect();
        if hashes.len() > MAX_KEYS_ABREAST {
            return Order::Alone;
        }
        hashes.sort_unstable();
        Order::Keys { hashes, writes }
    }

    /// Whether one must be done before the other begins.
    pub fn conflicts(&self, other: &Order) -> bool {
        let (Order::Keys { hashes, writes }, Order::Keys { hashes: others, writes: other_writes }) =
            (self, other)
        else {
            return true;
        };
        (*writes || *other_writes) && hashes.iter().any(|hash| others.binary_search(hash).is_ok())
    }
}

/// A command that is to be done.
pub struct Task {
    pub order: Order,
    /// What its answer may come to hold, in bytes.
    pub reply_bytes: usize,
    /// Nobody misses anything where it is not finished because its connection has ended.
    pub may_be_left: bool,
    pub work: Work,
}

/// What a request came to.
pub enum Begun {
    /// It is answered.
    Told(Reply),
    /// It is answered, and the connection ends behind the answer.
    Last(Reply),
    /// The connection ends at once.
    Cut,
    /// It is done once nothing is in its way.
    Work(Task),
    /// It is done alone, and the next request is taken in when it is done: it may mean another table then.
    Settles(Work),
}

impl Begun {
    /// Says whether what is to be done may be left where the connection ends before it is done.
    fn left(mut self, may_be_left: bool) -> Begun {
        if let Begun::Work(task) = &mut self {
            task.may_be_left = may_be_left;
        }
        self
    }
}

/// What a connection remembers between its commands.
pub struct Session {
    door: Rc<Door>,
    peer: Rc<Peer>,
    queue: Option<Queue>,
    watched: Rc<RefCell<Watched>>,
    /// Since when it has not said who it is.
    stranger_since: Instant,
    hasher: RandomState,
}

impl Session {
    pub fn new(door: Rc<Door>, peer: Rc<Peer>) -> Session {
        let stranger_since = Instant::now();
        let hasher = RandomState::new();
        Session { door, peer, queue: None, watched: Rc::default(), stranger_since, hasher }
    }

    /// The tokens now, where the node wants them.
    fn access(&self) -> Option<Arc<Access>> {
        self.door.access.as_ref().map(|book| book.present())
    }

    /// The longest request that is taken, where that is not what everybody may send.
    pub fn request_bytes(&self) -> Option<usize> {
        let access = self.access()?;
        let Some(principal) = self.peer.principal.get() else { return Some(MAX_STRANGER_BYTES) };
        let limit = access.entry(principal).and_then(|entry| entry.row.request_bytes);
        Some(limit.map_or(MAX_REQUEST_BYTES, |limit| limit.min(MAX_REQUEST_BYTES)))
    }

    /// Whether it should have said by now who it is.
    pub fn is_stranger_for_too_long(&self) -> bool {
        let is_stranger = self.door.access.is_some() && self.peer.principal.get().is_none();
        is_stranger && self.stranger_since.elapsed() > STRANGER_TIMEOUT
    }

    /// Whether the client may ask this, and now.
    fn may(&self, command: &Command, args: &[Bytes]) -> Result<(), Refusal> {
        let Some(access) = self.access() else { return Ok(()) };
        if matches!(command.does, Does::Session(of) if is_for_strangers(of)) {
            return Ok(());
        }
        let principal = self.peer.principal.get().ok_or_else(no_auth)?;
        let entry = access.entry(principal).ok_or_else(no_auth)?;
        let table = match command.does {
            Does::Session(OfSession::Select) => String::from_utf8_lossy(&args[1]).into_owned(),
            _ => self.peer.table.borrow().to_string(),
        };
        let rights = entry.row.rights(&table);
        let is_met = match command.does {
            Does::Session(OfSession::Select) => {
                rights.have_any(Rights::READ.and(Rights::WRITE).and(Rights::ADMIN))
            }
            // It tells of other clients.
            Does::Session(OfSession::Client) if args[1].eq_ignore_ascii_case(b"list") => {
                entry.row.may_see_stats()
            }
            Does::Session(OfSession::Slowlog) => entry.row.may_see_stats(),
            _ => need_of(command, args).is_none_or(|need| need.is_met_by(rights)),
        };
        if is_met { Ok(()) } else { Err(no_perm(command.name, &table)) }
    }

    /// From here on it acts for whoever has this secret.
    fn authenticate(&mut self, user: Option<&[u8]>, secret: &[u8]) -> Result<(), Refusal> {
        let Some(access) = self.access() else { return Ok(()) };
        let principal =
            access::find(&access, user, secret).inspect_err(|_| self.door.tally.secrets_refused.count())?;
        if !self.peer.meters.borrow_mut().authenticate(&access, principal) {
            return Err(Refusal::new("max number of clients of this token reached"));
        }
        self.peer.principal.set(Some(principal));
        Ok(())
    }

    /// AUTH, and what HELLO says of it.
    fn auth(&mut self, args: &[Bytes]) -> Result<Reply, Refusal> {
        match (self.door.access.is_some(), args) {
            (false, _) => server::auth(args),
            (true, [_, secret]) => self.authenticate(None, secret).map(|()| Reply::OK),
            (true, [_, user, secret]) => self.authenticate(Some(user), secret).map(|()| Reply::OK),
            (true, _) => Err(Refusal::syntax()),
        }
    }

    /// HELLO: whoever it names must be who he says.
    fn hello(&mut self, args: &[Bytes]) -> Result<Reply, Refusal> {
        let hello = server::parse_hello(args)?;
        if self.door.access.is_none() {
            hello.user.map_or(Ok(()), |(user, _)| server::check_user(user))?;
        } else {
            if let Some((user, secret)) = hello.user {
                self.authenticate(Some(user), secret)?;
            }
            if self.peer.principal.get().is_none() {
                return Err(Refusal(
                    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
                     <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
                     the same time"
                        .to_owned(),
                ));
            }
        }
        Ok(server::hello(&self.peer, hello))
    }

    /// The version that replies are told in from now on.
    pub fn protocol(&self) -> Protocol {
        self.peer.protocol.get()
    }

    /// Takes a request in.
    pub fn begin(&mut self, args: Vec<Bytes>) -> Begun {
        self.door.tally.commands.count();
        // What is no command at all counts, too: it has to be read and answered.
        let metered = self.peer.meters.borrow().request();
        if let Err(error) = metered {
            let refusal = Refusal::throttled(error);
            // Of a transaction its client hears that it has failed, and so it is over.
            return if args[0].eq_ignore_ascii_case(b"exec") {
                self.abort(refusal)
            } else {
                self.refuse(refusal)
            };
        }
        let Some(command) = Command::find(&args[0]) else {
            // What a browser sends here, somebody else has told it to.
            let is_http = [&b"post"[..], b"host:"].iter().any(|word| args[0].eq_ignore_ascii_case(word));
            return if is_http { Begun::Cut } else { self.refuse(Command::unknown(&args)) };
        };
        self.peer.last_command.set(command.name);
        if !command.takes(args.len()) {
            let refusal = Refusal::arity(command.name);
            if command.name == "exec" {
                // The transaction is over, as Redis has it.
                self.queue = None;
                self.watched = Rc::default();
                let text = refusal.0.trim_start_matches("ERR ");
                return Begun::Told(Reply::Error(format!(
                    "EXECABORT Transaction discarded because of: {text}"
                )));
            }
            return self.refuse(refusal);
        }
        if let Err(refusal) = self.may(command, &args) {
            return self.refuse(refusal);
        }
        let watch = watched(&self.door, &self.peer, command, &args);
        watch.over(match command.does {
            Does::Session(of) if is_control(of) => self.control(of, args),
            _ if self.queue.is_some() => self.enqueue(command, &args),
            _ => self.now(command, args),
        })
    }

    /// What it remembers, in bytes.
    pub fn held_bytes(&self) -> usize {
        self.queue.as_ref().map_or(0, Queue::held_bytes) + self.watched.borrow().held_bytes()
    }

    /// A refusal; within MULTI, EXEC will do nothing.
    pub fn refuse(&mut self, refusal: Refusal) -> Begun {
        if let Some(queue) = &mut self.queue {
            queue.is_broken = true;
        }
        Begun::Told(refusal.into())
    }

    fn told(&mut self, answer: Result<Reply, Refusal>) -> Begun {
        Begun::Told(answer.unwrap_or_else(Reply::from))
    }

    /// The table that commands are about.
    fn table(&self) -> Table {
        let name = self.peer.table.borrow().clone();
        Table { door: self.door.clone(), client: self.door.client.clone(), name }
    }

    fn order<'a>(&self, table: &Table, keys: impl IntoIterator<Item = &'a Bytes>, writes: bool) -> Order {
        let hash = |key: &'a Bytes| self.hasher.hash_one((&*table.name, &key[..]));
        Order::of(keys.into_iter().map(hash), writes)
    }

    /// A command outside of MULTI.
    fn now(&mut self, command: &Command, args: Vec<Bytes>) -> Begun {
        let table = self.table();
        match command.does {
            Does::Key(read) => match read(&args) {
                Ok(op) => {
                    let key = args[1].clone();
                    let order = self.order(&table, [&key], op.writes());
                    work(order, op.reply_bytes(), async move { table.on_key(&key, &op).await })
                }
                Err(refusal) => Begun::Told(refusal.into()),
            },
            Does::Keys(read) => match read(&args) {
                Ok(op) => {
                    let order = self.order(&table, op.keys(), op.writes());
                    work(order, op.reply_bytes(), async move { op.carry_out(&table).await })
                }
                Err(refusal) => Begun::Told(refusal.into()),
            },
            Does::Table(read) => match read(&args) {
                Ok(op) => {
                    let (owner, random) = (self.peer.owner(), self.door.random());
                    let reads = !op.writes();
                    let begun =
                        work(Order::Alone, 0, async move { op.carry_out(&table, owner, random).await });
                    // It may go through all of a table: for whoever has gone, it need not.
                    begun.left(reads)
                }
                Err(refusal) => Begun::Told(refusal.into()),
            },
            Does::Session(OfSession::Select) => self.select(&args[1]),
            Does::Session(OfSession::Info) => self.info(args),
            Does::Session(of) => {
                let answer = self.answer(of, &args);
                self.told(answer)
            }
        }
    }

    /// What is answered at once, within MULTI too.
    fn answer(&mut self, of: OfSession, args: &[Bytes]) -> Result<Reply, Refusal> {
        let (door, peer) = (&self.door, &self.peer);
        match of {
            OfSession::Ping => server::ping(args),
            OfSession::Echo => Ok(Reply::Bulk(args[1].clone())),
            OfSession::Client => server::client(door, peer, args),
            OfSession::Command => server::command(args),
            OfSession::Config => server::config(door, args),
            OfSession::Time => Ok(server::time()),
            OfSession::Slowlog => slowlog(door, args),
            OfSession::Hello => self.hello(args),
            OfSession::Auth => self.auth(args),
            other => Err(Refusal::new(format_args!("{other:?} cannot be answered at once"))),
        }
    }

    /// Keeps a command for EXEC.
    fn enqueue(&mut self, command: &Command, args: &[Bytes]) -> Begun {
        // Copies: what was received together with these may be long.
        let args = &args.iter().map(|arg| Bytes::copy_from_slice(arg)).collect::<Vec<_>>()[..];
        let queued = match command.does {
            Does::Key(read) => match read(args) {
                Ok(op) if op.sets_time() => {
                    let name = command.name.to_ascii_uppercase();
                    Err(time_in_transaction(&format!("'{name}' as it is asked here sets")))
                }
                Ok(op) => Ok(Queued::Key(args[1].clone(), op)),
                // As with Redis: EXEC tells it, and does the rest.
                Err(refusal) => Ok(Queued::Told(refusal.into())),
            },
            Does::Keys(read) => {
                Ok(read(args).map_or_else(|refusal| Queued::Told(refusal.into()), Queued::Keys))
            }
            Does::Table(read) => match read(args) {
                Ok(op) if !op.is_for_transactions() => Err(not_within(command)),
                Ok(op) => Ok(Queued::Table(op)),
                Err(refusal) => Ok(Queued::Told(refusal.into())),
            },
            Does::Session(
                OfSession::Select
                | OfSession::Info
                | OfSession::Hello
                | OfSession::Auth
                | OfSession::Client
                | OfSession::Slowlog,
            ) => Err(not_within(command)),
            Does::Session(of) => Ok(Queued::Told(self.answer(of, args).unwrap_or_else(Reply::from))),
        };
        let needed = need_of(command, args);
        let queue = self.queue.get_or_insert_default();
        if let Some(Need::All(rights)) = needed {
            queue.needed = queue.needed.and(rights);
        }
        match queued.and_then(|queued| queue.push(queued, args, &self.door.shares())) {
            Ok(()) => Begun::Told(Reply::Simple("QUEUED")),
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// What is not queued.
    fn control(&mut self, of: OfSession, args: Vec<Bytes>) -> Begun {
        match of {
            OfSession::Multi if self.queue.is_some() => {
                self.told(Err(Refusal::new("MULTI calls can not be nested")))
            }
            OfSession::Multi => {
                self.queue = Some(Queue::default());
                Begun::Told(Reply::OK)
            }
            OfSession::Exec => match self.may_still() {
                Ok(()) => self.exec(),
                Err(refusal) => self.abort(refusal),
            },
            OfSession::Discard => match self.queue.take() {
                Some(_) => {
                    self.watched = Rc::default();
                    Begun::Told(Reply::OK)
                }
                None => self.told(Err(Refusal::new("DISCARD without MULTI"))),
            },
            OfSession::Watch if self.queue.is_some() => {
                self.told(Err(Refusal::new("WATCH inside MULTI is not allowed")))
            }
            OfSession::Watch => {
                let (table, watched) = (self.table(), self.watched.clone());
                work(Order::Alone, 0, async move { watch(&table, &args[1..], &watched).await })
            }
            OfSession::Unwatch => {
                // Within MULTI it has no effect: EXEC forgets what was watched anyway.
                if let Some(queue) = &mut self.queue {
                    let queued = queue
                        .push(Queued::Told(Reply::OK), &[], &self.door.shares())
                        .map(|()| Reply::Simple("QUEUED"));
                    return self.told(queued);
                }
                self.watched = Rc::default();
                Begun::Told(Reply::OK)
            }
            OfSession::Reset => {
                self.queue = None;
                self.watched = Rc::default();
                self.peer.protocol.set(Protocol::Resp2);
                self.peer.name.borrow_mut().clear();
                self.peer.principal.set(None);
                self.peer.meters.borrow_mut().deauthenticate();
                self.stranger_since = Instant::now();
                *self.peer.table.borrow_mut() = FIRST_TABLE.into();
                Begun::Told(Reply::Simple("RESET"))
            }
            _ => Begun::Last(Reply::OK),
        }
    }

    /// Whether the token has now what its queued commands take: rights may have changed since.
    fn may_still(&self) -> Result<(), Refusal> {
        let (Some(access), Some(queue)) = (self.access(), &self.queue) else { return Ok(()) };
        let table = self.peer.table.borrow().to_string();
        let rights = self.peer.principal.get().map_or(Rights::NONE, |of| access.rights(of, &table));
        if rights.have(queue.needed) { Ok(()) } else { Err(no_perm("exec", &table)) }
    }

    /// The transaction is over, and nothing of it is done.
    fn abort(&mut self, refusal: Refusal) -> Begun {
        self.queue = None;
        self.watched = Rc::default();
        Begun::Told(refusal.into())
    }

    fn exec(&mut self) -> Begun {
        let Some(queue) = self.queue.take() else {
            return self.told(Err(Refusal::new("EXEC without MULTI")));
        };
        let watched = std::mem::take(&mut self.watched);
        if queue.is_broken {
            let text = "EXECABORT Transaction discarded because of previous errors.";
            return Begun::Told(Reply::Error(text.to_owned()));
        }
        let table = self.table();
        let held_bytes = queue.held_bytes() + watched.borrow().held_bytes();
        work(Order::Alone, held_bytes, async move {
            let watched = watched.take();
            exec(&table, queue, &watched).await
        })
    }

    /// Chooses a table, if there is one of this name. A number is a name.
    fn select(&mut self, name: &Bytes) -> Begun {
        let (client, peer) = (self.door.client.clone(), self.peer.clone());
        let name = String::from_utf8_lossy(name).into_owned();
        Begun::Settles(boxed(async move {
            let is_known = client.map().table(&name).is_some();
            let is_there = is_known || client.list_tables().await?.iter().any(|table| table.name == name);
            if !is_there {
                return Err(Refusal::new(format_args!(
                    "DB index is out of range: there is no table '{name:.128}'; make it with lode table create"
                )));
            }
            *peer.table.borrow_mut() = name.into();
            Ok(Reply::OK)
        }))
    }

    fn info(&mut self, args: Vec<Bytes>) -> Begun {
        let door = self.door.clone();
        let principal = self.peer.principal.get();
        let may_count = self.access().is_none_or(|access| {
            principal.is_some_and(|principal| access.rights(principal, FIRST_TABLE).have(Rights::READ))
        });
        work(Order::NONE, 0, async move {
            // A table that is not there has no keys, and neither has one that is not to be read.
            let keys = match may_count {
                true => door.client.count(FIRST_TABLE, b"", None).await.unwrap_or(0),
                false => 0,
            };
            Ok(server::info(&door, &args[1..], keys))
        })
    }
}

fn is_control(of: OfSession) -> bool {
    use OfSession::{Discard, Exec, Multi, Quit, Reset, Unwatch, Watch};
    matches!(of, Multi | Exec | Discard | Watch | Unwatch | Reset | Quit)
}

fn not_within(command: &Command) -> Refusal {
    let name = command.name.to_ascii_uppercase();
    Refusal::new(format_args!(
        "'{name}' cannot be done within MULTI: a transaction is within one partition of a table"
    ))
}

fn work(
    order: Order,
    reply_bytes: usize,
    does: impl Future<Output = Result<Reply, Refusal>> + 'static,
) -> Begun {
    Begun::Work(Task { order, reply_bytes, may_be_left: false, work: boxed(does) })
}

fn boxed(does: impl Future<Output = Result<Reply, Refusal>> + 'static) -> Work {
    Box::pin(async move { does.await.unwrap_or_else(Reply::from) })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use lode_net::client::{Client, ClientOptions};

    use super::super::DoorConfig;
    use super::*;
    use crate::access::{AccessBook, Addresses, ClientLimits};
    use crate::serve::{ServeConfig, start};

    /// A connection's session, where tokens are wanted; and what must outlive it.
    async fn session(client: Client, directory: &std::path::Path) -> Session {
        let tokens = directory.join("tokens.toml");
        let hash = "0".repeat(64);
        std::fs::write(&tokens, format!("[[token]]\nname = \"a\"\nsecret-sha256 = \"{hash}\"\n"))
            .expect("written");
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let config = DoorConfig {
            node: addr,
            max_connections: 1,
            access: Some(Arc::new(AccessBook::open(&tokens).expect("tokens"))),
            addresses: Arc::new(Addresses::new(ClientLimits::default())),
            slow_request: Duration::ZERO,
            tls: None,
            dial: None,
        };
        let door = Rc::new(Door::new(client, addr, &config, Arc::default(), 1));
        let peer = door.admit(addr).expect("there is room");
        Session::new(door, peer)
    }

    #[test]
    fn whoever_resets_has_as_long_as_a_newcomer_to_say_who_he_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = ServeConfig {
            data: directory.path().join("drive.lode"),
            size: 64 << 20,
            shards: Some(1),
            segment_bytes: Some(1 << 20),
            max_value_bytes: 64 << 10,
            memory_bytes: 64 << 20,
            listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
            pin: false,
            ..ServeConfig::default()
        };
        let node = start(config, &mut |_| {}).expect("a node");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let client =
                Client::connect(&node.addr.to_string(), ClientOptions::default()).await.expect("served");
            let mut session = session(client, directory.path()).await;
            let long_ago = Instant::now() - STRANGER_TIMEOUT - Duration::from_secs(1);
            session.stranger_since = long_ago;
            assert!(session.is_stranger_for_too_long());
            let begun = session.begin(vec![Bytes::from_static(b"RESET")]);
            assert!(matches!(begun, Begun::Told(Reply::Simple("RESET"))));
            assert!(!session.is_stranger_for_too_long(), "he has just become one");
            session.stranger_since = long_ago;
            assert!(session.is_stranger_for_too_long(), "and no longer than that");
        });
        node.stop();
    }
}
