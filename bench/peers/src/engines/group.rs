//! Group commit for engines that take one write at a time: what all threads want to write while one commit is on its way goes
//! into the next, as one transaction. An application that writes durably from many threads would do the same.

use std::sync::{Condvar, Mutex, MutexGuard};

use super::Failure;

/// A key and its value.
pub type Written = (Vec<u8>, Vec<u8>);

/// Those who wait to be committed.
#[derive(Debug, Default)]
pub struct Group {
    state: Mutex<State>,
    has_committed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Written>,
    /// Which commit those who wait will be in, counted from 0.
    next: u64,
    /// Commits that have ended.
    ended: u64,
    is_committing: bool,
    /// Why a commit failed; then all that follow do.
    failed: Option<String>,
}

impl Group {
    /// Waits until this record is committed: by `commit` of this thread, or of another's.
    pub fn put(
        &self,
        key: &[u8],
        value: &[u8],
        commit: impl Fn(&[Written]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let mut state = self.state();
        state.waiting.push((key.to_vec(), value.to_vec()));
        let own = state.next;
        while state.ended <= own {
            if state.is_committing {
                state = self.has_committed.wait(state).map_err(|_| "a commit panicked")?;
                continue;
            }
            state.is_committing = true;
            state.next += 1;
            let together = std::mem::take(&mut state.waiting);
            drop(state);
            let committed = commit(&together);
            state = self.state();
            state.is_committing = false;
            state.ended += 1;
            assert_eq!(state.ended, own + 1, "commits end one after the other");
            state.failed = state.failed.take().or(committed.err().map(|error| error.to_string()));
            self.has_committed.notify_all();
        }
        state.failed.clone().map_or(Ok(()), |error| Err(error.into()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn all_are_committed_and_many_together() {
        let (group, commits, records) = (Group::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..8u8 {
                let (group, commits, records) = (&group, &commits, &records);
                scope.spawn(move || {
                    for number in 0..50u8 {
                        let commit = |together: &[Written]| {
                            std::thread::sleep(Duration::from_millis(1));
                            commits.fetch_add(1, Ordering::Relaxed);
                            records.fetch_add(together.len(), Ordering::Relaxed);
                            Ok(())
                        };
                        group.put(&[thread], &[number], commit).unwrap();
                    }
                });
            }
        });
        assert_eq!(records.into_inner(), 400);
        assert!(commits.into_inner() < 400, "none waited for another's");
    }

    #[test]
    fn a_commit_that_fails_is_told() {
        let group = Group::default();
        assert!(
            group.put(b"k", b"v", |_| Err("no room".into())).unwrap_err().to_string().contains("no room")
        );
    }
}
