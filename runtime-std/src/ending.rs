//! What a `Peer` and a `Relay` handle share: a thread that ends once, with a reason that many may wait for.
use crate::StartError;
use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
};

/// The end of a thread, to be awaited by any number of owners.
#[derive(Clone)]
pub(crate) struct Ending {
    result: Arc<OnceLock<Result<(), String>>>,
    ended: flume::Receiver<Infallible>,
}

impl Ending {
    /// Starts a thread that runs `body`; its result, or the fact that it panicked, is what `Ending::wait` gives.
    pub(crate) fn of_thread(name: &str, body: impl FnOnce() -> Result<(), String> + Send + 'static) -> Result<Self, StartError> {
        let (alive, ended) = flume::bounded::<Infallible>(0);
        let result = Arc::new(OnceLock::new());
        let outcome = Arc::clone(&result);
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                let _ = outcome.set(body());
            })
            .map_err(|why| StartError::new(format!("cannot start a thread: {why}")))?;
        Ok(Self { result, ended })
    }

    /// Waits for the end of the thread.
    pub(crate) async fn wait(&self) -> Result<(), String> {
        let _disconnected = self.ended.recv_async().await;
        self.result.get().cloned().unwrap_or_else(|| Err("the driver thread panicked; its log line says where".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_who_wait_learn_how_the_thread_ended() {
        let good = Ending::of_thread("good", || Ok(())).expect("thread");
        assert_eq!(futures_lite::future::block_on(good.wait()), Ok(()));
        assert_eq!(futures_lite::future::block_on(good.clone().wait()), Ok(()));
        let bad = Ending::of_thread("bad", || Err("no".to_owned())).expect("thread");
        assert_eq!(futures_lite::future::block_on(bad.wait()), Err("no".to_owned()));
    }
}
