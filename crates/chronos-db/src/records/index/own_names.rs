//! Which of the short names of built-in properties the documents of a collection have for themselves.
//!
//! `createdAt` of a document is the document's, wherever there is one in the collection; only elsewhere is it
//! short for `_system.insertedAt`. So that nobody has to look at every document to know, the first write of
//! such a property leaves a note, before its version is committed.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use bson::{Document, doc};
use futures::TryStreamExt as _;

use crate::Result;
use crate::documents::{Batch, Filter, Scan, Write};
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::VersionMeta;

/// The short names, and what they are short for.
pub(crate) const SHORT: [(&str, &str); 5] = [
    ("id", "_id"),
    ("ov", "_system.ov"),
    ("cv", "_system.cv"),
    ("createdAt", "_system.insertedAt"),
    ("updatedAt", "_system.updatedAt"),
];

/// Notes were kept from the collection's first version on.
pub(crate) const KEPT: &str = "own";

/// Called with a short name and what it is short for.
type Hear = dyn Fn(&str, &str) + Send + Sync;

/// Hears which short names a list takes for built-in ones.
#[derive(Clone, Default)]
pub(crate) struct OnBuiltIn(pub(crate) Option<Arc<Hear>>);

impl fmt::Debug for OnBuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OnBuiltIn").field(&self.0.is_some()).finish()
    }
}

/// What the short name `name` is short for.
pub(crate) fn full(name: &str) -> Option<&'static str> {
    SHORT.iter().find(|(short, _)| *short == name).map(|(_, full)| *full)
}

fn of_any(name: &str) -> String {
    format!("{KEPT} {name}")
}

/// No tenant's name is empty.
fn of_tenant(name: &str, tenant: Option<&str>) -> String {
    format!("{KEPT} {name} of {}", tenant.unwrap_or_default())
}

/// The notes of documents without a tenant, each with the one that its tenant's documents would have left.
pub(crate) fn notes_of_nobody(tenant: &str) -> impl Iterator<Item = (String, Document)> {
    SHORT.iter().map(move |(name, _)| {
        (of_tenant(name, None), doc! { "_id": of_tenant(name, Some(tenant)), TENANT: tenant })
    })
}

impl super::RecordIndex {
    /// Leaves notes of the short names that a version has in the index, before it is committed.
    pub(crate) async fn note_own(&self, meta: &VersionMeta) -> Result<()> {
        let tenant = meta.tenant.as_deref();
        let known = || self.own_noted.lock();
        let used =
            SHORT.iter().map(|(name, _)| *name).filter(|name| matches!(meta.indexed.get(name), Ok(Some(_))));
        let new: Vec<(&str, String)> = used
            .map(|name| (name, of_tenant(name, tenant)))
            .filter(|(_, note)| !known().contains(note))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (name, note) in &new {
            let mut document = doc! { "_id": note };
            document.extend(tenant.map(|tenant| (TENANT.to_owned(), tenant.into())));
            batch.push(&self.names.counter, Write::insert(document));
            batch.push(&self.names.counter, Write::insert(doc! { "_id": of_any(name) }));
        }
        // One that is there already is as good.
        self.documents.apply(batch).await?;
        known().extend(new.into_iter().map(|(_, note)| note));
        Ok(())
    }

    /// Which of these short names documents that `scope` sees have, or had, for themselves.
    pub(crate) async fn own_names(
        &self,
        mentioned: BTreeSet<&'static str>,
        scope: &Scope,
    ) -> Result<BTreeSet<&'static str>> {
        if mentioned.is_empty() {
            return Ok(mentioned);
        }
        let notes = |name: &str| match scope {
            Scope::All => vec![of_any(name)],
            Scope::Tenant(tenant) => vec![of_tenant(name, Some(tenant))],
            Scope::Untenanted => vec![of_tenant(name, None)],
            Scope::Sole { tenant, .. } => vec![of_tenant(name, Some(tenant)), of_tenant(name, None)],
        };
        let mut wanted = vec![KEPT.into()];
        wanted.extend(mentioned.iter().flat_map(|name| notes(name)).map(bson::Bson::from));
        let found: Vec<Document> = self.documents.get(&self.names.counter, wanted).await?;
        let has = |id: &str| found.iter().any(|note| note.get_str("_id").ok() == Some(id));
        let mut own = BTreeSet::new();
        for name in mentioned {
            let noted = notes(name).iter().any(|note| has(note));
            // Of a collection that is older than the notes, its documents have to tell.
            if noted || (!has(KEPT) && self.any_has(name, scope).await?) {
                own.insert(name);
            }
        }
        Ok(own)
    }

    async fn any_has(&self, name: &'static str, scope: &Scope) -> Result<bool> {
        let filter = scope.narrow(Filter::exists(format!("metaIndexed.{name}"), true));
        let scan = Scan {
            filter,
            limit: Some(1),
            without: vec!["fullShadow".into(), "payload".into()],
            ..Scan::default()
        };
        Ok(self.documents.scan_stored(&self.names.head, scan).try_next().await?.is_some())
    }
}
