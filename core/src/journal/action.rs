//! Actions as bytes, for the digest. Nothing reads them back, so an action is only as exact as a comparison needs:
//! keys stand as (session, epoch), the half of a handshake as the message that it made.
use super::{
    codec::{Field, put_list},
    event::{message, name},
};
use crate::{
    event::{Action, Note, Target, TlsRole},
    handshake::{Job, Setup, Work},
    hub::{self, HubAction},
    plane::Edit,
    session::Chain,
    succession::Succession,
};

/// The kinds of a peer's actions; a kind's number is its place.
pub(super) const NODE: [&str; 12] =
    ["Dial", "Hangup", "Send", "Compute", "Edit", "Listen", "Remember", "Note", "Sockets", "Flow", "Datagram", "Succeeded"];
/// The kinds of a relay's actions.
pub(super) const HUB: [&str; 6] = ["Send", "Hangup", "Compute", "Edit", "Note", "Datagram"];

pub(super) fn put_node(action: &Action, out: &mut Vec<u8>) {
    match action {
        Action::Dial { conn, target, timeout } => {
            out.push(0);
            (*conn, *timeout).put(out);
            match target {
                Target::Relay { index, url, pin } => {
                    out.push(0);
                    (*index, *pin).put(out);
                    url.put(out);
                }
                Target::Direct { address, pin } => {
                    out.push(1);
                    (*address, *pin).put(out);
                }
                Target::Punch { address, from, pin, role } => {
                    out.push(2);
                    (*address, *from).put(out);
                    pin.put(out);
                    (*role == TlsRole::Client).put(out);
                }
            }
        }
        Action::Hangup { conn } => {
            out.push(1);
            conn.put(out);
        }
        Action::Send { conn, bytes } => {
            out.push(2);
            conn.put(out);
            bytes.put(out);
        }
        Action::Compute(job) => {
            out.push(3);
            put_job(job, out);
        }
        Action::Edit(edit) => {
            out.push(4);
            put_edit(edit, out);
        }
        Action::Listen(open) => {
            out.push(5);
            open.put(out);
        }
        Action::Remember { address, peer } => {
            out.push(6);
            (*address, *peer).put(out);
        }
        Action::Note(note) => {
            out.push(7);
            // a note is for people, and its text for programmers has all of it
            format!("{note:?}").put(out);
        }
        Action::Sockets => out.push(8),
        Action::Flow { conn, remote, is_own } => {
            out.push(9);
            (*conn, *remote).put(out);
            is_own.put(out);
        }
        Action::Datagram { remote, bytes } => {
            out.push(10);
            remote.put(out);
            bytes.put(out);
        }
        Action::Succeeded(succession) => {
            out.push(11);
            succession.put(out);
        }
    }
}

pub(super) fn put_hub(action: &HubAction, out: &mut Vec<u8>) {
    match action {
        HubAction::Send { conn, bytes } => {
            out.push(0);
            conn.put(out);
            bytes.put(out);
        }
        HubAction::Hangup { conn, why } => {
            out.push(1);
            conn.put(out);
            put_list(why.as_bytes(), out);
        }
        HubAction::Compute(job) => {
            out.push(2);
            put_job(job, out);
        }
        HubAction::Edit(edit) => {
            out.push(3);
            match edit.0 {
                hub::Edit::Open { conn } => (0_u8, conn).put(out),
                hub::Edit::Join { conn, handle, network } => ((1_u8, conn), (handle, network)).put(out),
                hub::Edit::Part { conn } => (2_u8, conn).put(out),
                hub::Edit::Close { conn } => (3_u8, conn).put(out),
                hub::Edit::Attach { conn, address } => ((4_u8, conn), address).put(out),
                hub::Edit::Route { conn, receiver, to } => ((5_u8, conn), (receiver, to)).put(out),
            }
        }
        HubAction::Note(note) => {
            out.push(4);
            format!("{note:?}").put(out);
        }
        HubAction::Datagram { port, remote, bytes } => {
            out.push(5);
            (*port, *remote).put(out);
            bytes.put(out);
        }
    }
}

