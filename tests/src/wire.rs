//! One connection by hand: for what no good client does.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lode_net::client::Token;
use lode_net::client::connection::{Connection, ConnectionError, Event, OwnedReply};
use lode_net::wire::control::HelloReply;
use lode_net::wire::{MapVersion, PartitionMap, RequestView};

/// Longest wait for anything, so that a test ends; twice what the protocol gives a silent peer.
const PATIENCE: Duration = Duration::from_secs(75);

/// A connection that asks one thing at a time, and sends bytes as they are.
pub struct Wire {
    /// The socket.
    pub stream: TcpStream,
    /// What the node said to Hello.
    pub hello: HelloReply,
    connection: Connection<()>,
}

/// A socket to this address that does not wait for ever.
pub fn socket(addr: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(addr).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    stream.set_nodelay(true).expect("a socket takes this option");
    stream
}

impl Wire {
    /// Connects and shakes hands.
    pub fn open(addr: SocketAddr) -> Wire {
        Wire::try_open(addr).expect("Hello is granted")
    }

    /// Connects and shakes hands, and gives the node's refusal where it refuses.
    pub fn try_open(addr: SocketAddr) -> Result<Wire, ConnectionError> {
        Wire::try_open_as(addr, None)
    }

    /// The same for whoever has this token.
    pub fn try_open_as(addr: SocketAddr, token: Option<&Token>) -> Result<Wire, ConnectionError> {
        let mut stream = socket(addr);
        let mut connection: Connection<()> = Connection::with_token(token, "lode-tests", 0, MapVersion(0));
        stream.write_all(connection.output()).expect("a Hello is taken");
        let sent = connection.output().len();
        connection.consume_output(sent);
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = stream.read(&mut buffer).expect("a Hello is answered");
            assert!(count > 0, "the node closed the connection after Hello without a word");
            let mut input = &buffer[..count];
            if let Some(Event::Opened(hello)) = connection.next_event(&mut input)? {
                return Ok(Wire { stream, hello: *hello, connection });
            }
        }
    }

    /// Connects to the port of one shard.
    pub fn open_shard(addr: SocketAddr, shard: u16) -> Wire {
        Wire::try_open_shard(addr, shard).expect("Hello is granted")
    }

    /// The same, and gives the node's refusal where it refuses.
    pub fn try_open_shard(addr: SocketAddr, shard: u16) -> Result<Wire, ConnectionError> {
        let any = Wire::try_open(addr)?;
        let of_shard = any.hello.shards.iter().find(|s| s.shard == shard).expect("there is such a shard");
        let wire = Wire::try_open(SocketAddr::new(addr.ip(), of_shard.port))?;
        assert_eq!(wire.hello.shard, shard, "a shard's own port leads to it");
        Ok(wire)
    }

    /// The partition map that came with Hello.
    pub fn map(&self) -> PartitionMap {
        PartitionMap::new(self.hello.map.clone().expect("a new client gets the map"))
            .expect("the map is sound")
    }

    /// The bytes of a request, not sent.
    pub fn encode(&mut self, request: &RequestView<'_>) -> Vec<u8> {
        self.connection.submit(request, ()).expect("the request can be encoded");
        let bytes = self.connection.output().to_vec();
        self.connection.consume_output(bytes.len());
        bytes
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &RequestView<'_>) -> OwnedReply {
        let bytes = self.encode(request);
        self.stream.write_all(&bytes).expect("the node takes requests");
        self.answer()
    }

    /// Waits for one answer.
    pub fn answer(&mut self) -> OwnedReply {
        let mut buffer = vec![0; 1 << 20];
        loop {
            let count = self.stream.read(&mut buffer).expect("the node answers");
            assert!(count > 0, "the node closed the connection");
            let mut input = &buffer[..count];
            match self.connection.next_event(&mut input).expect("the node speaks the protocol") {
                Some(Event::Reply { reply, .. }) => return reply.into_owned(),
                Some(Event::Opened(_)) | None => {}
            }
        }
    }
}

/// Whether the node ends this connection, whatever it says before.
pub fn is_closed_by_node(stream: &mut TcpStream) -> bool {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => {
                let reset = [io::ErrorKind::ConnectionReset, io::ErrorKind::BrokenPipe];
                return reset.contains(&error.kind());
            }
        }
    }
}
