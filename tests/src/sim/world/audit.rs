//! The last look: all that there is, when nothing goes wrong any more.

use super::super::plan::MS;
use super::super::work::Ask;
use super::{REST_NS, Season, World};

/// How often what a read of all that there is was refused is asked again, and the time between.
const MOST_AUDITS: u32 = 200;
const BETWEEN_AUDITS_NS: u64 = 20 * MS;

impl World<'_> {
    /// Reads all that there is; whatever is refused for now is asked again.
    pub(super) fn audit(&mut self) -> Result<(), String> {
        self.to_do = self.everything();
        for _ in 0..MOST_AUDITS {
            let before = self.history.count();
            self.season(Season::Audit, REST_NS)?;
            let put_off = self.history.put_off_since(before);
            if put_off.is_empty() || self.damage.is_told {
                return Ok(());
            }
            let until_ns = self.now_ns + BETWEEN_AUDITS_NS;
            while self.now_ns < until_ns {
                self.step();
            }
            self.to_do = put_off;
        }
        Err(format!("though nothing goes wrong any more, these are never answered: {:?}", self.to_do))
    }

    /// Reads of all that there is; counters tell where they are by being counted up by nothing.
    fn everything(&self) -> Vec<Ask> {
        let gets = self.keys.registers().into_iter().map(|key| Ask::Get { key });
        let counters = self.keys.counters().into_iter().map(|key| Ask::Increment { key, by: 0 });
        let counts = self.keys.ranges().into_iter().map(|(first, beyond)| Ask::Count { first, beyond });
        let lists = self.keys.lists().into_iter().map(|list| Ask::ReadList { list });
        gets.chain(counters).chain(counts).chain(lists).chain([Ask::Audit]).collect()
    }
}
