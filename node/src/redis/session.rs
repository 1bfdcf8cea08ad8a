//! One connection's commands: what each needs to wait for, and what it does.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use ahash::RandomState;
use bytes::Bytes;
use lode_net::resp::{Protocol, Reply};

use super::commands::{Command, Does, OfSession};
use super::door::{Door, FIRST_TABLE, Peer, Tally};
use super::refusal::Refusal;
use super::server;
use super::store::{Table, time_in_transaction};
use super::transaction::{Queue, Queued, Watched, exec, watch};

/// A command on its way.
pub type Work = Pin<Box<dyn Future<Output = Reply>>>;

/// Which other commands of its connection a command may not meet on the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Those of the same keys, unless both only read; keys by their hash.
    Keys { hashes: Vec<u64>, writes: bool },
    /// Any.
    Alone,
}

impl Access {
    /// Of what asks nothing that another could change.
    const NONE: Access = Access::Keys { hashes: Vec::new(), writes: false };

    /// Whether one must be done before the other begins.
    pub fn conflicts(&self, other: &Access) -> bool {
        let (Access::Keys { hashes, writes }, Access::Keys { hashes: others, writes: other_writes }) =
            (self, other)
        else {
            return true;
        };
        (*writes || *other_writes) && hashes.iter().any(|hash| others.contains(hash))
    }
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
    Work(Access, Work),
    /// It is done alone, and the next request is taken in when it is done: it may mean another table then.
    Settles(Work),
}

/// What a connection remembers between its commands.
pub struct Session {
    door: Rc<Door>,
    peer: Rc<Peer>,
    queue: Option<Queue>,
    watched: Rc<RefCell<Vec<Watched>>>,
    hasher: RandomState,
}

impl Session {
    pub fn new(door: Rc<Door>, peer: Rc<Peer>) -> Session {
        Session { door, peer, queue: None, watched: Rc::default(), hasher: RandomState::new() }
    }

    /// The version that replies are told in from now on.
    pub fn protocol(&self) -> Protocol {
        self.peer.protocol.get()
    }

    /// Takes a request in.
    pub fn begin(&mut self, args: Vec<Bytes>) -> Begun {
        Tally::count(&self.door.tally.commands);
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
        match command.does {
            Does::Session(of) if is_control(of) => self.control(of, args),
            _ if self.queue.is_some() => self.enqueue(command, &args),
            _ => self.now(command, args),
        }
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
        Table { client: self.door.client.clone(), name: self.peer.table.borrow().clone() }
    }

    fn access<'a>(&self, table: &Table, keys: impl IntoIterator<Item = &'a Bytes>, writes: bool) -> Access {
        let hashes = keys.into_iter().map(|key| self.hasher.hash_one((&*table.name, &key[..]))).collect();
        Access::Keys { hashes, writes }
    }

    /// A command outside of MULTI.
    fn now(&mut self, command: &Command, args: Vec<Bytes>) -> Begun {
        let table = self.table();
        match command.does {
            Does::Key(read) => match read(&args) {
                Ok(op) => {
                    let key = args[1].clone();
                    let access = self.access(&table, [&key], op.writes());
                    work(access, async move { table.on_key(&key, &op).await })
                }
                Err(refusal) => Begun::Told(refusal.into()),
            },
            Does::Keys(read) => match read(&args) {
                Ok(op) => {
                    let access = self.access(&table, op.keys(), op.writes());
                    work(access, async move { op.carry_out(&table).await })
                }
                Err(refusal) => Begun::Told(refusal.into()),
            },
            Does::Table(read) => match read(&args) {
                Ok(op) => {
                    let door = self.door.clone();
                    let random = door.random();
                    work(Access::Alone, async move { op.carry_out(&table, &door.cursors, random).await })
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
            OfSession::Hello => server::hello(peer, args),
            OfSession::Auth => server::auth(args),
            other => Err(Refusal::new(format_args!("{other:?} cannot be answered at once"))),
        }
    }

    /// Keeps a command for EXEC.
    fn enqueue(&mut self, command: &Command, args: &[Bytes]) -> Begun {
        let bytes = args.iter().map(Bytes::len).sum();
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
                OfSession::Select | OfSession::Info | OfSession::Hello | OfSession::Auth | OfSession::Client,
            ) => Err(not_within(command)),
            Does::Session(of) => Ok(Queued::Told(self.answer(of, args).unwrap_or_else(Reply::from))),
        };
        let queue = self.queue.get_or_insert_default();
        match queued.and_then(|queued| queue.push(queued, bytes)) {
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
            OfSession::Exec => self.exec(),
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
                work(Access::Alone, async move { watch(&table, &args[1..], &watched).await })
            }
            OfSession::Unwatch => {
                // Within MULTI it has no effect: EXEC forgets what was watched anyway.
                if let Some(queue) = &mut self.queue {
                    let queued = queue.push(Queued::Told(Reply::OK), 0).map(|()| Reply::Simple("QUEUED"));
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
                *self.peer.table.borrow_mut() = FIRST_TABLE.into();
                Begun::Told(Reply::Simple("RESET"))
            }
            _ => Begun::Last(Reply::OK),
        }
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
        work(Access::Alone, async move {
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
        work(Access::NONE, async move {
            // A table that is not there has no keys.
            let keys = door.client.count(FIRST_TABLE, b"", None).await.unwrap_or(0);
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

fn work(access: Access, does: impl Future<Output = Result<Reply, Refusal>> + 'static) -> Begun {
    Begun::Work(access, boxed(does))
}

fn boxed(does: impl Future<Output = Result<Reply, Refusal>> + 'static) -> Work {
    Box::pin(async move { does.await.unwrap_or_else(Reply::from) })
}
