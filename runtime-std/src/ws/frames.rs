//! Frames of WebSocket (RFC 6455 §5) on a stream of bytes: what comes in pieces of any size becomes messages, each byte copied once.
//!
//! The upgrade is the library's work; its frames are ours, because each byte that a relay carries comes by here twice.
use super::MESSAGE_BYTES;
use core::ops::ControlFlow;
use shadowmesh_core::event::Ended;

/// Longest frame header: two bytes, a length of eight, a key of four.
const HEADER_MAX: usize = 14;

/// Longest content of a control frame (RFC 6455 §5.5).
const CONTROL_BYTES: usize = 125;

/// Room made for a message before its bytes are here: a header is quickly said.
const FIRST_ROOM: usize = 17 * 1024;

const CONTINUATION: u8 = 0;
const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
/// In place of a length: one of two, or eight, bytes follows.
const LEN_OF_TWO: u8 = 0x7e;
const LEN_OF_EIGHT: u8 = 0x7f;

/// Which end of a connection this is: a client masks what it sends, a server does not (RFC 6455 §5.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// It dialled.
    Client,
    /// It took the connection.
    Server,
}

/// Something whole that came.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A binary message.
    Message(Vec<u8>),
    /// A ping, with what the answer has to say.
    Ping(Vec<u8>),
    /// A pong, which nobody waits for.
    Pong,
    /// The other end says good-bye.
    Close,
}

/// The header of a frame.
#[derive(Clone, Copy, Debug)]
struct Header {
    opcode: u8,
    is_last: bool,
    mask: [u8; 4],
    len: usize,
}

/// A frame whose content is coming.
#[derive(Clone, Copy, Debug)]
struct Body {
    header: Header,
    came: usize,
}

/// What has come of the frames of one direction.
#[derive(Debug)]
pub struct Incoming {
    /// Which end reads.
    side: Side,
    head: [u8; HEADER_MAX],
    head_len: usize,
    body: Option<Body>,
    /// Of the message under way, over all of its frames.
    message: Vec<u8>,
    /// A frame that was not the last of its message has come.
    goes_on: bool,
    control: Vec<u8>,
}

impl Incoming {
    /// What `side` reads.
    pub fn new(side: Side) -> Self {
        Self { side, head: [0; HEADER_MAX], head_len: 0, body: None, message: Vec::new(), goes_on: false, control: Vec::new() }
    }

