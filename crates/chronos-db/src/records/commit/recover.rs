//! Mending what a crash leaves between two steps.

use std::time::Duration;

use crate::Result;
use crate::documents::{Batch, Guard, Outcome, Write};
use crate::records::engine::Engine;
use crate::records::model::{Head, ItemId, Row};
use crate::records::read::Which;

/// Tries to learn what became of a group, and the first wait between them; each following wait is twice as long.
const TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// A try that took longer is the last one.
const LONG_MILLIS: i64 = 1_000;

impl Engine {
    /// Puts the head that follows from the item's newest row. Safe at any time and in any number: an older head never replaces a newer one.
    pub(crate) async fn roll_forward(&self, id: ItemId) -> Result<Option<Head>> {
        let row = self.newest_row(id).await?;
        let current = self.head(id).await?;
        // Without versioning a head may have outlived its rows.
        let Some(row) = row else { return Ok(current) };
        if current.as_ref().is_some_and(|head| head.cv >= row.cv) {
            return Ok(current);
        }
        let created = match &current {
            Some(_) => None,
            None => self.row(id, 0).await?,
        };
        let mut head = row.head_after(current.as_ref());
        if let Some(first) = created {
            head.created_at = first.at;
        }
        let mut batch = Batch::new();
        batch.push(&self.names.head, Write::put(head.stored(), Guard::Newer { field: "cv".into() }));
        self.documents.apply(batch).await?;
        Ok(Some(head))
    }

    /// The item's newest row, without its payload.
    pub(crate) async fn newest_row(&self, id: ItemId) -> Result<Option<Row>> {
        self.row_at(id, Which::Latest).await
    }

    /// Closes numbers that no version took. Where one did, nothing happens: that number has its row.
    pub(crate) async fn void(&self, cvs: &[i64]) -> Result<Vec<Outcome>> {
        let now = self.documents.now().await?;
        let mut batch = Batch::new();
        for cv in cvs {
            batch.push(&self.names.ver, Write::insert(Row::void(self.runtime.random.object_id(), *cv, now)));
        }
        self.documents.apply(batch).await
    }

    /// [`void`](Self::void), again and again for some seconds while the store does not answer.
    pub(super) async fn void_until_answered(&self, cvs: &[i64]) -> Result<()> {
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            let begun = self.runtime.clock.now();
            let Err(error) = self.void(cvs).await else { return Ok(()) };
            // A store that let it wait so long will do so again, and the caller waits as well.
            if self.runtime.clock.now().as_millis() - begun.as_millis() > LONG_MILLIS {
                return Err(error);
            }
            self.runtime.clock.sleep(wait).await;
            wait *= 2;
        }
        self.void(cvs).await.map(|_| ())
    }
}
