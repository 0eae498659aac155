//! Raw Ethernet: numbered frames of an ethertype of our own, and captures of everything that passes.

use crate::sys;
use crate::world::{Host, POLL_INTERVAL};
use socket2::Socket;
use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

/// IEEE local experimental ethertype 1.
pub(crate) const ETHERTYPE: u16 = 0x88b5;
pub(crate) const BROADCAST: Mac = [0xff; 6];
/// A group address that no protocol uses.
pub(crate) const MULTICAST: Mac = [0x01, 0x00, 0x5e, 0x40, 0x41, 0x42];

pub(crate) type Mac = [u8; 6];

/// The MAC of an interface.
pub(crate) fn mac(host: &Host, interface: &str) -> Mac {
    let facts = host.interface(interface).expect("the interface is there");
    parse_mac(facts["address"].as_str().expect("a TAP interface has a MAC"))
}

/// Reads `aa:bb:cc:dd:ee:ff`.
pub(crate) fn parse_mac(text: &str) -> Mac {
    let mut mac = [0; 6];
    for (byte, part) in mac.iter_mut().zip(text.split(':')) {
        *byte = u8::from_str_radix(part, 16).expect("a MAC is hexadecimal");
    }
    mac
}

/// One host's raw socket: sends frames, and listens from the moment it is made.
pub(crate) struct Station {
    socket: Socket,
    index: i32,
    pub(crate) mac: Mac,
    inbox: Arc<Mutex<Inbox>>,
    listener: Listener,
}

/// How often each (sender, number) has come.
type Inbox = BTreeMap<(Mac, u32), u32>;

impl Station {
    /// Opens it on an interface.
    pub(crate) fn open(host: &Host, interface: &str) -> Self {
        let facts = host.interface(interface).expect("the interface is there");
        let index = facts["ifindex"].as_i64().and_then(|index| i32::try_from(index).ok());
        let socket = host.enter(|| sys::packet_socket(ETHERTYPE)).expect("root may open a packet socket");
        let inbox = Arc::<Mutex<Inbox>>::default();
        let listener = {
            let inbox = Arc::clone(&inbox);
            Listener::start(&socket, move |frame| {
                let Some((addresses, rest)) = frame.split_at_checked(12) else {
                    return;
                };
                let Some(number) = rest.get(2..6) else { return };
                let source = addresses[6..].try_into().expect("six bytes");
                let number = u32::from_be_bytes(number.try_into().expect("four bytes"));
                *inbox.lock().unwrap_or_else(PoisonError::into_inner).entry((source, number)).or_default() += 1;
            })
        };
        Self { socket, index: index.expect("an interface has an index"), mac: mac(host, interface), inbox, listener }
    }

    /// Sends a numbered frame of 128 bytes.
    pub(crate) fn send(&self, to: Mac, number: u32) {
        let mut frame = [0xa5_u8; 128];
        frame[..6].copy_from_slice(&to);
        frame[6..12].copy_from_slice(&self.mac);
        frame[12..14].copy_from_slice(&ETHERTYPE.to_be_bytes());
        frame[14..18].copy_from_slice(&number.to_be_bytes());
        // A full transmit queue is waited for: what is counted as sent has been sent.
        while let Err(error) = sys::send_frame(&self.socket, self.index, &frame) {
            assert_eq!(error.raw_os_error(), Some(libc::ENOBUFS), "sending a frame failed: {error}");
            thread::yield_now();
        }
    }

    /// How often a numbered frame of this sender has come.
    pub(crate) fn count(&self, from: Mac, number: u32) -> u32 {
        self.with(|inbox| inbox.get(&(from, number)).copied().unwrap_or(0))
    }

    /// How many different numbers of a range have come from this sender.
    pub(crate) fn distinct(&self, from: Mac, range: std::ops::Range<u32>) -> usize {
        self.with(|inbox| inbox.range((from, range.start)..(from, range.end)).count())
    }

    /// Frames that came more than once, or that claim to come from ourselves.
    pub(crate) fn oddities(&self) -> Vec<String> {
        self.with(|inbox| {
            let odd = inbox.iter().filter(|((source, _), count)| **count > 1 || *source == self.mac);
            odd.map(|((source, number), count)| format!("{source:02x?} number {number} came {count} times")).collect()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&Inbox) -> T) -> T {
        assert!(!self.listener.failed(), "the packet socket failed");
        look(&self.inbox.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Everything that passes a host's interfaces, both ways, searched for a known text on the fly.
pub(crate) struct Capture {
    totals: Arc<Mutex<Totals>>,
    _listener: Listener,
}

/// What a capture has seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Frames that hold the known text.
    pub(crate) found: u64,
}

impl Capture {
    /// Starts it on all interfaces of a host.
    pub(crate) fn start(host: &Host, needle: &'static [u8]) -> Self {
        let socket = host.enter(|| sys::packet_socket(sys::EVERY_ETHERTYPE)).expect("root may open a packet socket");
        let totals = Arc::<Mutex<Totals>>::default();
        let listener = {
            let totals = Arc::clone(&totals);
            Listener::start(&socket, move |frame| {
                let found = frame.windows(needle.len()).any(|window| window == needle);
                let mut totals = totals.lock().unwrap_or_else(PoisonError::into_inner);
                totals.frames += 1;
                totals.bytes += frame.len() as u64;
                totals.found += u64::from(found);
            })
        };
        Self { totals, _listener: listener }
    }

    /// What it has seen so far.
    pub(crate) fn totals(&self) -> Totals {
        *self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread that hands each frame of a packet socket to a function, until it is dropped.
struct Listener {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    fn start(socket: &Socket, mut take: impl FnMut(&[u8]) + Send + 'static) -> Self {
        let mut socket = socket.try_clone().expect("a second handle of a socket");
        socket.set_read_timeout(Some(POLL_INTERVAL)).expect("a read timeout is a plain option");
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = vec![0; 70_000];
            while !stopping.load(Ordering::Relaxed) {
                match socket.read(&mut buffer) {
                    Ok(length) => take(&buffer[..length]),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                    // The interface went away under us: a packet socket says so once.
                    Err(error) if error.raw_os_error() == Some(libc::ENETDOWN) => {}
                    Err(error) => panic!("capturing failed: {error}"),
                }
            }
        });
        Self { stop, thread: Some(thread) }
    }

    fn failed(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
