//! The ring against a real kernel: files in a temporary directory, sockets on 127.0.0.1:0.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::*;

const ALL: [Allowed; 3] = [
    Allowed { task_run: TaskRun::Deferred, multishot: true, registered: true },
    Allowed { task_run: TaskRun::Cooperative, multishot: true, registered: false },
    Allowed { task_run: TaskRun::Interrupting, multishot: false, registered: false },
];
/// A test that waits longer than this has lost something.
const PATIENCE: Duration = Duration::from_secs(20);

fn ring(allowed: Allowed) -> Ring {
    Ring::new(RingConfig {
        slab_bytes: 4 << 20,
        chunks: 8,
        chunk_bytes: 4096,
        allowed,
        ..RingConfig::default()
    })
    .expect("a ring")
}

fn drive_file() -> File {
    let path = std::env::temp_dir().join(format!(
        "lode-ring-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let file =
        File::options().read(true).write(true).create(true).truncate(true).open(&path).expect("a file");
    std::fs::remove_file(&path).expect("unlinked");
    file
}

/// Runs the ring until `done` says so; panics when nothing comes of it.
fn run_until(ring: &mut Ring, mut done: impl FnMut(&mut Ring, Event) -> bool) {
    let begun = Instant::now();
    let mut events = Vec::new();
    loop {
        ring.submit_and_wait(Duration::from_millis(50));
        ring.take_events(&mut events);
        let mut finished = false;
        for event in events.drain(..) {
            finished |= done(ring, event);
        }
        if finished {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "nothing more happens");
    }
}

fn await_drive(ring: &mut Ring, wanted: u64) -> Result<(), i32> {
    let mut outcome = Ok(());
    run_until(ring, |_, event| match event {
        Event::Drive { token, result } if token == wanted => {
            outcome = result;
            true
        }
        _ => false,
    });
    outcome
}

#[test]
fn what_is_written_is_read_back() {
    for allowed in ALL {
        let mut ring = ring(allowed);
        ring.attach_drive(drive_file().into());
        assert_eq!(ring.features().registered_drive, allowed.registered);
        // One buffer in registered memory, and one beyond it.
        for (token, len) in [(1u64, 4096usize), (2, 300 * 1024)] {
            let at = token * (1 << 20);
            let buffer = ring.slab_mut().acquire(len).expect("a buffer");
            ring.slab_mut().bytes_mut(buffer)[..len]
                .iter_mut()
                .enumerate()
                .for_each(|(n, byte)| *byte = n as u8);
            ring.write(token, buffer, len as u32, at, true);
            assert_eq!(await_drive(&mut ring, token), Ok(()));
            ring.flush(token);
            assert_eq!(await_drive(&mut ring, token), Ok(()));
            ring.slab_mut().bytes_mut(buffer).fill(0);
            ring.read(token, buffer, len as u32, at);
            assert_eq!(await_drive(&mut ring, token), Ok(()));
            assert!(ring.slab().bytes(buffer)[..len].iter().enumerate().all(|(n, byte)| *byte == n as u8));
            ring.slab_mut().release(buffer);
        }
    }
}

#[test]
fn a_read_beyond_the_end_fails_and_the_buffer_comes_back() {
    let mut ring = ring(Allowed::default());
    ring.attach_drive(drive_file().into());
    let buffer = ring.slab_mut().acquire(4096).expect("a buffer");
    ring.read(7, buffer, 4096, 1 << 30);
    assert_eq!(await_drive(&mut ring, 7), Err(libc::EIO));
    ring.slab_mut().release(buffer);
    assert_eq!(ring.slab().free_bytes(), ring.slab().total_bytes());
}

#[test]
#[should_panic(expected = "is the kernel's")]
fn bytes_in_flight_cannot_be_had() {
    let mut ring = ring(Allowed::default());
    ring.attach_drive(drive_file().into());
    let buffer = ring.slab_mut().acquire(4096).expect("a buffer");
    ring.read(7, buffer, 4096, 0);
    ring.slab().bytes(buffer);
}

/// Echoes everything until every one of `connections` has ended.
fn echo(ring: &mut Ring, connections: usize) {
    let mut open = 0;
    let mut closed = 0;
    let mut backlog: std::collections::HashMap<SocketId, (Vec<u8>, bool, bool)> = Default::default();
    run_until(ring, |ring, event| {
        let touched = match event {
            Event::Accepted { socket, .. } => {
                open += 1;
                backlog.insert(socket, (Vec::new(), false, false));
                ring.receive(socket);
                None
            }
            Event::Received { socket, chunk } => {
                let bytes = ring.chunks().bytes(&chunk).to_vec();
                ring.recycle(chunk);
                backlog.get_mut(&socket).expect("open").0.extend(bytes);
                Some(socket)
            }
            Event::ReceiveEnded { socket, os_error } => {
                assert_eq!(os_error, None);
                backlog.get_mut(&socket).expect("open").2 = true;
                Some(socket)
            }
            Event::Sent { socket, result, .. } => {
                assert_eq!(result, Ok(()));
                backlog.get_mut(&socket).expect("open").1 = false;
                Some(socket)
            }
            Event::Closed { .. } => {
                closed += 1;
                None
            }
            Event::SentPart { .. } => None,
            other => panic!("unexpected {other:?}"),
        };
        if let Some(socket) = touched {
            let (bytes, sending, ended) = backlog.get_mut(&socket).expect("open");
            if !*sending && !bytes.is_empty() {
                let mut outgoing = Outgoing::default();
                let (head, tail) = bytes.split_at(bytes.len() / 2);
                outgoing.push_copy(head);
                outgoing.push_shared(tail.to_vec().into());
                bytes.clear();
                *sending = true;
                ring.send(socket, outgoing);
            } else if !*sending && *ended {
                ring.close(socket);
            }
        }
        open == connections && closed == connections
    });
}

/// Clients of a ring that echoes: each must get back what it sent, in order.
fn echo_to_clients(ring: &mut Ring, clients: u32, words: u32) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    ring.listen(listener.into());
    // More bytes in flight than the ring has chunks for: receives starve, and go on.
    let clients: Vec<_> = (0..clients)
        .map(|client| {
            std::thread::spawn(move || {
                let mut stream = TcpStream::connect(address).expect("connected");
                let sent: Vec<u8> =
                    (0..words).flat_map(|n| (n.wrapping_mul(client | 1)).to_le_bytes()).collect();
                let mut writer = stream.try_clone().expect("cloned");
                let copy = sent.clone();
                let writing = std::thread::spawn(move || {
                    writer.write_all(&copy).expect("sent");
                    writer.shutdown(Shutdown::Write).expect("ended");
                });
                // What comes back piles up first, so that sends are done in part.
                std::thread::sleep(Duration::from_millis(50));
                let mut got = Vec::new();
                stream.read_to_end(&mut got).expect("received");
                writing.join().expect("written");
                assert!(got == sent, "client {client} got other bytes than it sent");
            })
        })
        .collect();
    echo(ring, clients.len());
    clients.into_iter().for_each(|client| client.join().expect("a client"));
}

#[test]
fn an_echo_server_returns_every_byte_to_every_client() {
    for allowed in ALL {
        let mut ring = ring(allowed);
        assert_eq!(ring.features().multishot_receive, allowed.multishot);
        echo_to_clients(&mut ring, 6, 50_000);
    }
}

#[test]
fn with_a_full_submission_queue_events_still_come_in_order() {
    for allowed in ALL {
        let config = RingConfig {
            entries: 1,
            slab_bytes: 4 << 20,
            chunks: 64,
            chunk_bytes: 4096,
            allowed,
            ..RingConfig::default()
        };
        echo_to_clients(&mut Ring::new(config).expect("a ring"), 12, 2_000_000);
    }
}

/// A ring with one accepted connection, and its peer.
fn connected(allowed: Allowed) -> (Ring, SocketId, TcpStream) {
    let mut ring = ring(allowed);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    ring.listen(listener.into());
    let peer = TcpStream::connect(address).expect("connected");
    let mut accepted = None;
    run_until(&mut ring, |_, event| {
        if let Event::Accepted { socket, .. } = event {
            accepted = Some(socket);
        }
        accepted.is_some()
    });
    (ring, accepted.expect("accepted"), peer)
}

#[test]
fn a_send_from_slab_buffers_arrives_whole_and_gives_them_back() {
    let (mut ring, socket, mut peer) = connected(Allowed::default());
    let mut expected = Vec::new();
    let mut outgoing = Outgoing::default();
    for n in 0..2u8 {
        let buffer = ring.slab_mut().acquire(1 << 20).expect("a buffer");
        ring.slab_mut().bytes_mut(buffer).fill(n);
        outgoing.push_copy(&[b'h', n]);
        outgoing.push_buffer(buffer, 10, 1_000_000);
        expected.extend([b'h', n]);
        expected.extend(std::iter::repeat_n(n, 1_000_000));
    }
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        peer.read_to_end(&mut got).expect("received");
        got
    });
    ring.send(socket, outgoing);
    run_until(&mut ring, |_, event| matches!(event, Event::Sent { result: Ok(()), .. }));
    assert_eq!(ring.slab().free_bytes(), ring.slab().total_bytes());
    ring.close(socket);
    run_until(&mut ring, |_, event| matches!(event, Event::Closed { .. }));
    assert!(reader.join().expect("read") == expected);
}

