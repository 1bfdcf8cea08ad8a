//! Quotas: what a partition may take of its node in a second, kept as one number a rate and looked at only when it
//! is asked for something.
//!
//! The number is when all that was spent would have come in at the rate: a virtual scheduling algorithm (ITU-T
//! I.371, the generic cell rate algorithm), in which nothing has to be refilled.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use lode_engine::Quota;
use lode_net::wire::{Frame, Opcode, PartitionId};

const SECOND_NS: u128 = 1_000_000_000;

/// What has been spent of one rate.
#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    /// Until when what was spent will have taken, at the rate.
    until_ns: u64,
    /// The rate, as it was last time; 0 is no limit.
    per_s: u64,
}

impl Bucket {
    /// The rate may have been changed: what was spent stays the same amount, and takes another time.
    fn set_rate(&mut self, per_s: u64, now_ns: u64) {
        if per_s == self.per_s {
            return;
        }
        let spent = u128::from(self.until_ns.saturating_sub(now_ns)) * u128::from(self.per_s) / SECOND_NS;
        self.until_ns = now_ns.saturating_add(takes_ns(u64::try_from(spent).unwrap_or(u64::MAX), per_s));
        self.per_s = per_s;
    }

    /// How long to wait before `amount` may be spent; zero: it may be now. What is more than the whole burst may be
    /// when nothing has been spent.
    fn wait_ns(&self, amount: u64, burst_ns: u64, now_ns: u64) -> u64 {
        let spent_ns = self.until_ns.saturating_sub(now_ns);
        (spent_ns + takes_ns(amount, self.per_s).min(burst_ns)).saturating_sub(burst_ns)
    }

    fn spend(&mut self, amount: u64, now_ns: u64) {
        self.until_ns = self.until_ns.max(now_ns).saturating_add(takes_ns(amount, self.per_s));
    }
}

/// How long so much takes to come in; a rate of 0 is no limit.
fn takes_ns(amount: u64, per_s: u64) -> u64 {
    match per_s {
        0 => 0,
        _ => u64::try_from((u128::from(amount) * SECOND_NS).div_ceil(u128::from(per_s))).unwrap_or(u64::MAX),
    }
}

/// What a request asks of a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Requests that it counts as.
    requests: u64,
    /// Bytes that it writes.
    write_bytes: u64,
    /// Whether its answer has bytes that count.
    reads: bool,
}

impl Demand {
    /// Of a request's frame; one that makes no sense counts as one request.
    pub fn of(frame: &Frame<'_>) -> Demand {
        let (opcode, body) = (Opcode::from_u8(frame.header.opcode), frame.body());
        let write = |requests: u64| Demand { requests, write_bytes: body.len() as u64, reads: false };
        let writes_at = |at: usize| match body.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(count) => u64::from(u32::from_le_bytes(*count)).max(1),
            None => 1,
        };
        match opcode {
            Some(Opcode::Begin | Opcode::Rollback) => Demand::default(),
            Some(Opcode::Batch) => write(writes_at(0)),
            Some(Opcode::Commit) => write(writes_at(8)),
            Some(Opcode::Put | Opcode::Delete | Opcode::Increment | Opcode::Expire) => write(1),
            _ => Demand { requests: 1, write_bytes: 0, reads: true },
        }
    }
}

/// The rate that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rate {
    Requests,
    ReadBytes,
    WriteBytes,
}

/// A request is above its partition's quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    rate: Rate,
    per_s: u64,
    /// When the same may pass, if nothing else does before.
    pub retry_after: Duration,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.rate {
            Rate::Requests => "requests",
            Rate::ReadBytes => "bytes read",
            Rate::WriteBytes => "bytes written",
        };
        let (per_s, ms) = (self.per_s, self.retry_after.as_secs_f64() * 1e3);
        write!(
            f,
            "the partition is above its quota of {per_s} {what} a second; try again in {ms:.1} ms, or raise the quota"
        )
    }
}

#[derive(Debug, Default)]
struct Spent {
    requests: Bucket,
    read_bytes: Bucket,
    write_bytes: Bucket,
}

impl Spent {
    fn set_rates(&mut self, quota: &Quota, now_ns: u64) {
        self.requests.set_rate(quota.requests_per_s, now_ns);
        self.read_bytes.set_rate(quota.read_bytes_per_s, now_ns);
        self.write_bytes.set_rate(quota.write_bytes_per_s, now_ns);
    }
}

/// What partitions with limits have spent of late.
#[derive(Debug)]
pub struct Throttle {
    spent: HashMap<PartitionId, Spent, ahash::RandomState>,
}

impl Default for Throttle {
    fn default() -> Throttle {
        // Fixed seeds: the node itself gives the ids, so nobody can choose them to collide.
        Throttle { spent: HashMap::with_hasher(ahash::RandomState::with_seeds(1, 2, 3, 4)) }
    }
}

