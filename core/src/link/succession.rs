//! Tells a peer that our identity follows another or will be followed, and hears the same of it (protocol 2.8).
use super::Link;
use crate::{
    drops::Drop,
    event::{Action, Note},
    id::PeerId,
    node::Room,
    succession::{STATEMENT_LEN, Statement, Succession},
    time::Instant,
    wire::{PeerMessage, SUCCESSION_PART_LEN},
};

/// Statements that are looked at in one session; each costs two signatures.
const STATEMENTS_MAX: u8 = 16;

/// How far both ends have come with that.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// Of our own statements, so many are known there; the newest is told first.
    told: usize,
    /// What came of a statement so far, in this session.
    parts: Vec<u8>,
    /// Statements that came in this session.
    heard: u8,
}

impl Link {
    /// Whether there was a session with the peer in this run.
    pub(crate) fn was_met(&self) -> bool {
        self.begun_at.is_some()
    }

    /// Whether the peer knows our newest statement.
    pub(crate) fn knows_succession(&self) -> bool {
        self.telling.told > 0
    }

    /// A session stands: who follows others was proven by it, and they are refused from now on.
    pub(super) fn begin_telling(&mut self, now: Instant, room: &mut Room) {
        // all over again: it may have been killed before it had written down what it took
        self.telling = Telling::default();
        room.proved(self.peer);
        self.tell_succession(now, room);
    }

    /// There is a newer statement of our own.
    pub(crate) fn announce_succession(&mut self, now: Instant, room: &mut Room) {
        self.telling.told = 0;
        self.tell_succession(now, room);
    }

    /// Tells the newest of our own statements that the peer does not know.
    fn tell_succession(&mut self, now: Instant, room: &mut Room) {
        let own = room.config.followers.own();
        let Some(statement) = own.iter().rev().nth(self.telling.told).cloned() else { return };
        for (place, part) in (0..).zip(statement.bytes().chunks(SUCCESSION_PART_LEN)) {
            self.tell(now, room, &PeerMessage::Succession { place, bytes: part.to_vec() });
        }
    }

    /// The peer has taken over a statement of ours.
    pub(super) fn succession_taken(&mut self, now: Instant, room: &mut Room, new: PeerId) {
        let own = room.config.followers.own();
        if own.iter().rev().nth(self.telling.told).is_some_and(|statement| statement.said().1 == new) {
            self.telling.told += 1;
            self.tell_succession(now, room);
        } else {
            room.drops.count(Drop::Unexpected);
        }
    }

    /// A part of a statement.
    pub(super) fn take_succession(&mut self, now: Instant, room: &mut Room, place: u8, bytes: &[u8]) {
        let parts = &mut self.telling.parts;
        if place == 0 {
            parts.clear();
        }
        if parts.len() != usize::from(place) * SUCCESSION_PART_LEN {
            room.drops.count(Drop::Unexpected);
            return;
        }
        parts.extend_from_slice(bytes);
        if parts.len() < STATEMENT_LEN {
            return;
        }
        let whole = core::mem::take(parts);
        self.telling.heard = self.telling.heard.saturating_add(1);
        if self.telling.heard > STATEMENTS_MAX {
            room.drops.count(Drop::Control);
            return;
        }
        match Statement::parse(&whole) {
            Ok(statement) => self.judge_succession(now, room, &statement),
            Err(_) => room.drops.count(Drop::Malformed),
        }
    }

    /// A whole statement: both must have signed it, and it must be about whom this peer is or was.
    fn judge_succession(&mut self, now: Instant, room: &mut Room, statement: &Statement) {
        let (old, new) = statement.said();
        let followers = &room.config.followers;
        let is_known = followers.follower(old) == Some(new);
        let is_its_own = if old == self.peer {
            // not one that was followed itself: its key may be in other hands, and would join strangers to its line
            is_known || followers.follower(new).is_none()
        } else {
            new == self.peer || followers.leads(new, self.peer, &[])
        };
        if !is_its_own {
            room.drops.count(Drop::Unexpected);
            return;
        }
        if is_known {
            self.tell(now, room, &PeerMessage::Taken { new });
            return;
        }
        let Some(proven) = statement.verify(&*room.config.crypto) else {
            room.drops.count(Drop::Forged);
            room.refuse(Some(self.peer), "it says that one identity follows another, and they have not signed that");
            return;
        };
        if [old, new].contains(&room.own) {
            room.drops.count(Drop::Unexpected);
            let [first, then] = [old.short(), new.short()];
            room.refuse(Some(self.peer), format!("{then} is said to follow {first}, and we never said so: somebody has our key"));
            return;
        }
        let config = &mut room.config;
        match config.followers.take(proven, &config.revoked) {
            Ok(_) => {
                room.act(Action::Succeeded(Succession { old, new, proven: false }));
                room.note(Note::Succeeded { old, new });
                if old != self.peer {
                    // the handshake of this session has proven it
                    room.proved(self.peer);
                }
                self.members_changed(room);
            }
            Err(why) => {
                room.drops.count(Drop::Unexpected);
                room.refuse(Some(self.peer), format!("{} is not taken for the follower of {}: {why}", new.short(), old.short()));
                return;
            }
        }
        self.tell(now, room, &PeerMessage::Taken { new });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crypto::{Identity, rustcrypto::RustCrypto},
        link::tests::{at, connected, room},
        session::Side,
    };

