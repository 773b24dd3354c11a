//! Insert or enrich, whichever the unique keys call for; atomic by a claim on their values.

use std::sync::{Arc, PoisonError};

use bson::{Bson, Document, RawDocument, doc};
use futures::TryStreamExt as _;
use sha2::{Digest, Sha256};

use super::engine::Engine;
use super::indexing::MAX_INDEXED_BYTES;
use super::model::{Head, ItemId, Lineage};
use super::payload;
use super::scope::{Scope, TENANT};
use super::view::Written;
use super::write::{Change, Done, WriteOptions};
use crate::documents::filter::{Test, key_encoding};
use crate::documents::{Batch, Filter, Guard, Outcome, Scan, Write, raw_bson};
use crate::json::Map;
use crate::{Error, ErrorKind, Json, Result, json_to_bson};

/// Rounds in which the item with these keys may change hands before it is the caller's turn to try again.
const ATTEMPTS: u32 = 32;

/// The unique keys of a document, as its items are known by them.
struct Unique {
    /// Each key and its value.
    keys: Vec<(String, Bson)>,
    /// Finds the live items, and some whose arrays only hold a value.
    candidates: Filter,
    /// The identifier of the claim on these values.
    claim: String,
}

impl Unique {
    /// Whether an index entry has these values as wholes: an array is not its element. None if some are
    /// missing there, which they may be from the index alone.
    fn is_in(&self, indexed: &RawDocument) -> Result<Option<bool>> {
        let entry = raw_bson::decode(indexed)?;
        let mut complete = true;
        for (key, value) in &self.keys {
            match whole_at(&entry, key) {
                Some(found) if key_encoding::compare(found, value).is_eq() => {}
                Some(_) => return Ok(Some(false)),
                None => complete = false,
            }
        }
        Ok(complete.then_some(true))
    }

    /// The same of a document, which hides nothing.
    fn is_in_document(&self, document: &Map) -> bool {
        self.keys.iter().all(|(key, value)| {
            let found = json_at(document, key).and_then(|found| json_to_bson(found).ok());
            found.is_some_and(|found| key_encoding::compare(&found, value).is_eq())
        })
    }
}

/// The value at a path through objects alone.
fn whole_at<'d>(document: &'d Document, path: &str) -> Option<&'d Bson> {
    let mut segments = path.split('.');
    let first = segments.next().and_then(|first| document.get(first));
    segments
        .fold(first, |value, segment| value.and_then(Bson::as_document).and_then(|inner| inner.get(segment)))
}

fn json_at<'d>(document: &'d Map, path: &str) -> Option<&'d Json> {
    let mut segments = path.split('.');
    let first = segments.next().and_then(|first| document.get(first));
    segments
        .fold(first, |value, segment| value.and_then(Json::as_object).and_then(|inner| inner.get(segment)))
}

