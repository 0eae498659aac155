//! Other limits and another list of those who may come, while the relay runs (protocol 9.4).
use super::Hub;
use crate::{
    config::{Access, Limits},
    hub::{
        HubAction,
        client::{Client, State},
        drops::Reason,
    },
    time::Instant,
    wire::CLOSE_REFUSED,
};

impl Hub {
    /// The limits that hold now.
    pub fn limits(&self) -> &Limits {
        &self.config.limits
    }

    /// Takes over limits and access. Whoever is in stays, beyond a limit too; but not who is named by identity or address.
    pub(super) fn configure(&mut self, limits: &Limits, access: Access) {
        self.config.limits = self.config.limits.while_running(limits);
        self.config.access = access;
        self.admission.configure(&self.config.limits);
        let unwelcome = self.clients.values().filter(|client| self.not_taken(client).is_some()).map(|client| client.conn).collect();
        self.shut_out = unwelcome;
    }

    /// Shows out those who are not taken any more, until there are so many actions.
    pub(super) fn show_out(&mut self, now: Instant, full: usize, actions: &mut Vec<HubAction>) {
        while actions.len() < full
            && let Some(conn) = self.shut_out.pop_front()
        {
            if let Some(reason) = self.clients.get(&conn).and_then(|client| self.not_taken(client)) {
                self.drops.count(reason);
                self.part(now, conn, Some(CLOSE_REFUSED), "not taken any more", actions);
            }
        }
    }

    /// What stands against a client that is in. Its access token is not asked for again: tokens are changed while old ones are about.
    fn not_taken(&self, client: &Client) -> Option<Reason> {
        if !self.config.access.takes_address(client.remote.ip()) {
            return Some(Reason::SourceDenied);
        }
        match &client.state {
            State::Established(established) if !self.config.access.takes_peer(established.id) => Some(Reason::PeerDenied),
            // without a proof: looked at when it comes
            State::Established(_) | State::Greeting | State::Answering(_) | State::Challenged(_) | State::Verifying(_) | State::Parting => {
                None
            }
        }
    }
}
