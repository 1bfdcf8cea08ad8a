//! The wanted settings written down for the next boot: the same knobs as `check` and `apply` have, as files that
//! sysctl, udev, the boot loader, systemd and a shell understand.

mod boot;
pub mod of_image;
mod script;
mod sysctl;
#[cfg(test)]
mod tests;
pub mod udev;
pub mod units;

use std::collections::BTreeMap;

use crate::checks::{self, Context};
use crate::knob::Knob;

/// Every file, by its path below the root.
pub fn all(cx: &Context) -> BTreeMap<String, String> {
    let knobs = checks::all(cx);
    let head = format!(
        "written by lode-tune for the profile {}; made anew by `lode-tune tune render`",
        cx.profile.name
    );
    let mut files = BTreeMap::new();
    let mut put = |path: &str, text: Option<String>| {
        if let Some(text) = text {
            files.insert(path.to_owned(), text);
        }
    };
    put("etc/sysctl.d/90-lode.conf", sysctl::render(&knobs, &head));
    put("etc/udev/rules.d/90-lode.rules", udev::render(&knobs, cx, &head));
    put("etc/default/grub.d/90-lode.cfg", boot::render_grub(&knobs, &head));
    put("etc/lode/kernel-cmdline", boot::render_list(&knobs));
    put("usr/local/sbin/lode-tune-now", Some(script::render(&knobs, &head)));
    for (path, text) in units::render(&knobs, cx, &head) {
        put(&path, Some(text));
    }
    files
}

/// Why a setting is there, in a comment.
fn reason(knob: &Knob) -> String {
    let one_line: Vec<&str> = knob.why.split_whitespace().collect();
    format!("# {}: {}\n", knob.label(), one_line.join(" "))
}
