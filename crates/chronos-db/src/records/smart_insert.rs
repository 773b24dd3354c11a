//! Insert or enrich, whichever the unique keys call for; atomic by a claim on their values.

use std::sync::Arc;

use bson::{Bson, doc};
use futures::TryStreamExt as _;
use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::model::{Head, ItemId, Lineage};
use super::scope::{Scope, TENANT};
use super::view::Written;
use super::write::{Change, Done, WriteOptions};
use crate::documents::filter::{Test, order};
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write, stored};
use crate::json::Map;
use crate::{Error, ErrorKind, Json, Result, json_to_bson};

/// Rounds in which the item with these keys may change hands before it is the caller's turn to try again.
const ATTEMPTS: u32 = 32;

impl Engine {
    pub(crate) async fn smart_insert(
        self: &Arc<Self>,
        document: Json,
        keys: &[String],
        lineage: Lineage,
        function_id: Option<String>,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<Written> {
        self.ensure(scope).await?;
        let map = document.as_object().ok_or_else(|| Error::validation("a document is a JSON object"))?;
        let (same, claim) = self.unique(map, keys, scope)?;
        for _ in 0..ATTEMPTS {
            let id = match self.live(&same).await? {
                Some(head) => head.id,
                None => {
                    // The claim decides which item is the one with these keys, before it exists.
                    let id = self.claim(&claim, &same, scope).await?;
                    self.runtime.fail.hit("claim.after_claim")?;
                    let change = Change::Create { document: document.clone(), lineage: lineage.clone() };
                    match self.create_claimed(id, &change, options, scope).await? {
                        Some(done) => return Ok(done.into()),
                        None => id,
                    }
                }
            };
            let change = Change::Enrich { patches: vec![document.clone()], function_id: function_id.clone() };
            match self.write(id, &change, options, scope, None).await {
                Ok(done) => return Ok(done.into()),
                // It was deleted in between: look again.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::new(ErrorKind::OptimisticLock, format!("the item with these keys changed hands {ATTEMPTS} times; try again later"))
            .retryable())
    }

    /// The filter for live items with the same keys, and the identifier of their claim.
    fn unique(&self, document: &Map, keys: &[String], scope: &Scope) -> Result<(Filter, String)> {
        if keys.is_empty() {
            return Err(Error::validation("name at least one unique key"));
        }
        let mut same = Filter::eq("deletedAt", Bson::Null).and(Filter::Field("erased".into(), Test::Ne(true.into())));
        same = scope.narrow(same);
        let mut digest = Sha256::new();
        digest.update(scope.stamp().unwrap_or_default());
        let mut sorted: Vec<&String> = keys.iter().collect();
        sorted.sort();
        for key in sorted {
            let declared = &self.settings.map.indexed;
            if !declared.is_empty() && !declared.contains(key) {
                return Err(Error::validation(format!("the unique key `{key}` is not indexed; indexed are: {}", declared.join(", "))));
            }
            let mut segments = key.split('.');
            let first = segments.next().and_then(|first| document.get(first));
            let value = segments.fold(first, |value, segment| value.and_then(|v| v.get(segment)));
            let value =
                value.filter(|v| !v.is_null()).ok_or_else(|| Error::validation(format!("the unique key `{key}` is absent or null")))?;
            let value = json_to_bson(value)?;
            digest.update([0]);
            digest.update(key);
            digest.update([0]);
            digest.update(order::encode(&value));
            same = same.and(Filter::eq(format!("metaIndexed.{key}"), value));
        }
        let claim = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((same, claim))
    }

    async fn live(&self, same: &Filter) -> Result<Option<Head>> {
        let scan = Scan { filter: same.clone(), limit: Some(1), ..Scan::default() };
        self.scan_heads(scan).try_next().await
    }

    /// The id that the next item with these keys has, whoever creates it.
    async fn claim(&self, claim: &str, same: &Filter, scope: &Scope) -> Result<ItemId> {
        loop {
            let fresh = self.runtime.random.object_id();
            let mut document = doc! { "_id": claim, "itemId": fresh };
            document.extend(scope.stamp().map(|tenant| (TENANT.to_owned(), tenant.into())));
            let mut batch = Batch::new();
            batch.push(&self.names.claims, Write::insert(document.clone()));
            if self.documents.apply(batch).await?.first() == Some(&Outcome::Applied) {
                return Ok(ItemId::new(fresh));
            }
            let Some(found) = self.documents.get(&self.names.claims, vec![claim.into()]).await?.pop() else { continue };
            let claimed = ItemId::new(found.get_object_id("itemId").map_err(|e| Error::database("a claim names no item").caused_by(e))?);
            // Not the batched read: it must see a head that the claim's holder has just put.
            let free = match self.roll_forward(claimed).await? {
                None => true,
                Some(head) => head.is_live() && same.matches(&stored::decode(&head.stored())?),
            };
            if free {
                return Ok(claimed);
            }
            // The claimed item is deleted, or its keys have changed since: the next one gets the claim.
            let guard = Guard::Equals { field: "itemId".into(), value: claimed.bson() };
            let mut batch = Batch::new();
            batch.push(&self.names.claims, Write::put(document, guard));
            self.documents.apply(batch).await?;
        }
    }

    /// Creates the item, unless somebody else with the same claim did.
    async fn create_claimed(self: &Arc<Self>, id: ItemId, change: &Change, options: &WriteOptions, scope: &Scope) -> Result<Option<Done>> {
        if self.head(id).await?.is_some() || self.row(id, 0).await?.is_some() {
            return Ok(None);
        }
        match self.write(id, change, options, scope, None).await {
            Ok(done) => Ok(Some(done)),
            Err(error) if error.kind() == ErrorKind::OptimisticLock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
