//! What became of a write.

use super::commit::Committed;
use crate::records::model::{Head, Op};
use crate::records::view::Written;

/// What became of a write.
#[derive(Clone, Debug)]
pub(crate) enum WriteOutcome {
    Committed(Box<Committed>),
    /// The item already is as the change wants it.
    Unchanged(Box<Head>),
}

impl From<WriteOutcome> for Written {
    fn from(done: WriteOutcome) -> Self {
        match done {
            WriteOutcome::Committed(committed) => {
                let Committed { row, .. } = *committed;
                Self {
                    id: row.id,
                    ov: row.ov,
                    cv: row.cv,
                    at: row.at,
                    changed: true,
                    created: row.op == Op::Create,
                    queued: None,
                }
            }
            WriteOutcome::Unchanged(head) => {
                let Head { id, ov, cv, updated_at, .. } = *head;
                Self { id, ov, cv, at: updated_at, changed: false, created: false, queued: None }
            }
        }
    }
}