#[test]
fn closing_ends_a_send_that_nobody_reads() {
    let (mut ring, socket, peer) = connected(Allowed::default());
    let buffer = ring.slab_mut().acquire(1 << 20).expect("a buffer");
    let mut outgoing = Outgoing::default();
    outgoing.push_buffer(buffer, 0, 1 << 20);
    outgoing.push_shared(vec![0; 32 << 20].into());
    ring.receive(socket);
    ring.send(socket, outgoing);
    ring.submit();
    assert!(ring.slab().free_bytes() < ring.slab().total_bytes(), "the send is under way");
    ring.close(socket);
    let mut sent = None;
    run_until(&mut ring, |_, event| match event {
        Event::Sent { result, .. } => {
            sent = Some(result);
            false
        }
        Event::Closed { .. } => true,
        _ => false,
    });
    assert!(sent.expect("an end of the send before the socket's").is_err());
    assert_eq!(ring.slab().free_bytes(), ring.slab().total_bytes());
    drop(peer);
}

#[test]
fn receiving_can_be_stopped_and_started() {
    for allowed in ALL {
        let (mut ring, socket, mut peer) = connected(allowed);
        ring.receive(socket);
        ring.submit();
        ring.stop_receiving(socket);
        ring.submit();
        peer.write_all(b"later").expect("sent");
        ring.receive(socket);
        let mut got = Vec::new();
        run_until(&mut ring, |ring, event| {
            if let Event::Received { chunk, .. } = event {
                got.extend_from_slice(ring.chunks().bytes(&chunk));
                ring.recycle(chunk);
            }
            got == b"later"
        });
        ring.stop_receiving(socket);
        ring.close(socket);
        run_until(&mut ring, |_, event| matches!(event, Event::Closed { .. }));
    }
}

