//! Insert or enrich, whichever the unique keys call for; atomic by a claim on their values.

use std::sync::Arc;

use bson::{Bson, doc};
use futures::TryStreamExt as _;
use sha2::{Digest, Sha256};

use super::call::WriteCall;
use super::change::{Change, WriteOptions};
use super::outcome::WriteOutcome;
use super::own_tenant;
use super::unique::{Unique, json_at};
use super::writer::Writer;
use crate::documents::filter::{Test, key_encoding};
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write};
use crate::json::Map;
use crate::records::document::payload;
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::{Head, ItemId, Lineage};
use crate::records::view::Written;
use crate::{Error, ErrorKind, Json, Result, json_to_bson};

/// Rounds in which the item with these keys may change hands before it is the caller's turn to try again.
const ATTEMPTS: u32 = 32;

impl Writer {
    pub(crate) async fn smart_insert(
        self: &Arc<Self>,
        document: Json,
        keys: &[String],
        lineage: Lineage,
        function_id: Option<String>,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<Written> {
        let map = document.as_object().ok_or_else(|| Error::validation("a document is a JSON object"))?;
        let scope = &self.scope_of_keys(map, scope)?;
        let unique = self.unique(map, keys, scope)?;
        self.schema.ensure(scope).await?;
        // A process that created items with these values otherwise left no claim; the index finds them.
        self.ensure_unique(keys, scope).await?;
        let options = WriteOptions { unique: keys.to_vec(), ..options.clone() };
        for _ in 0..ATTEMPTS {
            let id = match self.live(&unique).await? {
                Some(head) => head.id,
                None => {
                    // The claim decides which item is the one with these keys, before it exists.
                    let id = self.claim(&unique, scope).await?;
                    self.index.env.fail.hit("claim.after_claim")?;
                    let change = Change::Create { document: document.clone(), lineage: lineage.clone() };
                    match self.create_claimed(id, &change, &options, scope).await? {
                        Some(done) => return Ok(done.into()),
                        None => id,
                    }
                }
            };
            let change = Change::Enrich { patches: vec![document.clone()], function_id: function_id.clone() };
            match self.write(WriteCall { id, change: &change, options: &options, scope, lock: None }).await {
                Ok(done) => return Ok(done.into()),
                // It was deleted in between: look again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(
            ErrorKind::OptimisticLock,
            format!("the item with these keys changed hands {ATTEMPTS} times; try again later"),
        )
        .retryable())
    }

    /// Whose items the one with the document's unique keys is among.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the handle is for all tenants, and the document says none.
    pub(crate) fn scope_of_keys(&self, document: &Map, scope: &Scope) -> Result<Scope> {
        own_tenant::scope_of(&self.index.settings, document, scope)
    }

    pub(crate) fn unique(&self, document: &Map, keys: &[String], scope: &Scope) -> Result<Unique> {
        if keys.is_empty() {
            return Err(Error::validation("name at least one unique key"));
        }
        let mut candidates =
            Filter::eq("deletedAt", Bson::Null).and(Filter::Field("erased".into(), Test::Ne(true.into())));
        candidates = scope.narrow(candidates);
        let mut digest = Sha256::new();
        digest.update(scope.stamp().unwrap_or_default());
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        let mut found = Vec::with_capacity(keys.len());
        for key in sorted {
            let declared = &self.index.settings.map.indexed;
            if !declared.is_empty() && !declared.contains(key) {
                return Err(Error::validation(format!(
                    "the unique key `{key}` is not indexed; indexed are: {}",
                    declared.join(", ")
                )));
            }
            if key.split('.').any(|segment| segment.is_empty() || segment.starts_with('$'))
                || key.contains('\0')
            {
                return Err(Error::validation(format!("`{}` is not a property path", key.escape_debug())));
            }
            let value = json_at(document, key);
            let value = value
                .filter(|v| !v.is_null())
                .ok_or_else(|| Error::validation(format!("the unique key `{key}` is absent or null")))?;
            let value = json_to_bson(value)?;
            digest.update([0]);
            digest.update(key);
            digest.update([0]);
            digest.update(key_encoding::encode(&value));
            candidates = candidates.and(Filter::eq(format!("metaIndexed.{key}"), value.clone()));
            found.push((key.clone(), value));
        }
        let claim = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Unique { keys: found, candidates, claim })
    }

    /// Undeclared keys get an index, once: without one every insert would look at every item.
    pub(super) async fn ensure_unique(self: &Arc<Self>, keys: &[String], scope: &Scope) -> Result<()> {
        for key in keys.iter().filter(|key| !self.index.settings.map.indexed.contains(key)) {
            let known = || self.unique_indexes.lock();
            if !known().contains(key) {
                self.schema.ensure_property(key, scope).await?;
                known().insert(key.clone());
            }
        }
        Ok(())
    }

    pub(crate) async fn live(&self, unique: &Unique) -> Result<Option<Head>> {
        let mut heads = self.index.scan_heads(Scan { filter: unique.candidates.clone(), ..Scan::default() });
        while let Some(head) = heads.try_next().await? {
            if unique.is_in(&head.meta.indexed)? == Some(true) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Whether this is the item with these keys. Its document tells where the index does not.
    pub(super) async fn has_keys(&self, head: &Head, unique: &Unique) -> Result<bool> {
        Ok(match unique.is_in(&head.meta.indexed)? {
            Some(known) => known,
            None => unique.is_in_document(&payload::parse(&self.reader.payload(head).await?)?),
        })
    }

    /// The id that the next item with these keys has, whichever process creates it.
    pub(super) async fn claim(&self, unique: &Unique, scope: &Scope) -> Result<ItemId> {
        loop {
            let fresh = self.index.env.random.object_id();
            let claim = unique.claim.as_str();
            let mut document = doc! { "_id": claim, "itemId": fresh };
            document.extend(scope.stamp().map(|tenant| (TENANT.to_owned(), tenant.into())));
            let mut batch = Batch::new();
            batch.push(&self.index.names.claims, Write::insert(document.clone()));
            if self.index.documents.apply(batch).await?.first() == Some(&Outcome::Applied) {
                return Ok(ItemId::new(fresh));
            }
            let Some(found) =
                self.index.documents.get(&self.index.names.claims, vec![claim.into()]).await?.pop()
            else {
                continue;
            };
            let claimed = ItemId::new(
                found
                    .get_object_id("itemId")
                    .map_err(|e| Error::database("a claim names no item").caused_by(e))?,
            );
            // Not the batched read: it must see a head that the claim's holder has just put.
            let free = match self.index.roll_forward(claimed).await? {
                None => true,
                Some(head) => {
                    head.is_live()
                        && scope.sees(head.meta.tenant.as_deref())
                        && self.has_keys(&head, unique).await?
                }
            };
            if free {
                return Ok(claimed);
            }
            // The claimed item is deleted, or its keys have changed since: the next one gets the claim.
            let guard = Guard::Equals { field: "itemId".into(), value: claimed.bson() };
            let mut batch = Batch::new();
            batch.push(&self.index.names.claims, Write::put(document, guard));
            self.index.documents.apply(batch).await?;
        }
    }

    /// Creates the item, unless another process with the same claim did.
    async fn create_claimed(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<Option<WriteOutcome>> {
        if self.index.head(id).await?.is_some() || self.index.row(id, 0).await?.is_some() {
            return Ok(None);
        }
        match self.write(WriteCall { id, change, options, scope, lock: None }).await {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::OptimisticLock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
