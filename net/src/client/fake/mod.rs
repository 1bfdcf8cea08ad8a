//! A node for the client's tests: std threads, a map in memory, the real server side of the protocol, and
//! tricks on demand.

mod serve;

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::wire::control::{
    MapBody, MapPartition, MapTable, NodeLimits, Placement, ShardAddress, Store, TableInfo, TableList,
};
use crate::wire::map::PartitionMap;
use crate::wire::{NodeInfo, Opcode, PublishedMap, Seq, TableId};

/// What the node does with a request, other than serve it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trick {
    /// Nothing odd.
    Serve,
    /// Never answer.
    Swallow,
    /// Close the connection before it takes place.
    HangUp,
    /// Close the connection after it took place, unanswered.
    ServeAndHangUp,
    /// Answer `Busy`.
    Busy,
    /// Serve it at once, but answer after the next request's answer.
    AnswerLate,
}

/// Records of all tables: version and value by table and key.
pub(crate) type Records = BTreeMap<(TableId, Vec<u8>), (Seq, Vec<u8>)>;

pub(crate) struct State {
    pub(crate) records: Records,
    pub(crate) map: Arc<PublishedMap>,
    pub(crate) info: Arc<NodeInfo>,
    /// Tricks for the coming requests of an opcode, each used once.
    pub(crate) tricks: Vec<(Opcode, VecDeque<Trick>)>,
    /// Requests served, by opcode byte; Hello not counted.
    pub(crate) served: BTreeMap<u8, u64>,
    /// Connections accepted, by shard.
    pub(crate) accepted: Vec<u64>,
    /// Answers to Hello with `NotReady` still to come.
    pub(crate) not_ready: u32,
    clock: u64,
    next_id: u32,
    sockets: Vec<TcpStream>,
}

impl State {
    /// Does this trick for the next request of this opcode.
    pub(crate) fn trick(&mut self, opcode: Opcode, trick: Trick) {
        match self.tricks.iter_mut().find(|(o, _)| *o == opcode) {
            Some((_, queue)) => queue.push_back(trick),
            None => self.tricks.push((opcode, VecDeque::from([trick]))),
        }
    }

    fn next_trick(&mut self, opcode: Opcode) -> Trick {
        let queue = self.tricks.iter_mut().find(|(o, _)| *o == opcode);
        queue.and_then(|(_, queue)| queue.pop_front()).unwrap_or(Trick::Serve)
    }

    pub(crate) fn served(&self, opcode: Opcode) -> u64 {
        self.served.get(&(opcode as u8)).copied().unwrap_or(0)
    }

    fn next_seq(&mut self) -> Seq {
        self.clock += 1;
        Seq { wall_ns: self.clock, counter: 0, node: 1 }
    }

    pub(crate) fn create(&mut self, name: &str, placement: &Placement, store: Store) -> TableInfo {
        let mut body = self.map.map.to_body();
        let id = self.next_id;
        let shards = self.info.shards.len() as u32;
        body.tables.push(MapTable { id, name: name.into(), store, placement: placement.kind() });
        for (start, end) in placement.ranges().expect("tests place well") {
            self.next_id += 1;
            let shard = (self.next_id % shards) as u16;
            body.partitions.push(MapPartition { id: self.next_id, table: id, epoch: 1, shard, start, end });
        }
        self.next_id += 1;
        self.publish(body);
        self.tables().tables.into_iter().find(|t| t.name == name).expect("just made")
    }

    pub(crate) fn publish(&mut self, mut body: MapBody) {
        body.version += 1;
        self.map = Arc::new(PublishedMap::new(body).expect("tests make good maps"));
    }

    /// Gives every partition the next epoch, so that all that clients know is stale.
    pub(crate) fn bump_epochs(&mut self) {
        let mut body = self.map.map.to_body();
        body.partitions.iter_mut().for_each(|p| p.epoch += 1);
        self.publish(body);
    }

    pub(crate) fn tables(&self) -> TableList {
        let info = |t: &crate::wire::map::TableRoutes| TableInfo {
            id: t.id.0,
            name: t.name.clone(),
            store: t.store,
            placement: t.placement,
            partitions: t.partitions().len() as u32,
            records: self.records.keys().filter(|(table, _)| *table == t.id).count() as u64,
            bytes: 0,
        };
        TableList { tables: self.map.map.tables().iter().map(info).collect() }
    }
}

