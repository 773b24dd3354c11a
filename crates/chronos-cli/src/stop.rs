//! How a command that runs until it is stopped notices the signal.

/// Hears Ctrl-C, and SIGTERM as supervisors send it, from the moment it is made: from then on they end
/// nothing by themselves.
#[derive(Debug)]
pub(crate) struct Stop {
    #[cfg(unix)]
    signals: [Option<tokio::signal::unix::Signal>; 2],
}

#[cfg(unix)]
impl Stop {
    pub(crate) fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            let heard = signal(kind);
            // It then ends the program, as it does with every other.
            heard
                .inspect_err(|error| {
                    crate::stderr::note(&format!("warning: a signal cannot be heard: {error}"))
                })
                .ok()
        };
        Self { signals: [SignalKind::interrupt(), SignalKind::terminate()].map(listen) }
    }

    /// Returns when it is time to end.
    pub(crate) async fn comes(&mut self) {
        async fn heard(signal: &mut Option<tokio::signal::unix::Signal>) {
            let signalled = match signal {
                Some(signal) => signal.recv().await,
                None => None,
            };
            if signalled.is_none() {
                std::future::pending::<()>().await;
            }
        }
        let [interrupt, terminate] = &mut self.signals;
        tokio::select! {
            () = heard(interrupt) => {}
            () = heard(terminate) => {}
        }
    }
}

#[cfg(not(unix))]
impl Stop {
    pub(crate) fn listen() -> Self {
        Self {}
    }

    /// Returns when it is time to end.
    pub(crate) async fn comes(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}
