//! What stands on the wire (docs/protocol.md): one type a message. `parse` reads bytes that came in and can refuse
//! them, `emit` appends bytes that go out. Everything is big-endian.
//!
//! ```text
//! WebSocket message ─┬─ first byte 30 or 31: records (record) ─▶ one of the following each
//!                    └─ else exactly one of:
//!                       01 02 03  handshake
//!                       10        sealed frame (frame) ─▶ inner type 80: LaneControl (lane), NodeControl (control), RelayMessage (relay)
//!                       20 21 22  re-handshake on a path
//! UDP datagram ────── also 24 25    a client's address as its relay sees it (bind)
//!                          27 28    a handshake in fragments, and the cookie that it needs (frag)
//! ```
//!
//! A parser accepts exactly what `emit` makes: reserved bytes are zero, and nothing may follow the last field, except
//! where an extension is planned: behind the entries of ESTABLISHED (protocol 6.5), and in TLV lists.
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::wildcard_enum_match_arm))]
pub mod addr;
pub mod bind;
pub mod control;
pub mod frag;
pub mod frame;
pub mod lane;
pub mod params;
pub mod path;
pub mod proxy;
pub mod reader;
pub mod record;
pub mod relay;

pub use bind::{BIND_LEN, BIND_MAC_LEN, Bind, Bound, TICKET_LEN};
pub use control::{
    CLOSE_DOWN, CLOSE_NO_ACCESS, CLOSE_OVERLOAD, CLOSE_PROTOCOL, CLOSE_REFUSED, CLOSE_REPLACED, CLOSE_SESSION_OLD, CLOSE_SHARED_IDENTITY,
    CLOSE_SILENT, CONTROL_PIECE_MAX_LEN, Candidate, CandidateKind, MAX_CANDIDATES, NodeControl, PathLabel, PeerMessage,
    SUCCESSION_PART_LEN, Transport,
};
pub use frag::{
    COOKIE_LEN, COOKIE_REPLY_LEN, CookieReply, FRAGMENT_BODY_LEN, FRAGMENT_HEADER_LEN, FRAGMENT_MAX_LEN, FRAGMENT_TAG_LEN, Fragment,
    FragmentKind,
};
pub use frame::{
    Counter, DATA_LANES, FRAME_HEADER_LEN, FRAME_OVERHEAD, FrameHeader, INNER_CONTROL, INNER_ETHERNET, INNER_ETHERNET_PARTIAL, INNER_IP,
    INNER_IP_PARTIAL, INNER_KEEPALIVE, INNER_PIECE, LANE_CONTROL_BIT, LANE_NODE, LEAST_BUDGET, TAG_LEN,
};
pub use lane::{LaneControl, RECEIPT_MASK_WORDS, Receipt, ReceiptMask};
pub use params::{PARAMS_LEN_MAX, Params};
pub use path::{
    PATH_COMPLETE_LEN, PATH_MAC_LEN, PATH_PADDED_MAX_LEN, PATH_REQUEST_LEN, PATH_RESPONSE_LEN, PathComplete, PathHeader, PathRequest,
    PathResponse,
};
pub use proxy::{Announced, PROXY_HEADER_MAX_LEN, ProxyFault, is_proxy_header, parse_proxy_header};
pub use reader::{Malformed, Reader};
pub use record::{RECORD_FLAG_URGENT, RECORD_HEADER_LEN, Record, Records, peek_record, record_header};
pub use relay::{DirectoryEntry, Established, MAX_DIRECTORY_ENTRIES, RelayMessage, UPDATE_SUPPORTS_DIRECT, UPDATE_WITHHOLD_ADDRESS};

/// First byte of INIT (protocol 3.2).
pub const TYPE_INIT: u8 = 0x01;
/// First byte of RESP (protocol 3.3).
pub const TYPE_RESP: u8 = 0x02;
/// First byte of FIN (protocol 3.4).
pub const TYPE_FIN: u8 = 0x03;
/// First byte of a sealed frame (protocol 4.1).
pub const TYPE_FRAME: u8 = 0x10;
/// First byte of `PATH_REQ` (protocol 5.1).
pub const TYPE_PATH_REQ: u8 = 0x20;
/// First byte of `PATH_RSP` (protocol 5.1).
pub const TYPE_PATH_RSP: u8 = 0x21;
/// First byte of `PATH_CMP` (protocol 5.1).
pub const TYPE_PATH_CMP: u8 = 0x22;
/// First byte of BIND (protocol 8.1).
pub const TYPE_BIND: u8 = 0x24;
/// First byte of BOUND (protocol 8.1).
pub const TYPE_BOUND: u8 = 0x25;
/// First byte of OPENER (protocol 8.5).
pub const TYPE_OPENER: u8 = 0x26;
/// A datagram that says nothing: it makes a NAT on the way give a mapping (protocol 8.5).
pub const OPENER: [u8; 4] = [TYPE_OPENER, 0, 0, 0];
/// First byte of FRAG (protocol 8.6).
pub const TYPE_FRAG: u8 = 0x27;
/// First byte of `COOKIE_REPLY` (protocol 8.6).
pub const TYPE_COOKIE_REPLY: u8 = 0x28;
/// First byte of a record to the relay, or on a direct connection (protocol 9.1).
pub const TYPE_FWD: u8 = 0x30;
/// First byte of a record from the relay (protocol 9.1).
pub const TYPE_DLV: u8 = 0x31;
