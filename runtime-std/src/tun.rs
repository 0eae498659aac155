//! A TUN or TAP device of the kernel: made at the start, gone when dropped.
mod queues;
mod vnet;

use crate::StartError;
use core::net::IpAddr;
use shadowmesh_core::offload::{self, Joins, Offload};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};
use tun_rs::{DeviceBuilder, Layer, SyncDevice};

/// Packets that the kernel holds for us: a burst of one full TCP window at high speed.
const QUEUE_PACKETS: u32 = 2_000;

/// Longest name of an interface in bytes (IFNAMSIZ without its zero).
const NAME_LEN: usize = 15;

/// The smallest MTU for IPv6 (RFC 8200 5).
const MTU_V6: u16 = 1280;

/// The smallest MTU for IPv4 (RFC 791 3.2).
const MTU_V4: u16 = 68;

/// Room for an Ethernet header and a VLAN tag.
const HEADERS_LEN: usize = 18;

/// The largest packet that the kernel hands over uncut (`GSO_LEGACY_MAX_SIZE`).
const LARGE_LEN: usize = 65_536;

/// What the device is to be.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// TAP (Ethernet frames) instead of TUN (IP packets).
    pub layer2: bool,
    /// Largest packet in bytes, without an Ethernet header.
    pub mtu: u16,
    /// Addresses with prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The hardware address of a TAP device.
    pub mac: Option<[u8; 6]>,
    /// Queues from which packets are read, each by a thread of its own; those of one flow are all in one. At least 1.
    pub queues: u8,
}

/// A TUN or TAP device that is up, or one of its queues; its descriptor does not block.
pub struct Device {
    handle: SyncDevice,
    /// Where packets are written, if not where they are read.
    writer: Option<Arc<SyncDevice>>,
    /// The queues beside this one.
    others: Vec<Self>,
    name: String,
    buffer_len: usize,
}

impl Device {
    /// Makes the device, gives it its addresses and brings it up.
    ///
    /// # Errors
    /// A sentence: no permission, the name taken, no `/dev/net/tun`, an address the kernel refuses.
    pub fn open(shape: &Shape) -> Result<Self, StartError> {
        check(shape)?;
        // A kernel that cannot hand over large packets hands over whole ones.
        let handle = build(shape, true).or_else(|_| build(shape, false));
        let handle = handle.map_err(|why| StartError::new(sentence(&shape.name, &why)))?;
        let queues = queues::open(&handle, shape.queues).map_err(|why| StartError::new(no_queues(shape, &why)))?;
        give_addresses(&handle, shape)?;
        let name = handle.name().unwrap_or_else(|_| shape.name.clone());
        let longest = if handle.tcp_gso() { LARGE_LEN } else { usize::from(shape.mtu) };
        let buffer_len = longest + HEADERS_LEN;
        let of = |handle, others| Self { handle, writer: queues.writer.clone(), others, name: name.clone(), buffer_len };
        let others = queues.others.into_iter().map(|handle| of(handle, Vec::new())).collect();
        Ok(of(handle, others))
    }

    /// The queues beside this one, for others to read.
    pub fn take_queues(&mut self) -> Vec<Self> {
        core::mem::take(&mut self.others)
    }

    /// The name that the kernel gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of the longest packet that can come.
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// What it takes joined: all that it hands over uncut.
    pub fn joins(&self) -> Joins {
        Joins { tcp: self.handle.tcp_gso(), udp: self.handle.udp_gso() }
    }

