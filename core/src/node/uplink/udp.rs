//! What a relay connection tells of our UDP address, and what it is told (protocol 8.1, 8.8).
use super::{Room, State, Uplink};
use crate::{drops::Drop, path::candidate::Mapped, time::Instant, wire::RelayMessage};
use core::net::SocketAddr;

impl Uplink {
    /// Our UDP address as the relay sees it.
    pub(crate) fn mapped(&self) -> Option<Mapped> {
        self.up()?.reflexive.as_ref()?.mapped()
    }

    /// Whether our UDP address varies with whom we speak to; None: that is not known yet.
    pub(crate) fn mapping_varies(&self) -> Option<bool> {
        self.mapped().filter(|mapped| mapped.other.is_some()).map(Mapped::varies)
    }

    /// Our sockets or our addresses have changed.
    pub(crate) fn ask_anew(&mut self, now: Instant, room: &Room) {
        if let State::Up(up) = &mut self.state
            && let Some(reflexive) = &mut up.reflexive
        {
            reflexive.ask_anew(now, room);
        }
    }

    /// Somebody wants to know how the relay and our UDP address are now. No answer is no fault of the connection.
    pub(crate) fn examine(&mut self, now: Instant, room: &Room) {
        if let State::Up(up) = &mut self.state
            && up.ping.is_none()
        {
            up.next_ping_at = now;
        }
        self.ask_anew(now, room);
    }

    /// A path by UDP died.
    pub(crate) fn doubt_reflexive(&mut self, now: Instant) {
        if let State::Up(up) = &mut self.state
            && let Some(reflexive) = &mut up.reflexive
        {
            reflexive.doubt(now);
        }
    }

    /// BOUND came. True when our UDP address is another now; None when it is for another session.
    pub(crate) fn bound(
        &mut self,
        now: Instant,
        room: &mut Room,
        receiver: u32,
        remote: SocketAddr,
        bytes: &[u8],
    ) -> Option<Result<bool, Drop>> {
        let State::Up(up) = &mut self.state else { return None };
        let reflexive = up.reflexive.as_mut().filter(|reflexive| reflexive.own_sid() == receiver)?;
        let taken = reflexive.bound(now, remote, bytes);
        if room.config.relay_udp
            && let Some((address, ticket)) = reflexive.take_ticket()
        {
            room.open_door(self.index, reflexive.relay());
            self.say(room, &RelayMessage::Attach { address, ticket });
        }
        Some(taken)
    }
}
