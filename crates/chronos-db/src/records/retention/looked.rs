//! When all rows were looked at for the last time, and none of them leaves any more: as long as nothing was written
//! since, and no row has become too old, the next look would find none either.

use bson::{Document, doc};

use super::leaving::{Kept, Window};
use super::retainer::Retainer;
use crate::documents::{Batch, Guard, Write};
use crate::records::index::scope::Scope;
use crate::records::model::{int, number};
use crate::{Result, Timestamp};

/// The note in the counter collection; where tenants share one, of each.
const LOOKED: &str = "looked";
/// After that long everything is looked at once more, whatever is noted: documents may have got another tenant.
const VALID_MILLIS: i64 = 24 * 3_600_000;

/// What was looked at.
pub(super) struct Looked<'a> {
    pub(super) scope: &'a Scope,
    /// The window with what limits it, besides what is settled.
    pub(super) window: Window,
    pub(super) now: Timestamp,
}

impl Looked<'_> {
    fn id(&self) -> String {
        match (self.scope.is_one_of_several(), self.scope.owner()) {
            (false, _) => LOOKED.to_owned(),
            (true, None) => format!("{LOOKED}|"),
            (true, Some(tenant)) => format!("{LOOKED}|{tenant}"),
        }
    }

    /// Whether the window is the same, but for the time that passed, and nothing can have left it meanwhile.
    fn is_as(&self, noted: &Document) -> bool {
        let time = |name: &str| noted.get_datetime(name).ok().map(|at| Timestamp::from(*at));
        let is_young = time("at").is_some_and(|at| {
            (0..VALID_MILLIS).contains(&self.now.as_millis().saturating_sub(at.as_millis()))
        });
        let is_old_enough = |before: Timestamp| time("oldest").is_none_or(|oldest| before <= oldest);
        is_young
            && number(noted, "cv") == Some(self.window.settled)
            && number(noted, "maxPerItem") == self.window.most
            && noted.get_bool("byAge").is_ok_and(|by_age| by_age == self.window.before.is_some())
            && self.window.before.is_none_or(is_old_enough)
    }
}

impl Retainer {
    /// Whether it is known that nothing leaves the index.
    pub(super) async fn is_known(&self, looked: &Looked<'_>) -> Result<bool> {
        let found = self.index.documents.get(&self.index.names.counter, vec![looked.id().into()]).await?;
        Ok(found.first().is_some_and(|noted| looked.is_as(noted)))
    }

    /// Notes that of all rows that were looked at none leaves any more.
    pub(super) async fn note_looked(&self, looked: &Looked<'_>, kept: Kept) -> Result<()> {
        let Window { settled, before, most } = looked.window;
        let mut noted =
            doc! { "_id": looked.id(), "cv": int(settled), "at": looked.now, "byAge": before.is_some() };
        noted.extend(most.map(|most| ("maxPerItem".to_owned(), int(most))));
        noted.extend(kept.oldest.map(|oldest| ("oldest".to_owned(), oldest.into())));
        let mut batch = Batch::new();
        batch.push(&self.index.names.counter, Write::put(noted, Guard::Any));
        self.index.documents.apply(batch).await.map(drop)
    }
}
