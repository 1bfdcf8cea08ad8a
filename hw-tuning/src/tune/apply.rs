//! Making the machine as wanted.

use std::collections::HashSet;

use super::journal::{Entry, Journal};
use super::store::Store;
use super::{Attempt, Done, Outcome, TuneError, explain, same, setting};
use crate::change::{Place, Write};
use crate::checks::{self, Context};
use crate::knob::Knob;
use crate::probe::{Probe, unread_hint};

/// Change everything that is short of what is wanted and can be changed while the machine runs, one knob after the
/// other, looking anew after each: one change may make another needless. An error means that a journal could not be
/// kept, and nothing was changed that it does not hold.
pub fn apply(cx: &Context, store: &mut impl Store, journal: &mut Journal) -> Result<Done, TuneError> {
    let mut tried = HashSet::new();
    let mut done = Done::default();
    loop {
        let knobs = checks::all(cx);
        let due = |knob: &&Knob| {
            knob.is_short()
                && !knob.change.writes.is_empty()
                && !tried.contains(&(knob.name, knob.target.clone()))
        };
        let Some(knob) = knobs.iter().find(due) else {
            return Ok(done);
        };
        tried.insert((knob.name, knob.target.clone()));
        change(cx, store, journal, knob, &mut done)?;
    }
}

/// Note the old values of all files of one knob, then write them.
fn change(
    cx: &Context,
    store: &mut impl Store,
    journal: &mut Journal,
    knob: &Knob,
    done: &mut Done,
) -> Result<(), TuneError> {
    let boot = cx.probe.boot_id();
    let mut notes: Vec<Entry> = Vec::new();
    let mut due = Vec::new();
    for write in &knob.change.writes {
        let attempt = |from: &str, outcome| Attempt {
            knob: knob.label(),
            place: write.place.clone(),
            from: from.to_owned(),
            to: write.value.clone(),
            outcome,
        };
        let current = match read(cx.probe, store, &write.place) {
            Ok(current) => current,
            Err(why) => {
                done.attempts.push(attempt("", Outcome::Failed { why }));
                continue;
            }
        };
        if same(&write.place, &current, &write.value) {
            continue;
        }
        // What the kernel moves along is noted first, so that it is restored last.
        for moved in &write.also_moves {
            if let Ok(current) = read(cx.probe, store, moved) {
                notes.extend(note(journal, knob, moved, &current, None, &boot));
            }
        }
        notes.extend(note(journal, knob, &write.place, &current, Some(&write.value), &boot));
        due.push((write, attempt(&current, Outcome::Done)));
    }
    journal.note(store, notes)?;
    for (write, mut attempt) in due {
        attempt.outcome = set(cx.probe, store, write);
        done.attempts.push(attempt);
    }
    Ok(())
}

/// The line for the journal, if it does not say so already. The oldest value stays, as long as what is there is what was
/// written: in another boot, something else may have set it since.
fn note(
    journal: &Journal,
    knob: &Knob,
    place: &Place,
    current: &str,
    wrote: Option<&str>,
    boot: &Option<String>,
) -> Option<Entry> {
    let wrote = wrote.map(str::to_owned);
    let known = journal.of(place).filter(|known| {
        let ours = known.wrote.as_ref().is_some_and(|wrote| same(place, wrote, current));
        // Under a name that does not stay, it may be another's.
        known.boot == *boot || ours && place.stays()
    });
    let entry = match known {
        Some(known) => Entry {
            old: known.old.clone(),
            wrote: wrote.or_else(|| known.wrote.clone()),
            boot: boot.clone(),
            ..known.clone()
        },
        None => Entry {
            knob: knob.label(),
            place: place.clone(),
            old: current.to_owned(),
            wrote,
            boot: boot.clone(),
        },
    };
    (known != Some(&entry)).then_some(entry)
}

/// What a place is set to.
pub(super) fn read(probe: &Probe, store: &impl Store, place: &Place) -> Result<String, String> {
    let path = place.path(probe).ok_or_else(|| format!("{place} is not there any more"))?;
    let unread = |error| format!("{place} cannot be read: {error}{}", unread_hint(&error));
    let text = store.read(&path).map_err(unread)?;
    Ok(setting(&text).to_owned())
}

/// Write, and read back.
pub(super) fn set(probe: &Probe, store: &mut impl Store, write: &Write) -> Outcome {
    let Write { place, value, .. } = write;
    let Some(path) = place.path(probe) else {
        return Outcome::Left { why: format!("{place} is not there any more") };
    };
    if let Err(error) = store.set(&path, value) {
        let managed = matches!(
            error.raw_os_error().map(rustix::io::Errno::from_raw_os_error),
            Some(rustix::io::Errno::PERM | rustix::io::Errno::IO)
        );
        if managed && matches!(place, Place::Interrupt { .. }) {
            let why = format!("the kernel places this interrupt itself and takes no other CPUs ({error})");
            return Outcome::Left { why };
        }
        return Outcome::Failed { why: format!("{value:?} was not written: {}", explain(&error)) };
    }
    match read(probe, store, place) {
        Ok(now) if same(place, &now, value) => Outcome::Done,
        Ok(now) => {
            Outcome::Failed { why: format!("{value:?} was written, but the kernel has made {now:?} of it") }
        }
        Err(why) => Outcome::Failed { why },
    }
}