/// A running node; stops when dropped.
pub(crate) struct FakeNode {
    pub(crate) addr: SocketAddr,
    state: Arc<Mutex<State>>,
    stopping: Arc<AtomicBool>,
    listeners: Vec<SocketAddr>,
    threads: Vec<JoinHandle<()>>,
}

impl FakeNode {
    pub(crate) fn start(shards: u16) -> FakeNode {
        FakeNode::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), shards, 1, Records::new(), None)
    }

    /// Starts at an address, with what an earlier run left.
    pub(crate) fn start_at(
        addr: SocketAddr,
        shards: u16,
        incarnation: u64,
        records: Records,
        map: Option<MapBody>,
    ) -> FakeNode {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let shared = TcpListener::bind(addr).expect("the address is free");
        let addr = shared.local_addr().expect("bound");
        let own: Vec<TcpListener> =
            (0..shards).map(|_| TcpListener::bind(any).expect("a port is free")).collect();
        let port = |l: &TcpListener| l.local_addr().expect("bound").port();
        let shards = own.iter().enumerate().map(|(s, l)| ShardAddress { shard: s as u16, port: port(l) });
        let info = NodeInfo {
            name: "fake".into(),
            incarnation,
            shards: shards.collect(),
            limits: NodeLimits::default(),
        };
        let map = map.unwrap_or(MapBody { version: 1, ..MapBody::default() });
        let next_id = map.partitions.iter().map(|p| p.id).max().unwrap_or(0) + 1;
        let state = Arc::new(Mutex::new(State {
            records,
            map: Arc::new(PublishedMap::new(map).expect("tests make good maps")),
            accepted: vec![0; info.shards.len()],
            info: Arc::new(info),
            tricks: Vec::new(),
            served: BTreeMap::new(),
            not_ready: 0,
            clock: 1_000_000 * incarnation,
            next_id,
            sockets: Vec::new(),
        }));
        let stopping = Arc::new(AtomicBool::new(false));
        let mut node = FakeNode { addr, state, stopping, listeners: Vec::new(), threads: Vec::new() };
        let listeners = own.into_iter().enumerate().map(|(s, l)| (s as u16, l)).chain([(0, shared)]);
        for (shard, listener) in listeners {
            node.listeners.push(listener.local_addr().expect("bound"));
            let (state, stopping) = (node.state.clone(), node.stopping.clone());
            node.threads.push(std::thread::spawn(move || accept(listener, shard, state, stopping)));
        }
        node
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with the lock held")
    }

    pub(crate) fn map(&self) -> PartitionMap {
        self.state().map.map.clone()
    }

    /// Closes every connection, and goes on listening.
    pub(crate) fn hang_up_on_all(&self) {
        for socket in self.state().sockets.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Stops, and starts again at the same address as another run: other ports of the shards, same records.
    pub(crate) fn restart(self) -> FakeNode {
        let (addr, shards) = (self.addr, self.state().info.shards.len() as u16);
        let incarnation = self.state().info.incarnation + 1;
        let records = std::mem::take(&mut self.state().records);
        let mut map = self.map().to_body();
        map.version = 1;
        drop(self);
        FakeNode::start_at(addr, shards, incarnation, records, Some(map))
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        for listener in &self.listeners {
            let _ = TcpStream::connect(listener);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Ok(mut state) = self.state.lock() {
            for socket in state.sockets.drain(..) {
                let _ = socket.shutdown(Shutdown::Both);
            }
        }
    }
}

fn accept(listener: TcpListener, shard: u16, state: Arc<Mutex<State>>, stopping: Arc<AtomicBool>) {
    let started = Instant::now();
    for stream in listener.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let mut locked = state.lock().expect("no test panics with the lock held");
        locked.sockets.push(stream.try_clone().expect("a socket can be cloned"));
        locked.accepted[usize::from(shard)] += 1;
        drop(locked);
        let state = state.clone();
        std::thread::spawn(move || serve::connection(stream, shard, &state, started));
    }
}
