//! An address of the admin port: one of this machine's, and a port; or a port alone, and then nobody else's.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::str::FromStr;

/// Where the admin port listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub SocketAddr);

/// It is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAddress;

impl AdminAddress {
    /// A port of loopback.
    pub fn of_port(port: u16) -> AdminAddress {
        AdminAddress(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
    }
}

impl FromStr for AdminAddress {
    type Err = NoAddress;

    fn from_str(text: &str) -> Result<AdminAddress, NoAddress> {
        let port = || text.parse().map(AdminAddress::of_port);
        text.parse().map(AdminAddress).or_else(|_| port()).map_err(|_| NoAddress)
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_of_loopback() {
        let of = |text: &str| text.parse::<AdminAddress>().map(|addr| addr.to_string());
        assert_eq!(of("9411").as_deref(), Ok("127.0.0.1:9411"));
        assert_eq!(of("0.0.0.0:9411").as_deref(), Ok("0.0.0.0:9411"));
        assert_eq!(of("[::1]:0").as_deref(), Ok("[::1]:0"));
        for wrong in ["", "localhost:9411", "70000", "127.0.0.1", "-1"] {
            assert_eq!(of(wrong), Err(NoAddress), "{wrong}");
        }
    }
}
