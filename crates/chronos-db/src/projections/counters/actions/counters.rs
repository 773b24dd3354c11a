//! The handle of the counters of one collection.

use crate::projections::counters::session::Session;
use crate::records::Collection;
use crate::{Error, Result};

/// The counters of a collection, of what its handle sees; see [`Collection::counters`].
#[derive(Clone, Debug)]
pub struct Counters {
    pub(super) collection: Collection,
}

impl Collection {
    /// How many versions created, updated and deleted something here, in all and by the rules of the
    /// configuration; see [`counters`](crate::counters).
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { collection: self.clone() }
    }
}

impl Counters {
    /// For what shows or changes counts: only where the handle says whose they are.
    pub(super) async fn session(&self) -> Result<Session> {
        self.collection.scope().await?;
        self.upkeep().await
    }

    /// For what only keeps them up to date.
    pub(super) async fn upkeep(&self) -> Result<Session> {
        Session::open(&self.collection).await
    }

    /// Names the operation and the collection in an error.
    pub(super) fn named(&self, operation: &'static str) -> impl FnOnce(Error) -> Error + use<> {
        let collection = self.collection.name().to_owned();
        move |error| error.during(operation).in_collection(&collection)
    }
}
