//! The kernel's command line.

use super::reason;
use crate::knob::Knob;

fn parameters(knobs: &[Knob]) -> Vec<&str> {
    knobs.iter().flat_map(|knob| &knob.change.boot).map(String::as_str).collect::<Vec<_>>()
}

/// One parameter twice, as of two drives, is one.
fn unique<'a>(parameters: &[&'a str]) -> Vec<&'a str> {
    let mut seen: Vec<&str> = Vec::new();
    for parameter in parameters {
        if !seen.contains(parameter) {
            seen.push(parameter);
        }
    }
    seen
}

/// A drop-in of GRUB's configuration; `update-grub` puts it into effect.
pub fn render_grub(knobs: &[Knob], head: &str) -> Option<String> {
    let parameters = unique(&parameters(knobs));
    if parameters.is_empty() {
        return None;
    }
    let reasons: String = knobs.iter().filter(|knob| !knob.change.boot.is_empty()).map(reason).collect();
    let line = parameters.join(" ");
    Some(format!(
        "# {head}\n# In effect from the boot after `update-grub`.\n{reasons}\
         GRUB_CMDLINE_LINUX_DEFAULT=\"$GRUB_CMDLINE_LINUX_DEFAULT {line}\"\n"
    ))
}

/// The same on one line, for builders of unified kernel images.
pub fn render_list(knobs: &[Knob]) -> Option<String> {
    let parameters = unique(&parameters(knobs));
    (!parameters.is_empty()).then(|| parameters.join(" ") + "\n")
}
