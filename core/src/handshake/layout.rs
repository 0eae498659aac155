//! Where the fields of INIT, RESP and FIN stand (protocol 3.2 to 3.4). Nothing here computes.
//!
//! ```text
//!   INIT 01 | ver_min | ver_max | role | sid_i u32 | n_suites, flags, 0, 0 | 4 × suite u16 | x25519_i 32 | mlkem_ek 1568
//!           | ext_len u16 | ext | mac1 16 | mac2 16
//!   RESP 02 | ver | suite u16 | sid_r u32 | sid_i u32 | x25519_r 32 | mlkem_ct 1568 | e1 | mac1 16
//!   FIN  03 | 0, 0, 0 | sid_r u32 | sid_i u32 | e2
//!   e1, e2 = AEAD(public key 2592 | signature 4627 | params ≤ 1 KiB) with its tag 16
//! ```
use super::Role;
use crate::{
    crypto::{KEM_CIPHERTEXT_LEN, KEM_PUBLIC_KEY_LEN, PUBLIC_KEY_LEN, SIGNATURE_LEN},
    session::Suite,
    wire::{Malformed, TAG_LEN, TYPE_FIN, TYPE_INIT, TYPE_RESP, params::PARAMS_LEN_MAX},
};

/// Bytes of mac1 and of mac2.
pub(super) const MAC_LEN: usize = 16;
/// Most suites that an INIT can offer.
pub(super) const SUITES_MAX: usize = 4;
/// Most bytes of extensions in an INIT; this version sends none and skips what it is sent.
const EXT_LEN_MAX: usize = 256;
/// The sealed part with empty params.
const SEALED_LEN_MIN: usize = PUBLIC_KEY_LEN + SIGNATURE_LEN + TAG_LEN;

const INIT_FIXED_LEN: usize = 4 + 4 + 4 + 2 * SUITES_MAX + 32 + KEM_PUBLIC_KEY_LEN + 2;
const RESP_CLEAR_LEN: usize = 4 + 4 + 4 + 32 + KEM_CIPHERTEXT_LEN;
const FIN_CLEAR_LEN: usize = 4 + 4 + 4;

/// Bytes of an INIT without extensions: every INIT of this version.
pub const INIT_LEN_MIN: usize = INIT_FIXED_LEN + 2 * MAC_LEN;
/// Most bytes of an INIT.
pub const INIT_LEN_MAX: usize = INIT_LEN_MIN + EXT_LEN_MAX;
/// Bytes of a RESP with empty params.
pub const RESP_LEN_MIN: usize = RESP_CLEAR_LEN + SEALED_LEN_MIN + MAC_LEN;
/// Most bytes of a RESP.
pub const RESP_LEN_MAX: usize = RESP_LEN_MIN + PARAMS_LEN_MAX;
/// Bytes of a FIN with empty params.
pub const FIN_LEN_MIN: usize = FIN_CLEAR_LEN + SEALED_LEN_MIN;
/// Most bytes of a FIN.
pub const FIN_LEN_MAX: usize = FIN_LEN_MIN + PARAMS_LEN_MAX;

/// What a machine wants to know of an INIT before it orders a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitInfo {
    /// The use.
    pub role: Role,
    /// The session number that the initiator chose for itself.
    pub sid: u32,
    /// The offered suites that this version knows, in the initiator's order.
    pub suites: Vec<Suite>,
}

/// Looks into an INIT; nothing in it is proven.
pub fn peek_init(bytes: &[u8]) -> Result<InitInfo, Malformed> {
    let init = Init::parse(bytes)?;
    Ok(InitInfo { role: init.role, sid: init.sid, suites: init.suites().collect() })
}

/// The session number in a RESP by which the initiator finds its attempt; nothing in it is proven.
pub fn peek_resp(bytes: &[u8]) -> Result<u32, Malformed> {
    Resp::parse(bytes).map(|resp| resp.sid_i)
}

