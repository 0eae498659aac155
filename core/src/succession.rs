//! One identity follows another (protocol 2.8): the statement that both sign, and who follows whom as far as this peer knows.
//!
//! ```text
//!   old key ─ sign ─┐
//!                   ├─▶ Statement ═ control stream, in parts ═▶ Proven ─▶ Successions ─▶ who may be a member, whose an address is
//!   new key ─ sign ─┘
//! ```
use crate::{
    crypto::{Identity, PUBLIC_KEY_LEN, Provider, SIGNATURE_LEN, peer_id_of},
    id::PeerId,
    wire::Malformed,
};
use core::fmt;
use std::collections::BTreeMap;

/// Length of a statement in bytes.
pub const STATEMENT_LEN: usize = 4 + 2 * PUBLIC_KEY_LEN + 2 * SIGNATURE_LEN;
/// Successions that a peer remembers; the rest is refused.
pub const SUCCESSIONS_MAX: usize = 1_024;
/// Identities of one line, those that joined it from the side included: one a month for five years. What was remembered of a line is never
/// forgotten, or an old key would be good again.
pub const LINE_MAX: usize = 64;
/// Statements of its own that a peer keeps and tells: each costs whoever hears it 14 kB and two signatures.
pub const OWN_MAX: usize = 8;

const VERSION: u8 = 1;
const WHOLE: &str = "a statement has its length";
// protocol 1.2: no two kinds of signed messages begin alike
const OLD_LABEL: &[u8] = b"shadowmesh/1 succession old\0";
const NEW_LABEL: &[u8] = b"shadowmesh/1 succession new\0";

/// That a new identity follows an old one, signed by both: neither can be claimed by a stranger.
#[derive(Clone, PartialEq, Eq)]
pub struct Statement(Box<[u8; STATEMENT_LEN]>);

struct Fields<'a> {
    old: &'a [u8; PUBLIC_KEY_LEN],
    new: &'a [u8; PUBLIC_KEY_LEN],
    by_old: &'a [u8; SIGNATURE_LEN],
    by_new: &'a [u8; SIGNATURE_LEN],
}

/// What a statement says, once both signatures have verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proven {
    old: PeerId,
    new: PeerId,
}

impl Proven {
    /// Who is followed.
    pub fn old(self) -> PeerId {
        self.old
    }

    /// Who follows.
    pub fn new_id(self) -> PeerId {
        self.new
    }
}

/// A succession as it is remembered from one run to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Succession {
    /// Who is followed.
    pub old: PeerId,
    /// Who follows.
    pub new: PeerId,
    /// The new identity was proven by a handshake: the old one is refused since.
    pub proven: bool,
}

/// Why a succession was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// Another identity follows the old one already.
    Contested(PeerId),
    /// The new identity was followed before, by the old one or by whom that follows.
    Circle,
    /// The line would be longer than [`LINE_MAX`].
    TooLong,
    /// [`SUCCESSIONS_MAX`] are remembered.
    Full,
    /// The old identity is revoked here, and passes nothing on.
    Revoked,
}

impl fmt::Display for NotTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contested(other) => write!(f, "{} follows that identity already", other.short()),
            Self::Circle => f.write_str("the new identity was followed itself before"),
            Self::TooLong => write!(f, "more than {LINE_MAX} identities would follow each other"),
            Self::Full => write!(f, "{SUCCESSIONS_MAX} successions are remembered already"),
            Self::Revoked => f.write_str("the old identity is revoked here"),
        }
    }
}

impl Statement {
    /// Both identities say that the new one follows. `coins` are for the two signatures.
    pub fn make(old: &Identity, new: &Identity, crypto: &dyn Provider, coins: [&[u8; 32]; 2]) -> Self {
        let [by_old, by_new] = signed(old.id(), new.id());
        let parts: [&[u8]; 5] = [
            &[VERSION, 0, 0, 0],
            old.public_key(),
            new.public_key(),
            &crypto.sign(old, &by_old, coins[0])[..],
            &crypto.sign(new, &by_new, coins[1])[..],
        ];
        let mut bytes = Box::new([0; STATEMENT_LEN]);
        for (to, from) in bytes.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        Self(bytes)
    }

