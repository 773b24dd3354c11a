//! What a caller sees of an operation that waits, or was given up.

use bson::Document;
use bson::oid::ObjectId;

use super::entry::{date, read_error, text};
use crate::records::{ItemId, number};
use crate::{Json, Timestamp, json};

/// An operation that waits in the fallback queue, or is a dead letter; without its document.
///
/// What cannot be read of a malformed one is empty, 0 or the identity of zeros. Once its turn comes it is a dead
/// letter, and [`last_error`](Self::last_error) says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueuedOperation {
    /// By what it is named: `req_…`.
    pub request_id: String,
    /// What it does: `CREATE`, `UPDATE`, `REPLACE`, `ENRICH`, `DELETE` or `RESTORE`.
    pub operation: String,
    /// The item, also one that is yet to be created.
    pub id: ItemId,
    /// The tenant that the route names.
    pub tenant: Option<String>,
    /// The database that the route leads to.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// Attempts from the queue that failed.
    pub attempts: u32,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When it is tried next, if those before it are done; none for a dead letter.
    pub next_attempt_at: Option<Timestamp>,
    /// When it was given up; none while it waits.
    pub failed_at: Option<Timestamp>,
    /// Code and message of the last failure.
    pub last_error: Option<(String, String)>,
    /// Whether an attempt whose answer was lost may have taken place. The next attempt finds that out.
    pub may_have_happened: bool,
}

impl QueuedOperation {
    /// What an entry says. One that is malformed is shown as far as it can be read, so that it can be seen and
    /// cancelled.
    pub(super) fn read(stored: &Document) -> Self {
        let ctx = stored.get_document("ctx").ok();
        let identity = stored.get_object_id("_id").ok();
        let failed_at = date(stored, "failedAt");
        let attempts = number(stored, "attempt").and_then(|attempt| u32::try_from(attempt).ok());
        let request_id = text(stored, "requestId").or_else(|| identity.map(|id| id.to_hex()));
        let created = date(stored, "createdAt").or_else(|| identity.map(|id| id.timestamp().into()));
        Self {
            request_id: request_id.unwrap_or_default(),
            operation: text(stored, "type").unwrap_or_default(),
            id: ItemId::new(stored.get_object_id("itemId").unwrap_or(ObjectId::from_bytes([0; 12]))),
            tenant: ctx.and_then(|ctx| text(ctx, "tenantId")),
            database: text(stored, "database").unwrap_or_default(),
            collection: ctx.and_then(|ctx| text(ctx, "collection")).unwrap_or_default(),
            attempts: attempts.unwrap_or_default(),
            created_at: created.unwrap_or(Timestamp::from_millis(0)),
            next_attempt_at: date(stored, "nextAttemptAt").filter(|_| failed_at.is_none()),
            failed_at,
            last_error: read_error(stored),
            may_have_happened: stored.contains_key("follows"),
        }
    }

    /// Returns `{requestId, type, id, tenantId?, database, collection, attempts, createdAt, nextAttemptAt?,
    /// failedAt?, error?, mayHaveHappened}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out =
            json!({ "requestId": self.request_id, "type": self.operation, "id": self.id.to_string() });
        if let Some(tenant) = &self.tenant {
            out["tenantId"] = tenant.clone().into();
        }
        out["database"] = self.database.clone().into();
        out["collection"] = self.collection.clone().into();
        out["attempts"] = self.attempts.into();
        out["createdAt"] = self.created_at.to_string().into();
        for (key, at) in [("nextAttemptAt", self.next_attempt_at), ("failedAt", self.failed_at)] {
            if let Some(at) = at {
                out[key] = at.to_string().into();
            }
        }
        if let Some((code, message)) = &self.last_error {
            out["error"] = json!({ "code": code, "message": message });
        }
        out["mayHaveHappened"] = self.may_have_happened.into();
        out
    }
}
