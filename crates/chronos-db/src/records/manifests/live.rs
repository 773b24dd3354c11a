//! Which manifests are in use: one document, switched by compare-and-swap.

use std::sync::Arc;

use bson::{Bson, Document, doc};

use super::entry::ManifestEntry;
use super::root::Manifests;
use crate::documents::{Batch, Guard, Write};
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::{int, number};
use crate::{Error, Result, Timestamp};

/// The `_id` of the document.
const LIVE: &str = "live";
/// By which it is compared.
const SEQ: &str = "seq";

/// A manifest in use, as the document names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InUse {
    pub(crate) id: String,
    pub(crate) level: i32,
    pub(crate) tenant: Option<String>,
    /// Rows of it may still be in the index.
    pub(crate) is_pending: bool,
}

impl InUse {
    pub(crate) fn of(entry: &ManifestEntry, is_pending: bool) -> Self {
        Self { id: entry.id.clone(), level: entry.level, tenant: entry.tenant.clone(), is_pending }
    }
}

/// A manifest that another took the place of: its object stays for a while, for readers that are under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) id: String,
    pub(crate) bucket: String,
    pub(crate) key: String,
    pub(crate) since: Timestamp,
}

/// What the document says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Switch {
    /// Grows with every change; −1 as long as there is no document.
    seq: i64,
    /// How often rows were rolled up.
    pub(crate) rolls: i64,
    /// How often something was taken out of manifests for good, or attempts under way were made void.
    pub(crate) fences: i64,
    pub(crate) in_use: Vec<InUse>,
    pub(crate) retired: Vec<Retired>,
}

/// The manifests in use of which `scope` may see rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Live {
    /// Grows with every switch.
    pub(crate) seq: i64,
    pub(crate) entries: Vec<Arc<ManifestEntry>>,
    /// The ids of those of which rows may still be in the index.
    pub(crate) pending: Vec<String>,
}

impl Live {
    /// Those of which rows may still be in the index.
    pub(crate) fn pending_entries(&self) -> Vec<Arc<ManifestEntry>> {
        self.entries.iter().filter(|entry| self.pending.contains(&entry.id)).map(Arc::clone).collect()
    }
}

impl Switch {
    pub(crate) fn seq(&self) -> i64 {
        self.seq
    }

    fn read(stored: Option<&Document>) -> Result<Self> {
        let Some(stored) = stored else { return Ok(Self { seq: -1, ..Self::default() }) };
        Self::parse(stored).ok_or_else(|| {
            Error::storage("the document of the manifests in use lacks something: it was not written by this library, or is damaged")
        })
    }

    fn parse(stored: &Document) -> Option<Self> {
        let text = |doc: &Document, name: &str| doc.get_str(name).ok().map(str::to_owned);
        let in_use = stored.get_array("manifests").ok()?.iter().map(|one| {
            let one = one.as_document()?;
            Some(InUse {
                id: text(one, "id")?,
                level: i32::try_from(number(one, "level")?).ok()?,
                tenant: text(one, TENANT),
                is_pending: one.get_bool("pending").unwrap_or(false),
            })
        });
        let retired = stored.get_array("retired").ok()?.iter().map(|one| {
            let one = one.as_document()?;
            let since = Timestamp::from(*one.get_datetime("since").ok()?);
            Some(Retired {
                id: text(one, "id")?,
                bucket: text(one, "bucket")?,
                key: text(one, "key")?,
                since,
            })
        });
        Some(Self {
            seq: number(stored, SEQ)?,
            rolls: number(stored, "rolls")?,
            fences: number(stored, "fences")?,
            in_use: in_use.collect::<Option<_>>()?,
            retired: retired.collect::<Option<_>>()?,
        })
    }

    fn stored(&self, seq: i64) -> Document {
        let in_use: Vec<Bson> = self
            .in_use
            .iter()
            .map(|one| {
                let mut stored = doc! { "id": &one.id, "level": one.level, "pending": one.is_pending };
                stored.extend(one.tenant.clone().map(|tenant| (TENANT.to_owned(), tenant.into())));
                stored.into()
            })
            .collect();
        let retired: Vec<Bson> = self
            .retired
            .iter()
            .map(|one| {
                doc! { "id": &one.id, "bucket": &one.bucket, "key": &one.key, "since": one.since }.into()
            })
            .collect();
        doc! {
            "_id": LIVE, SEQ: int(seq), "rolls": int(self.rolls), "fences": int(self.fences), "manifests": in_use, "retired": retired,
        }
    }

