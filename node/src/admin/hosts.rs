//! Which names the admin port answers to. A web page elsewhere can have its own name point at this machine, and have the
//! browser that shows it ask the port as if the port were the page's own (DNS rebinding): what it cannot do is to have the
//! browser say another name than that. So a name that anybody could have is answered where the operator has said so.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::str::FromStr;

use hyper::header::{self, HeaderMap};
use hyper::{StatusCode, Uri};

/// Most names that an operator may give.
const MAX_NAMES: usize = 64;
/// Longest name of DNS, in bytes.
const MAX_NAME_BYTES: usize = 253;
/// Every name.
const ANY: &str = "*";

/// Names that an operator gives: whole ones, `*.example.com` for all below one, or `*` for all there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

/// They are no such names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoHostNames;

impl FromStr for HostNames {
    type Err = NoHostNames;

    fn from_str(text: &str) -> Result<HostNames, NoHostNames> {
        let names: Vec<String> = text.split(',').map(|name| plain(name.trim())).collect();
        let are_names =
            names.iter().all(|name| name == ANY || is_name(name.strip_prefix("*.").unwrap_or(name)));
        if are_names && names.len() <= MAX_NAMES { Ok(HostNames(names)) } else { Err(NoHostNames) }
    }
}

impl fmt::Display for HostNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl HostNames {
    fn have(&self, name: &str) -> bool {
        self.0.iter().any(|known| match known.strip_prefix('*') {
            Some(behind) => name.ends_with(behind),
            None => name == known,
        })
    }
}

/// As names are compared: in small letters, without the point that may end them.
fn plain(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    name.strip_suffix('.').map(str::to_owned).unwrap_or(name)
}

fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    name.len() <= MAX_NAME_BYTES && name.split('.').all(is_label)
}

/// Whom requests may be for.
#[derive(Debug)]
pub struct Hosts {
    given: HostNames,
    /// What the machine calls itself.
    own: String,
    /// Others than this machine reach the port anyway.
    is_wide: bool,
}

/// A request for another host than this; or for none that can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    asked: String,
}

impl Stranger {
    /// The answer's status, and what it says.
    pub fn told(&self) -> (StatusCode, String) {
        let asked = self.asked.chars().take(MAX_NAME_BYTES).collect::<String>().escape_debug().to_string();
        let told = format!(
            "this node's admin port does not answer to the name {asked:?}: ask it by its address, or allow the name with \
             --admin-hosts\n"
        );
        (StatusCode::MISDIRECTED_REQUEST, told)
    }
}

impl Hosts {
    /// Of a port that listens there, on a machine that calls itself so.
    pub fn new(given: HostNames, addr: SocketAddr, own: &str) -> Hosts {
        Hosts { given, own: plain(own), is_wide: !addr.ip().is_loopback() }
    }

