//! Sending a write command again after a failure, so that it takes place once.
//!
//! The driver does this for its own write methods, once, but it has none for many updates in one command, and
//! leaves commands it is handed alone. A server of a replica set remembers by session and number what it has
//! done: sent again with both, a command does what is left and answers for all.

use std::sync::{Mutex, PoisonError};

use bson::raw::cstr;
use bson::{Bson, Document, RawDocumentBuf};
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};
use mongodb::{ClientSession, Database};

use super::call::Call;
use super::failure::Failure;

/// Above all numbers the driver gives out itself: should a session of ours ever be used by it, the server
/// refuses its number as too old instead of taking its write for one of ours that was done already.
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
    /// Runs a write command, again and again while another attempt may cure its failure and the call's time
    /// is not over.
    pub(super) async fn run(
        &self,
        call: &Call,
        database: &Database,
        mut command: RawDocumentBuf,
    ) -> Result<Document, Failure> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let numbered = match idle {
            Some(numbered) => numbered,
            None => Numbered {
                session: call.lease.client.start_session().causal_consistency(false).await?,
                number: FIRST_NUMBER,
            },
        };
        let mut borrowed = Borrowed { retries: self, numbered: None };
        let Numbered { session, number } = borrowed.numbered.insert(numbered);
        *number += 1;
        command.append(cstr!("txnNumber"), *number);
        let mut pauses = call.pauses();
        let mut first = None;
        loop {
            let sending =
                async { Ok(database.run_raw_command(command.clone()).session(&mut *session).await?) };
            let answer = call.connector.while_primary(sending).await;
            let curable = may_be_cured(&answer);
            match (answer, first) {
                // If another attempt fails too, the first failure says more: a later one may only say that no
                // server was found.
                (Err(_), Some(earlier)) if !curable => return earlier,
                (answer, _) if !curable => return answer,
                (answer, earlier) => first = Some(earlier.unwrap_or(answer)),
            }
            if !pauses.pause().await {
                return first.unwrap_or(Err(Failure::PrimaryLost));
            }
        }
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

fn may_be_cured(answer: &Result<Document, Failure>) -> bool {
    match answer {
        Ok(reply) => {
            let label = Bson::from(RETRYABLE_WRITE_ERROR);
            reply.get_array("errorLabels").is_ok_and(|labels| labels.contains(&label))
        }
        Err(Failure::PrimaryLost) => true,
        Err(Failure::Driver { error, .. }) => {
            error.contains_label(RETRYABLE_WRITE_ERROR)
                || matches!(*error.kind, ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. })
        }
        Err(_) => false,
    }
}
