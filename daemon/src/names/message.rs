//! Questions and answers of the domain name system (RFC 1035), as much of it as a stub resolver asks for names of peers.
//!
//! Whatever comes is read once from front to back, each length against what is there, and an answer is never longer than 1,232 bytes.
//! One question without compression, the class of the Internet, EDNS (RFC 6891) version 0; all else gets a code and nothing more.
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The domain of peers, as it stands in a message.
const ZONE: &str = "mesh";
/// Of answers: names and addresses can change, and asking again costs nothing.
const TTL_S: u32 = 30;
/// Of the news that there is no such name: it may be there in a moment.
const NEGATIVE_TTL_S: u32 = 1;
/// What an answer has room for without EDNS, and with it.
const PLAIN_BYTES: usize = 512;
const EDNS_BYTES: usize = 1232;
const HEADER_LEN: usize = 12;
const OPT_LEN: usize = 11;
const MAX_NAME_BYTES: usize = 255;
const MAX_LABEL_BYTES: u8 = 63;

const A: u16 = 1;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const OPT: u16 = 41;
const ANY: u16 = 255;
const INTERNET: u16 = 1;

/// What an answer says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Code {
    Good = 0,
    Malformed = 1,
    NoSuchName = 3,
    NotImplemented = 4,
    Refused = 5,
}

/// What is asked about.
pub(crate) enum Found<T> {
    /// It is there, with so much.
    There(T),
    /// There is no such thing.
    Nowhere,
    /// It is not ours to say.
    NotOurs,
}

/// Who knows names.
pub(crate) trait Directory {
    /// Addresses of a peer, by the label before `.mesh`, in lower case.
    fn addresses(&self, label: &str) -> Found<&[IpAddr]>;
    /// The label of whoever has an address.
    fn label(&self, address: IpAddr) -> Found<&str>;
}

/// The one question of a message.
struct Question<'a> {
    /// Its labels in lower case, in their order.
    labels: Vec<String>,
    kind: u16,
    class: u16,
    /// As it stands in the message.
    bytes: &'a [u8],
    rest: &'a [u8],
}

/// The answer to a message; nothing for what is no question at all.
pub(crate) fn answer(message: &[u8], directory: &impl Directory) -> Option<Vec<u8>> {
    let (header, rest) = message.split_first_chunk::<HEADER_LEN>()?;
    if header[2] & 0x80 != 0 {
        return None; // an answer
    }
    if header[2] & 0x78 != 0 {
        return Some(Answer::new(header, None).finish(Code::NotImplemented));
    }
    let counts: [u16; 4] = core::array::from_fn(|at| u16::from_be_bytes([header[4 + 2 * at], header[5 + 2 * at]]));
    let question = if counts[0] == 1 && counts[1] == 0 && counts[2] == 0 { Question::parse(rest) } else { None };
    let Some(question) = question else { return Some(Answer::new(header, None).finish(Code::Malformed)) };
    let mut answer = Answer::new(header, Some(&question));
    answer.edns = if counts[3] > 0 { edns_version(question.rest) } else { None };
    let code = match answer.edns {
        Some(0) | None => answer.fill(&question, directory),
        // BADVERS, whose lower four bits are those of "good"
        Some(_) => Code::Good,
    };
    Some(answer.finish(code))
}

impl<'a> Question<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (mut labels, mut at) = (Vec::new(), 0);
        loop {
            let len = *bytes.get(at)?;
            at += 1;
            if len == 0 {
                break;
            }
            let end = at + usize::from(len);
            let label = bytes.get(at..end)?;
            if len > MAX_LABEL_BYTES || end >= MAX_NAME_BYTES {
                return None;
            }
            // What is no ASCII is no name of ours, and stays one label.
            labels.push(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())).collect());
            at = end;
        }
        let word = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
        let (kind, class) = (word(at)?, word(at + 2)?);
        let (bytes, rest) = bytes.split_at(at + 4);
        Some(Self { labels, kind, class, bytes, rest })
    }

    /// The address that a name of the reverse trees means (RFC 1035 3.5, RFC 3596 2.5).
    fn reverse(&self) -> Option<IpAddr> {
        let labels: Vec<&str> = self.labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [d, c, b, a, "in-addr", "arpa"] => {
                let byte = |text: &&str| text.parse::<u8>().ok().filter(|byte| byte.to_string() == **text);
                Some(IpAddr::V4(Ipv4Addr::new(byte(a)?, byte(b)?, byte(c)?, byte(d)?)))
            }
            [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
                let nibble = |text: &&str| if text.len() == 1 { u128::from_str_radix(text, 16).ok() } else { None };
                let value = nibbles.iter().rev().try_fold(0_u128, |value, text| Some(value << 4 | nibble(text)?))?;
                Some(IpAddr::V6(Ipv6Addr::from(value)))
            }
            _ => None,
        }
    }
}

/// The version in an OPT record that begins here.
fn edns_version(bytes: &[u8]) -> Option<u8> {
    let record = bytes.first_chunk::<OPT_LEN>()?;
    (record[0] == 0 && u16::from_be_bytes([record[1], record[2]]) == OPT).then_some(record[6])
}

