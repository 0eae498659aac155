//! Facts for many listeners: each has its own bounded queue; one that does not keep up loses facts and never holds up the others.
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

/// Facts that wait for one subscriber; enough for a burst of a few hundred links changing at once.
const SUBSCRIBER_QUEUE_FACTS: usize = 1024;

/// Subscribers at once; more are refused by handing out a closed receiver.
const SUBSCRIBERS: usize = 64;

/// Hands each fact to all subscribers.
pub struct Broadcast<T> {
    senders: Arc<Mutex<Vec<flume::Sender<T>>>>,
    lost: Arc<AtomicU64>,
}

impl<T> Clone for Broadcast<T> {
    fn clone(&self) -> Self {
        Self { senders: Arc::clone(&self.senders), lost: Arc::clone(&self.lost) }
    }
}

impl<T> Default for Broadcast<T> {
    /// A broadcast without subscribers.
    fn default() -> Self {
        Self { senders: Arc::default(), lost: Arc::default() }
    }
}

impl<T: Clone> Broadcast<T> {
    /// A new receiver of all facts from now on.
    pub fn subscribe(&self) -> flume::Receiver<T> {
        let (sender, receiver) = flume::bounded(SUBSCRIBER_QUEUE_FACTS);
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|s| !s.is_disconnected());
        if senders.len() < SUBSCRIBERS {
            senders.push(sender);
        }
        receiver
    }

    /// Hands `fact` to all subscribers that have room.
    pub fn tell(&self, fact: &T) {
        let mut senders = self.senders.lock().unwrap_or_else(PoisonError::into_inner);
        senders.retain(|sender| match sender.try_send(fact.clone()) {
            Ok(()) => true,
            Err(flume::TrySendError::Full(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
                true
            }
            Err(flume::TrySendError::Disconnected(_)) => false,
        });
    }

    /// Facts that slow subscribers lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// No more facts: receivers end when they have read what waits.
    pub fn close(&self) {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_subscriber_gets_each_fact_and_a_slow_one_loses_only_its_own() {
        let broadcast = Broadcast::default();
        let (slow, fast) = (broadcast.subscribe(), broadcast.subscribe());
        for fact in 0..SUBSCRIBER_QUEUE_FACTS + 3 {
            broadcast.tell(&fact);
            assert_eq!(fast.try_recv(), Ok(fact));
        }
        assert_eq!(broadcast.lost(), 3);
        assert_eq!(slow.len(), SUBSCRIBER_QUEUE_FACTS);
        broadcast.close();
        assert_eq!(fast.try_recv(), Err(flume::TryRecvError::Disconnected));
    }
}
