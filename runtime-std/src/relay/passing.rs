//! Datagrams that a relay passes on as they came: run by run, in the kernel's own portions (protocol 8.8).
//!
//! ```text
//!   run: | a a a a | b b | ? | a a |     the letter is the receiver, ? is for the hub
//!          └─────┘   └─┘   │   └─┘
//!          a stretch each: one look-up, one call of the kernel
//! ```
use crate::udp::{self, RUN_DATAGRAMS};
use shadowmesh_core::hub::receiver_of;
use std::{
    collections::HashMap,
    net::{SocketAddr, UdpSocket},
};

/// Addresses of clients in each half of what is noted: as many as come in a while even when they change all the time.
const NOTED: usize = 16_384;

/// The first datagrams of a run that have one receiver, or the first alone, which is for the hub.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) receiver: Option<u32>,
    pub(super) count: usize,
    pub(super) len: usize,
}

impl Stretch {
    /// That of a run whose datagrams have this length, but the last, which may be shorter. An empty run is one empty datagram.
    pub(super) fn first(run: &[u8], stride: usize) -> Self {
        let mut datagrams = run.chunks(stride);
        let receiver = datagrams.next().and_then(receiver_of);
        let others = datagrams.take(RUN_DATAGRAMS - 1).take_while(|other| receiver.is_some() && receiver_of(other) == receiver);
        let count = 1 + others.count();
        Self { receiver, count, len: run.len().min(count * stride) }
    }
}

/// What became of a stretch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    /// How often the kernel was asked.
    pub(super) calls: usize,
    /// Datagrams that it did not take.
    pub(super) lost: usize,
}

/// One socket on the way out.
pub(super) struct Outlet {
    pub(super) socket: UdpSocket,
    /// The kernel takes runs in one call, as far as is known.
    takes_runs: bool,
}

impl Outlet {
    pub(super) fn new(socket: UdpSocket) -> Self {
        Self { socket, takes_runs: true }
    }

    /// Sends a stretch now; what there is no room for is lost.
    pub(super) fn send(&mut self, to: SocketAddr, stretch: &[u8], stride: usize) -> Sent {
        let count = stretch.len().div_ceil(stride);
        let run = u16::try_from(stride).ok().filter(|_| count > 1 && self.takes_runs);
        if let Some(stride) = run {
            match udp::send_run(&self.socket, to, stretch, stride) {
                Ok(()) => return Sent { calls: 1, lost: 0 },
                Err(why) if !udp::is_refusal(&why) => return Sent { calls: 1, lost: count },
                Err(_) => {}
            }
        }
        let mut sent = stretch.chunks(stride).map(|datagram| udp::send(&self.socket, to, datagram).is_ok());
        let is_first_sent = sent.next() == Some(true);
        let lost = usize::from(!is_first_sent) + sent.filter(|is_sent| !is_sent).count();
        // Else the interface does not carry this length: that says nothing of runs.
        self.takes_runs &= run.is_none() || !is_first_sent;
        Sent { calls: count, lost }
    }
}

/// By which of several sockets of a family a client was last answered: there a NAT on its way lets others' datagrams in.
#[derive(Default)]
pub(super) struct Noted {
    /// Full, it becomes the older half: clients ask every 25 s, and are then in the newer one again.
    newer: HashMap<SocketAddr, usize>,
    older: HashMap<SocketAddr, usize>,
}

impl Noted {
    pub(super) fn add(&mut self, client: SocketAddr, place: usize) {
        if self.newer.len() >= NOTED && !self.newer.contains_key(&client) {
            self.older = core::mem::take(&mut self.newer);
        }
        self.newer.insert(client, place);
    }

