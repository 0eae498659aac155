//! Which label means which peer: from the directory of peers and from `[[peer]]`.
use super::message::{Directory, Found};
use shadowmesh_core::{id::PeerId, status::Status};
use std::{collections::BTreeMap, net::IpAddr};

/// Longest label (RFC 1035 2.3.4).
const MAX_LABEL: usize = 63;

/// All names at one moment.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Names {
    forward: BTreeMap<String, Vec<IpAddr>>,
    reverse: BTreeMap<IpAddr, String>,
    /// Our own addresses with prefix length: what lies in them is the mesh's.
    nets: Vec<(IpAddr, u8)>,
    /// Labels that mean several peers, and so none.
    ambiguous: Vec<String>,
}

impl Names {
    /// Our own name and those of `[[peer]]` (`listed`) win over what peers call themselves; names of one rank that meet mean nobody.
    pub(crate) fn new(status: &Status, listed: &[(String, PeerId)]) -> Self {
        let mut owners: BTreeMap<String, Vec<PeerId>> = BTreeMap::new();
        let add = |owners: &mut BTreeMap<String, Vec<PeerId>>, name: &str, id: PeerId| {
            let Some(label) = label(name) else { return };
            let ids = owners.entry(label).or_default();
            if !ids.contains(&id) {
                ids.push(id);
            }
        };
        add(&mut owners, &status.name, status.id);
        for (name, id) in listed {
            add(&mut owners, name, status.present(*id));
        }
        let mut claimed = BTreeMap::new();
        let is_listed = |id: &PeerId| listed.iter().any(|(_, listed)| status.present(*listed) == *id);
        for peer in status.peers.iter().filter(|peer| !is_listed(&peer.id)) {
            if let Some(name) = &peer.name {
                add(&mut claimed, name, peer.id);
            }
        }
        for (label, ids) in claimed {
            owners.entry(label).or_insert(ids);
        }
        let own: Vec<IpAddr> = status.addresses.iter().map(|(address, _)| *address).collect();
        let addresses: BTreeMap<PeerId, &[IpAddr]> = status.peers.iter().map(|peer| (peer.id, peer.addresses.as_slice())).collect();
        let mut names = Self { nets: status.addresses.clone(), ..Self::default() };
        for (label, ids) in owners {
            let [id] = ids.as_slice() else {
                names.ambiguous.push(label);
                continue;
            };
            let addresses = if *id == status.id { &own[..] } else { addresses.get(id).copied().unwrap_or_default() };
            for address in addresses {
                names.reverse.entry(*address).or_insert_with(|| label.clone());
            }
            names.forward.insert(label, addresses.to_vec());
        }
        names
    }

    /// Labels that mean several peers, and so none.
    pub(crate) fn ambiguous(&self) -> &[String] {
        &self.ambiguous
    }
}

impl Directory for Names {
    fn addresses(&self, label: &str) -> Found<&[IpAddr]> {
        self.forward.get(label).map_or(Found::Nowhere, |addresses| Found::There(addresses))
    }

    fn label(&self, address: IpAddr) -> Found<&str> {
        match self.reverse.get(&address) {
            Some(label) => Found::There(label),
            None if self.nets.iter().any(|net| holds(*net, address)) => Found::Nowhere,
            None => Found::NotOurs,
        }
    }
}

/// A name as a label: letters, digits and dashes (RFC 952, RFC 1123 2.1), in lower case; all else becomes a dash. None: nothing is left.
pub(crate) fn label(name: &str) -> Option<String> {
    let mut label = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            label.push(letter.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(MAX_LABEL);
    let label = label.trim_end_matches('-');
    (!label.is_empty()).then(|| label.to_owned())
}

fn holds((net, length): (IpAddr, u8), address: IpAddr) -> bool {
    match (net, address) {
        (IpAddr::V4(net), IpAddr::V4(address)) => (net.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(length),
        (IpAddr::V6(net), IpAddr::V6(address)) => (net.to_bits() ^ address.to_bits()).leading_zeros() >= u32::from(length),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve::tests::{peer, status};

    fn addresses(names: &Names, label: &str) -> Option<Vec<String>> {
        match names.addresses(label) {
            Found::There(addresses) => Some(addresses.iter().map(IpAddr::to_string).collect()),
            Found::Nowhere | Found::NotOurs => None,
        }
    }

    #[test]
    fn claimed_names_are_there_unless_they_meet() {
        let mut status = status();
        status.addresses = vec![([10, 77, 0, 9].into(), 24)];
        let names = Names::new(&status, &[]);
        assert_eq!(addresses(&names, "a"), Some(vec!["10.77.0.1".to_owned()]));
        assert_eq!(addresses(&names, "me"), Some(vec!["10.77.0.9".to_owned()]));
        assert_eq!((addresses(&names, "b"), names.ambiguous()), (None, &["b".to_owned()][..]));
        assert!(matches!(names.label([10, 77, 0, 1].into()), Found::There("a")));
        assert!(matches!(names.label([10, 77, 0, 2].into()), Found::Nowhere), "an ambiguous name is no name of an address");
        assert!(matches!(names.label([10, 77, 1, 1].into()), Found::NotOurs));
    }

    #[test]
    fn a_listed_name_wins_over_claims_and_hides_what_its_peer_claims() {
        let mut status = status();
        status.peers.push(peer(4, "me", "10.77.0.4"));
        let listed = [("b".to_owned(), PeerId([3; 32])), ("x".to_owned(), PeerId([1; 32]))];
        let names = Names::new(&status, &listed);
        assert_eq!(addresses(&names, "b"), Some(vec!["10.77.0.3".to_owned()]));
        assert_eq!(addresses(&names, "x"), Some(vec!["10.77.0.1".to_owned()]));
        assert_eq!(addresses(&names, "a"), None, "what a listed peer calls itself is not asked");
        assert_eq!(addresses(&names, "me"), Some(vec![]), "our own name is ours");
        assert!(names.ambiguous().is_empty());
        let both = [("Me".to_owned(), PeerId([1; 32]))];
        assert_eq!(Names::new(&status, &both).ambiguous(), ["b", "me"], "two of ours meet, as two claims do");
    }

    #[test]
    fn labels_are_letters_digits_and_dashes() {
        for (name, expected) in [
            ("laptop", Some("laptop")),
            ("Ann's Laptop", Some("ann-s-laptop")),
            ("a.b_c", Some("a-b-c")),
            ("--x--", Some("x")),
            ("Größe", Some("gr-e")),
            ("___", None),
            ("", None),
        ] {
            assert_eq!(label(name).as_deref(), expected, "{name}");
        }
        assert_eq!(label(&format!("{}.b", "a".repeat(62))).as_deref(), Some("a".repeat(62).as_str()));
    }
}
