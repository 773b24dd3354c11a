//! Write commands as the server takes them, in portions within its limits, and what it answers.

use std::ops::Range;

use bson::raw::cstr;
use bson::{Bson, Document, RawArrayBuf, RawDocumentBuf, doc};
use mongodb::{ClientSession, Database};

use super::call::Call;
use super::concern::Concern;
use super::failure::{self, Failure};
use super::numbered::NumberedSessions;
use super::retries;
use crate::Error;
use crate::clock::millis;
use crate::documents::Namespace;

/// A command is one BSON document, and the server takes those of 16 MiB and a little; leave room for what
/// surrounds the statements.
const BYTES_PER_COMMAND: usize = 16 * 1024 * 1024 - 64 * 1024;
/// Statements per command: what one command holds, the server works off without letting others in between.
const STATEMENTS_PER_COMMAND: usize = 1_000;
/// Where commands go: to the server as they are, or into a transaction.
pub(super) struct Via<'a> {
    call: &'a Call,
    session: Option<&'a mut ClientSession>,
    sessions: Option<&'a NumberedSessions>,
}

/// One statement of a command that the server refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// Its place among all statements that were sent.
    pub(super) at: usize,
    pub(super) code: i32,
    message: String,
}

/// What became of the statements of one or more commands.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// How many documents they concerned.
    pub(super) n: usize,
    /// Those that failed.
    pub(super) refusals: Vec<Refusal>,
}

impl Refusal {
    /// The violated index, by the name that we know it by, if a unique index is what refused it.
    pub(super) fn duplicate(&self, via: &Via<'_>, namespace: &Namespace) -> Option<Option<String>> {
        let violated = || failure::violated_index(&self.message, &format!("{namespace:?}"));
        (self.code == failure::DUPLICATE_KEY)
            .then(|| violated().map(|name| via.call.connector.our_name(namespace, name)))
    }

    pub(super) fn failure(&self) -> Failure {
        Failure::reply(self.code, &self.message)
    }
}

impl<'a> Via<'a> {
    pub(super) fn server(call: &'a Call, sessions: Option<&'a NumberedSessions>) -> Self {
        Self { call, session: None, sessions }
    }

    pub(super) fn transaction(call: &'a Call, session: &'a mut ClientSession) -> Self {
        Self { call, session: Some(session), sessions: None }
    }

    pub(super) fn in_transaction(&self) -> bool {
        self.session.is_some()
    }

    /// Inserts, each by itself, in as few commands as they fit in.
    pub(super) async fn insert(
        &mut self,
        namespace: &Namespace,
        documents: &[&RawDocumentBuf],
    ) -> Result<Answer, Failure> {
        self.send(namespace, "insert", "documents", documents).await
    }

    /// Sends `update` statements, unordered, in as few commands as they fit in.
    pub(super) async fn update(
        &mut self,
        namespace: &Namespace,
        statements: &[&RawDocumentBuf],
    ) -> Result<Answer, Failure> {
        self.send(namespace, "update", "updates", statements).await
    }

    /// Sends `delete` statements, unordered, in as few commands as they fit in.
    pub(super) async fn delete(
        &mut self,
        namespace: &Namespace,
        statements: &[&RawDocumentBuf],
    ) -> Result<Answer, Failure> {
        self.send(namespace, "delete", "deletes", statements).await
    }

    async fn send(
        &mut self,
        namespace: &Namespace,
        verb: &str,
        list: &str,
        statements: &[&RawDocumentBuf],
    ) -> Result<Answer, Failure> {
        let mut all = Answer::default();
        for (nth, sent) in portions(statements).into_iter().enumerate() {
            let start = sent.start;
            let answer = self.send_one(namespace, verb, list, &statements[sent], start).await;
            let answer = answer.map_err(|f| if nth == 0 { f } else { f.after_others() })?;
            all.n += answer.n;
            all.refusals.extend(answer.refusals);
        }
        Ok(all)
    }