    /// Takes a manifest out, with another in its place if there is one. Its object is kept until it is
    /// removed as what was retired.
    pub(crate) fn replace(&mut self, old: &ManifestEntry, new: Option<&ManifestEntry>) {
        let since = new.map_or(old.made_at, |new| new.made_at);
        let was_pending = self.in_use.iter().any(|one| one.id == old.id && one.is_pending);
        self.retire(old, since);
        self.in_use.extend(new.map(|new| InUse::of(new, was_pending)));
    }

    /// Takes a manifest out. Its object is kept until it is removed as what was retired.
    pub(crate) fn retire(&mut self, old: &ManifestEntry, since: Timestamp) {
        self.in_use.retain(|one| one.id != old.id);
        self.retired.push(Retired {
            id: old.id.clone(),
            bucket: old.bucket.clone(),
            key: old.key.clone(),
            since,
        });
    }

    /// The write that makes this what counts, if nothing else was made so since it was read.
    pub(crate) fn write(&self) -> Write {
        let next = self.stored(self.seq + 1);
        if self.seq < 0 {
            return Write::insert(next);
        }
        Write::put(next, Guard::Equals { field: SEQ.to_owned(), value: int(self.seq) })
    }
}

impl Manifests {
    /// Which manifests there are, as it is stored now.
    pub(crate) async fn switch(&self) -> Result<Switch> {
        let found = self.index.documents.get(&self.index.names.manifests, vec![LIVE.into()]).await?;
        Switch::read(found.first())
    }

    /// Makes it what counts; whether it is, or something else was meanwhile.
    pub(crate) async fn switch_to(&self, next: &Switch) -> Result<bool> {
        let mut batch = Batch::new();
        batch.push(&self.index.names.manifests, next.write());
        Ok(self
            .index
            .documents
            .apply(batch)
            .await?
            .first()
            .is_some_and(crate::documents::Outcome::is_applied))
    }

    /// The manifests in use that may hold what `scope` sees: read each time, as another process may have
    /// switched them.
    ///
    /// # Errors
    /// `TXN_ERROR` if the store fails, `STORAGE_ERROR` if an entry is missing or damaged.
    pub(crate) async fn entries(&self, scope: &Scope) -> Result<Live> {
        let mut switch = self.switch().await?;
        loop {
            match self.entries_of(&switch, scope).await {
                Err(error) => {
                    // An entry goes when its manifest was retired long ago.
                    let again = self.switch().await?;
                    if again.seq == switch.seq {
                        return Err(error);
                    }
                    switch = again;
                }
                found => return found,
            }
        }
    }

    /// Whether these are the manifests in use still: else one of them that cannot be read may be gone, as another took its
    /// place.
    pub(crate) async fn is_current(&self, live: &Live) -> Result<bool> {
        Ok(self.switch().await?.seq == live.seq)
    }

    pub(crate) async fn entries_of(&self, switch: &Switch, scope: &Scope) -> Result<Live> {
        let wanted: Vec<&InUse> = switch
            .in_use
            .iter()
            .filter(|one| one.tenant.is_none() || scope.sees(one.tenant.as_deref()))
            .collect();
        let unknown: Vec<Bson> = {
            let known = self.known.lock();
            wanted
                .iter()
                .filter(|one| !known.contains_key(&one.id))
                .map(|one| one.id.as_str().into())
                .collect()
        };
        if !unknown.is_empty() {
            let found = self.index.documents.get(&self.index.names.manifests, unknown).await?;
            let read: Vec<ManifestEntry> = found.iter().map(ManifestEntry::read).collect::<Result<_>>()?;
            let mut known = self.known.lock();
            // What is not in use any more is not kept either.
            known.retain(|id, _| switch.in_use.iter().any(|one| one.id == *id));
            known.extend(read.into_iter().map(|entry| (entry.id.clone(), Arc::new(entry))));
        }
        let known = self.known.lock();
        let entry = |one: &InUse| {
            known.get(&one.id).map(Arc::clone).ok_or_else(|| {
                Error::storage(format!(
                    "the entry {} of a manifest is missing in `{}`",
                    one.id, self.index.names.manifests.collection
                ))
            })
        };
        let entries = wanted.iter().map(|one| entry(one)).collect::<Result<_>>()?;
        let pending = wanted.iter().filter(|one| one.is_pending).map(|one| one.id.clone()).collect();
        Ok(Live { seq: switch.seq, entries, pending })
    }
}
