//! What a relay means by its CLOSE, for people (protocol 6.8).
use crate::{
    status::SHARED_IDENTITY,
    wire::{
        CLOSE_DOWN, CLOSE_NO_ACCESS, CLOSE_OVERLOAD, CLOSE_PROTOCOL, CLOSE_REFUSED, CLOSE_REPLACED, CLOSE_SESSION_OLD,
        CLOSE_SHARED_IDENTITY, CLOSE_SILENT,
    },
};

/// The reason as a sentence, with what to do where there is something.
pub(super) fn meaning(reason: u8) -> String {
    let known = match reason {
        CLOSE_DOWN => "it goes away",
        CLOSE_REPLACED => "a newer connection took this one's place",
        CLOSE_REFUSED => "it takes listed identities only; its operator can add this one to access.peers",
        CLOSE_PROTOCOL => "it found a mistake in what we said",
        CLOSE_OVERLOAD => "it has as many clients as it takes",
        CLOSE_SHARED_IDENTITY => return format!("{SHARED_IDENTITY}; give each machine its own"),
        CLOSE_SESSION_OLD => "the session was old",
        CLOSE_SILENT => "it heard nothing from us for too long",
        CLOSE_NO_ACCESS => {
            "it wants an access token, and the join token has none for it, or another; join with one made with --relay-token, or ask its operator"
        }
        other => return format!("reason {other}"),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    // protocol 6.8
    #[test]
    fn each_reason_of_a_relay_has_a_sentence_of_its_own_and_one_that_nobody_knows_its_number() {
        let told: Vec<String> = (CLOSE_DOWN..=CLOSE_NO_ACCESS).map(meaning).collect();
        for (code, words) in [
            (CLOSE_REFUSED, "access.peers"),
            (CLOSE_OVERLOAD, "as many clients as it takes"),
            (CLOSE_SHARED_IDENTITY, "give each machine its own"),
            (CLOSE_NO_ACCESS, "--relay-token"),
        ] {
            assert!(told[usize::from(code)].contains(words), "{code}: {}", told[usize::from(code)]);
        }
        for (code, sentence) in told.iter().enumerate() {
            assert!(!sentence.contains("reason") && told.iter().filter(|other| *other == sentence).count() == 1, "{code}: {sentence}");
        }
        assert_eq!(meaning(CLOSE_NO_ACCESS + 1), "reason 9");
    }
}
