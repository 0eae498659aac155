//! Who is online at one relay, as it told (protocol 6.1): one entry a member, found by its handle.
use super::Presence;
use crate::id::{Handle, PeerId};
use std::collections::BTreeMap;

/// Entries that one relay may tell us: a bound on memory, far above a relay's 1,024 members told unasked.
pub(super) const ENTRIES_MAX: usize = 8_192;

/// The members that are online.
#[derive(Default)]
pub(super) struct Directory {
    by_handle: BTreeMap<Handle, Presence>,
    handles: BTreeMap<PeerId, Handle>,
}

/// There is no room for one more member.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Directory {
    /// Takes what the relay says of one member. Who joined anew has another handle, and the relay need not say that the one before is nobody's
    /// now: changes of 100 ms are told as one.
    pub(super) fn learn(&mut self, presence: Presence) -> Result<(), Full> {
        if !presence.online {
            self.forget(presence.handle);
            return Ok(());
        }
        if self.handles.len() >= ENTRIES_MAX && !self.handles.contains_key(&presence.peer) {
            return Err(Full);
        }
        if let Some(before) = self.handles.insert(presence.peer, presence.handle).filter(|before| *before != presence.handle) {
            self.by_handle.remove(&before);
        }
        if let Some(before) = self.by_handle.insert(presence.handle, presence).filter(|before| before.peer != presence.peer) {
            self.handles.remove(&before.peer);
        }
        Ok(())
    }

    fn forget(&mut self, handle: Handle) {
        if let Some(gone) = self.by_handle.remove(&handle) {
            self.handles.remove(&gone.peer);
        }
    }

    /// Nothing is known.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Entries.
    pub(super) fn len(&self) -> usize {
        self.by_handle.len()
    }

    /// All who are online.
    pub(super) fn presences(&self) -> impl Iterator<Item = Presence> + '_ {
        self.by_handle.values().copied()
    }

    /// Whose handle it is.
    pub(super) fn holder(&self, handle: Handle) -> Option<PeerId> {
        self.by_handle.get(&handle).map(|presence| presence.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn said(peer: u16, handle: u32, online: bool) -> Presence {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&peer.to_be_bytes());
        Presence { peer: PeerId(id), handle: Handle(handle), public: None, online }
    }

    // protocol 6.1
    #[test]
    fn who_joins_anew_is_known_once_and_by_the_new_handle() {
        let mut directory = Directory::default();
        for handle in 1..=9 {
            directory.learn(said(1, handle, true)).expect("room");
        }
        assert_eq!(directory.presences().collect::<Vec<_>>(), [said(1, 9, true)]);
        assert_eq!((directory.holder(Handle(9)), directory.holder(Handle(8))), (Some(said(1, 9, true).peer), None));
        directory.learn(said(1, 8, false)).expect("room");
        assert_eq!(directory.len(), 1, "that was the one before");
        directory.learn(said(1, 9, false)).expect("room");
        assert_eq!((directory.len(), directory.handles.len()), (0, 0));
    }

    #[test]
    fn a_full_directory_takes_no_further_member_but_news_of_those_it_has() {
        let mut directory = Directory::default();
        for peer in 0..ENTRIES_MAX {
            directory.learn(said(peer as u16, peer as u32, true)).expect("room");
        }
        assert_eq!(directory.learn(said(u16::MAX, u32::MAX, true)), Err(Full));
        assert_eq!(directory.learn(said(7, u32::MAX, true)), Ok(()));
        assert_eq!(directory.learn(said(7, u32::MAX, false)), Ok(()));
        assert_eq!(directory.learn(said(u16::MAX, u32::MAX, true)), Ok(()));
        assert_eq!(directory.len(), ENTRIES_MAX);
    }

    proptest! {
        /// Whatever a relay says, each handle is one member's and each member has one handle.
        #[test]
        fn handles_and_members_are_one_to_one(said_of in proptest::collection::vec((0_u16..6, 0_u32..6, any::<bool>()), 0..60)) {
            let mut directory = Directory::default();
            for (peer, handle, online) in said_of {
                let presence = said(peer, handle, online);
                prop_assert_eq!(directory.learn(presence), Ok(()));
                prop_assert_eq!(directory.holder(presence.handle), online.then_some(presence.peer));
                prop_assert_eq!(directory.handles.len(), directory.len());
                for presence in directory.presences() {
                    prop_assert_eq!(directory.handles.get(&presence.peer), Some(&presence.handle));
                }
            }
        }
    }
}
