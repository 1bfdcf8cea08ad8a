//! Who may do what at a node: told when it starts, and read again while it serves.

use std::net::SocketAddr;

use tracing::{info, warn};

use super::{RunningNode, ServeConfig, StartEvent};
use crate::access::AccessBook;

impl RunningNode {
    /// Reads again what may change while the node serves: the tokens. Where they cannot be used, all stays as it was.
    pub fn reload(&self) {
        let Some(book) = &self.access else {
            return info!(event = "reload", "nothing to read again: there is no file of tokens");
        };
        match book.reload() {
            Ok(_) => {
                self.control.access_changed();
                let tokens = book.len();
                info!(event = "reload", tokens, "the tokens were read again, {tokens} of them");
            }
            Err(error) => warn!(event = "reload_failed", "{error}; the tokens stay as they were"),
        }
    }
}

/// Says who may do what, and warns where that is everybody.
pub fn tell(config: &ServeConfig, access: Option<&AccessBook>, watch: &mut dyn FnMut(StartEvent)) {
    if let Some(book) = access {
        let tokens = book.len();
        return info!(event = "tokens", tokens, "requests need a token; there are {tokens}");
    }
    let is_wide = |addr: &SocketAddr| !addr.ip().is_loopback();
    let doors = [Some(config.listen), config.redis].into_iter().flatten().filter(is_wide);
    let doors: Vec<String> = doors.map(|addr| addr.to_string()).collect();
    let what_to_do =
        "there are no tokens; make some (lode token make) and give --tokens, or listen at 127.0.0.1";
    if !doors.is_empty() {
        watch(StartEvent::Warning(format!(
            "whoever can reach {} may read, write and drop everything: {what_to_do}",
            doors.join(" and ")
        )));
    }
    if let Some(admin) = config.admin.filter(is_wide) {
        watch(StartEvent::Warning(format!(
            "whoever can reach {admin} sees statistics, the names of all tables and the configuration: {what_to_do}"
        )));
    }
}