    /// Reads the layout; nothing is proven by that.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let bytes: Box<[u8; STATEMENT_LEN]> = Box::<[u8]>::from(bytes).try_into().map_err(|_| Malformed("length of a succession"))?;
        match bytes.first_chunk::<4>() {
            Some([VERSION, 0, 0, 0]) => Ok(Self(bytes)),
            _ => Err(Malformed("version of a succession")),
        }
    }

    /// As it goes over the wire and into a file.
    pub fn bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// Who is said to be followed, and by whom: for its owner, who made it.
    pub fn said(&self) -> (PeerId, PeerId) {
        let Fields { old, new, .. } = self.fields();
        (peer_id_of(old), peer_id_of(new))
    }

    /// What it says, if both have signed it.
    pub fn verify(&self, crypto: &dyn Provider) -> Option<Proven> {
        let fields = self.fields();
        let (old, new) = self.said();
        let [old_said, new_said] = signed(old, new);
        let is_signed =
            old != new && crypto.verify(fields.old, &old_said, fields.by_old) && crypto.verify(fields.new, &new_said, fields.by_new);
        is_signed.then_some(Proven { old, new })
    }

    fn fields(&self) -> Fields<'_> {
        let (_, rest) = self.0.split_first_chunk::<4>().expect(WHOLE);
        let (old, rest) = rest.split_first_chunk().expect(WHOLE);
        let (new, rest) = rest.split_first_chunk().expect(WHOLE);
        let (by_old, rest) = rest.split_first_chunk().expect(WHOLE);
        Fields { old, new, by_old, by_new: rest.first_chunk().expect(WHOLE) }
    }
}

impl fmt::Debug for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, new) = self.said();
        f.debug_struct("Statement").field("old", &old).field("new", &new).finish()
    }
}

/// What the old and what the new identity sign.
fn signed(old: PeerId, new: PeerId) -> [Vec<u8>; 2] {
    [OLD_LABEL, NEW_LABEL].map(|label| [label, &old.0[..], &new.0[..]].concat())
}

/// Who follows whom, as far as a peer knows. Each identity has one follower at most: whoever was first, unless that one is revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followers {
    /// Our own statements, the oldest first; the newest ends at our identity, or begins there while it has not taken effect.
    own: Vec<Statement>,
    /// Our own line is in it, too: nobody else follows one of us.
    by_old: BTreeMap<PeerId, Follower>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Follower {
    new: PeerId,
    proven: bool,
}

impl Followers {
    /// What a peer remembers of runs before: the statements of its own identity, all in effect, and what others said. What does not fit
    /// is left out.
    pub fn new(own: Vec<Statement>, remembered: &[Succession]) -> Self {
        let mut all = Self::default();
        let start = own.len().saturating_sub(OWN_MAX);
        all.own = own.into_iter().skip(start).collect();
        for (old, new) in all.own.iter().map(Statement::said).collect::<Vec<_>>() {
            all.remember(Succession { old, new, proven: true });
        }
        for one in remembered {
            all.remember(*one);
        }
        all
    }

    /// Adds what a run told (`Action::Succeeded`) to what is remembered for the next.
    pub fn remember(&mut self, one: Succession) {
        // what was taken stays, beside our own line: an old key would be good again
        if self.take_within(usize::MAX, Proven { old: one.old, new: one.new }, &[]).is_ok()
            && let Some(follower) = self.by_old.get_mut(&one.old)
        {
            follower.proven |= one.proven;
        }
    }

    /// Our own statements, the oldest first.
    pub fn own(&self) -> &[Statement] {
        &self.own
    }

    /// All that is remembered, of ourselves and of others.
    pub fn remembered(&self) -> Vec<Succession> {
        self.by_old.iter().map(|(old, follower)| Succession { old: *old, new: follower.new, proven: follower.proven }).collect()
    }

    /// Those whom this identity of ours followed, the newest first.
    pub(crate) fn own_line(&self, own: PeerId) -> Vec<PeerId> {
        let mut line: Vec<PeerId> = Vec::new();
        for statement in self.own.iter().rev() {
            let (old, new) = statement.said();
            if new == *line.last().unwrap_or(&own) {
                line.push(old);
            }
        }
        line
    }

