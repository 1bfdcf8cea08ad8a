//! What one client may take: connections, and requests a second. A client is a token, an address, or both.
//!
//! Rates by the generic cell rate algorithm (ITU-T I.371): one number a client, which all shards share.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

/// So much of a rate may be saved up, in nanoseconds.
const BURST_NS: u64 = 1_000_000_000;

/// What is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MeterError {
    /// Of requests.
    #[error("this {of} may make {per_s} requests a second; wait")]
    Rate {
        /// Whose limit it is.
        of: Metered,
        /// The limit.
        per_s: u64,
        /// The same may pass after so long.
        wait: Duration,
    },
}

/// Whose limit it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metered {
    /// A token's.
    Token,
    /// An address's.
    Address,
}

impl std::fmt::Display for Metered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Metered::Token => "token",
            Metered::Address => "address",
        })
    }
}

/// What a client may take; nothing is said where it may take any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientLimits {
    /// Connections at a time.
    pub connections: Option<u32>,
    /// Requests a second.
    pub requests_per_s: Option<u64>,
}

/// What a client has taken.
#[derive(Debug)]
pub struct Meter {
    of: Metered,
    /// The most connections.
    most: AtomicU32,
    /// Requests a second; 0 for any number.
    per_s: AtomicU64,
    connections: AtomicU32,
    /// When the next request would be due, if all came at their rate, in nanoseconds.
    due_ns: AtomicU64,
}

/// A clock that all threads of this process share, in nanoseconds.
fn now_ns() -> u64 {
    static BEGUN: OnceLock<Instant> = OnceLock::new();
    BEGUN.get_or_init(Instant::now).elapsed().as_nanos() as u64
}

impl Meter {
    /// Of a client that has taken nothing.
    pub fn new(of: Metered, limits: ClientLimits) -> Meter {
        let meter = Meter {
            of,
            most: AtomicU32::default(),
            per_s: AtomicU64::default(),
            connections: AtomicU32::new(0),
            due_ns: AtomicU64::new(0),
        };
        meter.limit(limits);
        meter
    }

    /// From here on it may take this. Connections beyond it that are open go on.
    pub fn limit(&self, limits: ClientLimits) {
        self.most.store(limits.connections.unwrap_or(u32::MAX), Ordering::Relaxed);
        self.per_s.store(limits.requests_per_s.unwrap_or(0), Ordering::Relaxed);
    }

    /// One more connection, if there may be one.
    pub fn connect(&self) -> bool {
        let most = self.most.load(Ordering::Relaxed);
        let more = |now: u32| (now < most).then_some(now + 1);
        self.connections.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// One less.
    pub fn disconnect(&self) {
        let before = self.connections.fetch_sub(1, Ordering::Relaxed);
        assert!(before > 0, "no connection ends that did not begin");
    }

    /// Connections now.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Relaxed)
    }

    /// One more request, if there may be one now.
    #[inline]
    pub fn request(&self) -> Result<(), MeterError> {
        match self.per_s.load(Ordering::Relaxed) {
            0 => Ok(()),
            per_s => self.request_at(per_s, now_ns()),
        }
    }

    fn request_at(&self, per_s: u64, now_ns: u64) -> Result<(), MeterError> {
        // Above a thousand million a second there is nothing to measure.
        let each_ns = 1_000_000_000 / per_s.max(1);
        let mut wait_ns = 0;
        let next = |due_ns: u64| {
            let begun_ns = due_ns.max(now_ns);
            let after_ns = begun_ns + each_ns;
            wait_ns = after_ns.saturating_sub(now_ns + BURST_NS.max(each_ns));
            (wait_ns == 0).then_some(after_ns)
        };
        match self.due_ns.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(_) => Err(MeterError::Rate { of: self.of, per_s, wait: Duration::from_nanos(wait_ns) }),
        }
    }
}

/// The clients of a node by their addresses: those that have connections now.
#[derive(Debug)]
pub struct Addresses {
    limits: ClientLimits,
    meters: Mutex<HashMap<IpAddr, Arc<Meter>>>,
}

