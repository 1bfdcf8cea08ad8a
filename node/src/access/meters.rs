//! What one client may take, at its connections: connections and requests a second, by its address and by its token.

use std::net::IpAddr;
use std::sync::Arc;

use lode_net::wire::server::Principal;

use super::Access;
use super::meter::{Addresses, Meter, MeterError};

/// The limits that a connection counts against.
#[derive(Debug, Default)]
pub struct Meters {
    address: Option<(IpAddr, Arc<Meter>)>,
    token: Option<(Principal, Arc<Meter>)>,
}

impl Meters {
    /// Counts a connection from this address. False: it has as many as it may.
    pub fn connect(&mut self, addresses: &Addresses, ip: IpAddr) -> bool {
        let Some(meter) = addresses.connect(ip) else { return false };
        self.address = Some((ip, meter));
        true
    }

    /// It acts for this token from here on. False: the token has as many connections as it may.
    pub fn authenticate(&mut self, access: &Access, principal: Principal) -> bool {
        if self.token.as_ref().is_some_and(|(of, _)| *of == principal) {
            return true;
        }
        let Some(entry) = access.entry(principal) else { return true };
        if !entry.meter.connect() {
            return false;
        }
        if let Some((_, before)) = self.token.replace((principal, Arc::clone(&entry.meter))) {
            before.disconnect();
        }
        true
    }

    /// It acts for nobody from here on.
    pub fn deauthenticate(&mut self) {
        if let Some((_, meter)) = self.token.take() {
            meter.disconnect();
        }
    }

    /// Counts a request, if there may be one now.
    #[inline]
    pub fn request(&self) -> Result<(), MeterError> {
        self.request_of_token()?;
        self.request_of_address()
    }

    /// The same, of its token alone.
    #[inline]
    pub fn request_of_token(&self) -> Result<(), MeterError> {
        self.token.as_ref().map_or(Ok(()), |(_, meter)| meter.request())
    }

    /// The same, of its address alone: before it is known for whom it acts.
    #[inline]
    pub fn request_of_address(&self) -> Result<(), MeterError> {
        self.address.as_ref().map_or(Ok(()), |(_, meter)| meter.request())
    }

    /// The connection has ended.
    pub fn disconnect(&mut self, addresses: &Addresses) {
        if let Some((ip, _)) = self.address.take() {
            addresses.disconnect(ip);
        }
        self.deauthenticate();
    }
}
