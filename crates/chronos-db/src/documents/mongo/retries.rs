//! Sending a write command again after a failure, so that it takes place once.
//!
//! The driver does this for its own write methods, once, but it has none for many updates in one command, and
//! leaves commands it is handed alone. A server of a replica set remembers by session and number what it has
//! done: sent again with both, a command does what is left and answers for all.

use bson::raw::cstr;
use bson::{Bson, Document, RawDocumentBuf};
use mongodb::Database;
use mongodb::error::{ErrorKind, RETRYABLE_WRITE_ERROR};

use super::call::Call;
use super::failure::Failure;
use super::numbered::{Borrowed, Numbered, NumberedSessions};

/// Runs a write command, again and again while another attempt may cure its failure and the call's time
/// is not over.
pub(super) async fn run(
    sessions: &NumberedSessions,
    call: &Call,
    database: &Database,
    mut command: RawDocumentBuf,
) -> Result<Document, Failure> {
    let numbered = sessions.take(&call.lease.client).await?;
    let mut borrowed = Borrowed::from(sessions);
    let Numbered { session, number } = borrowed.hold(numbered);
    *number += 1;
    command.append(cstr!("txnNumber"), *number);
    let mut pauses = call.pauses();
    let mut first = None;
    loop {
        let sending = async { Ok(database.run_raw_command(command.clone()).session(&mut *session).await?) };
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