/// An answer while it is made.
struct Answer {
    bytes: Vec<u8>,
    answers: u16,
    authorities: u16,
    /// The version that the question named, when it has EDNS.
    edns: Option<u8>,
}

impl Answer {
    /// A header and the question again.
    fn new(header: &[u8; HEADER_LEN], question: Option<&Question<'_>>) -> Self {
        // the same id; an answer, authoritative, with the question's opcode and wish for recursion, which there is none of
        let mut bytes = vec![header[0], header[1], 0x84 | header[2] & 0x79, 0, 0, u8::from(question.is_some())];
        bytes.resize(HEADER_LEN, 0);
        bytes.extend(question.iter().flat_map(|question| question.bytes));
        Self { bytes, answers: 0, authorities: 0, edns: None }
    }

    fn fill(&mut self, question: &Question<'_>, directory: &impl Directory) -> Code {
        if ![INTERNET, ANY].contains(&question.class) {
            return Code::Refused;
        }
        let wants = |kind: u16| [kind, ANY].contains(&question.kind);
        let labels: Vec<&str> = question.labels.iter().map(String::as_str).collect();
        match labels.as_slice() {
            [ZONE] => self.nothing(question, Code::Good),
            [label, ZONE] => match directory.addresses(label) {
                Found::There(addresses) => {
                    let wanted = addresses.iter().filter(|address| wants(if address.is_ipv4() { A } else { AAAA }));
                    wanted.for_each(|address| self.address(*address));
                    if self.answers == 0 { self.nothing(question, Code::Good) } else { Code::Good }
                }
                Found::Nowhere | Found::NotOurs => self.nothing(question, Code::NoSuchName),
            },
            [.., ZONE] => self.nothing(question, Code::NoSuchName),
            _ => match question.reverse().map_or(Found::NotOurs, |address| directory.label(address)) {
                Found::There(label) => {
                    if wants(PTR) {
                        self.pointer(label);
                    }
                    Code::Good
                }
                Found::Nowhere => Code::NoSuchName,
                Found::NotOurs => Code::Refused,
            },
        }
    }

    /// An address of the name that was asked for.
    fn address(&mut self, address: IpAddr) {
        match address {
            IpAddr::V4(v4) => self.record(A, &v4.octets()),
            IpAddr::V6(v6) => self.record(AAAA, &v6.octets()),
        }
    }

    fn pointer(&mut self, label: &str) {
        let mut name = Vec::new();
        for part in [label, ZONE] {
            name.push(u8::try_from(part.len()).expect("labels are short"));
            name.extend_from_slice(part.as_bytes());
        }
        name.push(0);
        self.record(PTR, &name);
    }

    /// A record of the name that was asked for, while there is room for it.
    fn record(&mut self, kind: u16, data: &[u8]) {
        let most = if self.edns.is_some() { EDNS_BYTES - OPT_LEN } else { PLAIN_BYTES };
        if self.bytes.len() + 12 + data.len() > most {
            return;
        }
        self.answers += 1;
        self.put(HEADER_LEN, kind, TTL_S, data);
    }

    /// There is no such record: how long that may be believed (RFC 2308 5).
    fn nothing(&mut self, question: &Question<'_>, code: Code) -> Code {
        let zone = HEADER_LEN + question.bytes.len() - 4 - (ZONE.len() + 2);
        // no server and no mailbox to name; serial, refresh, retry, expire, and the time that counts
        let mut data = vec![0, 0];
        for value in [1, 3600, 600, 86_400, NEGATIVE_TTL_S] {
            data.extend_from_slice(&value.to_be_bytes());
        }
        self.authorities = 1;
        self.put(zone, SOA, NEGATIVE_TTL_S, &data);
        code
    }

    fn put(&mut self, name_at: usize, kind: u16, ttl_s: u32, data: &[u8]) {
        let pointer = 0xc000 | u16::try_from(name_at).expect("a name is at most 255 bytes");
        self.bytes.extend_from_slice(&pointer.to_be_bytes());
        self.bytes.extend_from_slice(&kind.to_be_bytes());
        self.bytes.extend_from_slice(&INTERNET.to_be_bytes());
        self.bytes.extend_from_slice(&ttl_s.to_be_bytes());
        self.bytes.extend_from_slice(&u16::try_from(data.len()).expect("data are short").to_be_bytes());
        self.bytes.extend_from_slice(data);
    }

    fn finish(mut self, code: Code) -> Vec<u8> {
        self.bytes[3] = code as u8;
        self.bytes[6..8].copy_from_slice(&self.answers.to_be_bytes());
        self.bytes[8..10].copy_from_slice(&self.authorities.to_be_bytes());
        if let Some(version) = self.edns {
            self.bytes[11] = 1;
            self.bytes.push(0);
            self.bytes.extend_from_slice(&OPT.to_be_bytes());
            self.bytes.extend_from_slice(&(EDNS_BYTES as u16).to_be_bytes());
            // upper bits of the code (BADVERS is 16), our version, no flags, no options
            self.bytes.extend_from_slice(&[u8::from(version > 0), 0, 0, 0, 0, 0]);
        }
        self.bytes
    }
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
