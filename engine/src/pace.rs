//! The pace of cleaning: so much of a victim is read as users' writes make necessary, and no more.

/// Most bytes that may be saved up: an hour without need does not become a burst.
const MOST_SAVED_BYTES: i64 = 512 << 10;
/// Work at the lowest free space is so many times what keeps it even; half way to the goal it is half of that.
const FULL_SPEED: f64 = 2.0;

/// What cleaning may read, in bytes.
#[derive(Debug, Default)]
pub struct Pace {
    allowance_bytes: i64,
    /// Bytes of user frames when the allowance was last raised.
    seen_bytes: u64,
}

/// What the pace depends on.
#[derive(Debug, Clone, Copy)]
pub struct Need {
    /// Bytes of user frames so far.
    pub user_frame_bytes: u64,
    /// Segments that are free beyond those that users' writes may not take.
    pub free: u32,
    /// As many as there should be.
    pub goal: u32,
    /// Bytes to read of the victim for a byte that it gives back.
    pub work_per_byte: f64,
    /// No user's write is under way: the drive has time.
    pub is_quiet: bool,
}

impl Pace {
    /// Raises the allowance by what users have written since the last call.
    pub fn earn(&mut self, need: Need, chunk_bytes: u32) {
        let grown = need.user_frame_bytes - self.seen_bytes;
        self.seen_bytes = need.user_frame_bytes;
        let lack = f64::from(need.goal.saturating_sub(need.free)) / f64::from(need.goal.max(1));
        let earned = grown as f64 * need.work_per_byte * lack * FULL_SPEED;
        self.allowance_bytes = (self.allowance_bytes + earned as i64).min(MOST_SAVED_BYTES);
        if need.free == 0 || need.is_quiet {
            // Writes would wait for a segment, or do not wait for the drive.
            self.allowance_bytes = self.allowance_bytes.max(i64::from(chunk_bytes));
        }
    }

    /// Whether more may be read now.
    pub fn may_read(&self) -> bool {
        self.allowance_bytes > 0
    }

    /// So much was read.
    pub fn spend(&mut self, bytes: u64) {
        self.allowance_bytes -= bytes as i64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(free: u32, work_per_byte: f64) -> i64 {
        let mut pace = Pace::default();
        let mut read = 0;
        for written in 1..=1000u64 {
            let user_frame_bytes = written * 10_000;
            pace.earn(Need { user_frame_bytes, free, goal: 10, work_per_byte, is_quiet: false }, 4096);
            while pace.may_read() {
                pace.spend(4096);
                read += 4096;
            }
        }
        read
    }

    #[test]
    fn half_way_to_the_goal_it_gives_back_what_users_write() {
        let even = 10_000_000 * 4;
        assert!((work(5, 4.0) - even).abs() < even / 100, "{}", work(5, 4.0));
        assert_eq!(work(10, 4.0), 0, "at the goal");
        assert!(work(2, 4.0) > even * 3 / 2 && work(9, 4.0) < even / 4);
    }

    #[test]
    fn what_is_saved_up_is_bounded_and_need_knows_no_bound() {
        let mut pace = Pace::default();
        let user_frame_bytes = 1 << 40;
        let mut need = Need { user_frame_bytes, free: 1, goal: 10, work_per_byte: 9.0, is_quiet: false };
        pace.earn(need, 4096);
        assert_eq!(pace.allowance_bytes, MOST_SAVED_BYTES);
        pace.spend(10 << 20);
        pace.earn(need, 4096);
        assert!(!pace.may_read(), "what was read too much is made up for");
        need.free = 0;
        pace.earn(need, 4096);
        assert!(pace.may_read());
    }
}