/// The session number in a FIN by which the responder finds its attempt; nothing in it is proven.
pub fn peek_fin(bytes: &[u8]) -> Result<u32, Malformed> {
    Fin::parse(bytes).map(|fin| fin.sid_r)
}

/// A look at an INIT.
pub(super) struct Init<'a> {
    pub(super) version_min: u8,
    pub(super) version_max: u8,
    pub(super) role: Role,
    pub(super) sid: u32,
    suites: &'a [u8],
    pub(super) x25519: &'a [u8; 32],
    pub(super) mlkem_ek: &'a [u8; KEM_PUBLIC_KEY_LEN],
    /// All before the macs.
    pub(super) transcript: &'a [u8],
    pub(super) mac1: &'a [u8; MAC_LEN],
}

impl<'a> Init<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !(INIT_LEN_MIN..=INIT_LEN_MAX).contains(&bytes.len()) {
            return Err(Malformed("INIT: length"));
        }
        let (transcript, tail) = bytes.split_at(bytes.len() - 2 * MAC_LEN);
        let mut fields = Fields(transcript);
        let [kind, version_min, version_max, role] = *fields.take("INIT: type")?;
        let sid = u32::from_be_bytes(*fields.take("INIT: sid")?);
        let [count, flags, r0, r1] = *fields.take("INIT: flags")?;
        let slots: &[u8; 2 * SUITES_MAX] = fields.take("INIT: suites")?;
        let x25519 = fields.take("INIT: x25519")?;
        let mlkem_ek = fields.take("INIT: mlkem_ek")?;
        let ext_len = u16::from_be_bytes(*fields.take("INIT: ext_len")?);
        if kind != TYPE_INIT {
            return Err(Malformed("INIT: type"));
        }
        if version_min > version_max {
            return Err(Malformed("INIT: versions"));
        }
        let role = Role::from_code(role).ok_or(Malformed("INIT: role"))?;
        if [flags, r0, r1] != [0; 3] {
            return Err(Malformed("INIT: flags"));
        }
        let count = usize::from(count);
        if !(1..=SUITES_MAX).contains(&count) {
            return Err(Malformed("INIT: n_suites"));
        }
        let (suites, unused) = slots.split_at(2 * count);
        if unused.iter().any(|&byte| byte != 0) {
            return Err(Malformed("INIT: suites"));
        }
        if usize::from(ext_len) != fields.0.len() {
            return Err(Malformed("INIT: ext_len"));
        }
        let mut rest = Fields(tail);
        let mac1 = rest.take("INIT: mac1")?;
        if *rest.take::<MAC_LEN>("INIT: mac2")? != [0; MAC_LEN] {
            // protocol 8: cookies are for addresses that are not validated, where fragments carry them
            return Err(Malformed("INIT: mac2"));
        }
        Ok(Self { version_min, version_max, role, sid, suites, x25519, mlkem_ek, transcript, mac1 })
    }

    /// The offered suites that this version knows, in the initiator's order.
    pub(super) fn suites(&self) -> impl Iterator<Item = Suite> + use<'a> {
        self.suites.chunks_exact(2).filter_map(|code| Suite::from_code(u16::from_be_bytes([code[0], code[1]])))
    }
}

/// An INIT with its macs still zero.
pub(super) fn init(role: Role, sid: u32, suites: &[Suite], x25519: &[u8; 32], mlkem_ek: &[u8; KEM_PUBLIC_KEY_LEN]) -> Vec<u8> {
    let mut out = Vec::with_capacity(INIT_LEN_MIN);
    out.extend_from_slice(&[TYPE_INIT, super::VERSION, super::VERSION, role.code()]);
    out.extend_from_slice(&sid.to_be_bytes());
    out.extend_from_slice(&[suites.len() as u8, 0, 0, 0]);
    for slot in 0..SUITES_MAX {
        out.extend_from_slice(&suites.get(slot).map_or(0, |suite| suite.code()).to_be_bytes());
    }
    out.extend_from_slice(x25519);
    out.extend_from_slice(mlkem_ek);
    out.extend_from_slice(&[0; 2 + 2 * MAC_LEN]);
    out
}

