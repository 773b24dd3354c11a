//! What a caller sees of a version.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};

use super::query::Listed;
use super::reader::{ReadOptions, Reader, ResolvedVersion, of_storage};
use crate::documents::Direction;
use crate::objects::ObjectStorage;
use crate::records::document::externalize::adopted;
use crate::records::document::heavy;
use crate::records::document::payload::{self, SYSTEM, System};
use crate::records::index::scope::Scope;
use crate::records::model::{BlobRef, ItemId, VersionMeta, VersionSelector};
use crate::records::view::{Damage, OnDamage, Presigned, Version, View};
use crate::records::write::no_past;
use crate::{Error, ErrorKind, Json, Result};

impl Reader {
    /// What a reader sees of a version.
    pub(crate) async fn view(&self, found: ResolvedVersion, options: &ReadOptions) -> Result<View> {
        let bytes = self.bytes(&found).await?;
        let parsed = heavy::work(bytes.len() > heavy::BYTES, move || payload::parse_both(&bytes)).await?;
        let (mut document, inherited) = parsed.map_err(|e| e.on_item(found.id))?;
        let ResolvedVersion { id, ov, cv, at, created_at, deleted_at, mut meta, .. } = found;
        if let Some(inherited) = inherited {
            meta.inherit(inherited);
            if let (Some(_), true, Some(space)) =
                (options.presign, meta.refs.is_empty(), &self.payloads.buckets)
            {
                meta.refs = adopted(
                    &document,
                    &self.index.settings.map,
                    &self.index.names.collection,
                    id,
                    &space.content,
                );
            }
        }
        let system = System {
            ov,
            cv: Some(cv),
            inserted_at: created_at,
            updated_at: at,
            deleted_at,
            function_ids: &meta.function_ids,
            lineage: &meta.lineage,
            state: Some(meta.payload.state.as_str()),
        };
        document.insert(SYSTEM.to_owned(), system.to_json());
        if let Some(names) = &options.projection {
            document.retain(|key, _| names.iter().any(|name| name == key));
        }
        let presigned = match options.presign {
            None => Vec::new(),
            Some(ttl) => self.presign(&meta, ttl).await.map_err(of_storage)?,
        };
        Ok(View { id, ov, cv, at, deleted_at, item: Json::Object(document), presigned, damage: None })
    }

    /// The same of an item of a list, which may show what is wrong with one.
    /// None if the item was erased since it was found.
    pub(super) async fn listed_view(
        &self,
        item: Listed,
        options: &ReadOptions,
        on_damage: OnDamage,
    ) -> Result<Option<View>> {
        let Listed { place, found } = item;
        if on_damage == OnDamage::Fail {
            place.check(found.id)?;
            return unless_erased(self.view(found, options).await);
        }
        let ResolvedVersion { id, ov, cv, at, deleted_at, .. } = found;
        let misplaced = place.problem(id);
        let damage = misplaced.as_ref().map(Damage::from);
        let shown = match &place.damage {
            Some(error) => Err(error.clone()),
            None => self.view(found, options).await,
        };
        match shown {
            Ok(view) => Ok(Some(View { damage, ..view })),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            // Of a store that does not answer, every item would be damaged.
            Err(error) if error.is_retryable() => Err(error),
            Err(error) => {
                let damage = Some(Damage::from(&error));
                Ok(Some(View { id, ov, cv, at, deleted_at, item: Json::Null, presigned: Vec::new(), damage }))
            }
        }
    }

    /// Signs the references that the server itself recorded for this version, and no others.
    async fn presign(&self, meta: &VersionMeta, ttl: Duration) -> Result<Vec<Presigned>> {
        let mut signed = Vec::with_capacity(meta.refs.len());
        for blob in &meta.refs {
            let bucket = self.payloads.bucket(&blob.bucket)?;
            let text_url = match &blob.text_key {
                Some(key) => Some(self.sign(&*bucket, blob, key, ttl).await?),
                None => None,
            };
            signed.push(Presigned {
                path: blob.path.clone(),
                blob_url: self.sign(&*bucket, blob, &blob.blob_key, ttl).await?,
                text_url,
                expires_in: ttl,
            });
        }
        Ok(signed)
    }

    async fn sign(
        &self,
        bucket: &dyn ObjectStorage,
        blob: &BlobRef,
        key: &str,
        ttl: Duration,
    ) -> Result<String> {
        // Where there are no URLs, that is the answer.
        bucket.presign_get(key, ttl).await?;
        // The URL of what still waits in its row would be a dead one.
        if bucket.head(key).await?.is_none() {
            let message = format!(
                "property `{}` has no URL yet: `{key}` is not stored in bucket `{}`",
                blob.path, blob.bucket
            );
            return Err(Error::storage(message).retryable());
        }
        // By now the time of the storage is known.
        bucket.presign_get(key, ttl).await
    }

    /// The versions of one item, oldest first, as a stream.
    pub(crate) async fn versions(
        self: &Arc<Self>,
        id: ItemId,
        scope: &Scope,
        newest_first: bool,
    ) -> Result<BoxStream<'static, Result<Version>>> {
        if self.index.settings.inline {
            return Err(no_past().on_item(id).in_collection(&self.index.names.collection).during("history"));
        }
        let head = self
            .index
            .head_or_row(id)
            .await?
            .filter(|head| !head.erased && scope.sees(head.meta.tenant.as_deref()));
        let Some(head) = head else {
            return Err(Error::not_found("there is no such item")
                .on_item(id)
                .in_collection(&self.index.names.collection)
                .during("history"));
        };
        if !self.index.settings.versioning {
            let row = self
                .index
                .row_at(id, VersionSelector::Ov(head.ov))
                .await?
                .filter(|row| head.is_of(row))
                .unwrap_or_else(|| head.as_row());
            return Ok(futures::stream::iter([Ok(Version::from(row))]).boxed());
        }
        let direction = if newest_first { Direction::Descending } else { Direction::Ascending };
        Ok(self.versions.of_item(id, 0, direction, scope).map_ok(Version::from).boxed())
    }
}

/// What was erased between being found and being read is not there.
pub(crate) fn unless_erased(view: Result<View>) -> Result<Option<View>> {
    match view {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        view => view.map(Some),
    }
}