impl Addresses {
    /// Nobody yet; each of them may take this.
    pub fn new(limits: ClientLimits) -> Addresses {
        Addresses { limits, meters: Mutex::default() }
    }

    /// Whether there is any limit to keep.
    pub fn is_limited(&self) -> bool {
        self.limits != ClientLimits::default()
    }

    /// A connection from this address; nothing where it has as many as it may.
    pub fn connect(&self, ip: IpAddr) -> Option<Arc<Meter>> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Arc::new(Meter::new(Metered::Address, self.limits));
        let meter = meters.entry(client_of(ip)).or_insert_with(new);
        meter.connect().then(|| Arc::clone(meter))
    }

    /// A connection from this address has ended.
    pub fn disconnect(&self, ip: IpAddr) {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client_of(ip);
        let Some(meter) = meters.get(&client) else { return };
        meter.disconnect();
        // A rate that was used up is remembered as long as it counts.
        let is_rested = meter.due_ns.load(Ordering::Relaxed) <= now_ns();
        if meter.connections() == 0 && (is_rested || meters.len() > MAX_RESTING) {
            meters.remove(&client);
        }
        if meters.len() > MAX_RESTING {
            meters.retain(|_, meter| meter.connections() > 0);
        }
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Addresses without connections that are remembered for their rates.
const MAX_RESTING: usize = 16_384;

/// Whoever has one address of IPv6 has all that begin with the same 64 bits.
fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(connections: Option<u32>, requests_per_s: Option<u64>) -> Meter {
        Meter::new(Metered::Token, ClientLimits { connections, requests_per_s })
    }

    #[test]
    fn connections_at_the_limit_and_none_above() {
        let meter = meter(Some(2), None);
        assert_eq!([meter.connect(), meter.connect(), meter.connect()], [true, true, false]);
        meter.disconnect();
        assert_eq!([meter.connect(), meter.connect()], [true, false]);
        assert_eq!(meter.connections(), 2);
    }

    #[test]
    fn a_second_may_be_saved_up_and_no_more() {
        let meter = meter(None, Some(100));
        let hour_ns = 3_600_000_000_000;
        let passed = (0..500).filter(|_| meter.request_at(100, hour_ns).is_ok()).count();
        assert_eq!(passed, 100);
        let refused = meter.request_at(100, hour_ns).unwrap_err();
        assert_eq!(
            refused,
            MeterError::Rate { of: Metered::Token, per_s: 100, wait: Duration::from_millis(10) }
        );
        assert!(meter.request_at(100, hour_ns + 9_999_999).is_err(), "just below");
        assert!(meter.request_at(100, hour_ns + 10_000_000).is_ok(), "just then");
        // A steady rate at the limit passes for ever; twice of it passes half.
        let mut passed = 0;
        for at in 0..2000u64 {
            passed += u32::from(meter.request_at(100, hour_ns + 10_000_000 + at * 5_000_000).is_ok());
        }
        assert!((995..=1005).contains(&passed), "{passed}");
    }

    #[test]
    fn one_request_a_second_passes_once() {
        let meter = meter(None, Some(1));
        assert!(meter.request_at(1, 5).is_ok() && meter.request_at(1, 6).is_err());
        assert!(meter.request_at(1, 1_000_000_004).is_err() && meter.request_at(1, 1_000_000_005).is_ok());
    }

    #[test]
    fn addresses_are_counted_apart_and_forgotten() {
        let addresses = Addresses::new(ClientLimits { connections: Some(1), requests_per_s: None });
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(addresses.connect(of("10.0.0.1")).is_some() && addresses.connect(of("10.0.0.1")).is_none());
        assert!(addresses.connect(of("::ffff:10.0.0.1")).is_none(), "the same in another form");
        assert!(addresses.connect(of("10.0.0.2")).is_some());
        assert!(
            addresses.connect(of("2001:db8::1")).is_some() && addresses.connect(of("2001:db8::2")).is_none()
        );
        assert!(addresses.connect(of("2001:db8:0:1::1")).is_some());
        for ip in ["10.0.0.1", "10.0.0.2", "2001:db8::2", "2001:db8:0:1::1"] {
            addresses.disconnect(of(ip));
        }
        assert!(addresses.is_empty());
    }
}
