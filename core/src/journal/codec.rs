//! How a value stands in a journal: numbers big-endian, lists and texts behind their length, choices behind a byte.
use crate::{
    config::Mode,
    drops::{Drop, Drops},
    id::{ConnId, Handle, LinkId, PathId, PeerId},
    plane::{LinkTally, Noticed, PathTally, PlaneBytes, Report, Tally, Via},
    session::{SessionId, Suite},
    time::{Duration, Instant},
    wire::{Malformed, Params, Reader},
};
use core::net::{IpAddr, SocketAddr};

/// A value that a journal holds.
pub(crate) trait Field: Sized {
    /// Appends it.
    fn put(&self, out: &mut Vec<u8>);
    /// Reads it back.
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed>;
}

/// A struct is its fields in order. Reading makes the whole struct, so a field that is not named here does not compile.
macro_rules! record {
    ($name:ident { $($field:ident),+ $(,)? }) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)+
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                $(let $field = Field::take(from)?;)+
                Ok(Self { $($field),+ })
            }
        }
    };
}
pub(crate) use record;

macro_rules! number {
    ($($kind:ident),+) => {$(
        impl Field for $kind {
            fn put(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_be_bytes());
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                from.array(stringify!($kind)).map(Self::from_be_bytes)
            }
        }
    )+};
}
number!(u8, u16, u32, u64);

/// A name that is one value inside.
macro_rules! wrapper {
    ($($name:ident),+) => {$(
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                self.0.put(out);
            }
            fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
                Field::take(from).map(Self)
            }
        }
    )+};
}
wrapper!(ConnId, Handle, LinkId, PathId, PeerId, SessionId);

record!(Via { conn, handle });
record!(PathTally { path, heard_at, rtt });
record!(LinkTally {
    link,
    tx_frames,
    tx_bytes,
    rx_frames,
    rx_bytes,
    lost,
    tx_lost,
    duplicate,
    reordered,
    resent,
    session_frames,
    main,
    paths,
    queued,
});
record!(PlaneBytes { interface_rx, interface_tx, relay_rx, relay_tx, direct_rx, direct_tx, udp_rx, udp_tx, relay_udp_rx, relay_udp_tx });
record!(Tally { links, drops, bytes });
record!(Report { link, what });

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8("bool")? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("bool")),
        }
    }
}

impl Field for usize {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u64).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::try_from(from.u64("usize")?).map_err(|_| Malformed("usize"))
    }
}

impl Field for [Option<u16>; 2] {
    fn put(&self, out: &mut Vec<u8>) {
        (self[0], self[1]).put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        <(Option<u16>, Option<u16>)>::take(from).map(|(first, second)| [first, second])
    }
}

impl<const N: usize> Field for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.array("array")
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self, out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = from.u32("list")? as usize;
        // each entry is a byte at least: a length that lies costs nothing
        if len > from.remaining() {
            return Err(Malformed("list"));
        }
        (0..len).map(|_| T::take(from)).collect()
    }
}

/// A list that is only borrowed.
pub(crate) fn put_list<T: Field>(list: &[T], out: &mut Vec<u8>) {
    (list.len() as u32).put(out);
    for entry in list {
        entry.put(out);
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_list(self.as_bytes(), out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let len = from.u32("text")? as usize;
        let text = core::str::from_utf8(from.bytes(len, "text")?).map_err(|_| Malformed("text"))?;
        Ok(text.to_owned())
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        bool::take(from)?.then(|| T::take(from)).transpose()
    }
}

impl<A: Field, B: Field> Field for (A, B) {
    fn put(&self, out: &mut Vec<u8>) {
        self.0.put(out);
        self.1.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok((A::take(from)?, B::take(from)?))
    }
}

impl Field for Instant {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_nanos().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        from.u64("instant").map(Self::from_nanos)
    }
}

impl Field for Duration {
    fn put(&self, out: &mut Vec<u8>) {
        self.as_secs().put(out);
        self.subsec_nanos().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (secs, nanos) = (from.u64("seconds")?, from.u32("nanoseconds")?);
        if nanos < 1_000_000_000 { Ok(Self::new(secs, nanos)) } else { Err(Malformed("nanoseconds")) }
    }
}

impl Field for IpAddr {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(ip) => (4_u8, ip.octets()).put(out),
            Self::V6(ip) => (6_u8, ip.octets()).put(out),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8("address family")? {
            4 => from.array::<4>("IPv4").map(Self::from),
            6 => from.array::<16>("IPv6").map(Self::from),
            _ => Err(Malformed("address family")),
        }
    }
}

impl Field for SocketAddr {
    fn put(&self, out: &mut Vec<u8>) {
        self.ip().put(out);
        self.port().put(out);
        match self {
            Self::V4(_) => {}
            Self::V6(v6) => (v6.flowinfo(), v6.scope_id()).put(out),
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match <(IpAddr, u16)>::take(from)? {
            (IpAddr::V4(ip), port) => Ok(Self::from((ip, port))),
            (IpAddr::V6(ip), port) => {
                let (flow, scope) = Field::take(from)?;
                Ok(Self::V6(core::net::SocketAddrV6::new(ip, port, flow, scope)))
            }
        }
    }
}

impl Field for Suite {
    fn put(&self, out: &mut Vec<u8>) {
        self.code().put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::from_code(from.u16("suite")?).ok_or(Malformed("suite"))
    }
}

impl Field for Mode {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(match self {
            Self::SwitchLossless => 0,
            Self::Reliable => 1,
            Self::Redundant => 2,
            Self::Off => 3,
        });
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        [Self::SwitchLossless, Self::Reliable, Self::Redundant, Self::Off]
            .get(usize::from(from.u8("mode")?))
            .copied()
            .ok_or(Malformed("mode"))
    }
}

impl Field for Params {
    fn put(&self, out: &mut Vec<u8>) {
        let mut bytes = Vec::new();
        self.emit(&mut bytes);
        bytes.put(out);
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Self::parse(&Vec::<u8>::take(from)?)
    }
}

impl Field for Drops {
    fn put(&self, out: &mut Vec<u8>) {
        for reason in Drop::ALL {
            self.get(reason).put(out);
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut drops = Self::default();
        for reason in Drop::ALL {
            drops.add(reason, from.u64("drops")?);
        }
        Ok(drops)
    }
}

impl Field for Noticed {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Stalled { path, pto } => {
                out.push(0);
                (*path, *pto).put(out);
            }
            Self::Wanted => out.push(1),
            Self::Roamed { remote } => {
                out.push(2);
                remote.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        match from.u8("report")? {
            0 => Ok(Self::Stalled { path: Field::take(from)?, pto: Field::take(from)? }),
            1 => Ok(Self::Wanted),
            2 => Ok(Self::Roamed { remote: Field::take(from)? }),
            _ => Err(Malformed("report")),
        }
    }
}
