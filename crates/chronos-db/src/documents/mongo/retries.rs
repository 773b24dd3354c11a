//! Sending a write command once more after a failure, so that it takes place once.
//!
//! The driver does this for its own write methods, but it has none for many updates in one command, and leaves commands it is handed alone. A
//! server of a replica set remembers by session and number what it has done: sent again with both, a command does what is left and answers for all.

use std::sync::{Mutex, PoisonError};

use bson::raw::cstr;
use bson::{Bson, Document, RawDocumentBuf};
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR, Result};
use mongodb::{Client, ClientSession, Database};

/// Above all numbers the driver gives out itself: should a session of ours ever be used by it, the server refuses its number as too old instead of
/// taking its write for one of ours that was done already.
const FIRST_NUMBER: i64 = 1 << 40;

/// Sessions of which the numbers are ours. They never return to the driver while the client lives.
#[derive(Default)]
pub(super) struct Retries {
    idle: Mutex<Vec<Numbered>>,
}

struct Numbered {
    session: ClientSession,
    number: i64,
}

/// A session in use; it comes back also if the call is dropped half-way.
struct Borrowed<'a> {
    retries: &'a Retries,
    numbered: Option<Numbered>,
}

impl Retries {
    /// Runs a write command, and once more if it failed in a way that a second attempt may cure.
    pub(super) async fn run(&self, client: &Client, database: &Database, mut command: RawDocumentBuf) -> Result<Document> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let numbered = match idle {
            Some(numbered) => numbered,
            None => Numbered { session: client.start_session().causal_consistency(false).await?, number: FIRST_NUMBER },
        };
        let mut borrowed = Borrowed { retries: self, numbered: None };
        let Numbered { session, number } = borrowed.numbered.insert(numbered);
        *number += 1;
        command.append(cstr!("txnNumber"), *number);
        let first = database.run_raw_command(command.clone()).session(&mut *session).await;
        if !may_be_cured(&first) {
            return first;
        }
        // If that fails too, the first failure says more: the second may only say that no server was found.
        database.run_raw_command(command).session(session).await.or(first)
    }

    /// Gives the sessions up; the client doesn't end before.
    pub(super) fn clear(&self) {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        self.retries.idle.lock().unwrap_or_else(PoisonError::into_inner).extend(self.numbered.take());
    }
}

fn may_be_cured(answer: &Result<Document>) -> bool {
    match answer {
        Ok(reply) => {
            let label = Bson::from(RETRYABLE_WRITE_ERROR);
            reply.get_array("errorLabels").is_ok_and(|labels| labels.contains(&label))
        }
        Err(error) => {
            error.contains_label(RETRYABLE_WRITE_ERROR) || matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
        }
    }
}
