//! Heads against their rows.

use super::report::Verification;
use super::verifier::Verifier;
use crate::Result;
use crate::documents::{Batch, Direction, Filter, Outcome, Scan, Write};
use crate::records::document::payload;
use crate::records::index::scope::Scope;
use crate::records::index::without_content;
use crate::records::model::{Head, ItemId, Row, VersionSelector};
use futures::{StreamExt as _, TryStreamExt as _};
use std::collections::HashMap;

impl Verifier {
    /// Whether the row that a head was made from does not exist, as a failover could leave it behind when
    /// rows were read before a majority had them. Without versioning rows go, so nothing can be said.
    pub(super) async fn is_without_row(&self, head: &Head) -> Result<bool> {
        if !self.index.settings.versioning
            || self.index.row(head.id, head.ov).await?.is_some_and(|row| head.is_of(&row))
        {
            return Ok(false);
        }
        // Unless the head has moved on.
        Ok(self.index.head(head.id).await?.is_some_and(|now| now.is_same(head)))
    }

    async fn first_of(&self, head: &Head) -> Result<Option<Row>> {
        let scope = Scope::of_owner(head.meta.tenant.as_deref());
        self.versions.row_at(head.id, VersionSelector::Ov(0), &scope).await
    }

    /// The head of an item that lags behind its newest row, or is missing, once it is put.
    pub(super) async fn made_anew(&self, before: Option<Head>, newest: &Row) -> Result<Option<Head>> {
        let head = self.index.roll_forward(newest.id).await?;
        let Some(mut head) = head.filter(|_| before.is_none() && newest.ov > 0) else {
            return self.index.head(newest.id).await;
        };
        // The first version says when the item was created, and may have left the index.
        if let Some(first) = self.first_of(&head).await?
            && first.at != head.created_at
        {
            let unchanged = head.unchanged();
            head.created_at = first.at;
            self.replace(Write::put(head.stored(), unchanged)).await?;
        }
        Ok(Some(head))
    }

    /// Puts the head that follows from the item's newest row in place of `wrong`; whether it did.
    pub(super) async fn put_back(&self, wrong: &Head) -> Result<bool> {
        let Some(newest) = self.index.newest_row(wrong.id).await? else { return Ok(false) };
        let mut head = newest.head_after(Some(wrong));
        if let Some(first) = self.first_of(wrong).await? {
            head.created_at = first.at;
        }
        self.payloads.forget_cached(wrong.id, wrong.ov);
        self.replace(Write::put(head.stored(), wrong.unchanged())).await
    }

    /// Removes a head of which no version exists, if its number shows that its row never was committed:
    /// another row has it, or it was never given out. Whether it did.
    /// Where rows went, because versions were not kept, a head stays: its row is gone, not its version.
    pub(super) async fn remove_unfounded(&self, head: &Head) -> Result<bool> {
        if head.inline.is_some() {
            return Ok(false);
        }
        let same = Scan {
            filter: Filter::eq("cv", crate::records::model::int(head.cv)),
            limit: Some(1),
            without: without_content(),
            ..Scan::default()
        };
        let taken = self.index.documents.scan(&self.index.names.ver, same).try_next().await?.is_some();
        let (given, highest) = (self.index.last_cv().await?, self.index.highest_cv().await?);
        let is_beyond = given.max(highest).is_some_and(|last| last < head.cv);
        if !(taken || is_beyond) || self.index.newest_row(head.id).await?.is_some() {
            return Ok(false);
        }
        self.payloads.forget_cached(head.id, head.ov);
        self.replace(Write::Delete { id: head.id.bson(), guard: head.unchanged() }).await
    }

    pub(super) async fn replace(&self, write: Write) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.index.names.head, write);
        Ok(self.index.documents.apply(batch).await?.first().is_some_and(Outcome::is_applied))
    }

    /// The payload of an inline record. One that only a row has is looked at with that row.
    async fn verify_inline(&self, head: &Head, is_alone: bool, found: &mut Verification) -> Result<()> {
        let of_head = &head.meta.payload;
        let damage = match &head.inline {
            _ if head.erased => return Ok(()),
            None if self.index.row(head.id, of_head.ov).await?.is_some_and(|row| row.inline.is_some()) => {
                return Ok(());
            }
            None => Some(("missing-payload", "the head has no payload, and no row has it".to_owned())),
            Some(bytes) => payload::check(bytes, of_head)
                .and_then(|()| payload::parse(bytes).map(drop))
                .err()
                .map(|error| ("damaged-payload", error.message().to_owned())),
        };
        found.checked += u64::from(is_alone);
        if let Some((kind, message)) = damage {
            found.report(kind, Some(head.id), Some(head.ov), message);
        }
        Ok(())
    }

    /// Without versioning a head may have outlived its rows; otherwise it must have them.
    pub(super) async fn verify_heads_have_rows(
        &self,
        repair: bool,
        found: &mut Verification,
        scope: &Scope,
    ) -> Result<()> {
        let order = vec![("_id".into(), Direction::Ascending)];
        let heads = Scan {
            filter: scope.narrow(Filter::All),
            order,
            without: vec!["fullShadow".into(), "metaIndexed".into()],
            ..Scan::default()
        };
        let mut pages = self.index.scan_heads(heads).try_chunks(self.index.settings.heads_at_once());
        while let Some(page) = pages.next().await {
            let heads = page.map_err(|e| e.1)?;
            let scan = Scan {
                filter: Filter::any_of("itemId", heads.iter().map(|head| head.id.bson()).collect()),
                newest: Some(crate::documents::Newest {
                    per: "itemId".into(),
                    by: "ov".into(),
                    at_most: i64::MAX.into(),
                }),
                without: without_content(),
                ..Scan::default()
            };
            let rows: HashMap<ItemId, i64> =
                self.index.scan_rows(scan).map_ok(|row| (row.id, row.ov)).try_collect().await?;
            for head in heads {
                if self.index.settings.inline {
                    self.verify_inline(&head, !rows.contains_key(&head.id), found).await?;
                }
                if !rows.contains_key(&head.id) {
                    if self.index.settings.versioning {
                        if repair && self.remove_unfounded(&head).await? {
                            found.repaired += 1;
                        } else {
                            found.report(
                                "missing-rows",
                                Some(head.id),
                                Some(head.ov),
                                "the item has a head but no versions".to_owned(),
                            );
                        }
                    } else {
                        found.items += 1;
                        found.live += u64::from(head.is_live());
                    }
                }
            }
        }
        Ok(())
    }
}
