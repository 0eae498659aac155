//! How clients of the hub end: refused before they have proven anything, shown out, or gone.
use super::{Hub, REFUSALS, edit};
use crate::{
    edges::{States, took, turn},
    hub::{Edit, HubAction, HubNote, channel::Channel, client::State, drops::Reason},
    id::ConnId,
    time::Instant,
    wire::{CLOSE_NO_ACCESS, CLOSE_OVERLOAD, CLOSE_PROTOCOL, CLOSE_REFUSED, CLOSE_SESSION_OLD, RelayMessage},
};
use core::net::SocketAddr;

impl Hub {
    /// Hangs up on a connection that has not proven anything.
    pub(super) fn refuse(&mut self, now: Instant, conn: ConnId, why: &'static str, actions: &mut Vec<HubAction>) {
        if let Some(client) = self.clients.get(&conn) {
            let remote = client.remote;
            self.note_refused(now, remote, why.into(), actions);
        }
        self.part(now, conn, None, why, actions);
    }

    /// Tells a client that has proven who it is why it cannot come in, and hangs up.
    pub(super) fn refuse_proven(
        &mut self,
        now: Instant,
        conn: ConnId,
        channel: &mut Channel,
        reason: Reason,
        actions: &mut Vec<HubAction>,
    ) {
        let close = match reason {
            Reason::AccessDenied => CLOSE_NO_ACCESS,
            Reason::ClientsFull => CLOSE_OVERLOAD,
            Reason::NoNetwork => CLOSE_PROTOCOL,
            _ => CLOSE_REFUSED,
        };
        actions.push(HubAction::Send { conn, bytes: channel.seal(&RelayMessage::Close { reason: close }) });
        self.drops.count(reason);
        self.failed += 1;
        let client = self.clients.get(&conn).expect("the caller found it");
        took::<State>("Verifying", client.state.name());
        let remote = client.remote;
        self.note_refused(now, remote, reason.name().into(), actions);
        self.disarm(conn);
        actions.push(HubAction::Hangup { conn, why: reason.name() });
    }

    pub(super) fn part_old(&mut self, now: Instant, conn: ConnId, actions: &mut Vec<HubAction>) {
        self.drops.count(Reason::SessionOld);
        self.part(now, conn, Some(CLOSE_SESSION_OLD), "the session is old", actions);
    }

    /// Says goodbye, takes the client out of everything, and hangs up; its name stays until the connection is closed.
    pub(in crate::hub) fn part(&mut self, now: Instant, conn: ConnId, close: Option<u8>, why: &'static str, actions: &mut Vec<HubAction>) {
        if let Some(reason) = close {
            self.send(conn, &RelayMessage::Close { reason }, actions);
        }
        if self.end(now, conn, why, actions) {
            actions.push(HubAction::Hangup { conn, why });
        }
    }

    /// Takes the client out of everything; false when that was done before.
    pub(super) fn end(&mut self, now: Instant, conn: ConnId, why: &'static str, actions: &mut Vec<HubAction>) -> bool {
        self.disarm(conn);
        let Some(client) = self.clients.get_mut(&conn) else { return false };
        if client.is_half_open() {
            self.half_open -= 1;
            self.jobs.forget(conn);
        }
        match turn(&mut client.state, State::Parting) {
            State::Parting => return false,
            State::Greeting | State::Answering(_) | State::Challenged(_) | State::Verifying(_) => self.failed += 1,
            State::Established(established) => {
                self.established -= 1;
                self.reflector.remove(established.channel.own_sid(), conn);
                self.directory.leave(now, established.network, established.id, conn);
                actions.push(edit(Edit::Part { conn }));
                actions.push(HubAction::Note(HubNote::Left { id: established.id, why }));
            }
        }
        true
    }

    pub(super) fn note_refused(&mut self, now: Instant, remote: SocketAddr, what: String, actions: &mut Vec<HubAction>) {
        if self.refusals.take(now, 1, REFUSALS) {
            actions.push(HubAction::Note(HubNote::Refused { remote: Some(remote), what }));
        }
    }

    pub(super) fn disarm(&mut self, conn: ConnId) {
        if let Some(at) = self.clients.get_mut(&conn).and_then(|client| client.timer.take()) {
            self.timers.remove(&(at, conn));
        }
    }
}
