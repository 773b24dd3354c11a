//! Sessions that number their writes: a server of a replica set remembers by session and number what it has
//! done.

use mongodb::{Client, ClientSession};
use parking_lot::Mutex;

/// Above all numbers the driver gives out itself: should a session of ours ever be used by it, the server
/// refuses its number as too old instead of taking its write for one of ours that was done already.
const FIRST_NUMBER: i64 = 1 << 40;

/// Sessions of which the numbers are ours. They never return to the driver while the client lives.
#[derive(Default)]
pub(super) struct NumberedSessions {
    idle: Mutex<Vec<Numbered>>,
}

pub(super) struct Numbered {
    pub(super) session: ClientSession,
    pub(super) number: i64,
}

/// A session in use; it comes back also if the call is dropped half-way.
pub(super) struct Borrowed<'a> {
    sessions: &'a NumberedSessions,
    numbered: Option<Numbered>,
}

impl NumberedSessions {
    /// An idle session, or a new one of `client`.
    pub(super) async fn take(&self, client: &Client) -> mongodb::error::Result<Numbered> {
        let idle = self.idle.lock().pop();
        Ok(match idle {
            Some(numbered) => numbered,
            None => Numbered {
                session: client.start_session().causal_consistency(false).await?,
                number: FIRST_NUMBER,
            },
        })
    }

    /// Gives the sessions up; the client doesn't end before.
    pub(super) fn clear(&self) {
        self.idle.lock().clear();
    }
}

impl<'a> Borrowed<'a> {
    pub(super) fn from(sessions: &'a NumberedSessions) -> Self {
        Self { sessions, numbered: None }
    }

    /// Holds the session until this is dropped.
    pub(super) fn hold(&mut self, numbered: Numbered) -> &mut Numbered {
        self.numbered.insert(numbered)
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.sessions.idle.lock().extend(self.numbered.take());
    }
}