    /// Reads one packet, or a large one with what is still to be done to it.
    ///
    /// # Errors
    /// `WouldBlock` when there is none; anything else when the device is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<(Offload, usize)> {
        if !self.handle.tcp_gso() {
            return self.handle.recv(buffer).map(|len| (Offload::default(), len));
        }
        let mut header = [0; vnet::HEADER_LEN];
        let mut place = [IoSliceMut::new(&mut header), IoSliceMut::new(buffer)];
        let len = rustix::io::retry_on_intr(|| rustix::io::readv(self, &mut place))?;
        Ok((vnet::parse(header), len.saturating_sub(vnet::HEADER_LEN)))
    }

    /// Writes one packet, with what is still to be done to it.
    ///
    /// # Errors
    /// The kernel did not take it.
    pub fn write(&self, offload: Offload, packet: &[u8]) -> io::Result<()> {
        if self.handle.tcp_gso() {
            let header = vnet::header(offload, packet);
            let writer = self.writer();
            rustix::io::retry_on_intr(|| rustix::io::writev(writer, &[IoSlice::new(&header), IoSlice::new(packet)]))?;
        } else if let Some(partial) = offload.checksum {
            let mut packet = packet.to_vec();
            offload::finish(&mut packet, partial);
            self.writer().send(&packet)?;
        } else {
            self.writer().send(packet)?;
        }
        Ok(())
    }

    fn writer(&self) -> &SyncDevice {
        self.writer.as_deref().unwrap_or(&self.handle)
    }
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

fn check(shape: &Shape) -> Result<(), StartError> {
    let name = &shape.name;
    let plain = |b: u8| b.is_ascii_graphic() && b != b'/' && b != b':';
    if name.is_empty() || name.len() > NAME_LEN || !name.bytes().all(plain) || name == "." || name == ".." {
        return Err(StartError::new(format!(
            "{name:?} cannot be the name of an interface: take 1 to {NAME_LEN} letters, digits, '-' or '_', such as mesh0"
        )));
    }
    let has_v6 = shape.addresses.iter().any(|(address, _)| address.is_ipv6());
    let least = if has_v6 { MTU_V6 } else { MTU_V4 };
    if shape.mtu < least {
        return Err(StartError::new(format!("an MTU of {} is too small for {name}: it must be at least {least}", shape.mtu)));
    }
    Ok(())
}

fn build(shape: &Shape, offload: bool) -> io::Result<SyncDevice> {
    let layer = if shape.layer2 { Layer::L2 } else { Layer::L3 };
    let mut builder = DeviceBuilder::new().name(&shape.name).layer(layer).mtu(shape.mtu);
    builder = builder.with(|options| {
        options.tx_queue_len(QUEUE_PACKETS).offload(offload);
    });
    if shape.queues > 1 {
        // the kernel takes one more queue of a device that is there already for what we want
        if nix::net::if_::if_nametoindex(shape.name.as_str()).is_ok() {
            return Err(io::Error::from(rustix::io::Errno::BUSY));
        }
        builder = builder.with(|options| {
            options.multi_queue(true);
        });
    }
    if let Some(mac) = shape.mac.filter(|_| shape.layer2) {
        builder = builder.mac_addr(mac);
    }
    let device = builder.build_sync()?;
    device.set_nonblocking(true)?;
    Ok(device)
}

fn give_addresses(device: &SyncDevice, shape: &Shape) -> Result<(), StartError> {
    for (address, prefix) in &shape.addresses {
        let given = match address {
            IpAddr::V4(v4) => device.add_address_v4(*v4, *prefix),
            IpAddr::V6(v6) => device.add_address_v6(*v6, *prefix),
        };
        given.map_err(|why| StartError::new(format!("the kernel refuses the address {address}/{prefix} on {}: {why}", shape.name)))?;
    }
    Ok(())
}

fn no_queues(shape: &Shape, why: &io::Error) -> String {
    format!("the kernel gives {} no {} queues: set interface.queues to 1 ({why})", shape.name, shape.queues)
}

fn sentence(name: &str, why: &io::Error) -> String {
    use rustix::io::Errno;
    let errno = why.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "no permission to make the interface {name}: it needs CAP_NET_ADMIN; run as root, or give the program the capability \
             with `setcap cap_net_admin+ep`"
        ),
        Some(Errno::BUSY | Errno::INVAL | Errno::EXIST) => {
            format!("the interface name {name} is taken: choose another with --interface or interface.name")
        }
        Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => {
            "the kernel has no /dev/net/tun: load the module with `modprobe tun`, or give the container the device".to_owned()
        }
        _ => format!("cannot make the interface {name}: {why}"),
    }
}