impl Throttle {
    /// Whether a partition may have what is asked for; if so, it has been spent but for what is read.
    pub fn take(
        &mut self,
        partition: PartitionId,
        quota: &Quota,
        demand: Demand,
        now_ns: u64,
    ) -> Result<(), Throttled> {
        if !has_limits(quota) || demand == Demand::default() {
            return Ok(());
        }
        let spent = self.spent_of(partition, quota, now_ns);
        let burst_ns = u64::from(quota.burst_ms) * 1_000_000;
        // Of a read nothing is known yet: it may pass while anything of the burst is left.
        let reads = u64::from(demand.reads);
        let rates = [
            (Rate::Requests, &spent.requests, demand.requests),
            (Rate::ReadBytes, &spent.read_bytes, reads),
            (Rate::WriteBytes, &spent.write_bytes, demand.write_bytes),
        ];
        let asked = rates.into_iter().filter(|(_, _, amount)| *amount > 0);
        let waits = asked
            .map(|(rate, bucket, amount)| (bucket.wait_ns(amount, burst_ns, now_ns), rate, bucket.per_s));
        if let Some((wait_ns, rate, per_s)) = waits.max_by_key(|(wait_ns, ..)| *wait_ns)
            && wait_ns > 0
        {
            // In whole microseconds, as it travels: no earlier than it may.
            let retry_after = Duration::from_micros(wait_ns.div_ceil(1000));
            return Err(Throttled { rate, per_s, retry_after });
        }
        spent.requests.spend(demand.requests, now_ns);
        spent.write_bytes.spend(demand.write_bytes, now_ns);
        Ok(())
    }

    /// A read of a partition has been answered with so many bytes.
    pub fn read(&mut self, partition: PartitionId, quota: &Quota, bytes: u64, now_ns: u64) {
        if quota.read_bytes_per_s > 0 && bytes > 0 {
            self.spent_of(partition, quota, now_ns).read_bytes.spend(bytes, now_ns);
        }
    }

    /// A write of a partition has written so many bytes more than it brought.
    pub fn rewritten(&mut self, partition: PartitionId, quota: &Quota, bytes: u64, now_ns: u64) {
        if quota.write_bytes_per_s > 0 && bytes > 0 {
            self.spent_of(partition, quota, now_ns).write_bytes.spend(bytes, now_ns);
        }
    }

    fn spent_of(&mut self, partition: PartitionId, quota: &Quota, now_ns: u64) -> &mut Spent {
        let spent = self.spent.entry(partition).or_default();
        spent.set_rates(quota, now_ns);
        spent
    }

    /// The quotas are others now: what was spent of one that has no limits any more is forgotten.
    pub fn retain(&mut self, quota_of: impl Fn(PartitionId) -> Quota) {
        self.spent.retain(|partition, _| has_limits(&quota_of(*partition)));
    }
}

