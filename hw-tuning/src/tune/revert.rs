//! Making the machine as it was.

use super::apply::{read, set};
use super::journal::{Entry, Journal};
use super::store::Store;
use super::{Attempt, Done, Outcome, TuneError, same};
use crate::change::Write;
use crate::probe::Probe;

/// Restore everything in the journal, the last change first, and end the journal if all of it is restored.
pub fn revert(probe: &Probe, store: &mut impl Store, journal: Journal) -> Result<Done, TuneError> {
    let boot = probe.boot_id();
    let restore = |store: &mut _, entry: &Entry| {
        let current = read(probe, store, &entry.place);
        let from = current.clone().unwrap_or_default();
        let outcome = restore(probe, store, entry, current, &boot);
        let Entry { knob, place, old, .. } = entry.clone();
        Attempt { knob, place, from, to: old, outcome }
    };
    let attempts = journal.entries().iter().rev().map(|entry| restore(store, entry)).collect();
    let done = Done { attempts };
    if done.is_well() {
        journal.close(store)?;
    }
    Ok(done)
}

fn restore(
    probe: &Probe,
    store: &mut impl Store,
    entry: &Entry,
    current: Result<String, String>,
    boot: &Option<String>,
) -> Outcome {
    if entry.boot != *boot && !entry.place.stays() {
        let Entry { place, old, .. } = entry;
        let why = format!(
            "the machine has booted since, and the disk has neither a serial number nor a PCI function by which it would be known, so that \
             another may have its name now: where {place} is to be {old} again, write it by hand"
        );
        return Outcome::Left { why };
    }
    if entry.place.path(probe).is_none() {
        return Outcome::Left { why: format!("{} is not there, and its settings went with it", entry.place) };
    }
    let current = match current {
        Ok(current) => current,
        Err(why) => return Outcome::Failed { why },
    };
    if same(&entry.place, &current, &entry.old) {
        return Outcome::AlreadySo;
    }
    let ours = entry.wrote.as_ref().is_some_and(|wrote| same(&entry.place, wrote, &current));
    if entry.boot != *boot && !ours {
        let why = format!("the machine has booted since, and {current:?} is not what lode-tune wrote");
        return Outcome::Left { why };
    }
    set(probe, store, &Write::at(entry.place.clone(), entry.old.clone()))
}