    /// The identity of `tests::room`.
    const OWN: u8 = 3;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn statement(old: u8, new: u8) -> Statement {
        Statement::make(&identity(old), &identity(new), &RustCrypto, [&[1; 32], &[2; 32]])
    }

    /// A session with this identity, and the room that it is in.
    fn met(seed: u8) -> (Room, Link) {
        let mut room = room(Vec::new());
        let mut link = connected(&mut room, Side::Initiator);
        link.peer = identity(seed).id();
        room.drain(usize::MAX, &mut Vec::new());
        (room, link)
    }

    /// It says this, and what people are told of it.
    fn says(room: &mut Room, link: &mut Link, bytes: &[u8]) -> Vec<Note> {
        for (place, part) in (0..).zip(bytes.chunks(SUCCESSION_PART_LEN)) {
            link.take_succession(at(2), room, place, part);
        }
        let mut actions = Vec::new();
        room.drain(usize::MAX, &mut actions);
        let notes = actions.into_iter().filter_map(|action| match action {
            Action::Note(note @ (Note::Refused { .. } | Note::Succeeded { .. })) => Some(note),
            _ => None,
        });
        notes.collect()
    }

    // protocol 2.8
    #[test]
    fn the_owner_hears_of_a_follower_that_it_did_not_name_and_remembers_none() {
        let (mut room, mut link) = met(9);
        let told = says(&mut room, &mut link, statement(OWN, 9).bytes());
        assert!(matches!(&told[..], [Note::Refused { what, .. }] if what.contains("somebody has our key")), "{told:?}");
        assert!(room.config.followers.remembered().is_empty());
        // nor of one that it is said to follow itself
        let told = says(&mut room, &mut link, statement(9, OWN).bytes());
        assert!(matches!(&told[..], [Note::Refused { what, .. }] if what.contains("somebody has our key")), "{told:?}");
        assert!(room.config.followers.remembered().is_empty());
        // the one that it has named is no news
        room.config.followers.announce(statement(OWN, 9)).expect("its own word");
        assert!(says(&mut room, &mut link, statement(OWN, 9).bytes()).is_empty());
        assert_eq!(room.drops.get(Drop::Unexpected), 2);
    }

    /// Whoever has an old key and a place of its own would have, by the old one's word, what its follower has, and make the line as long as
    /// it can be, so that the next one is not taken.
    // protocol 2.8
    #[test]
    fn a_key_that_was_followed_joins_nobody_to_its_line() {
        let (mut room, mut link) = met(9);
        let [first, second] = [identity(1).id(), identity(2).id()];
        room.config.followers.remember(Succession { old: first, new: second, proven: true });
        assert!(says(&mut room, &mut link, statement(9, 1).bytes()).is_empty());
        assert_eq!((room.drops.get(Drop::Unexpected), room.config.followers.follower(link.peer)), (1, None));
        // whoever has the place says it, and what it said is known
        link.peer = second;
        assert!(matches!(&says(&mut room, &mut link, statement(9, 1).bytes())[..], [Note::Succeeded { .. }]));
        link.peer = identity(9).id();
        assert!(says(&mut room, &mut link, statement(9, 1).bytes()).is_empty());
        assert_eq!(room.drops.get(Drop::Unexpected), 1);
    }

    // protocol 2.8
    #[test]
    fn who_neither_is_followed_nor_follows_says_it_in_vain() {
        let (mut room, mut link) = met(9);
        assert!(says(&mut room, &mut link, statement(1, 2).bytes()).is_empty());
        assert_eq!((room.drops.get(Drop::Unexpected), room.config.followers.remembered().len()), (1, 0));
        let mut forged = statement(1, 9).bytes().to_vec();
        forged[STATEMENT_LEN - 1] ^= 1;
        assert!(matches!(&says(&mut room, &mut link, &forged)[..], [Note::Refused { .. }]), "somebody should know");
        assert_eq!((room.drops.get(Drop::Forged), room.config.followers.remembered().len()), (1, 0));
        assert!(matches!(&says(&mut room, &mut link, statement(1, 9).bytes())[..], [Note::Succeeded { .. }]));
        assert!(room.config.followers.is_retired(identity(1).id(), &[]), "the session has proven the new one");
    }

    // protocol 2.8
    #[test]
    fn parts_have_their_order_and_statements_their_number() {
        let (mut room, mut link) = met(9);
        let bytes = statement(1, 9).bytes().to_vec();
        link.take_succession(at(2), &mut room, 1, &bytes[..SUCCESSION_PART_LEN]);
        assert_eq!(room.drops.get(Drop::Unexpected), 1, "the first one is missing");
        let mut other = bytes.clone();
        other[0] = 2;
        says(&mut room, &mut link, &other);
        assert_eq!(room.drops.get(Drop::Malformed), 1, "a version to come");
        link.take_succession(at(2), &mut room, 0, &bytes[..SUCCESSION_PART_LEN]);
        for _ in 1..STATEMENTS_MAX {
            says(&mut room, &mut link, &bytes);
        }
        assert_eq!((room.drops.get(Drop::Control), room.config.followers.remembered().len()), (0, 1), "place 0 begins anew");
        says(&mut room, &mut link, &bytes);
        assert_eq!(room.drops.get(Drop::Control), 1);
    }
}