fn has_limits(quota: &Quota) -> bool {
    quota.requests_per_s > 0 || quota.read_bytes_per_s > 0 || quota.write_bytes_per_s > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = SECOND_NS as u64;
    const PARTITION: PartitionId = PartitionId(7);

    fn write(bytes: u64) -> Demand {
        Demand { requests: 1, write_bytes: bytes, reads: false }
    }

    const READ: Demand = Demand { requests: 1, write_bytes: 0, reads: true };

    fn quota(requests_per_s: u64, burst_ms: u32) -> Quota {
        Quota { requests_per_s, burst_ms, ..Quota::default() }
    }

    /// How many of so many pass at one moment.
    fn passed(throttle: &mut Throttle, quota: &Quota, demand: Demand, asked: u32, now_ns: u64) -> usize {
        (0..asked).filter(|_| throttle.take(PARTITION, quota, demand, now_ns).is_ok()).count()
    }

    #[test]
    fn a_second_lets_through_the_rate_and_the_first_one_the_burst_too() {
        let quota = quota(100, 500);
        let mut throttle = Throttle::default();
        assert_eq!(passed(&mut throttle, &quota, READ, 1000, 0), 50, "the burst, and no more");
        let mut through = 0;
        for ms in 1..=1000 {
            through += passed(&mut throttle, &quota, READ, 10, ms * 1_000_000);
        }
        assert_eq!(through, 100);
        // However long nothing was asked, no more than the burst is saved up.
        assert_eq!(passed(&mut throttle, &quota, READ, 1000, 1000 * SECOND), 50);
    }

    #[test]
    fn at_the_limit_all_pass_and_just_above_one_does_not() {
        for (gap_ns, expected) in [(10_000_000, 500), (9_900_000, 495)] {
            let quota = quota(100, 30);
            let mut throttle = Throttle::default();
            let through: usize =
                (0..500).map(|n| passed(&mut throttle, &quota, READ, 1, SECOND + n * gap_ns)).sum();
            assert!(through.abs_diff(expected) <= 3, "{through} of 500 each {gap_ns} ns");
        }
    }

    #[test]
    fn whoever_waits_as_long_as_he_is_told_passes_and_no_sooner() {
        let quota = quota(3, 1);
        let mut throttle = Throttle::default();
        let mut now_ns = SECOND;
        assert_eq!(throttle.take(PARTITION, &quota, READ, now_ns), Ok(()));
        for _ in 0..100 {
            let refused = throttle.take(PARTITION, &quota, READ, now_ns).expect_err("at once");
            let wait_ns = refused.retry_after.as_nanos() as u64;
            assert!((333_000_000..=333_334_000).contains(&wait_ns), "{wait_ns}");
            assert!(refused.to_string().contains("3 requests a second"), "{refused}");
            assert!(throttle.take(PARTITION, &quota, READ, now_ns + wait_ns - 2000).is_err());
            now_ns += wait_ns;
            assert_eq!(throttle.take(PARTITION, &quota, READ, now_ns), Ok(()));
        }
    }

    #[test]
    fn what_is_larger_than_the_burst_passes_when_nothing_is_spent_and_is_paid_for_afterwards() {
        let quota = Quota { write_bytes_per_s: 1000, burst_ms: 100, ..Quota::default() };
        let mut throttle = Throttle::default();
        assert_eq!(throttle.take(PARTITION, &quota, write(5000), SECOND), Ok(()));
        let refused =
            throttle.take(PARTITION, &quota, write(100), 2 * SECOND).expect_err("four seconds to go");
        assert_eq!(refused.retry_after, Duration::from_secs(4));
        assert_eq!(throttle.take(PARTITION, &quota, write(100), 6 * SECOND), Ok(()));
        assert!(throttle.take(PARTITION, &quota, READ, 6 * SECOND).is_ok(), "reads are not limited");
    }

    #[test]
    fn bytes_that_were_read_count_against_what_comes_after() {
        let quota = Quota { read_bytes_per_s: 1 << 20, burst_ms: 1000, ..Quota::default() };
        let mut throttle = Throttle::default();
        assert_eq!(passed(&mut throttle, &quota, READ, 100, 0), 100, "nothing is known of them yet");
        throttle.read(PARTITION, &quota, 3 << 20, 0);
        let refused = throttle.take(PARTITION, &quota, READ, 0).expect_err("three seconds were spent");
        assert!(refused.retry_after.as_micros().abs_diff(2_000_000) <= 1, "{refused:?}");
        assert!(throttle.take(PARTITION, &quota, write(1 << 20), 0).is_ok(), "writes are not limited");
        assert!(throttle.take(PARTITION, &quota, READ, 2 * SECOND + 1000).is_ok());
    }

    #[test]
    fn a_quota_changed_live_counts_at_once_and_without_limits_nothing_is_kept() {
        let mut throttle = Throttle::default();
        assert_eq!(passed(&mut throttle, &quota(1, 1000), READ, 10, 0), 1);
        assert_eq!(passed(&mut throttle, &quota(1000, 2000), READ, 10_000, SECOND), 2000);
        // A debt is an amount: at a thousand times the rate it takes a thousandth of the time, without a rate none.
        let slow = Quota { write_bytes_per_s: 1, ..Quota::default() };
        assert!(throttle.take(PARTITION, &slow, write(500), SECOND).is_ok());
        let refused = throttle.take(PARTITION, &slow, write(1), SECOND).expect_err("500 seconds are spent");
        assert_eq!(refused.retry_after, Duration::from_secs(500));
        let raised = Quota { write_bytes_per_s: 1000, burst_ms: 1, ..slow };
        let refused = throttle.take(PARTITION, &raised, write(1), SECOND).expect_err("half a second is");
        assert_eq!(refused.retry_after, Duration::from_millis(500));
        let other = Quota { requests_per_s: 1_000_000, ..Quota::default() };
        assert!(
            throttle.take(PARTITION, &other, write(1), SECOND).is_ok(),
            "writes are not limited any more"
        );
        throttle.retain(|_| Quota::default());
        assert!(throttle.spent.is_empty());
        assert_eq!(passed(&mut throttle, &Quota::default(), READ, 10, SECOND), 10);
        assert!(throttle.spent.is_empty(), "partitions without limits take no memory");
    }

    #[test]
    fn a_rate_as_high_as_it_may_be_and_a_burst_as_long_are_no_trouble() {
        let (most, burst_ms) = (lode_engine::limits::MAX_QUOTA_PER_S, lode_engine::limits::MAX_BURST_MS);
        let quota = Quota { requests_per_s: most, write_bytes_per_s: 1, burst_ms, ..Quota::default() };
        let mut throttle = Throttle::default();
        assert!(throttle.take(PARTITION, &quota, write(u64::from(u32::MAX)), 0).is_ok());
        assert!(throttle.take(PARTITION, &quota, write(1), SECOND).is_err());
    }
}