    /// Whether a request may be for the host that it names. Without a name it is no browser's.
    pub fn admit(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Stranger> {
        let named = headers.get_all(header::HOST).iter().map(|host| String::from_utf8_lossy(host.as_bytes()));
        // A line that has the whole address counts more than the header: whoever sends both means one.
        let all = uri.authority().map(|authority| authority.as_str().into()).into_iter().chain(named);
        all.into_iter().try_for_each(|host| match self.knows(&host) {
            true => Ok(()),
            false => Err(Stranger { asked: host.into_owned() }),
        })
    }

    fn knows(&self, host: &str) -> bool {
        let Some(name) = without_port(host).map(plain) else { return false };
        let is_of_here = name == "localhost" || name.ends_with(".localhost") || name == self.own;
        // One without a point is given by whoever rules this network, and he can ask the port himself.
        let is_near = self.is_wide && !name.contains('.') && is_name(&name);
        is_address(&name) || is_of_here || is_near || self.given.have(&name)
    }
}

/// The host of `HOST` or `HOST:PORT`, brackets included.
fn without_port(host: &str) -> Option<&str> {
    let end = host.strip_prefix('[').map_or(Some(0), |rest| rest.find(']').map(|at| at + 2))?;
    match host[end..].split_once(':') {
        Some((rest, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(&host[..end + rest.len()])
        }
        Some(_) => None,
        None => Some(host),
    }
}

/// Four numbers, or an address of IPv6 in its brackets: a page that has one of these as its name was had from there.
fn is_address(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    fn hosts(given: &str, addr: &str) -> Hosts {
        let given = given.parse().unwrap_or_default();
        Hosts::new(given, addr.parse().expect("an address"), "Node-7.example.com")
    }

    fn admits(hosts: &Hosts, uri: &str, named: &[&str]) -> bool {
        let mut headers = HeaderMap::new();
        for name in named {
            headers.append(header::HOST, HeaderValue::from_bytes(name.as_bytes()).expect("a header"));
        }
        hosts.admit(&uri.parse().expect("a line"), &headers).is_ok()
    }

    #[test]
    fn addresses_and_own_names_are_answered_and_names_of_anybody_are_not() {
        let (near, wide) = (hosts("", "127.0.0.1:9411"), hosts("", "0.0.0.0:9411"));
        for name in [
            "127.0.0.1",
            "127.0.0.1:9411",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9411",
            "[fe80::1]:1",
            "localhost",
            "LocalHost:9411",
            "localhost.",
            "lode.localhost:9411",
            "node-7.example.com:9411",
            "NODE-7.example.com.",
        ] {
            assert!(admits(&near, "/", &[name]) && admits(&wide, "/", &[name]), "{name}");
        }
        for name in [
            "evil.example",
            "127.0.0.1.evil.example:9411",
            "localhost.evil.example",
            "evil-localhost.example",
            "node-7.example.com.evil.example",
            "127.1",
            "0x7f.1",
            "1.2.3.4.5",
            "[::1].evil.example",
            "[::1",
            "[evil]",
            "::1",
            "evil.example:9411:9411",
            "a@127.0.0.1",
            "127.0.0.1:80a",
            "",
            " ",
        ] {
            assert!(!admits(&near, "/", &[name]) && !admits(&wide, "/", &[name]), "{name:?}");
        }
        // A name of the network that others reach the port by.
        assert!(admits(&wide, "/", &["node1:9411"]) && !admits(&near, "/", &["node1:9411"]));
        // Whoever names nobody is no browser; whoever names two means neither.
        assert!(admits(&near, "/", &[]));
        assert!(!admits(&near, "/", &["127.0.0.1", "evil.example"]));
        assert!(!admits(&near, "http://evil.example/metrics", &["127.0.0.1"]));
        assert!(admits(&near, "http://127.0.0.1:9411/metrics", &["127.0.0.1:9411"]));
    }

    #[test]
    fn names_that_were_given_are_answered() {
        let some = hosts("lode.example.com, *.db.example.com", "127.0.0.1:9411");
        for name in ["lode.example.com:9411", "LODE.example.com.", "a.db.example.com", "a.b.db.example.com:1"]
        {
            assert!(admits(&some, "/", &[name]), "{name}");
        }
        for name in
            ["db.example.com", "evildb.example.com", "lode.example.com.evil.example", "a.lode.example.com"]
        {
            assert!(!admits(&some, "/", &[name]), "{name}");
        }
        assert!(admits(&hosts("*", "127.0.0.1:1"), "/", &["evil.example"]));
    }

    #[test]
    fn only_names_can_be_given() {
        let most = vec!["a.example"; MAX_NAMES].join(",");
        for text in ["*", "a", "a.example,*.b.example", "a_b-c.example.", "127.0.0.1", &most] {
            assert!(text.parse::<HostNames>().is_ok(), "{text}");
        }
        let long = format!("{}.example", "a".repeat(MAX_NAME_BYTES));
        for text in [
            "",
            ",",
            "a,",
            "a..b",
            "*a.example",
            "a.*",
            "*.*",
            "http://a",
            "a:9411",
            "a b",
            &long,
            &(most + ",a"),
        ] {
            assert_eq!(text.parse::<HostNames>(), Err(NoHostNames), "{text:?}");
        }
        let told = "A.example, *.b.example.".parse::<HostNames>().map(|names| names.to_string());
        assert_eq!(told.as_deref(), Ok("a.example,*.b.example"));
    }
}