/// Refuses a version of which the index does not hold a unique key: the next insert would not find it.
///
/// # Errors
/// `VALIDATION_ERROR` naming the key.
pub(super) fn check_unique(keys: &[String], indexed: &RawDocument) -> Result<()> {
    if keys.is_empty() {
        return Ok(());
    }
    let entry = raw_bson::decode(indexed)?;
    match keys.iter().find(|key| whole_at(&entry, key).is_none()) {
        None => Ok(()),
        Some(key) => Err(Error::validation(format!(
            "the property `{key}` cannot be a unique key of this document, as it does not get into the index: what is indexed of one document has at most \
             {MAX_INDEXED_BYTES} bytes, and holds no externalised properties; name what to index in the collection's `indexedProps`"
        ))),
    }
}

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
        let map = document.as_object().ok_or_else(|| Error::validation("a document is a JSON object"))?;
        let unique = self.unique(map, keys, scope)?;
        self.ensure(scope).await?;
        // Whoever created items with these values otherwise left no claim; the index finds them.
        self.ensure_unique(keys, scope).await?;
        let options = WriteOptions { unique: keys.to_vec(), ..options.clone() };
        for _ in 0..ATTEMPTS {
            let id = match self.live(&unique).await? {
                Some(head) => head.id,
                None => {
                    // The claim decides which item is the one with these keys, before it exists.
                    let id = self.claim(&unique, scope).await?;
                    self.env.fail.hit("claim.after_claim")?;
                    let change = Change::Create { document: document.clone(), lineage: lineage.clone() };
                    match self.create_claimed(id, &change, &options, scope).await? {
                        Some(done) => return Ok(done.into()),
                        None => id,
                    }
                }
            };
            let change = Change::Enrich { patches: vec![document.clone()], function_id: function_id.clone() };
            match self.write(id, &change, &options, scope, None).await {
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

    fn unique(&self, document: &Map, keys: &[String], scope: &Scope) -> Result<Unique> {
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
            let declared = &self.settings.map.indexed;
            if !declared.is_empty() && !declared.contains(key) {
                return Err(Error::validation(format!(
                    "the unique key `{key}` is not indexed; indexed are: {}",
                    declared.join(", ")
                )));
            }
            if key.split('.').any(|segment| segment.is_empty() || segment.starts_with('$'))
                || key.contains('\0')
            {
                return Err(Error::validation(format!("`{}` is no property path", key.escape_debug())));
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
    async fn ensure_unique(self: &Arc<Self>, keys: &[String], scope: &Scope) -> Result<()> {
        for key in keys.iter().filter(|key| !self.settings.map.indexed.contains(key)) {
            let known = || self.unique_indexes.lock().unwrap_or_else(PoisonError::into_inner);
            if !known().contains(key) {
                self.ensure_property(key, scope).await?;
                known().insert(key.clone());
            }
        }
        Ok(())
    }

    async fn live(&self, unique: &Unique) -> Result<Option<Head>> {
        let mut heads = self.scan_heads(Scan { filter: unique.candidates.clone(), ..Scan::default() });
        while let Some(head) = heads.try_next().await? {
            if unique.is_in(&head.content.indexed)? == Some(true) {
                return Ok(Some(head));
            }
        }
        Ok(None)
    }

    /// Whether this is the item with these keys. Its document tells where the index does not.
    async fn has_keys(&self, head: &Head, unique: &Unique) -> Result<bool> {
        Ok(match unique.is_in(&head.content.indexed)? {
            Some(known) => known,
            None => unique.is_in_document(&payload::parse(&self.payload(head).await?)?),
        })
    }

    /// The id that the next item with these keys has, whoever creates it.
    async fn claim(&self, unique: &Unique, scope: &Scope) -> Result<ItemId> {
        loop {
            let fresh = self.env.random.object_id();
            let claim = unique.claim.as_str();
            let mut document = doc! { "_id": claim, "itemId": fresh };
            document.extend(scope.stamp().map(|tenant| (TENANT.to_owned(), tenant.into())));
            let mut batch = Batch::new();
            batch.push(&self.names.claims, Write::insert(document.clone()));
            if self.documents.apply(batch).await?.first() == Some(&Outcome::Applied) {
                return Ok(ItemId::new(fresh));
            }
            let Some(found) = self.documents.get(&self.names.claims, vec![claim.into()]).await?.pop() else {
                continue;
            };
            let claimed = ItemId::new(
                found
                    .get_object_id("itemId")
                    .map_err(|e| Error::database("a claim names no item").caused_by(e))?,
            );
            // Not the batched read: it must see a head that the claim's holder has just put.
            let free = match self.roll_forward(claimed).await? {
                None => true,
                Some(head) => {
                    head.is_live()
                        && scope.sees(head.content.tenant.as_deref())
                        && self.has_keys(&head, unique).await?
                }
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
    async fn create_claimed(
        self: &Arc<Self>,
        id: ItemId,
        change: &Change,
        options: &WriteOptions,
        scope: &Scope,
    ) -> Result<Option<Done>> {
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
