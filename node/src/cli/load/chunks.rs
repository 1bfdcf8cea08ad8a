//! Cuts an input into chunks, on a thread of its own, so that reading files and waiting for the node overlap.

use std::thread;

use tokio::sync::mpsc;

use lode_node::input::{self, InputError, InputOptions, InputRecord, Position};

/// Most records of a chunk: a chunk of tiny rows must not take long either.
const MAX_CHUNK_RECORDS: usize = 16_384;
/// Chunks that are read ahead.
const READ_AHEAD_CHUNKS: usize = 2;

/// A run of records, and where the input goes on behind them.
#[derive(Debug)]
pub struct Chunk {
    /// In order of the input.
    pub records: Vec<InputRecord>,
    /// Everything before it has been given out.
    pub end: Position,
    /// What was left out in between, as messages.
    pub skipped: Vec<String>,
    /// The cap was met: there is more in the input, and it is not given out.
    pub capped: bool,
}

/// How an input is cut.
#[derive(Debug, Clone)]
pub struct ChunkOptions {
    /// Bytes of keys and values at which a chunk is closed.
    pub chunk_bytes: u64,
    /// Leave out bad records; without it the first one ends the reading.
    pub skip_bad: bool,
    /// No more than this is given out.
    pub cap: Cap,
}

/// How much of an input is taken.
#[derive(Debug, Clone, Copy)]
pub struct Cap {
    /// Most records.
    pub records: u64,
    /// Most bytes of keys and values.
    pub bytes: u64,
}

impl Cap {
    /// All of it.
    pub const NONE: Cap = Cap { records: u64::MAX, bytes: u64::MAX };
}

/// Reads an input from a position, chunk by chunk. The thread ends with the input, with the first error, or when
/// the receiver is dropped.
pub fn read(
    input: &InputOptions,
    from: &Position,
    options: ChunkOptions,
) -> Result<mpsc::Receiver<Result<Chunk, InputError>>, InputError> {
    let mut reader = input::open(input, from)?;
    let (sender, receiver) = mpsc::channel(READ_AHEAD_CHUNKS);
    thread::spawn(move || {
        let mut left = options.cap;
        loop {
            let chunk = next_chunk(reader.as_mut(), &options, &mut left);
            let last = !matches!(&chunk, Ok(Some(chunk)) if !chunk.capped);
            let Some(chunk) = chunk.transpose() else { return };
            if sender.blocking_send(chunk).is_err() || last {
                return;
            }
        }
    });
    Ok(receiver)
}

fn next_chunk(
    reader: &mut dyn input::Reader,
    options: &ChunkOptions,
    left: &mut Cap,
) -> Result<Option<Chunk>, InputError> {
    let mut chunk = Chunk { records: Vec::new(), end: Position::Start, skipped: Vec::new(), capped: false };
    let mut bytes = 0;
    while bytes < options.chunk_bytes && chunk.records.len() < MAX_CHUNK_RECORDS {
        match reader.next() {
            None => break,
            Some(Ok(record)) => {
                let len = (record.key.len() + record.value.len()) as u64;
                if left.records == 0 || left.bytes < len {
                    chunk.capped = true;
                    break;
                }
                left.records -= 1;
                left.bytes -= len;
                bytes += len;
                chunk.records.push(record);
            }
            Some(Err(error @ InputError::Bad { .. })) if options.skip_bad => {
                chunk.skipped.push(error.to_string());
            }
            Some(Err(error)) => return Err(error),
        }
    }
    chunk.end = reader.position();
    let empty = chunk.records.is_empty() && chunk.skipped.is_empty() && !chunk.capped;
    Ok((!empty).then_some(chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Numbers(u64);

    impl input::Reader for Numbers {
        fn next(&mut self) -> Option<Result<InputRecord, InputError>> {
            self.0 += 1;
            let bad = || InputError::Bad { source_name: "7".into(), reason: input::BadRecord::EmptyKey };
            match self.0 {
                7 => Some(Err(bad())),
                21.. => None,
                number => {
                    let key = format!("{number:02}").into_bytes();
                    Some(Ok(InputRecord { key, value: vec![1; 8], input_bytes: 10 }))
                }
            }
        }

        fn position(&self) -> Position {
            Position::Line { offset: self.0 * 10, line: self.0 + 1 }
        }
    }

    fn options(skip_bad: bool, cap: Cap) -> ChunkOptions {
        ChunkOptions { chunk_bytes: 50, skip_bad, cap }
    }

    #[test]
    fn chunks_cover_the_input_once() {
        let (mut reader, mut left) = (Numbers(0), Cap::NONE);
        let (mut keys, mut skipped) = (Vec::new(), 0);
        while let Some(chunk) = next_chunk(&mut reader, &options(true, left), &mut left).unwrap() {
            assert!(chunk.records.len() <= 5);
            skipped += chunk.skipped.len();
            keys.extend(chunk.records.into_iter().map(|record| record.key));
        }
        assert_eq!((keys.len(), skipped), (19, 1));
        assert!(keys.is_sorted());
    }

    #[test]
    fn a_bad_record_ends_it_unless_left_out() {
        let (mut reader, mut left) = (Numbers(0), Cap::NONE);
        assert_eq!(
            next_chunk(&mut reader, &options(false, left), &mut left).unwrap().unwrap().records.len(),
            5
        );
        assert!(matches!(
            next_chunk(&mut reader, &options(false, left), &mut left),
            Err(InputError::Bad { .. })
        ));
    }

    #[test]
    fn the_cap_is_kept_and_told() {
        for cap in [Cap { records: 3, bytes: 1000 }, Cap { records: 100, bytes: 39 }] {
            let (mut reader, mut left) = (Numbers(0), cap);
            let chunk = next_chunk(&mut reader, &options(true, cap), &mut left).unwrap().unwrap();
            assert_eq!((chunk.records.len(), chunk.capped), (3, true));
        }
    }
}
