//! `/etc/sysctl.d`.

use super::reason;
use crate::knob::Knob;

/// The settings that have a key; none where there are none.
pub fn render(knobs: &[Knob], head: &str) -> Option<String> {
    let mut out = String::new();
    for knob in knobs {
        let keys = knob.change.writes.iter().filter_map(|write| Some((write.place.sysctl()?, &write.value)));
        let lines: String = keys.map(|(key, value)| format!("{key} = {value}\n")).collect();
        if !lines.is_empty() {
            out += &reason(knob);
            out += &lines;
        }
    }
    (!out.is_empty()).then(|| format!("# {head}\n{out}"))
}