fn put_job(job: &Job, out: &mut Vec<u8>) {
    job.ticket.0.put(out);
    match &job.work {
        Work::Offer { setup, responder, sid, suites, coins } => {
            out.push(0);
            put_setup(setup, out);
            (*responder, *sid).put(out);
            suites.put(out);
            coins.put(out);
        }
        Work::Answer { setup, identity, init, sid, suites, params, coins } => {
            out.push(1);
            put_setup(setup, out);
            (identity.id(), *sid).put(out);
            init.put(out);
            suites.put(out);
            params.put(out);
            coins.put(out);
        }
        Work::Conclude { setup, identity, responder, offer, resp, params, coins } => {
            out.push(2);
            put_setup(setup, out);
            (identity.id(), *responder).put(out);
            put_list(offer.init(), out);
            resp.put(out);
            params.put(out);
            coins.put(out);
        }
        Work::Verify { identity, answer, fin } => {
            out.push(3);
            identity.id().put(out);
            put_list(answer.resp(), out);
            fin.put(out);
        }
        Work::RekeyOffer { epoch, coins } => {
            out.push(4);
            epoch.put(out);
            coins.put(out);
        }
        Work::RekeyAnswer { epoch, rekey1, chain, coins } => {
            out.push(5);
            epoch.put(out);
            rekey1.put(out);
            put_chain(chain, out);
            coins.put(out);
        }
        Work::RekeyConclude { epoch, offer, rekey2, chain } => {
            out.push(6);
            epoch.put(out);
            put_list(offer.rekey1(), out);
            rekey2.put(out);
            put_chain(chain, out);
        }
    }
}

/// The PSK is left out: it is the network's, and the network's id is there.
fn put_setup(setup: &Setup, out: &mut Vec<u8>) {
    out.push(setup.role.code());
    (setup.network_id, setup.channel_binding).put(out);
}

fn put_chain(chain: &Chain, out: &mut Vec<u8>) {
    (chain.session_id(), chain.epoch()).put(out);
}

fn put_edit(edit: &Edit, out: &mut Vec<u8>) {
    match edit {
        Edit::Peer { link, addresses, mac } => {
            (0_u8, *link).put(out);
            addresses.put(out);
            mac.put(out);
        }
        Edit::Forget { link } => (1_u8, *link).put(out),
        Edit::Install { link, install } => {
            (2_u8, *link).put(out);
            (install.session, install.keys.epoch).put(out);
            (install.local, install.remote).put(out);
            install.main.put(out);
            install.lanes.put(out);
        }
        Edit::Promote { link, local } => ((3_u8, *link), *local).put(out),
        Edit::Epoch { link, local, keys, seal } => {
            ((4_u8, *link), *local).put(out);
            (keys.path.session_id(), keys.epoch).put(out);
            seal.put(out);
        }
        Edit::Path { link, path, via, window, rtt, budget } => {
            ((5_u8, *link), *path).put(out);
            via.put(out);
            (*window, *rtt).put(out);
            budget.put(out);
        }
        Edit::Unpath { link, path } => ((6_u8, *link), *path).put(out),
        Edit::Hedge { link, rescue } => ((7_u8, *link), *rescue).put(out),
        Edit::Calm { link } => (8_u8, *link).put(out),
        Edit::Switch { link, to } => ((9_u8, *link), *to).put(out),
        Edit::FallBack { link, to } => ((10_u8, *link), *to).put(out),
        Edit::Retire { link, local } => ((11_u8, *link), *local).put(out),
        Edit::Relay { conn, stands } => ((12_u8, *conn), *stands).put(out),
    }
}

