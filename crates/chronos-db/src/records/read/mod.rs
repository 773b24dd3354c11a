//! Reading versions: the index says what there is, the payload comes from memory, the row or the object
//! storage.

mod list;
mod page;
mod plan;
mod unknown;
mod unversioned;
mod walk;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt as _, TryStreamExt as _};

use list::Listed;
pub(crate) use list::Query;
pub use page::Page;
pub(crate) use page::{Order, cursor, parse_cursor};

use super::engine::Engine;
use super::externalize::adopted;
use super::heavy;
use super::model::{BlobRef, Content, Head, ItemId, Op, Row, State};
use super::payload::{self, SYSTEM, System};
use super::scope::Scope;
use super::view::{Damage, OnDamage, Version, View};
use crate::documents::{Direction, Filter, Scan};
use crate::objects::ObjectStorage;
use crate::{Error, ErrorKind, Json, Result, Timestamp};

/// Which version of an item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Which {
    #[default]
    Latest,
    Ov(i64),
    At(Timestamp),
    Cv(i64),
}

/// What a reader wants to see.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReadOptions {
    pub(crate) include_deleted: bool,
    /// Top-level properties; all if none.
    pub(crate) projection: Option<Vec<String>>,
    pub(crate) presign: Option<std::time::Duration>,
}

/// A version to show: its index entry and its times.
#[derive(Clone)]
pub(crate) struct Found {
    pub(crate) id: ItemId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    pub(crate) at: Timestamp,
    pub(crate) created_at: Timestamp,
    pub(crate) deleted_at: Option<Timestamp>,
    pub(crate) content: Content,
    pub(crate) inline: Option<Bytes>,
}

crate::debug_some!(Found { id, ov, cv, at, created_at, deleted_at });

impl Found {
    pub(crate) fn from_head(head: Head) -> Self {
        let inline =
            head.shadow.filter(|shadow| shadow.ov == head.content.payload.ov).map(|shadow| shadow.bytes);
        let Head { id, ov, cv, created_at, updated_at, deleted_at, content, .. } = head;
        Self { id, ov, cv, at: updated_at, created_at, deleted_at, content, inline }
    }

    pub(crate) fn from_row(row: Row, created_at: Timestamp) -> Self {
        let deleted_at = (row.op == Op::Delete).then_some(row.at);
        let Row { id, ov, cv, at, content, inline, .. } = row;
        Self { id, ov, cv, at, created_at, deleted_at, content, inline }
    }
}

impl Engine {
    /// The version of one item that `which` means; none if there is none, it is deleted (unless wanted), or
    /// `scope` does not see it.
    pub(crate) async fn find(
        &self,
        id: ItemId,
        which: Which,
        options: &ReadOptions,
        scope: &Scope,
    ) -> Result<Option<Found>> {
        let found = match which {
            Which::Latest => self.head_or_row(id).await?.filter(|head| !head.erased).map(Found::from_head),
            _ if !self.settings.versioning => {
                let which = self.settled(which).await?;
                match self
                    .head_or_row(id)
                    .await?
                    .filter(|head| !head.erased && scope.sees(head.content.tenant.as_deref()))
                {
                    Some(head) if self.only_version(&head, which)? => Some(Found::from_head(head)),
                    _ => None,
                }
            }
            _ => {
                let which = self.settled(which).await?;
                let (row, head) =
                    futures::future::try_join(self.first_row(scan_of(id, which)), self.head_or_row(id))
                        .await?;
                // An erased item has no past either.
                let head = head.filter(|head| !head.erased);
                row.filter(|row| !row.op.is_bare())
                    .zip(head)
                    .map(|(row, head)| Found::from_row(row, head.created_at))
            }
        };
        Ok(found.filter(|f| {
            scope.sees(f.content.tenant.as_deref()) && (options.include_deleted || f.deleted_at.is_none())
        }))
    }

    /// The latest item.json of a head.
    pub(crate) async fn payload(&self, head: &Head) -> Result<Bytes> {
        self.bytes(&Found::from_head(head.clone())).await
    }

    /// item.json of a version, checked against the index.
    pub(crate) async fn bytes(&self, found: &Found) -> Result<Bytes> {
        let payload = &found.content.payload;
        if let Some(bytes) = self.cached(found.id, payload.ov) {
            return Ok(bytes);
        }
        let inline = match &found.inline {
            Some(bytes) => Some(bytes.clone()),
            // What a later version shares is inline in the row that wrote it, if anywhere.
            None if payload.state == State::NewNotSynched => {
                self.row(found.id, payload.ov).await?.and_then(|row| row.inline)
            }
            None => None,
        };
        let bytes = match inline {
            Some(bytes) => bytes,
            None => self.fetch(found).await?,
        };
        payload::check(&bytes, payload).map_err(|e| e.on_item(found.id))?;
        self.remember(found.id, payload.ov, &bytes);
        Ok(bytes)
    }

    async fn fetch(&self, found: &Found) -> Result<Bytes> {
        let payload = &found.content.payload;
        let (Some(bucket), Some(key)) = (&payload.bucket, &payload.key) else {
            let message = format!(
                "the payload of version {} is neither in its row nor in an object storage",
                payload.ov
            );
            return Err(self.lost(found, message).await);
        };
        match self.bucket(bucket)?.get(key).await.map_err(|e| of_storage(e).on_item(found.id))? {
            Some(bytes) => Ok(bytes),
            None => {
                let message =
                    format!("the object `{key}` of version {} is missing in bucket `{bucket}`", payload.ov);
                Err(self.lost(found, message).await)
            }
        }
    }

