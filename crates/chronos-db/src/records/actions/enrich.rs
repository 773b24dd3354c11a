//! Merging patches deeply.

use serde::Serialize;

use super::{Action, Given};
use crate::records::write::{Change, Request, WriteCall, WriteOptions};
use crate::records::{Collection, ItemId, ItemLock, Written};
use crate::{Error, Json, Result};

impl Collection {
    /// Merges a patch (an object) or several (an array of objects) deeply into the document, as one version:
    /// objects are merged, lists united; see [`merge`](crate::merge).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> chronos_db::Result<()> {
    /// # use chronos_db::{Chronos, Route, config::Config};
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
    /// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
    /// # let id = users.create(chronos_db::json!({"email": "ada@example.org", "plan": "free"})).await?.id;
    /// use chronos_db::json;
    ///
    /// users.enrich(&id, json!({"tags": ["engineer"]})).function_id("tagger@v1").await?;
    /// users.enrich(&id, json!({"tags": ["engineer", "founder"]})).function_id("tagger@v1").await?;
    /// let user = users.get(&id).await?.unwrap();
    /// assert_eq!(user.document()["tags"], json!(["engineer", "founder"]));
    /// assert_eq!(user.item["_system"]["functionIds"], json!(["tagger@v1"]));
    /// # chronos.shutdown().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`update`](Self::update); `VALIDATION_ERROR` also for a patch that is not an object.
    pub fn enrich(&self, id: &ItemId, patches: impl Serialize) -> Enrich {
        Enrich::new(self, *id, Given::new(&patches))
    }
}

change_action! {
    /// Merges patches deeply; see [`Collection::enrich`].
    Enrich, patch: Patch => |this| Change::Enrich { patches: this.patch.list()?, function_id: this.patch.function_id.clone() }
}

/// What an enrichment brings, and who computed it.
#[derive(Clone)]
pub(crate) struct Patch {
    patches: Given,
    function_id: Option<String>,
}

crate::debug_some!(Patch { function_id });

impl From<Given> for Patch {
    fn from(patches: Given) -> Self {
        Self { patches, function_id: None }
    }
}

impl Patch {
    fn list(&self) -> Result<Vec<Json>> {
        let list = match self.patches.json()? {
            Json::Array(list) => list,
            one => vec![one],
        };
        if list.iter().any(|patch| !patch.is_object()) {
            return Err(
                Error::validation("an enrichment is an object or an array of objects").during("enrich")
            );
        }
        Ok(list)
    }
}

impl Enrich {
    /// Names the function that computed the patch, such as `enricher@v1`; kept in `_system.functionIds`,
    /// once.
    pub fn function_id(mut self, id: impl Into<String>) -> Self {
        self.patch.function_id = Some(id.into());
        self
    }
}
