//! The bytes that hostile clients send, made once.

use lode_net::client::connection::Connection;
use lode_net::wire::{Condition, MapVersion, RequestId, RequestView, Ttl};

use crate::draw::Dice;
use crate::options::DataOptions;
use crate::run::{PrepareError, Ready};

/// Large values, which the deaf ask for.
pub const LARGE_VALUES: u64 = 64;
/// Bytes of each.
pub const LARGE_BYTES: u32 = 1 << 20;
/// Requests that a deaf client sends at once.
const READS: u64 = 64;
/// Bytes of a large request's value.
const HALF_BYTES: usize = 1_000_000;
/// Garbage is cut out of so many random bytes.
const GARBAGE_BYTES: usize = 128 << 10;

/// The bytes that hostile clients send.
pub struct Arms {
    /// A handshake.
    pub hello: Vec<u8>,
    /// A handshake, and a large request.
    pub put: Vec<u8>,
    /// A handshake, and a small request.
    pub get: Vec<u8>,
    /// Requests for large values.
    pub reads: Vec<u8>,
    /// Random bytes.
    pub garbage: Vec<u8>,
}

impl Arms {
    /// Against the node that holds these large values.
    pub fn make(large: &Ready, data: &DataOptions) -> Result<Arms, PrepareError> {
        let (_, routes) = large.open(data, 1)?;
        let mut key = Vec::new();
        let mut dice = Dice::new(data.seed());
        let hello = Connection::<()>::new("hostile", 0, MapVersion(0)).output().to_vec();
        let mut reads = Vec::new();
        for place in 0..READS {
            data.keys().write(place % LARGE_VALUES, &mut key);
            let target = routes.find(0, &key).target;
            append(&RequestView::Get { target, key: &key }, place + 2, &mut reads);
        }
        let target = routes.find(0, &key).target;
        let value = vec![7; HALF_BYTES];
        let (condition, ttl) = (Condition::Always, Ttl::Table);
        let (mut put, mut get) = (hello.clone(), hello.clone());
        append(&RequestView::Put { target, key: &key, value: &value, condition, ttl }, 2, &mut put);
        append(&RequestView::Get { target, key: &key }, 2, &mut get);
        let garbage = (0..GARBAGE_BYTES).map(|_| dice.roll() as u8).collect();
        Ok(Arms { hello, put, get, reads, garbage })
    }
}

fn append(request: &RequestView<'_>, id: u64, out: &mut Vec<u8>) {
    request.encode(RequestId(id), MapVersion(0), out).expect("keys and values are within the limits");
}
