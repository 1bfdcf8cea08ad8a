//! The floor's server on glommio, the reactor that lode's own was measured against when it was chosen: a block of the drive read for
//! each small request over TCP, and part of it sent back, on one thread.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::io::{DmaFile, ReadResult};
use glommio::net::{TcpListener, TcpStream};
use glommio::{GlommioError, LocalExecutorBuilder, Placement, Task};
use lode_bench::floor;
use lode_net::ring::echo::{EchoLoad, HEAD_BYTES, REQUEST_BYTES};
use lode_net::ring::floor::FloorReport;
use rustix::time::{ClockId, clock_gettime};

use crate::engines::Failure;

const BLOCK_BYTES: usize = 4096;
/// As many requests may be in its ring as are in flight, and some for the sockets.
const RING_DEPTH: usize = 512;

/// Runs the server and the clients of [`floor::echo`], each in a thread of its own.
pub fn echo(path: &Path, load: &EchoLoad) -> Result<FloorReport, Failure> {
    // Or the server would wait for clients that never come.
    floor::check(path, load)?;
    let (tell, told): (Sender<SocketAddr>, Receiver<SocketAddr>) = channel();
    let (file, served) = (path.to_owned(), *load);
    let server = thread::spawn(move || serve(file, served, tell));
    let asked = match told.recv() {
        Ok(addr) => floor::ask(addr, path, load),
        // It has ended, and says why.
        Err(_) => Ok(FloorReport::default()),
    };
    let cpu_us = server.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok(FloorReport { cpu_us, ..asked? })
}

/// Serves as many connections as will come, until they end; tells the CPU time in microseconds.
fn serve(path: PathBuf, load: EchoLoad, tell: Sender<SocketAddr>) -> Result<f64, Failure> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .ring_depth(RING_DEPTH)
        .make()
        .map_err(|error| error.to_string())?;
    let before_us = thread_cpu_us();
    executor.run(accept(path, load, tell)).map_err(|error| error.to_string())?;
    Ok(thread_cpu_us() - before_us)
}

async fn accept(path: PathBuf, load: EchoLoad, tell: Sender<SocketAddr>) -> Result<(), GlommioError<()>> {
    let file = Rc::new(DmaFile::open(&path).await?);
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    // Whoever asks waits for it.
    let _ = tell.send(listener.local_addr()?);
    let mut clients = Vec::new();
    for _ in 0..load.connections {
        let stream = listener.accept().await?;
        stream.set_nodelay(true)?;
        clients.push(glommio::spawn_local(answer_all(stream, Rc::clone(&file), load.reply_bytes)));
    }
    for client in clients {
        client.await?;
    }
    Ok(())
}

/// Answers one connection until it ends: all requests that have come at once, with their reads side by side.
async fn answer_all(mut stream: TcpStream, file: Rc<DmaFile>, reply_bytes: usize) -> io::Result<()> {
    let mut requests = vec![0; REQUEST_BYTES * RING_DEPTH];
    let mut kept = 0;
    loop {
        let come = stream.read(&mut requests[kept..]).await?;
        if come == 0 {
            return Ok(());
        }
        kept += come;
        let whole = kept - kept % REQUEST_BYTES;
        let reads: Vec<_> =
            requests[..whole].chunks_exact(REQUEST_BYTES).map(|request| read(&file, request)).collect();
        let mut replies = Vec::with_capacity(reads.len() * reply_bytes);
        for (number, read) in reads {
            let block = read.await?;
            replies.extend_from_slice(&number);
            replies.resize(replies.len() + HEAD_BYTES - number.len(), 0);
            replies.extend_from_slice(&block[..reply_bytes - HEAD_BYTES]);
        }
        stream.write_all(&replies).await?;
        requests.copy_within(whole..kept, 0);
        kept -= whole;
    }
}

/// The number that a request is told apart by, and the task that reads its block.
fn read(file: &Rc<DmaFile>, request: &[u8]) -> ([u8; 8], Task<Result<ReadResult, GlommioError<()>>>) {
    let word = |at: usize| request[at..at + 8].try_into().expect("a request has two words");
    let (block, file) = (u64::from_le_bytes(word(0)), Rc::clone(file));
    let at = block * BLOCK_BYTES as u64;
    (word(8), glommio::spawn_local(async move { file.read_at_aligned(at, BLOCK_BYTES).await }))
}

fn thread_cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_request_is_answered_with_its_block() {
        let home = tempfile::tempdir().expect("a directory");
        let file = home.path().join("drive");
        std::fs::write(&file, vec![7; 1 << 20]).expect("room");
        for (connections, depth) in [(1, 1), (3, 5)] {
            let time = Duration::from_millis(60);
            let load = EchoLoad { connections, depth, reply_bytes: 1040, spin: Duration::ZERO, time };
            let report = echo(&file, &load).expect("measured");
            assert!(report.operations >= (connections * depth) as u64, "{report:?}");
            assert!(report.cpu_us > 0.0);
        }
    }

    #[test]
    fn a_file_that_is_not_there_is_told() {
        let load = EchoLoad {
            connections: 1,
            depth: 1,
            reply_bytes: 1040,
            spin: Duration::ZERO,
            time: Duration::from_millis(1),
        };
        let told = echo(Path::new("/nowhere/drive"), &load).expect_err("no such file");
        assert!(told.to_string().contains("/nowhere/drive"), "{told}");
    }
}