    /// A new identity of ours will follow the one that we have; whether that is news. Nobody else may follow it from now on, and it is not
    /// refused yet.
    pub(crate) fn announce(&mut self, statement: Statement) -> Result<bool, NotTaken> {
        let (old, new) = statement.said();
        // ours has room, whatever others have filled the table with
        let is_news = self.take_within(usize::MAX, Proven { old, new }, &[])?;
        if is_news {
            self.own.push(statement);
            if self.own.len() > OWN_MAX {
                self.own.remove(0);
            }
        }
        Ok(is_news)
    }

    /// Takes over a succession that both have signed; whether it is news.
    pub(crate) fn take(&mut self, proven: Proven, revoked: &[PeerId]) -> Result<bool, NotTaken> {
        self.take_within(SUCCESSIONS_MAX, proven, revoked)
    }

    fn take_within(&mut self, most: usize, proven: Proven, revoked: &[PeerId]) -> Result<bool, NotTaken> {
        let Proven { old, new } = proven;
        match self.by_old.get(&old) {
            Some(follower) if follower.new == new => return Ok(false),
            Some(follower) if !revoked.contains(&follower.new) => return Err(NotTaken::Contested(follower.new)),
            None if self.by_old.len() >= most => return Err(NotTaken::Full),
            Some(_) | None => {}
        }
        if revoked.contains(&old) {
            return Err(NotTaken::Revoked);
        }
        if self.leads(new, old, &[]) {
            return Err(NotTaken::Circle);
        }
        if self.after(new).count() + self.before(old).len() + self.before(new).len() + 2 > LINE_MAX {
            return Err(NotTaken::TooLong);
        }
        self.by_old.insert(old, Follower { new, proven: false });
        Ok(true)
    }

    /// This identity was proven by a handshake: those that it follows are refused from now on. Gives what has changed.
    pub(crate) fn proved(&mut self, new: PeerId) -> Vec<Succession> {
        let mut changed = Vec::new();
        for old in self.before(new) {
            if let Some(follower) = self.by_old.get_mut(&old)
                && !follower.proven
            {
                follower.proven = true;
                changed.push(Succession { old, new: follower.new, proven: true });
            }
        }
        changed
    }

    /// Whether another identity took this one's place.
    pub(crate) fn is_retired(&self, peer: PeerId, revoked: &[PeerId]) -> bool {
        self.by_old.get(&peer).is_some_and(|follower| follower.proven && !revoked.contains(&follower.new))
    }

    /// Whether `to` follows `from`, over however many. Who is revoked passes nothing on.
    pub(crate) fn leads(&self, from: PeerId, to: PeerId, revoked: &[PeerId]) -> bool {
        let mut giver = from;
        for taker in self.after(from) {
            if revoked.contains(&giver) {
                return false;
            }
            if taker == to {
                return true;
            }
            giver = taker;
        }
        false
    }

    /// Those that this identity follows, over however many.
    pub(crate) fn before(&self, peer: PeerId) -> Vec<PeerId> {
        let mut line = Vec::new();
        let mut newest = vec![peer];
        while let Some(new) = newest.pop() {
            for (old, _) in self.by_old.iter().filter(|(_, follower)| follower.new == new) {
                // a peer may have followed several: what was taken is a tree, and has no circle
                if line.len() < LINE_MAX {
                    line.push(*old);
                    newest.push(*old);
                }
            }
        }
        line
    }

    /// Who follows this identity, as the next.
    pub(crate) fn follower(&self, peer: PeerId) -> Option<PeerId> {
        self.by_old.get(&peer).map(|follower| follower.new)
    }

    /// Who has this one's place now: whoever follows it and has been here.
    pub(crate) fn present(&self, peer: PeerId, revoked: &[PeerId]) -> PeerId {
        let next = |old: &PeerId| self.follower(*old).filter(|_| self.is_retired(*old, revoked));
        core::iter::successors(Some(peer), next).take(LINE_MAX).last().unwrap_or(peer)
    }

