//! What `apply` would do, and what it cannot.

use serde::Serialize;

use crate::change::{Place, UnitLine, Write};
use crate::checks::{self, Context};
use crate::knob::Knob;
use crate::probe::Probe;
use crate::tune::{same, setting};

/// What is short of what is wanted, by how it is changed.
#[derive(Debug, Default, Serialize)]
pub struct Plan {
    /// The profile.
    pub profile: String,
    /// What `apply` writes, in this order.
    pub writes: Vec<PlannedWrite>,
    /// What needs a boot with these parameters.
    pub boot: Vec<PlannedBoot>,
    /// What needs lines in systemd's units.
    pub units: Vec<PlannedUnit>,
    /// What nothing here changes.
    pub by_hand: Vec<ByHand>,
}

/// One write.
#[derive(Debug, Serialize)]
pub struct PlannedWrite {
    /// Of which knob.
    pub knob: String,
    /// Where, on this machine now.
    pub path: String,
    /// Which file, by what stays.
    #[serde(flatten)]
    pub place: Place,
    /// What is there.
    pub from: String,
    /// What is to be there.
    pub to: String,
}

/// Parameters of the kernel.
#[derive(Debug, Serialize)]
pub struct PlannedBoot {
    /// Of which knob.
    pub knob: String,
    /// The parameters.
    pub parameters: Vec<String>,
}

/// Lines of units.
#[derive(Debug, Serialize)]
pub struct PlannedUnit {
    /// Of which knob.
    pub knob: String,
    /// The lines.
    pub lines: Vec<UnitLine>,
}

/// What a person is to do.
#[derive(Debug, Serialize)]
pub struct ByHand {
    /// Which knob.
    pub knob: String,
    /// What to do.
    pub remedy: String,
}

impl Plan {
    /// Look at the machine, and plan.
    pub fn make(cx: &Context) -> Plan {
        let mut plan = Plan { profile: cx.profile.name.clone(), ..Plan::default() };
        for knob in checks::all(cx).iter().filter(|knob| knob.is_short()) {
            plan.add(cx.probe, knob);
        }
        plan
    }

    fn add(&mut self, probe: &Probe, knob: &Knob) {
        let label = knob.label();
        let change = &knob.change;
        self.writes.extend(change.writes.iter().filter_map(|write| planned(probe, &label, write)));
        if !change.writes.is_empty() {
            return;
        }
        if !change.boot.is_empty() {
            self.boot.push(PlannedBoot { knob: label.clone(), parameters: change.boot.clone() });
        }
        if !change.units.is_empty() {
            self.units.push(PlannedUnit { knob: label.clone(), lines: change.units.clone() });
        }
        if change.boot.is_empty() && change.units.is_empty() {
            self.by_hand.push(ByHand { knob: label, remedy: knob.remedy.clone() });
        }
    }

    /// For people.
    pub fn to_text(&self) -> String {
        let mut out = format!("profile {}\n", self.profile);
        for PlannedWrite { knob, path, from, to, .. } in &self.writes {
            out += &format!("write  {knob}: {path}: {from} -> {to}\n");
        }
        for PlannedBoot { knob, parameters } in &self.boot {
            out += &format!("boot   {knob}: {}\n", parameters.join(" "));
        }
        for PlannedUnit { knob, lines } in &self.units {
            for UnitLine { unit, section, line } in lines {
                out += &format!("unit   {knob}: {unit} [{section}] {line}\n");
            }
        }
        for ByHand { knob, remedy } in &self.by_hand {
            out += &format!("hand   {knob}: {remedy}\n");
        }
        out + &format!(
            "{} to write, {} for the next boot, {} for units, {} by hand\n",
            self.writes.len(),
            self.boot.len(),
            self.units.len(),
            self.by_hand.len()
        )
    }
}

/// A write that is due: some files of a knob may be as wanted already.
fn planned(probe: &Probe, knob: &str, write: &Write) -> Option<PlannedWrite> {
    let path = write.place.locate(probe)?;
    let text = probe.text(&path).unwrap_or_default();
    if same(&write.place, &text, &write.value) {
        return None;
    }
    Some(PlannedWrite {
        knob: knob.to_owned(),
        path,
        place: write.place.clone(),
        from: setting(&text).to_owned(),
        to: write.value.clone(),
    })
}