    /// Sends one command; `start` is the place of its first statement among all.
    async fn send_one(
        &mut self,
        namespace: &Namespace,
        verb: &str,
        list: &str,
        statements: &[&RawDocumentBuf],
        start: usize,
    ) -> Result<Answer, Failure> {
        let mut array = RawArrayBuf::new();
        for statement in statements {
            array.push(*statement);
        }
        let mut command = RawDocumentBuf::try_from(&doc! { verb: &*namespace.collection })?;
        command.append(bson::raw::CString::try_from(list.to_owned())?, array);
        command.append(cstr!("ordered"), false);
        let database = self.call.lease.client.database(&namespace.database);
        let reply = match self.session.as_deref_mut() {
            Some(session) => database.run_raw_command(command).session(session).await?,
            None => send(self.call, self.sessions, &database, command, Concern::Durable).await?,
        };
        answer(&reply, start)
    }
}

/// Sends a write command outside transactions, numbered where there are `sessions` for it, and remembers what
/// is written by then.
pub(super) async fn send(
    call: &Call,
    sessions: Option<&NumberedSessions>,
    database: &Database,
    mut command: RawDocumentBuf,
    concern: Concern,
) -> Result<Document, Failure> {
    let concern_document = match concern {
        Concern::Durable => {
            let wait = millis(call.majority_wait());
            doc! { "w": "majority", "j": true, "wtimeout": wait }
        }
        Concern::OnItsWay => doc! { "w": 1 },
    };
    command.append(cstr!("writeConcern"), RawDocumentBuf::try_from(&concern_document)?);
    let reply = match sessions {
        Some(sessions) => retries::run(sessions, call, database, command).await?,
        None => database.run_raw_command(command).await?,
    };
    if let Ok(unmet) = reply.get_document("writeConcernError") {
        return Err(Failure::reply(
            code(unmet),
            unmet.get_str("errmsg").unwrap_or("the writes did not reach the majority in time"),
        ));
    }
    // A write that was refused has waited as well: for what it met.
    if concern == Concern::Durable
        && let Ok(written) = reply.get_timestamp("operationTime")
    {
        call.connector.has_seen(written);
    }
    Ok(reply)
}

/// Reads the answer to a write command.
fn answer(reply: &Document, start: usize) -> Result<Answer, Failure> {
    let mut refusals = Vec::new();
    for error in reply.get_array("writeErrors").into_iter().flatten() {
        let Bson::Document(error) = error else {
            return Err(Error::database("the server's answer to a write is not understood").into());
        };
        refusals.push(Refusal {
            at: start + failure::count(error, "index"),
            code: code(error),
            message: error.get_str("errmsg").unwrap_or_default().to_owned(),
        });
    }
    Ok(Answer { n: failure::count(reply, "n"), refusals })
}

fn code(error: &Document) -> i32 {
    i32::try_from(failure::count(error, "code")).unwrap_or_default()
}

/// Cuts statements into portions that fit one command each; one that is too large for any stands alone and is
/// the server's to refuse.
fn portions(statements: &[&RawDocumentBuf]) -> Vec<Range<usize>> {
    let mut portions = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (at, statement) in statements.iter().enumerate() {
        // An element of an array also has a type byte and its index as text.
        let size = statement.as_bytes().len() + 8;
        if at > start && (bytes + size > BYTES_PER_COMMAND || at - start == STATEMENTS_PER_COMMAND) {
            portions.push(start..at);
            (start, bytes) = (at, 0);
        }
        bytes += size;
    }
    if start < statements.len() {
        portions.push(start..statements.len());
    }
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_cut_by_number_and_by_size() {
        let small = RawDocumentBuf::try_from(&doc! { "q": 1 }).unwrap();
        assert_eq!(portions(&vec![&small; 2_500]), [0..1_000, 1_000..2_000, 2_000..2_500]);
        let large = RawDocumentBuf::try_from(&doc! { "q": "x".repeat(9 << 20) }).unwrap();
        assert_eq!(portions(&[&large, &small, &large]), [0..2, 2..3]);
        assert!(portions(&[]).is_empty());
    }
}
