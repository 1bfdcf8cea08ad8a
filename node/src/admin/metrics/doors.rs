//! What the doors beside the shards have counted: RESP, TLS, and the admin port itself.

use std::time::UNIX_EPOCH;

use crate::admin::State;

/// Names, as the list of all metrics has them, and values.
pub fn of(state: &State) -> Vec<(&'static str, f64)> {
    let resp = state.resp.get();
    let of_resp = |count: fn(&crate::redis::Tally) -> u64| resp.map_or(0, |tally| count(tally)) as f64;
    let tls = state.tls.as_deref();
    let of_tls = |count: fn(&crate::tls::Tls) -> u64| tls.map_or(0, count) as f64;
    let ends = tls.and_then(|tls| tls.ends()).and_then(|ends| ends.duration_since(UNIX_EPOCH).ok());
    vec![
        ("resp_connections", of_resp(|tally| tally.connections.get())),
        ("resp_connections_accepted", of_resp(|tally| tally.accepted.get())),
        ("resp_connections_refused", of_resp(|tally| tally.refused.get())),
        ("resp_commands", of_resp(|tally| tally.commands.get())),
        ("resp_errors", of_resp(|tally| tally.errors.get())),
        ("resp_secrets_refused", of_resp(|tally| tally.secrets_refused.get())),
        ("resp_held_bytes", of_resp(|tally| tally.held_bytes.get())),
        ("tls_handshakes", of_tls(|tls| tls.handshakes())),
        ("tls_handshakes_failed", of_tls(|tls| tls.handshakes_failed())),
        ("tls_handshakes_refused", of_tls(|tls| tls.handshakes_refused())),
        ("tls_certificate_expiry_timestamp_seconds", ends.map_or(0.0, |ends| ends.as_secs_f64())),
        ("admin_connections", state.connections() as f64),
        ("admin_refused_connections", state.refused() as f64),
        ("admin_requests_refused", state.refused_requests() as f64),
    ]
}
