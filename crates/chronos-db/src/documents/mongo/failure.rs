//! What the driver and the server say went wrong, and what follows from it.

use std::time::Duration;

use bson::Document;
use mongodb::error::{
    Error as DriverError, ErrorKind as Kind, RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR,
    UNKNOWN_TRANSACTION_COMMIT_RESULT, WriteFailure,
};

use crate::documents::whole;
use crate::{Error, ErrorKind};

pub(super) const DUPLICATE_KEY: i32 = 11_000;
/// Codes of a server that is stepping down, starting, shutting down, unreachable behind mongos, that lost a
/// cursor, ran out of time or met another writer.
const PASSING: [i32; 22] = [
    6, 7, 43, 237, 50, 64, 89, 91, 112, 134, 189, 202, 244, 246, 251, 262, 9001, 10_058, 10_107, 11_600,
    11_602, 13_435,
];
const NODE_IS_RECOVERING: i32 = 13_436;
const UNAUTHORIZED: i32 = 13;
const INVALID_NAMESPACE: i32 = 73;
const MAX_TEXT_CHARS: usize = 600;

/// A call that failed, before its error is returned to the caller.
#[derive(Debug)]
pub(super) enum Failure {
    /// By our own judgement.
    Ours(Error),
    /// The driver or the server said so.
    Driver { error: Box<DriverError>, began: bool },
    /// The command was answered, with errors in the answer.
    Reply { code: i32, what: String },
    /// The call's time was over.
    NoAnswer { after: Duration, primary: bool },
    /// The server was no longer the primary before it answered.
    PrimaryLost,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

impl From<DriverError> for Failure {
    fn from(error: DriverError) -> Self {
        Self::Driver { error: Box::new(error), began: false }
    }
}

impl From<bson::error::Error> for Failure {
    fn from(error: bson::error::Error) -> Self {
        Self::Ours(Error::validation("a document cannot be encoded as BSON").caused_by(error))
    }
}

impl Failure {
    /// A write that failed for a reason other than its guard or an index, or a write concern that was not
    /// met.
    pub(super) fn reply(code: i32, message: &str) -> Self {
        Self::Reply { code, what: cut(&format!("{message} (code {code})")) }
    }

    /// The same failure, after other writes of the batch were sent.
    pub(super) fn after_others(self) -> Self {
        match self {
            Self::Driver { error, .. } => Self::Driver { error, began: true },
            other => other,
        }
    }

    /// Whether no write can have reached a server.
    pub(super) fn nothing_written(&self) -> bool {
        match self {
            Self::Driver { error, began: false } => matches!(
                &*error.kind,
                Kind::ServerSelection { .. }
                    | Kind::DnsResolve { .. }
                    | Kind::Authentication { .. }
                    | Kind::InvalidArgument { .. }
                    | Kind::InvalidTlsConfig { .. }
            ),
            _ => false,
        }
    }

    pub(super) fn is_retryable(&self) -> bool {
        match self {
            Self::Ours(error) => error.is_retryable(),
            Self::Reply { code, .. } => passing(*code),
            Self::NoAnswer { .. } | Self::PrimaryLost => true,
            Self::Driver { error, .. } if is_of_refused_credentials(error) => false,
            Self::Driver { error, .. } => {
                [RETRYABLE_WRITE_ERROR, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT]
                    .iter()
                    .any(|l| error.contains_label(l))
                    || match &*error.kind {
                        Kind::ServerSelection { .. }
                        | Kind::DnsResolve { .. }
                        | Kind::Io(_)
                        | Kind::ConnectionPoolCleared { .. } => true,
                        _ => code(error).is_some_and(passing),
                    }
            }
        }
    }

    /// Whether the same call may succeed in a moment. Looking for a server has taken its time already.
    pub(super) fn may_pass(&self) -> bool {
        let searched =
            matches!(self, Self::Driver { error, .. } if matches!(*error.kind, Kind::ServerSelection { .. }));
        self.is_retryable() && !searched && !matches!(self, Self::NoAnswer { .. })
    }

    /// Whether the server did not let the client do this.
    pub(super) fn is_forbidden(&self) -> bool {
        match self {
            Self::Driver { error, .. } => has_code(error, UNAUTHORIZED),
            Self::Reply { code, .. } => *code == UNAUTHORIZED,
            _ => false,
        }
    }