/// A look at a RESP.
pub(super) struct Resp<'a> {
    pub(super) version: u8,
    pub(super) suite: u16,
    pub(super) sid_r: u32,
    pub(super) sid_i: u32,
    pub(super) x25519: &'a [u8; 32],
    pub(super) mlkem_ct: &'a [u8; KEM_CIPHERTEXT_LEN],
    /// All up to and including `mlkem_ct`.
    pub(super) clear: &'a [u8],
    pub(super) e1: &'a [u8],
    /// All before mac1.
    pub(super) maced: &'a [u8],
    pub(super) mac1: &'a [u8; MAC_LEN],
}

impl<'a> Resp<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !(RESP_LEN_MIN..=RESP_LEN_MAX).contains(&bytes.len()) {
            return Err(Malformed("RESP: length"));
        }
        let (maced, mac1) = bytes.split_last_chunk().ok_or(Malformed("RESP: mac1"))?;
        let (clear, e1) = maced.split_at(RESP_CLEAR_LEN);
        let mut fields = Fields(clear);
        let [kind, version, s0, s1] = *fields.take("RESP: type")?;
        if kind != TYPE_RESP {
            return Err(Malformed("RESP: type"));
        }
        Ok(Self {
            version,
            suite: u16::from_be_bytes([s0, s1]),
            sid_r: u32::from_be_bytes(*fields.take("RESP: sid_r")?),
            sid_i: u32::from_be_bytes(*fields.take("RESP: sid_i")?),
            x25519: fields.take("RESP: x25519")?,
            mlkem_ct: fields.take("RESP: mlkem_ct")?,
            clear,
            e1,
            maced,
            mac1,
        })
    }
}

/// A RESP up to and including `mlkem_ct`.
pub(super) fn resp_clear(suite: Suite, sid_r: u32, sid_i: u32, x25519: &[u8; 32], mlkem_ct: &[u8; KEM_CIPHERTEXT_LEN]) -> Vec<u8> {
    let mut out = Vec::with_capacity(RESP_LEN_MAX);
    out.extend_from_slice(&[TYPE_RESP, super::VERSION]);
    out.extend_from_slice(&suite.code().to_be_bytes());
    out.extend_from_slice(&sid_r.to_be_bytes());
    out.extend_from_slice(&sid_i.to_be_bytes());
    out.extend_from_slice(x25519);
    out.extend_from_slice(mlkem_ct);
    out
}

/// A look at a FIN.
pub(super) struct Fin<'a> {
    pub(super) sid_r: u32,
    pub(super) sid_i: u32,
    pub(super) e2: &'a [u8],
}

impl<'a> Fin<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if !(FIN_LEN_MIN..=FIN_LEN_MAX).contains(&bytes.len()) {
            return Err(Malformed("FIN: length"));
        }
        let mut fields = Fields(bytes);
        if *fields.take("FIN: type")? != [TYPE_FIN, 0, 0, 0] {
            return Err(Malformed("FIN: type"));
        }
        Ok(Self {
            sid_r: u32::from_be_bytes(*fields.take("FIN: sid_r")?),
            sid_i: u32::from_be_bytes(*fields.take("FIN: sid_i")?),
            e2: fields.0,
        })
    }
}

/// A FIN up to e2.
pub(super) fn fin_clear(sid_r: u32, sid_i: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(FIN_LEN_MAX);
    out.extend_from_slice(&[TYPE_FIN, 0, 0, 0]);
    out.extend_from_slice(&sid_r.to_be_bytes());
    out.extend_from_slice(&sid_i.to_be_bytes());
    out
}

/// What is left to read.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self, what: &'static str) -> Result<&'a [u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed(what))?;
        self.0 = rest;
        Ok(field)
    }
}
