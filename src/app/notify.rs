//! What systemd is told: that the proxy is ready, reloads, stops or is succeeded, and that it is alive. Outside of
//! systemd all of it does nothing. `sd_notify(3)` of systemd 252 has the words.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!("systemd cannot be told how the proxy is: {error}");
    }
}

/// Connections are accepted. `main` where the process is to be the main one of its service from now on.
pub(super) fn ready(main: bool) {
    let mut states = vec![NotifyState::Ready, NotifyState::Status("serving")];
    if main {
        states.push(NotifyState::MainPid(std::process::id()));
    }
    tell(&states);
}

/// A configuration is being read; [`ready`] ends that.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration")]),
        Err(error) => tracing::warn!("systemd is not told of the reload, the clock cannot be read: {error}"),
    }
}

/// The reload has ended, whatever came of it.
pub(super) fn reloaded() {
    ready(false);
}

/// The process is about to end, and its service with it.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("finishing requests in flight")]);
}

/// Another process goes on with the service.
pub(super) fn succeeded_by(pid: u32) {
    tell(&[NotifyState::MainPid(pid)]);
}

/// To be told at least twice in each [`interval`].
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often systemd wants to hear [`alive`], if it does.
pub(super) fn interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}