    /// Whether a transaction may simply be run again.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Driver { error, .. } if error.contains_label(TRANSIENT_TRANSACTION_ERROR))
    }

    /// Whether a commit may have happened, so that only committing again can tell.
    pub(super) fn is_unknown_commit(&self) -> bool {
        matches!(self, Self::Driver { error, .. } if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT))
    }
}

/// Whether the call had no connection because another one's credentials were refused. The driver says so in
/// words alone.
fn is_of_refused_credentials(error: &DriverError) -> bool {
    matches!(&*error.kind, Kind::ConnectionPoolCleared { message, .. } if message.contains("Authentication failed"))
}

fn passing(code: i32) -> bool {
    PASSING.contains(&code) || code == NODE_IS_RECOVERING
}

fn code(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        Kind::Command(e) => Some(e.code),
        Kind::Write(WriteFailure::WriteError(e)) => Some(e.code),
        Kind::Write(WriteFailure::WriteConcernError(e)) => Some(e.code),
        Kind::InsertMany(e) => e.write_concern_error.as_ref().map(|e| e.code),
        _ => None,
    }
}

pub(super) fn has_code(error: &DriverError, wanted: i32) -> bool {
    code(error) == Some(wanted)
}

pub(super) fn is_duplicate(error: &DriverError) -> bool {
    has_code(error, DUPLICATE_KEY)
}

/// What the caller can do about it.
pub(super) fn kind(error: &DriverError) -> ErrorKind {
    match &*error.kind {
        Kind::InvalidArgument { .. } | Kind::Bson(_) => ErrorKind::Validation,
        _ if has_code(error, INVALID_NAMESPACE) => ErrorKind::Validation,
        _ => ErrorKind::Database,
    }
}

/// The essence of a driver error, without the full answer of the server.
pub(super) fn describe(error: &DriverError) -> String {
    let text = match &*error.kind {
        Kind::Command(e) => format!("{} (code {} {})", e.message, e.code, e.code_name),
        Kind::Write(WriteFailure::WriteError(e)) => format!("{} (code {})", e.message, e.code),
        Kind::Write(WriteFailure::WriteConcernError(e)) => {
            format!("{} (code {} {})", e.message, e.code, e.code_name)
        }
        Kind::InsertMany(e) => match &e.write_concern_error {
            Some(e) => format!("{} (code {} {})", e.message, e.code, e.code_name),
            None => "an insert was refused".to_owned(),
        },
        other => other.to_string(),
    };
    cut(&text)
}

pub(super) fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

/// The name of the violated index out of the server's words on a duplicate key: `E11000 duplicate key error
/// collection: db.c index: NAME dup key: {…}`.
pub(super) fn violated_index(message: &str, namespace: &str) -> Option<String> {
    let from = match message.split_once(&format!("collection: {namespace} index: ")) {
        Some((_, rest)) => rest,
        None => message.split_once(" index: ")?.1,
    };
    let name = from.split_once(" dup key:").map_or(from, |(name, _)| name);
    let name = name.split_once(" collation: {").map_or(name, |(name, _)| name);
    (!name.is_empty()).then(|| name.to_owned())
}

/// The number under `key`, however the server typed it.
pub(super) fn count(reply: &Document, key: &str) -> usize {
    reply.get(key).and_then(whole).and_then(|n| usize::try_from(n).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::violated_index;

    #[test]
    fn the_index_is_found_in_the_servers_words_on_a_duplicate_key() {
        let said = "E11000 duplicate key error collection: a.b index: itemId_ov dup key: { itemId: \"x index: y dup key: z\", ov: 3 }";
        assert_eq!(violated_index(said, "a.b").as_deref(), Some("itemId_ov"));
    }

    #[test]
    fn a_collection_whose_name_looks_like_the_servers_words_does_not_confuse_it() {
        let said = "E11000 duplicate key error collection: a.b index: c index: _id_ dup key: { _id: 1 }";
        assert_eq!(violated_index(said, "a.b index: c").as_deref(), Some("_id_"));
    }

    #[test]
    fn a_collation_is_no_part_of_the_indexs_name() {
        let said = "E11000 duplicate key error collection: a.b index: name collation: { locale: \"en\" } dup key: { name: \"x\" }";
        assert_eq!(violated_index(said, "a.b").as_deref(), Some("name"));
    }
}