    pub(super) fn of(&self, client: SocketAddr) -> Option<usize> {
        self.newer.get(&client).or_else(|| self.older.get(&client)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shadowmesh_core::wire::{TYPE_BIND, TYPE_FRAME, TYPE_PATH_RSP};

    /// Datagrams of 10 bytes with these types and receivers, the last one shorter.
    fn run(datagrams: &[(u8, u8)]) -> Vec<u8> {
        let mut run: Vec<u8> = datagrams.iter().flat_map(|(kind, receiver)| [*kind, 0, 0, 0, 0, 0, 0, *receiver, 9, 9]).collect();
        run.pop();
        run
    }

    fn stretches(mut run: &[u8], stride: usize) -> Vec<(Option<u32>, usize, usize)> {
        let mut all = Vec::new();
        while !run.is_empty() {
            let Stretch { receiver, count, len } = Stretch::first(run, stride);
            all.push((receiver, count, len));
            run = &run[len..];
        }
        all
    }

    // protocol 8.8
    #[test]
    fn a_run_is_cut_where_the_receiver_changes() {
        let (a, b, bind) = ((TYPE_FRAME, 1), (TYPE_FRAME, 2), (TYPE_BIND, 1));
        let both = run(&[a, a, (TYPE_PATH_RSP, 1), b, bind, bind, b, a, a]);
        let (one, two) = (Some(1), Some(2));
        assert_eq!(
            stretches(&both, 10),
            [(one, 3, 30), (two, 1, 10), (None, 1, 10), (None, 1, 10), (two, 1, 10), (one, 2, 19)],
            "the last may be shorter"
        );
        assert_eq!(stretches(&run(&[a]), 9), [(one, 1, 9)]);
        assert_eq!(Stretch::first(&[], 1), Stretch { receiver: None, count: 1, len: 0 }, "an empty datagram is the hub's");
    }

    #[test]
    fn a_stretch_is_no_longer_than_a_run_that_every_kernel_takes() {
        let long = run(&[(TYPE_FRAME, 1); 150]);
        assert_eq!(stretches(&long, 10).iter().map(|(_, count, _)| *count).collect::<Vec<_>>(), [64, 64, 22]);
    }

    fn pair() -> (Outlet, UdpSocket, SocketAddr) {
        let [out, here] = [(); 2].map(|()| udp::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("loopback"));
        let to = here.local_addr().expect("bound");
        (Outlet::new(out), here, to)
    }

    fn heard(socket: &UdpSocket) -> Vec<Vec<u8>> {
        let mut buffer = [0; 2_000];
        let arrivals = core::iter::from_fn(|| udp::receive(socket, &mut buffer).expect("a socket").map(|(len, _)| buffer[..len].to_vec()));
        arrivals.collect()
    }

    #[test]
    fn a_stretch_goes_in_one_call_and_comes_out_as_it_was() {
        let (mut out, here, to) = pair();
        let stretch = run(&[(TYPE_FRAME, 1); 7]);
        assert_eq!(out.send(to, &stretch, 10), Sent { calls: 1, lost: 0 });
        let came = heard(&here);
        assert_eq!((came.len(), came.concat() == stretch), (7, true));
    }

    #[test]
    fn where_runs_are_refused_datagrams_go_one_by_one_from_then_on() {
        let (mut out, here, to) = pair();
        // more datagrams than any kernel cuts at once: the same word as from one that cannot cut
        let stretch: Vec<u8> = (0..200).collect();
        assert_eq!(out.send(to, &stretch, 1), Sent { calls: 200, lost: 0 });
        assert_eq!(heard(&here).concat(), stretch);
        assert_eq!(out.send(to, &stretch[..5], 1), Sent { calls: 5, lost: 0 });
        assert_eq!(heard(&here).len(), 5);
    }

    #[test]
    fn a_word_against_each_datagram_does_not_end_runs() {
        let (mut out, here, to) = pair();
        let stretch = run(&[(TYPE_FRAME, 1); 3]);
        // the same word as from a kernel that cannot cut, but alone they do not go either
        let nowhere = SocketAddr::new(to.ip(), 0);
        assert!(udp::send_run(&out.socket, nowhere, &stretch, 10).is_err_and(|why| udp::is_refusal(&why)));
        assert_eq!(out.send(nowhere, &stretch, 10), Sent { calls: 3, lost: 3 });
        assert_eq!(out.send(to, &stretch, 10), Sent { calls: 1, lost: 0 });
        assert_eq!(heard(&here).len(), 3);
        // longer than IP carries
        assert_eq!(out.send(to, &vec![0; 65_600], 65_530), Sent { calls: 1, lost: 2 });
    }

    #[test]
    fn what_is_noted_is_bounded_and_who_comes_again_stays() {
        let mut noted = Noted::default();
        let client = |n: usize| SocketAddr::from(([10, 0, (n >> 8) as u8, n as u8], 1 + (n >> 16) as u16));
        noted.add(client(0), 2);
        for n in 1..NOTED + 10 {
            noted.add(client(n), 1);
        }
        assert_eq!((noted.of(client(0)), noted.of(client(NOTED + 9)), noted.of(client(NOTED + 10))), (Some(2), Some(1), None));
        noted.add(client(0), 3);
        for n in NOTED + 10..2 * NOTED + 20 {
            noted.add(client(n), 1);
        }
        assert_eq!((noted.of(client(0)), noted.of(client(1))), (Some(3), None));
        assert!(noted.newer.len() + noted.older.len() <= 2 * NOTED);
    }
}
