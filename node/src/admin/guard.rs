//! Who asks the admin port, and whether he may. Probes and the console's own files are anybody's: they tell nothing of what is stored.
//! All else takes the right to statistics, where there are tokens.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Response, StatusCode, Uri};
use lode_net::wire::limits::MAX_SECRET_BYTES;

use super::hosts::{Hosts, Stranger};
use super::limits::MAX_CONNECTIONS_OF_ADDRESS;
use super::service::{Body, text};
use crate::access::{AccessBook, Addresses, ClientLimits, MeterError, Meters};

/// What stands before a secret in a header (RFC 6750).
const SCHEME: &str = "Bearer ";

/// What keeps the port.
#[derive(Debug)]
pub struct Guard {
    access: Option<Arc<AccessBook>>,
    /// The names that requests may be for, where that matters.
    hosts: Option<Hosts>,
    /// Counted apart from those of the other doors: a client with many connections there does not keep its probes out.
    addresses: Addresses,
}

impl Guard {
    /// Asks for these tokens, if there are any, and holds each address to what it may take.
    pub fn new(access: Option<Arc<AccessBook>>, hosts: Option<Hosts>, client: ClientLimits) -> Guard {
        let limits = ClientLimits { connections: Some(MAX_CONNECTIONS_OF_ADDRESS), ..client };
        Guard { access, hosts, addresses: Addresses::new(limits) }
    }

    /// Lets a connection in; nothing where its address has as many as it may.
    pub fn let_in(self: &Arc<Guard>, ip: IpAddr) -> Option<Guest> {
        let mut meters = Meters::default();
        let is_in = meters.connect(&self.addresses, ip);
        is_in.then(|| Guest { guard: Arc::clone(self), meters: Mutex::new(meters) })
    }
}

/// One connection, and what it has taken.
#[derive(Debug)]
pub struct Guest {
    guard: Arc<Guard>,
    meters: Mutex<Meters>,
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.meters.get_mut().unwrap_or_else(PoisonError::into_inner).disconnect(&self.guard.addresses);
    }
}

/// Why a request is not answered.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refusal {
    /// It shows no token, or none that can be understood.
    NoToken,
    /// Nobody knows the token.
    Unknown,
    /// The token has too many connections.
    Connections,
    /// It may not see what it asks for.
    Forbidden,
    /// It asks too often.
    Rate(MeterError),
    /// It is for another host.
    Host(Stranger),
}

impl Guest {
    /// Whether a request with these headers may see what is not for everybody; what it is told if not.
    pub fn refuse(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        self.look(headers).err().map(Refusal::told)
    }

    /// Whether a request is for another host than this; what it is told if so.
    pub fn misdirected(&self, uri: &Uri, headers: &HeaderMap) -> Option<Response<Body>> {
        let hosts = self.guard.hosts.as_ref()?;
        hosts.admit(uri, headers).err().map(|stranger| Refusal::Host(stranger).told())
    }

    fn look(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        // First: whoever shows secrets that nobody knows is held to it, too.
        meters.request_of_address().map_err(Refusal::Rate)?;
        if let Some(book) = &self.guard.access {
            let access = book.present();
            let secret = secret_of(headers).ok_or(Refusal::NoToken)?;
            let principal = access.find(secret).ok_or(Refusal::Unknown)?;
            let entry = access.entry(principal).ok_or(Refusal::Unknown)?;
            if !meters.authenticate(&access, principal) {
                return Err(Refusal::Connections);
            }
            if !entry.row.may_see_stats() {
                return Err(Refusal::Forbidden);
            }
        }
        meters.request_of_token().map_err(Refusal::Rate)
    }
}

/// The secret that these headers show, if it is one and only one.
fn secret_of(headers: &HeaderMap) -> Option<&[u8]> {
    let mut shown = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(only), None) = (shown.next(), shown.next()) else { return None };
    let (scheme, secret) = only.as_bytes().split_at_checked(SCHEME.len())?;
    let is_good =
        scheme.eq_ignore_ascii_case(SCHEME.as_bytes()) && (1..=MAX_SECRET_BYTES).contains(&secret.len());
    is_good.then_some(secret)
}