/// What people see of a peer's action.
pub(super) fn tell_node(action: &Action) -> String {
    match action {
        Action::Dial { conn, target: Target::Relay { url, .. }, .. } => format!("Dial {url} as {}", name(*conn)),
        Action::Dial { conn, target: Target::Direct { address, .. }, .. } => format!("Dial {address} as {}", name(*conn)),
        Action::Dial { conn, target: Target::Punch { address, from, role, .. }, .. } => {
            format!("Dial {address} from {from}, which dials us, as {}: TLS {role:?}", name(*conn))
        }
        Action::Hangup { conn } => format!("Hangup {}", name(*conn)),
        Action::Send { conn, bytes } => format!("Send on {}: {}", name(*conn), message(bytes)),
        Action::Compute(job) => tell_job(job),
        Action::Edit(edit) => tell_edit(edit),
        Action::Listen(open) => format!("Listen {open}"),
        Action::Remember { address, peer } => format!("Remember {address} for {}", peer.short()),
        Action::Note(Note::Refused { who, what }) => format!("Note: refused {}: {what}", who.map_or("somebody".into(), |id| id.short())),
        Action::Note(note) => format!("Note: {note:?}"),
        Action::Sockets => "Sockets".into(),
        Action::Flow { conn, remote, is_own } => {
            let socket = if *is_own { ", a socket of its own" } else { "" };
            format!("Flow with {remote} as {}{socket}", name(*conn))
        }
        Action::Datagram { remote, bytes } => format!("Datagram to {remote}: {}", message(bytes)),
        Action::Succeeded(Succession { old, new, proven }) => {
            format!("Succeeded: {} follows {}{}", new.short(), old.short(), if *proven { ", proven" } else { "" })
        }
    }
}

/// What people see of a relay's action.
pub(super) fn tell_hub(action: &HubAction) -> String {
    match action {
        HubAction::Send { conn, bytes } => format!("Send on {}: {}", name(*conn), message(bytes)),
        HubAction::Hangup { conn, why } => format!("Hangup {}: {why}", name(*conn)),
        HubAction::Compute(job) => tell_job(job),
        HubAction::Edit(edit) => format!("Edit {:?}", edit.0),
        HubAction::Note(note) => format!("Note: {note:?}"),
        HubAction::Datagram { port, remote, bytes } => format!("Datagram from port {port} to {remote}: {}", message(bytes)),
    }
}

fn tell_job(job: &Job) -> String {
    let work = match &job.work {
        Work::Offer { responder, .. } => format!("INIT for {}", responder.short()),
        Work::Answer { .. } => "RESP".into(),
        Work::Conclude { responder, .. } => format!("FIN for {}", responder.short()),
        Work::Verify { .. } => "check FIN".into(),
        Work::RekeyOffer { epoch, .. } => format!("REKEY1 of epoch {epoch}"),
        Work::RekeyAnswer { epoch, .. } => format!("REKEY2 of epoch {epoch}"),
        Work::RekeyConclude { epoch, .. } => format!("keys of epoch {epoch}"),
    };
    format!("Compute job {}: {work}", job.ticket.0)
}

fn tell_edit(edit: &Edit) -> String {
    match edit {
        Edit::Peer { link, addresses, .. } => format!("Edit Peer: link {} has {addresses:?}", link.0),
        Edit::Forget { link } => format!("Edit Forget: link {}", link.0),
        Edit::Install { link, install } => format!("Edit Install: link {}, session {:08x}", link.0, install.local),
        Edit::Promote { link, local } => format!("Edit Promote: link {}, session {local:08x}", link.0),
        Edit::Epoch { link, local, keys, seal } => {
            format!("Edit Epoch: link {}, session {local:08x}, epoch {}{}", link.0, keys.epoch, if *seal { ", seals" } else { "" })
        }
        Edit::Path { link, path, via, .. } => format!("Edit Path: link {}, path {} over {}", link.0, path.0, name(via.conn)),
        Edit::Unpath { link, path } => format!("Edit Unpath: link {}, path {}", link.0, path.0),
        Edit::Hedge { link, rescue } => format!("Edit Hedge: link {}, also over path {}", link.0, rescue.0),
        Edit::Calm { link } => format!("Edit Calm: link {}", link.0),
        Edit::Switch { link, to } => format!("Edit Switch: link {} to path {}", link.0, to.0),
        Edit::FallBack { link, to } => format!("Edit FallBack: link {} to path {}", link.0, to.0),
        Edit::Retire { link, local } => format!("Edit Retire: link {}, session {local:08x}", link.0),
        Edit::Relay { conn, stands } => format!("Edit Relay: {}{}", name(*conn), if *stands { "" } else { " is gone" }),
    }
}
