//! Who may do what at a node, and by what certificate the node is known: told when it starts, and read again while it serves.

use std::net::SocketAddr;
use std::sync::Arc;

use tracing::{info, warn};

use super::{RunningNode, ServeConfig, ServeError, StartEvent};
use crate::access::AccessBook;
use crate::tls::Tls;

/// What a node holds against strangers; either may be left out.
#[derive(Debug)]
pub struct Keys {
    /// The tokens.
    pub access: Option<Arc<AccessBook>>,
    /// The certificate, and its private key.
    pub tls: Option<Arc<Tls>>,
}

impl Keys {
    /// Reads them; says who may do what, and warns where that is everybody, or where everybody hears it.
    pub fn open(config: &ServeConfig, watch: &mut dyn FnMut(StartEvent)) -> Result<Keys, ServeError> {
        let access = config.tokens.as_deref().map(AccessBook::open).transpose()?.map(Arc::new);
        let tls = config.tls.as_ref().map(Tls::open).transpose()?.map(Arc::new);
        let keys = Keys { access, tls };
        keys.warnings(config).into_iter().for_each(|text| watch(StartEvent::Warning(text)));
        if let Some(book) = &keys.access {
            let tokens = book.len();
            info!(event = "tokens", tokens, "requests need a token; there are {tokens}");
        }
        Ok(keys)
    }

    fn warnings(&self, config: &ServeConfig) -> Vec<String> {
        let mut warnings = self.tls.as_ref().map_or_else(Vec::new, |tls| tls.warnings());
        warnings.extend(self.access.as_ref().and_then(|book| book.warning()));
        let is_wide = |addr: &SocketAddr| !addr.ip().is_loopback();
        let doors = [Some(config.listen), config.redis].into_iter().flatten().filter(is_wide);
        let doors = doors.map(|addr| addr.to_string()).collect::<Vec<String>>().join(" and ");
        let admin = config.admin.filter(is_wide).map(|addr| addr.to_string()).unwrap_or_default();
        if self.access.is_none() {
            let what_to_do =
                "there are no tokens; make some (lode token make) and give --tokens, or listen at 127.0.0.1";
            if !doors.is_empty() {
                warnings.push(format!(
                    "whoever can reach {doors} may read, write and drop everything: {what_to_do}"
                ));
            }
            if !admin.is_empty() {
                warnings.push(format!(
                    "whoever can reach {admin} sees statistics, the names of all tables and the configuration: {what_to_do}"
                ));
            }
        } else if self.tls.is_none() && !(doors.is_empty() && admin.is_empty()) {
            let all =
                [doors, admin].into_iter().filter(|addr| !addr.is_empty()).collect::<Vec<_>>().join(" and ");
            warnings.push(format!(
                "tokens and records come to {all} in the clear, for whoever can listen in to take: give --tls-cert and --tls-key, \
                 or have a tunnel"
            ));
        }
        warnings
    }
}

impl RunningNode {
    /// Reads again what may change while the node serves: tokens and certificate. What cannot be used stays as it was.
    pub fn reload(&self) {
        let Keys { access, tls } = &self.keys;
        if access.is_none() && tls.is_none() {
            return info!(event = "reload", "nothing to read again: there are no tokens, and no certificate");
        }
        match access.as_ref().map(|book| (book, book.reload())) {
            None => {}
            Some((book, Ok(_))) => {
                self.control.access_changed();
                let tokens = book.len();
                info!(event = "reload", tokens, "the tokens were read again, {tokens} of them");
                book.warning().into_iter().for_each(|text| warn!(event = "warning", "{text}"));
            }
            Some((_, Err(error))) => warn!(event = "reload_failed", "{error}; the tokens stay as they were"),
        }
        match tls.as_ref().map(|tls| (tls, tls.reload())) {
            None => {}
            Some((tls, Ok(()))) => {
                info!(event = "reload", "the certificate was read again");
                tls.warnings().into_iter().for_each(|text| warn!(event = "warning", "{text}"));
            }
            Some((_, Err(error))) => {
                warn!(event = "reload_failed", "{error}; the certificate stays as it was");
            }
        }
    }
}
