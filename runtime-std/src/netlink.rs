//! Word of the kernel that interfaces, addresses or default routes of this machine have changed (rtnetlink(7)).
//!
//! What a message says is not read beyond its kind: whoever hears it lists the addresses anew. Of routes only the default ones count,
//! or a machine that routes for others, whose table never rests, would never let us rest either.
use rustix::{
    io::Errno,
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink::SocketAddrNetlink, recv, socket_with},
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// Datagrams that are read before others get their turn.
const TURN: usize = 64;
/// The header of a message: length u32, type u16, flags u16, sequence u32, port u32, in the machine's own order.
const HEADER_LEN: usize = 16;
/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_NEWADDR`, `RTM_DELADDR`.
const ADDRESSES: [u16; 4] = [16, 17, 20, 21];
/// `RTM_NEWROUTE`, `RTM_DELROUTE`; the length of the destination's prefix is the second byte of their body.
const ROUTES: [u16; 2] = [24, 25];
/// All that is read here lies at the beginning of a datagram; the kernel cuts off the rest of a long one.
const BUFFER_BYTES: usize = 8 * 1024;

/// What the kernel told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// An interface or an address came, went or changed.
    pub(crate) addresses: bool,
    /// A default route came, went or changed.
    pub(crate) routes: bool,
    /// There may be more to hear at once.
    pub(crate) more: bool,
}

impl News {
    /// Something was missed: whatever could change may have changed.
    const ALL: Self = Self { addresses: true, routes: true, more: false };

    fn add(&mut self, other: Self) {
        self.addresses |= other.addresses;
        self.routes |= other.routes;
    }
}

/// A netlink socket in the groups of what matters to paths.
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    /// Listens from now on.
    ///
    /// # Errors
    /// The kernel, or a sandbox around this process, does not allow it.
    pub(crate) fn open() -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Self(socket))
    }

    /// What has come since the last call.
    ///
    /// # Errors
    /// The socket cannot be read any more.
    pub(crate) fn hear(&self) -> io::Result<News> {
        let (mut news, mut buffer) = (News::default(), [0; BUFFER_BYTES]);
        for _ in 0..TURN {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((len, _)) => news.add(read(buffer.get(..len).unwrap_or(&[]))),
                Err(Errno::AGAIN) => return Ok(news),
                Err(Errno::INTR) => {}
                // more came than the kernel keeps for us
                Err(Errno::NOBUFS) => news.add(News::ALL),
                Err(why) => return Err(why.into()),
            }
        }
        Ok(News { more: true, ..news })
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the messages of one datagram are about.
fn read(mut datagram: &[u8]) -> News {
    let mut news = News::default();
    while let Some((header, _)) = datagram.split_first_chunk::<HEADER_LEN>() {
        let [l0, l1, l2, l3, t0, t1, ..] = *header;
        let (len, kind) = (u32::from_ne_bytes([l0, l1, l2, l3]) as usize, u16::from_ne_bytes([t0, t1]));
        news.addresses |= ADDRESSES.contains(&kind);
        news.routes |= ROUTES.contains(&kind) && datagram.get(HEADER_LEN + 1) == Some(&0);
        // messages begin at multiples of four; one that is shorter than its header, or cut off, is the last
        datagram = datagram.get(len.max(HEADER_LEN).next_multiple_of(4)..).unwrap_or(&[]);
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let len = (HEADER_LEN + body.len()) as u32;
        let mut message = [&len.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10], body].concat();
        message.resize(message.len().next_multiple_of(4), 0);
        message
    }

    #[test]
    fn addresses_and_default_routes_count_and_other_routes_do_not() {
        let [addresses, routes] = [(true, false), (false, true)].map(|(addresses, routes)| News { addresses, routes, more: false });
        for kind in ADDRESSES {
            assert_eq!(read(&message(kind, &[2, 24, 0, 0])), addresses);
        }
        for kind in ROUTES {
            assert_eq!(read(&message(kind, &[2, 0, 0, 0])), routes, "a default route");
            assert_eq!(read(&message(kind, &[2, 24, 0, 0])), News::default(), "a network");
        }
        assert_eq!(read(&message(28, &[2, 0, 0, 0])), News::default(), "a neighbour");
        let several = [message(24, &[2, 32, 0, 0, 0]), message(20, &[2, 24])].concat();
        assert_eq!(read(&several), addresses, "the second one behind the padding of the first");
    }

    #[test]
    fn a_broken_datagram_ends_where_it_breaks() {
        assert_eq!(read(&[]), News::default());
        assert_eq!(read(&[1; HEADER_LEN - 1]), News::default());
        assert_eq!(read(&message(24, &[])), News::default(), "a route without a body");
        let endless = [[0; 8], [16, 0, 0, 0, 0, 0, 0, 0]].concat();
        assert_eq!(read(&endless), News::default(), "a length of 0");
        let cut = [&9_000_u32.to_ne_bytes()[..], &16_u16.to_ne_bytes(), &[0; 10]].concat();
        assert!(read(&cut).addresses, "the kernel cut it off behind its header");
    }

    #[test]
    fn a_quiet_kernel_says_nothing_and_nobody_waits() {
        let netlink = Netlink::open().expect("a netlink socket");
        // other tests of this machine may make interfaces meanwhile: whatever it is, it is heard without an error
        netlink.hear().expect("a socket");
    }
}
