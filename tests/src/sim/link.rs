//! A connection between a client and a shard: bytes arrive in order, late, and in pieces, until it ends.

use std::collections::VecDeque;

use lode_net::ring::SocketId;

/// Most bytes that a silent peer's side still takes.
const WINDOW_BYTES: usize = 64 << 10;

/// Names a connection for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

/// What comes at one end, in order.
#[derive(Debug)]
pub enum Arrival {
    /// Bytes.
    Bytes(Vec<u8>),
    /// The other end will send no more.
    End,
    /// The connection is broken.
    Reset,
}

/// What the node knows of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeEnd {
    /// Nothing yet: the first bytes find it made.
    Unaccepted,
    /// Its name for it.
    Open(SocketId),
    /// It has closed it, or is gone. What still arrives opens it no second time.
    Closed,
}

/// One connection.
pub struct Link {
    /// Whose.
    pub client: u32,
    /// Where it ends.
    pub shard: u16,
    /// The node's life that it is part of.
    pub run: u64,
    /// The node's end of it.
    pub node_end: NodeEnd,
    /// Nothing arrives any more, and nobody is told.
    pub silent: bool,
    /// What is on its way, and when it arrives.
    to_server: VecDeque<(u64, Arrival)>,
    to_client: VecDeque<(u64, Arrival)>,
    /// What the node sends and the network has not taken.
    sending: Vec<u8>,
    /// Bytes that a silent peer's side has taken.
    swallowed_bytes: usize,
}

impl Link {
    /// A connection about to be made.
    pub fn new(client: u32, shard: u16, run: u64) -> Link {
        Link {
            client,
            shard,
            run,
            node_end: NodeEnd::Unaccepted,
            silent: false,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            sending: Vec::new(),
            swallowed_bytes: 0,
        }
    }

    /// Something leaves the client, to arrive at this time at the earliest. Gives when it will.
    pub fn send_to_server(&mut self, at_ns: u64, arrival: Arrival) -> u64 {
        push(&mut self.to_server, at_ns, arrival)
    }

    /// Something leaves the node.
    pub fn send_to_client(&mut self, at_ns: u64, arrival: Arrival) -> u64 {
        push(&mut self.to_client, at_ns, arrival)
    }

    /// The last few things on their way to the node do not arrive.
    pub fn lose_to_server(&mut self, count: usize) {
        self.to_server.truncate(self.to_server.len().saturating_sub(count));
    }

    /// What has arrived at the node by now.
    pub fn at_server(&mut self, now_ns: u64) -> Option<Arrival> {
        pop(&mut self.to_server, now_ns).filter(|_| !self.silent)
    }

    /// What has arrived at the client by now.
    pub fn at_client(&mut self, now_ns: u64) -> Option<Arrival> {
        pop(&mut self.to_client, now_ns).filter(|_| !self.silent)
    }

    /// The node begins to send.
    pub fn begin_send(&mut self, bytes: Vec<u8>) {
        assert!(self.sending.is_empty(), "one send at a time");
        self.sending = bytes;
    }

    /// The network takes up to `most` bytes of the send under way: gives them, and whether they are the last.
    pub fn take_sending(&mut self, most: usize) -> Option<(Vec<u8>, bool)> {
        let most = if self.silent { most.min(WINDOW_BYTES - self.swallowed_bytes) } else { most };
        if self.sending.is_empty() || most == 0 {
            return None;
        }
        let rest = self.sending.split_off(most.min(self.sending.len()));
        let taken = std::mem::replace(&mut self.sending, rest);
        if self.silent {
            self.swallowed_bytes += taken.len();
        }
        Some((taken, self.sending.is_empty()))
    }
}

fn push(queue: &mut VecDeque<(u64, Arrival)>, at_ns: u64, arrival: Arrival) -> u64 {
    let at_ns = queue.back().map_or(at_ns, |(last, _)| at_ns.max(*last));
    queue.push_back((at_ns, arrival));
    at_ns
}

fn pop(queue: &mut VecDeque<(u64, Arrival)>, now_ns: u64) -> Option<Arrival> {
    queue.front().filter(|(at_ns, _)| *at_ns <= now_ns)?;
    queue.pop_front().map(|(_, arrival)| arrival)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overtakes_and_nothing_comes_early() {
        let mut link = Link::new(1, 0, 1);
        assert_eq!(link.send_to_server(50, Arrival::Bytes(vec![1])), 50);
        assert_eq!(link.send_to_server(10, Arrival::Bytes(vec![2])), 50);
        assert!(link.at_server(49).is_none());
        for expected in [1, 2] {
            assert!(matches!(link.at_server(50), Some(Arrival::Bytes(bytes)) if bytes == [expected]));
        }
        assert!(link.at_server(99).is_none());
    }

    #[test]
    fn a_silent_peer_takes_a_window_and_no_more() {
        let mut link = Link::new(1, 0, 1);
        link.begin_send(vec![0; WINDOW_BYTES + 1]);
        link.silent = true;
        let (taken, last) = link.take_sending(usize::MAX).expect("a window");
        assert_eq!((taken.len(), last), (WINDOW_BYTES, false));
        assert!(link.take_sending(usize::MAX).is_none());
    }
}