impl Refusal {
    fn told(self) -> Response<Body> {
        let (status, name, value, told) = match self {
            Refusal::NoToken => (
                StatusCode::UNAUTHORIZED,
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"lode\"".to_owned(),
                "this node wants a token: send its secret as `Authorization: Bearer SECRET`\n".to_owned(),
            ),
            Refusal::Unknown => (
                StatusCode::UNAUTHORIZED,
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"lode\", error=\"invalid_token\"".to_owned(),
                "this node knows no such token\n".to_owned(),
            ),
            Refusal::Forbidden => (
                StatusCode::FORBIDDEN,
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"lode\", error=\"insufficient_scope\"".to_owned(),
                "this token may not see the node's statistics; it takes `stats`, or `admin` of all tables\n"
                    .to_owned(),
            ),
            Refusal::Connections => (
                StatusCode::TOO_MANY_REQUESTS,
                header::RETRY_AFTER,
                "1".to_owned(),
                "this token has as many connections as it may\n".to_owned(),
            ),
            Refusal::Host(stranger) => {
                let (status, told) = stranger.told();
                return text(status, &told);
            }
            Refusal::Rate(error @ MeterError::Rate { wait, .. }) => (
                StatusCode::TOO_MANY_REQUESTS,
                header::RETRY_AFTER,
                whole_seconds(wait).to_string(),
                format!("{error}\n"),
            ),
        };
        let mut answer = text(status, &told);
        let value = HeaderValue::from_str(&value).expect("words of ours are a header's");
        answer.headers_mut().insert(name, value);
        answer
    }
}

fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(shown: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in shown {
            headers.append(header::AUTHORIZATION, HeaderValue::from_str(value).expect("a header"));
        }
        headers
    }

    #[test]
    fn one_secret_of_its_length_behind_its_scheme_and_nothing_else() {
        let long = "s".repeat(MAX_SECRET_BYTES + 1);
        let of = |shown: &[&str]| secret_of(&headers(shown)).map(<[u8]>::to_vec);
        assert_eq!(of(&["Bearer abc"]), Some(b"abc".to_vec()));
        assert_eq!(of(&["bEARER abc"]), Some(b"abc".to_vec()));
        assert_eq!(
            of(&[&format!("Bearer {}", &long[1..])]).map(|secret| secret.len()),
            Some(MAX_SECRET_BYTES)
        );
        for wrong in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearerabc"],
            &["Basic abc"],
            &["abc"],
            &["Bearer abc", "Bearer abc"],
            &[&format!("Bearer {long}")],
        ] {
            assert_eq!(of(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn without_tokens_nobody_is_asked_and_addresses_are_counted() {
        let limits = ClientLimits { connections: Some(1), requests_per_s: Some(2) };
        let guard = Arc::new(Guard::new(None, None, limits));
        let ip = IpAddr::from([10, 0, 0, 1]);
        let mut guests: Vec<Guest> =
            (0..MAX_CONNECTIONS_OF_ADDRESS).map(|_| guard.let_in(ip).expect("room")).collect();
        assert!(guard.let_in(ip).is_none());
        assert!(guests[0].look(&HeaderMap::new()).is_ok() && guests[1].look(&HeaderMap::new()).is_ok());
        let refused = guests[2].refuse(&HeaderMap::new()).expect("the third within a second");
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        guests.pop();
        assert!(guard.let_in(ip).is_some());
    }

    #[test]
    fn whoever_shows_no_token_or_an_unknown_one_is_held_to_the_rate_of_his_address() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("tokens.toml");
        let hash = "0".repeat(64);
        std::fs::write(&path, format!("[[token]]\nname = \"a\"\nsecret-sha256 = \"{hash}\"\n"))
            .expect("written");
        let book = Arc::new(AccessBook::open(&path).expect("a token"));
        let limits = ClientLimits { connections: None, requests_per_s: Some(2) };
        let guard = Arc::new(Guard::new(Some(book), None, limits));
        let guest = guard.let_in(IpAddr::from([10, 0, 0, 1])).expect("room");
        assert_eq!(guest.look(&HeaderMap::new()), Err(Refusal::NoToken));
        assert_eq!(guest.look(&headers(&["Bearer lode_guessed"])), Err(Refusal::Unknown));
        let third = guest.look(&headers(&["Bearer lode_guessed"]));
        assert!(matches!(third, Err(Refusal::Rate(_))), "{third:?}");
    }
}
