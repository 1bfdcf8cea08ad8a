//! What the kernel does with connections.

use super::Context;
use super::judge::{OneFile, Rule};
use crate::knob::Knob;

/// Name, key, rule and reason of each.
const SYSCTLS: [(&str, &str, Rule, &str); 7] = [
    (
        "somaxconn",
        "net.core.somaxconn",
        Rule::AtLeast,
        "when many clients reconnect at once, those beyond the backlog wait a second for a retry",
    ),
    (
        "syn_backlog",
        "net.ipv4.tcp_max_syn_backlog",
        Rule::AtLeast,
        "connections half made, beyond which new ones are dropped or made without their options",
    ),
    (
        "netdev_max_backlog",
        "net.core.netdev_max_backlog",
        Rule::AtLeast,
        "packets that one CPU may have waiting when another's interrupt took them in; beyond it they are dropped and sent again",
    ),
    (
        "slow_start_after_idle",
        "net.ipv4.tcp_slow_start_after_idle",
        Rule::Exactly,
        "a connection that was quiet for a moment begins with a small window again, and a large value takes a round trip more",
    ),
    (
        "notsent_lowat",
        "net.ipv4.tcp_notsent_lowat",
        Rule::AtMost,
        "bytes that lie in the kernel for a client that reads slowly, outside of the node's memory cap",
    ),
    (
        "busy_poll",
        "net.core.busy_poll",
        Rule::Exactly,
        "a node looks for work by itself before it sleeps; a kernel that polls as well holds the core for nothing",
    ),
    ("busy_read", "net.core.busy_read", Rule::Exactly, "as with busy_poll, for each read of a socket"),
];

pub fn knobs(cx: &Context) -> Vec<Knob> {
    SYSCTLS
        .iter()
        .map(|(name, key, rule, why)| OneFile::sysctl(name, key, why).number(cx, *rule, None))
        .collect()
}