#[test]
fn another_thread_wakes_a_sleeper() {
    let mut ring = ring(Allowed::default());
    let waker = ring.waker();
    let (announced, told) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        told.recv().expect("announced");
        waker.wake();
    });
    ring.submit();
    let waker = ring.waker();
    waker.announce_sleep();
    announced.send(()).expect("heard");
    let before = ring.counters().completed;
    let mut events = Vec::new();
    let begun = Instant::now();
    while ring.counters().completed == before {
        ring.submit_and_wait(PATIENCE);
        ring.take_events(&mut events);
        assert!(begun.elapsed() < PATIENCE, "nobody woke the ring");
    }
    waker.awake();
    thread.join().expect("woken");
}

#[test]
fn a_ring_can_be_dropped_with_everything_in_flight() {
    for allowed in ALL {
        let (mut ring, socket, mut peer) = connected(allowed);
        ring.attach_drive(drive_file().into());
        peer.write_all(b"unread").expect("sent");
        ring.receive(socket);
        let mut outgoing = Outgoing::default();
        outgoing.push_shared(vec![1; 16 << 20].into());
        ring.send(socket, outgoing);
        for token in 0..16 {
            let buffer = ring.slab_mut().acquire(64 * 1024).expect("a buffer");
            ring.write(token, buffer, 64 * 1024, token * 64 * 1024, true);
        }
        ring.submit();
        drop(ring);
    }
}

#[test]
fn a_small_ring_carries_more_than_its_queues_hold() {
    for allowed in ALL {
        let config = RingConfig { entries: 2, slab_bytes: 4 << 20, allowed, ..RingConfig::default() };
        let mut ring = Ring::new(config).expect("a ring");
        ring.attach_drive(drive_file().into());
        let buffers: Vec<_> = (0..500).map(|_| ring.slab_mut().acquire(4096).expect("a block")).collect();
        for (token, buffer) in (0u64..).zip(&buffers) {
            ring.write(token, *buffer, 4096, token * 4096, false);
        }
        let mut ended = 0;
        run_until(&mut ring, |_, event| {
            ended += usize::from(matches!(event, Event::Drive { result: Ok(()), .. }));
            ended == buffers.len()
        });
    }
}