    /// The error of a payload that is not where its version says: damage, unless the item was erased since
    /// the version was found.
    async fn lost(&self, found: &Found, message: String) -> Error {
        let error = match self.head(found.id).await {
            Ok(Some(head)) if !head.erased => Error::storage(message),
            Ok(_) => Error::not_found("the item was erased meanwhile"),
            Err(error) => error,
        };
        error.on_item(found.id)
    }

    /// What a reader sees of a version.
    pub(crate) async fn view(&self, found: Found, options: &ReadOptions) -> Result<View> {
        let bytes = self.bytes(&found).await?;
        let parsed = heavy::work(bytes.len() > heavy::BYTES, move || payload::parse_both(&bytes)).await?;
        let (mut document, inherited) = parsed.map_err(|e| e.on_item(found.id))?;
        let Found { id, ov, cv, at, created_at, deleted_at, mut content, .. } = found;
        if let Some(inherited) = inherited {
            content.inherit(inherited);
            if let (Some(_), true, Some(space)) = (options.presign, content.refs.is_empty(), &self.space) {
                content.refs =
                    adopted(&document, &self.settings.map, &self.names.collection, id, &space.content);
            }
        }
        let system = System {
            ov,
            cv: Some(cv),
            inserted_at: created_at,
            updated_at: at,
            deleted_at,
            function_ids: &content.function_ids,
            lineage: &content.lineage,
            state: Some(content.payload.state.as_str()),
        };
        document.insert(SYSTEM.to_owned(), system.to_json());
        if let Some(names) = &options.projection {
            document.retain(|key, _| names.iter().any(|name| name == key));
        }
        let presigned = match options.presign {
            None => Vec::new(),
            Some(ttl) => self.presign(&content, ttl).await.map_err(of_storage)?,
        };
        Ok(View { id, ov, cv, at, deleted_at, item: Json::Object(document), presigned, damage: None })
    }

    /// The same of an item of a list, which may show what is wrong with one.
    /// None if the item was erased since it was found.
    async fn listed_view(
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
        let Found { id, ov, cv, at, deleted_at, .. } = found;
        let misplaced = place.problem(id);
        let damage = misplaced.as_ref().map(Damage::from);
        match self.view(found, options).await {
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
    async fn presign(
        &self,
        content: &Content,
        ttl: std::time::Duration,
    ) -> Result<Vec<super::view::Presigned>> {
        let mut signed = Vec::with_capacity(content.refs.len());
        for blob in &content.refs {
            let bucket = self.bucket(&blob.bucket)?;
            let text_url = match &blob.text_key {
                Some(key) => Some(self.sign(&*bucket, blob, key, ttl).await?),
                None => None,
            };
            signed.push(super::view::Presigned {
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
        ttl: std::time::Duration,
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
        // By now the storage has told its time.
        bucket.presign_get(key, ttl).await
    }

    /// The versions of one item, oldest first, as a stream.
    pub(crate) async fn versions(
        self: &Arc<Self>,
        id: ItemId,
        scope: &Scope,
        newest_first: bool,
    ) -> Result<futures::stream::BoxStream<'static, Result<Version>>> {
        let head = self
            .head_or_row(id)
            .await?
            .filter(|head| !head.erased && scope.sees(head.content.tenant.as_deref()));
        let Some(head) = head else {
            return Err(Error::not_found("there is no such item")
                .on_item(id)
                .in_collection(&self.names.collection)
                .during("history"));
        };
        if !self.settings.versioning {
            let row = self
                .row_at(id, Which::Ov(head.ov))
                .await?
                .filter(|row| head.is_of(row))
                .unwrap_or_else(|| head.as_row());
            return Ok(futures::stream::iter([Ok(Version::from(row))]).boxed());
        }
        let direction = if newest_first { Direction::Descending } else { Direction::Ascending };
        let scan = Scan {
            filter: Filter::eq("itemId", id.bson()),
            order: vec![("ov".into(), direction)],
            without: vec!["inline".into(), "riders".into()],
            ..Scan::default()
        };
        Ok(self.scan_rows(scan).map_ok(Version::from).boxed())
    }

    /// The newest row of the collection's item at a point, without its payload.
    pub(crate) async fn row_at(&self, id: ItemId, which: Which) -> Result<Option<Row>> {
        self.first_row(Scan { without: vec!["inline".into(), "riders".into()], ..scan_of(id, which) }).await
    }
}

/// A bucket that is gone is no item that is not found.
fn of_storage(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    Error::storage(error.message().to_owned()).caused_by(error)
}

/// What was erased between being found and being read is not there.
pub(crate) fn unless_erased(view: Result<View>) -> Result<Option<View>> {
    match view {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        view => view.map(Some),
    }
}

fn scan_of(id: ItemId, which: Which) -> Scan {
    let item = Filter::eq("itemId", id.bson());
    let (filter, by) = match which {
        Which::Latest => (item, "ov"),
        Which::Ov(ov) => (item.and(Filter::eq("ov", super::model::int(ov))), "ov"),
        Which::At(at) => (item.and(Filter::lte("at", at)), "at"),
        Which::Cv(cv) => (item.and(Filter::lte("cv", super::model::int(cv))), "cv"),
    };
    Scan { filter, order: vec![(by.into(), Direction::Descending)], limit: Some(1), ..Scan::default() }
}
