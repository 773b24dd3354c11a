//! Where versions are not kept, the head stands in for the one version there is; any other question about the
//! past is refused, as nobody knows.

use futures::TryStreamExt as _;

use crate::Result;
use crate::documents::filter::Test;
use crate::documents::{Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::model::VersionSelector;
use crate::records::model::{Head, int};
use crate::records::write::{no_past, not_kept};

impl super::reader::Reader {
    /// Inline records are asked for as they are.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for any other question about them.
    pub(crate) fn check_kept(&self, which: VersionSelector) -> Result<()> {
        let is_refused = self.index.settings.inline && which != VersionSelector::Latest;
        if is_refused { Err(no_past()) } else { Ok(()) }
    }

    /// Whether the version that `which` means is the one that the head is of; if not, there was none.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there was another one.
    pub(crate) fn only_version(&self, head: &Head, which: VersionSelector) -> Result<bool> {
        let (is_it, was_none) = match which {
            VersionSelector::Latest => (true, false),
            VersionSelector::Ov(ov) => (head.ov == ov, ov > head.ov || ov < 0),
            VersionSelector::At(at) => (head.updated_at <= at, head.created_at > at),
            // The number of its creation is known of the first version alone.
            VersionSelector::Cv(cv) => (head.cv <= cv, head.ov == 0),
        };
        if is_it || was_none {
            return Ok(is_it);
        }
        Err(not_kept().on_item(head.id).at_version(head.ov))
    }

    /// Which items were there at a point of the past, as their heads tell.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if one of them has changed since.
    pub(crate) async fn kept(&self, which: VersionSelector, scope: &Scope) -> Result<Filter> {
        let (there, changed) = match which {
            VersionSelector::At(at) => {
                (Filter::lte("updatedAt", at), Filter::lte("createdAt", at).and(Filter::gt("updatedAt", at)))
            }
            VersionSelector::Cv(cv) => {
                (Filter::lte("cv", int(cv)), Filter::gt("cv", int(cv)).and(Filter::gt("ov", 0)))
            }
            VersionSelector::Latest | VersionSelector::Ov(_) => return Ok(Filter::All),
        };
        let changed = changed.and(Filter::Field("erased".into(), Test::Ne(true.into())));
        let without = vec!["metaIndexed".into(), "fullShadow".into()];
        let scan = Scan { filter: scope.narrow(changed), limit: Some(1), without, ..Scan::default() };
        match self.index.scan_heads(scan).try_next().await? {
            Some(head) => Err(not_kept().on_item(head.id).at_version(head.ov)),
            None => Ok(there),
        }
    }
}