    /// Takes bytes, up to the end of the first thing that is whole; how many, and that.
    ///
    /// # Errors
    /// When this is no WebSocket, or more than is allowed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(usize, Option<Item>), Ended> {
        let mut taken = 0;
        loop {
            let body = if let Some(body) = self.body {
                body
            } else {
                let (used, header) = self.take_header(&bytes[taken..])?;
                taken += used;
                let Some(header) = header else { return Ok((taken, None)) };
                self.begin(header)?
            };
            let (used, item) = self.take_body(body, &bytes[taken..]);
            taken += used;
            match item {
                ControlFlow::Break(item) => return Ok((taken, item)),
                ControlFlow::Continue(()) => {}
            }
        }
    }

    /// Takes bytes of a header; the header when it is whole.
    fn take_header(&mut self, bytes: &[u8]) -> Result<(usize, Option<Header>), Ended> {
        let mut taken = 0;
        loop {
            let needed = header_len(&self.head[..self.head_len]);
            if self.head_len == needed {
                let header = self.read_header()?;
                self.head_len = 0;
                return Ok((taken, Some(header)));
            }
            let len = (needed - self.head_len).min(bytes.len() - taken);
            if len == 0 {
                return Ok((taken, None));
            }
            self.head[self.head_len..self.head_len + len].copy_from_slice(&bytes[taken..taken + len]);
            (self.head_len, taken) = (self.head_len + len, taken + len);
        }
    }

    fn read_header(&self) -> Result<Header, Ended> {
        let [first, second, rest @ ..] = self.head;
        if first & 0x70 != 0 {
            return Err(broken("a frame has a bit that nobody agreed on"));
        }
        if (second & MASKED != 0) != (self.side == Side::Server) {
            return Err(broken("a frame is masked by a server, or not masked by a client"));
        }
        let (len, least, after) = match second & LEN_OF_EIGHT {
            LEN_OF_TWO => (u64::from(u16::from_be_bytes([rest[0], rest[1]])), 126, 2),
            LEN_OF_EIGHT => (u64::from_be_bytes([rest[0], rest[1], rest[2], rest[3], rest[4], rest[5], rest[6], rest[7]]), 1 << 16, 8),
            len => (u64::from(len), 0, 0),
        };
        if len < least {
            return Err(broken("a length is not in its shortest form"));
        }
        let mask = if self.side == Side::Server { [rest[after], rest[after + 1], rest[after + 2], rest[after + 3]] } else { [0; 4] };
        let len = usize::try_from(len).ok().filter(|len| *len <= MESSAGE_BYTES).ok_or_else(too_long)?;
        Ok(Header { opcode: first & 0x0f, is_last: first & FIN != 0, mask, len })
    }

    /// Whether such a frame may come now.
    fn begin(&mut self, header: Header) -> Result<Body, Ended> {
        match header.opcode {
            CLOSE | PING | PONG if header.is_last && header.len <= CONTROL_BYTES => {}
            CLOSE | PING | PONG => return Err(broken("a control frame is long or in parts")),
            TEXT => return Err(broken("a text message came")),
            BINARY if self.goes_on => return Err(broken("a message begins inside another")),
            CONTINUATION if !self.goes_on => return Err(broken("a part of no message came")),
            BINARY | CONTINUATION => {
                if self.message.len() + header.len > MESSAGE_BYTES {
                    return Err(too_long());
                }
                self.message.reserve_exact(header.len.min(FIRST_ROOM));
            }
            _ => return Err(broken("a frame is of an unknown kind")),
        }
        let body = Body { header, came: 0 };
        self.body = Some(body);
        Ok(body)
    }

    /// Takes bytes of a frame's content. Goes on when the frame is over and nothing whole came of it.
    fn take_body(&mut self, mut body: Body, bytes: &[u8]) -> (usize, ControlFlow<Option<Item>>) {
        let is_data = matches!(body.header.opcode, CONTINUATION | BINARY);
        let part = &bytes[..bytes.len().min(body.header.len - body.came)];
        let into = if is_data { &mut self.message } else { &mut self.control };
        let start = into.len();
        into.extend_from_slice(part);
        apply_mask(&mut into[start..], body.header.mask, body.came);
        body.came += part.len();
        if body.came < body.header.len {
            self.body = Some(body);
            return (part.len(), ControlFlow::Break(None));
        }
        self.body = None;
        let item = match body.header.opcode {
            CLOSE => Some(Item::Close),
            PING => Some(Item::Ping(core::mem::take(&mut self.control))),
            PONG => Some(Item::Pong),
            _ => {
                self.goes_on = !body.header.is_last;
                body.header.is_last.then(|| Item::Message(core::mem::take(&mut self.message)))
            }
        };
        self.control = Vec::new();
        (part.len(), item.map_or(ControlFlow::Continue(()), |item| ControlFlow::Break(Some(item))))
    }
}

/// How long the header is that begins so, as far as that can be told.
fn header_len(known: &[u8]) -> usize {
    let Some(second) = known.get(1) else { return 2 };
    let length = match second & LEN_OF_EIGHT {
        LEN_OF_TWO => 2,
        LEN_OF_EIGHT => 8,
        _ => 0,
    };
    2 + length + if second & MASKED == 0 { 0 } else { 4 }
}

/// What a frame may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole binary message.
    Message,
    /// The answer to a ping.
    Pong,
    /// Good-bye.
    Close,
}

/// The header of a frame that is sent.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    bytes: [u8; HEADER_MAX],
    len: usize,
}

impl Head {
    /// The header of a whole frame with this content, which it masks when there is a key.
    pub fn of(kind: Kind, content: &mut [u8], mask: Option<[u8; 4]>) -> Self {
        let mut head = Self { bytes: [0; HEADER_MAX], len: 0 };
        let opcode = match kind {
            Kind::Message => BINARY,
            Kind::Pong => PONG,
            Kind::Close => CLOSE,
        };
        let masked = if mask.is_some() { MASKED } else { 0 };
        let len = content.len();
        match (u8::try_from(len), u16::try_from(len)) {
            (Ok(short @ ..126), _) => head.put(&[FIN | opcode, masked | short]),
            (_, Ok(middle)) => {
                head.put(&[FIN | opcode, masked | LEN_OF_TWO]);
                head.put(&middle.to_be_bytes());
            }
            _ => {
                head.put(&[FIN | opcode, masked | LEN_OF_EIGHT]);
                head.put(&(len as u64).to_be_bytes());
            }
        }
        if let Some(mask) = mask {
            head.put(&mask);
            apply_mask(content, mask, 0);
        }
        head
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    /// As it goes before the content.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// Masks or unmasks what stands `at` bytes behind the start of a frame's content (RFC 6455 §5.3).
fn apply_mask(bytes: &mut [u8], mut mask: [u8; 4], at: usize) {
    if mask == [0; 4] {
        return;
    }
    mask.rotate_left(at % 4);
    let wide = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= key;
    }
}

fn broken(why: &str) -> Ended {
    Ended::WebSocket(why.to_owned())
}

fn too_long() -> Ended {
    broken("a message is too long")
}

#[cfg(test)]
mod tests;
