//! What is known to be wrong with a request without asking any store.

use std::sync::Arc;

use super::change::{Change, Request};
use super::own_tenant;
use super::prepare::refuse_operators;
use super::writer::Writer;
use crate::config::UpdateMode;
use crate::records::document::payload;
use crate::records::document::{heavy, indexing};
use crate::records::model::{ItemId, VersionMeta};
use crate::{Error, Json, Result};

impl Writer {
    /// Refuses a request that no store could carry out.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` and `EXTERNALIZATION_ERROR` as the write itself.
    pub(crate) async fn check(
        self: &Arc<Self>,
        id: ItemId,
        request: &Request,
        tenant: Option<&str>,
    ) -> Result<()> {
        let collection = &self.index.names.collection;
        let named = |e: Error| e.during(request.name()).in_collection(collection).on_item(id);
        self.check_tenant(request, tenant).map_err(named)?;
        let checked = match request {
            Request::Change(Change::Create { document, .. } | Change::Replace { document }) => {
                self.check_whole(id, document).await
            }
            Request::Change(Change::Update { document }) => match self.index.settings.update_mode {
                UpdateMode::Replace => self.check_whole(id, document).await,
                UpdateMode::Merge => {
                    payload::checked(document.clone()).and_then(|fields| refuse_operators(&fields, "update"))
                }
            },
            Request::Change(Change::Enrich { patches, .. }) => patches.iter().try_for_each(|patch| {
                payload::checked(patch.clone()).and_then(|fields| refuse_operators(&fields, "enrich"))
            }),
            Request::Change(Change::Delete | Change::Restore { .. }) | Request::Restore(_) => Ok(()),
        };
        checked.map_err(named)
    }

    /// Refuses a document that says another tenant than the handle's.
    fn check_tenant(&self, request: &Request, tenant: Option<&str>) -> Result<()> {
        let Request::Change(
            Change::Create { document, .. } | Change::Replace { document } | Change::Update { document },
        ) = request
        else {
            return Ok(());
        };
        if self.index.settings.says_tenant {
            own_tenant::say(&mut payload::checked(document.clone())?, tenant)?;
        }
        Ok(())
    }

    /// The checks of a document that becomes the whole of a version.
    async fn check_whole(self: &Arc<Self>, id: ItemId, document: &Json) -> Result<()> {
        let document = payload::checked(document.clone())?;
        indexing::check_required(&document, &self.index.settings.map)?;
        let writer = Arc::clone(self);
        heavy::work(heavy::is_heavy_object(&document), move || {
            writer.written(id, 0, document, VersionMeta::default(), &[], None).map(drop)
        })
        .await?
    }
}