    /// Those that follow this identity, one after the other.
    fn after(&self, peer: PeerId) -> impl Iterator<Item = PeerId> {
        let next = |peer: &PeerId| self.follower(*peer);
        core::iter::successors(next(&peer), next).take(LINE_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::rustcrypto::RustCrypto;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn statement(old: u8, new: u8) -> Statement {
        Statement::make(&identity(old), &identity(new), &RustCrypto, [&[1; 32], &[2; 32]])
    }

    fn id(n: u8) -> PeerId {
        PeerId([n; 32])
    }

    fn proven(old: u8, new: u8) -> Proven {
        Proven { old: id(old), new: id(new) }
    }

    fn chain(pairs: &[(u8, u8)]) -> Followers {
        let mut followers = Followers::default();
        for (old, new) in pairs {
            assert_eq!(followers.take(proven(*old, *new), &[]), Ok(true));
        }
        followers
    }

    // protocol 2.8
    #[test]
    fn a_statement_that_both_have_signed_proves_who_follows_whom() {
        let made = statement(1, 2);
        let read = Statement::parse(made.bytes()).expect("its own layout");
        let proven = read.verify(&RustCrypto).expect("both have signed");
        assert_eq!((proven.old(), proven.new_id()), (identity(1).id(), identity(2).id()));
        assert_eq!(made.bytes().len(), STATEMENT_LEN);
    }

    // protocol 2.8
    #[test]
    fn neither_key_alone_makes_a_statement_nor_do_the_signatures_in_other_places() {
        let (good, other) = (statement(1, 2), statement(3, 2));
        let at = |field: usize| 4 + [0, PUBLIC_KEY_LEN, 2 * PUBLIC_KEY_LEN, 2 * PUBLIC_KEY_LEN + SIGNATURE_LEN][field];
        let verified = |bytes: &[u8]| Statement::parse(bytes).ok().and_then(|statement| statement.verify(&RustCrypto)).is_some();
        // a stranger who signs for the old one, or for the new one
        for field in [2, 3] {
            let mut forged = good.bytes().to_vec();
            forged[at(field)..at(field) + SIGNATURE_LEN].copy_from_slice(&other.bytes()[at(field)..at(field) + SIGNATURE_LEN]);
            assert!(!verified(&forged), "signature {field} of another statement");
        }
        // the two the other way round: an old identity cannot be made to follow its follower
        let mut turned = good.bytes()[..4].to_vec();
        turned.extend_from_slice(&good.bytes()[at(1)..at(2)]);
        turned.extend_from_slice(&good.bytes()[at(0)..at(1)]);
        turned.extend_from_slice(&good.bytes()[at(3)..]);
        turned.extend_from_slice(&good.bytes()[at(2)..at(3)]);
        assert!(!verified(&turned));
        for place in [4, at(1), at(2), at(3), STATEMENT_LEN - 1] {
            let mut bent = good.bytes().to_vec();
            bent[place] ^= 1;
            assert!(!verified(&bent), "byte {place}");
        }
        assert!(!verified(statement(1, 1).bytes()), "nobody follows himself");
        let wrong = [&good.bytes()[1..], &[good.bytes(), &[0]].concat()[..], &[&[2], &good.bytes()[1..]].concat()[..]];
        assert!(wrong.iter().all(|bytes| Statement::parse(bytes).is_err()), "length and version");
    }

    // protocol 2.8
    #[test]
    fn the_first_follower_stays_and_an_older_statement_changes_nothing() {
        let mut followers = chain(&[(1, 2), (2, 3)]);
        assert_eq!(followers.take(proven(1, 2), &[]), Ok(false), "again");
        assert_eq!(followers.take(proven(1, 9), &[]), Err(NotTaken::Contested(id(2))));
        assert_eq!(followers.take(proven(3, 1), &[]), Err(NotTaken::Circle));
        assert_eq!((followers.after(id(1)).last(), followers.present(id(1), &[])), (Some(id(3)), id(1)), "nobody of them has been here");
        assert!(followers.leads(id(1), id(3), &[]) && !followers.leads(id(3), id(1), &[]));
        assert_eq!(followers.before(id(3)), [id(2), id(1)]);
    }

    // protocol 2.8
    #[test]
    fn who_is_followed_is_refused_only_when_the_follower_was_proven() {
        let mut followers = chain(&[(1, 2), (2, 3)]);
        assert!(!followers.is_retired(id(1), &[]));
        assert_eq!(followers.proved(id(2)), [Succession { old: id(1), new: id(2), proven: true }]);
        assert_eq!(followers.present(id(1), &[]), id(2), "the third one has only been told of");
        assert_eq!(followers.proved(id(3)).len(), 1);
        assert_eq!(followers.present(id(1), &[]), id(3));
        assert!(followers.is_retired(id(1), &[]) && followers.is_retired(id(2), &[]) && !followers.is_retired(id(3), &[]));
        assert!(followers.proved(id(3)).is_empty(), "told once");
        let again = Followers::new(Vec::new(), &followers.remembered());
        assert_eq!(again, followers, "kept over a restart");
    }

    // protocol 2.8
    #[test]
    fn who_is_revoked_passes_nothing_on_and_a_revoked_follower_makes_room() {
        let mut followers = chain(&[(1, 2), (2, 3)]);
        followers.proved(id(3));
        assert!(!followers.leads(id(1), id(3), &[id(2)]));
        assert_eq!(followers.take(proven(4, 5), &[id(4)]), Err(NotTaken::Revoked));
        // the old key was stolen, and the thief's identity is revoked: the true one follows
        assert!(!followers.is_retired(id(1), &[id(2)]));
        assert_eq!(followers.take(proven(1, 8), &[id(2)]), Ok(true));
        assert_eq!((followers.follower(id(1)), followers.present(id(1), &[id(2)])), (Some(id(8)), id(1)));
    }

    // protocol 2.8
    #[test]
    fn nobody_else_follows_one_of_our_own_line_and_what_we_were_is_refused() {
        let first = identity(1).id();
        let mut followers = Followers::new(vec![statement(1, 2)], &[Succession { old: first, new: id(9), proven: true }]);
        assert_eq!(followers.present(first, &[]), identity(2).id(), "our own word, whatever is remembered");
        assert_eq!(followers.take(Proven { old: first, new: id(9) }, &[]), Err(NotTaken::Contested(identity(2).id())));
        assert!(followers.is_retired(first, &[]), "we have its place");
        assert_eq!(followers.announce(statement(2, 3)), Ok(true));
        assert!(!followers.is_retired(identity(2).id(), &[]), "not before the new one has been here");
        assert_eq!(followers.own_line(identity(3).id()), [identity(2).id(), first]);
        assert_eq!(followers.announce(statement(2, 3)), Ok(false), "again");
        assert_eq!(followers.own().len(), 2, "and once is enough");
        assert_eq!(followers.announce(statement(2, 4)), Err(NotTaken::Contested(identity(3).id())));
    }

    // protocol 2.8
    #[test]
    fn lines_and_tables_have_an_end() {
        let mut followers = Followers::default();
        for n in 1..LINE_MAX as u8 {
            assert_eq!(followers.take(proven(n, n + 1), &[]), Ok(true), "{n}");
        }
        let last = LINE_MAX as u8;
        assert_eq!(followers.take(proven(last, last + 1), &[]), Err(NotTaken::TooLong));
        assert_eq!(followers.take(proven(100, last), &[]), Err(NotTaken::TooLong), "from the side");
        assert_eq!(followers.take(proven(100, 101), &[]), Ok(true), "another line");
        let many = |n: u16| PeerId([n.to_be_bytes(), [7; 2]].concat().repeat(8).try_into().expect("32 bytes"));
        let mut followers = Followers::default();
        for n in 0..SUCCESSIONS_MAX as u16 {
            assert_eq!(followers.take(Proven { old: many(2 * n), new: many(2 * n + 1) }, &[]), Ok(true));
        }
        assert_eq!(followers.take(proven(1, 2), &[]), Err(NotTaken::Full));
        assert_eq!(followers.announce(statement(1, 2)), Ok(true), "our own has room");
        let again = Followers::new(followers.own().to_vec(), &followers.remembered());
        assert_eq!(again.remembered().len(), SUCCESSIONS_MAX + 1, "and nothing is lost by it over a restart");
    }
}
