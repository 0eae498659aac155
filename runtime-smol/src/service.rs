//! What a service manager is told: ready, how things stand, still alive, leaving. The words are those of `sd_notify(3)`; where
//! `NOTIFY_SOCKET` is not set, nobody is told and nothing wakes up.
use sd_notify::NotifyState;
use smol::{Timer, future};
use std::time::Duration;

/// How often the state is told where no watchdog asks for more.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// Tells that the start is over.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Tells that the end has begun.
pub fn leaving(status: &str) {
    tell(&[NotifyState::Stopping, NotifyState::Status(status)]);
}

/// Tells for ever how things stand, twice in each interval of the watchdog. `look` asks those who do the work: while it does not
/// answer, or says that there is nobody, the watchdog hears nothing and does what it is for.
pub async fn keep_telling<F, A>(look: F)
where
    F: Fn() -> A,
    A: Future<Output = Option<String>>,
{
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return future::pending().await;
    }
    let watchdog = sd_notify::watchdog_enabled();
    let interval = watchdog.map_or(TELL_INTERVAL, |patience| (patience / 2).min(TELL_INTERVAL));
    loop {
        if let Some(status) = look().await {
            let alive = watchdog.map(|_| NotifyState::Watchdog);
            let told: Vec<_> = [NotifyState::Status(&status)].into_iter().chain(alive).collect();
            tell(&told);
        }
        Timer::after(interval).await;
    }
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "the service manager cannot be told");
    }
}
