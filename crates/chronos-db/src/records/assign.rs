//! Giving what has no tenant one.

use std::future::IntoFuture;

use bson::{Bson, Document};
use futures::TryStreamExt as _;
use futures::future::BoxFuture;

use crate::documents::filter::Test;
use crate::documents::{Batch, Direction, DocumentStore, Filter, Guard, Namespace, Outcome, Scan, Write};
use crate::records::index::own_names;
use crate::records::index::scope::{Scope, TENANT};
use crate::records::model::{Names, Op};
use crate::records::storage::notes::CONDEMNED;
use crate::{Chronos, Error, Json, Result, Route};

/// Documents per round. Version rows may carry their payloads.
const ROUND: u64 = 64;
/// Rounds over a collection in which others still write what has no tenant.
const PASSES: u32 = 5;

/// Gives the documents without a tenant in a database one; see [`Chronos::migrate_tenants`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct MigrateTenants {
    chronos: Chronos,
    route: Route,
    tenant: String,
    dry_run: bool,
}

/// What [`MigrateTenants`] did, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Assigned {
    /// Collections with documents that had no tenant.
    pub collections: u64,
    /// Items that got the tenant.
    pub items: u64,
    /// Their versions.
    pub versions: u64,
    /// Locks, claims and notes about objects.
    pub notes: u64,
    /// Documents that others changed at the same time; running the migration again takes them.
    pub left: u64,
}

impl Assigned {
    /// Returns the counts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { collections, items, versions, notes, left } = self;
        crate::json!({ "collections": collections, "items": items, "versions": versions, "notes": notes, "left": left })
    }
}

impl Chronos {
    /// Gives every document without a tenant, in the database a route leads to, the tenant `tenant`: what was
    /// written before several tenants could meet there, or by contexts of version 1 that name none. The
    /// collection of the route is the only one, if it names one. An item that has a tenant keeps it. It can
    /// be stopped and run again at any time.
    pub fn migrate_tenants(&self, route: Route, tenant: impl Into<String>) -> MigrateTenants {
        MigrateTenants { chronos: self.clone(), route, tenant: tenant.into(), dry_run: false }
    }
}

impl MigrateTenants {
    /// Counts what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    async fn run(self) -> Result<Assigned> {
        let named = |error: Error| error.during("migrate");
        crate::validate_name("tenant", &self.tenant).map_err(named)?;
        let only = self.route.collection.clone();
        let mut route = self.route.clone();
        if *route.tenant.get_or_insert_with(|| self.tenant.clone()) != self.tenant {
            return Err(named(Error::validation(
                "the route names another tenant than the one that documents are to get",
            )));
        }
        let resolved =
            self.chronos.route(&route.collection(only.as_deref().unwrap_or("any"))).map_err(named)?;
        let documents = self.chronos.documents(&resolved.entry.connection).map_err(named)?;
        let collections = match only {
            Some(name) => vec![name],
            None => {
                let stored = documents.collections(&resolved.database).await.map_err(named)?;
                stored.iter().filter_map(|name| name.strip_suffix("_head").map(str::to_owned)).collect()
            }
        };
        let mut done = Assigned::default();
        for collection in collections {
            let names = Names::new(&resolved.database, &collection);
            let work = Work { documents: &*documents, names, tenant: &self.tenant, dry_run: self.dry_run };
            work.collection(&mut done)
                .await
                .map_err(|error| error.during("migrate").in_collection(&collection))?;
        }
        Ok(done)
    }
}

impl IntoFuture for MigrateTenants {
    type Output = Result<Assigned>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

struct Work<'w> {
    documents: &'w dyn DocumentStore,
    names: Names,
    tenant: &'w str,
    dry_run: bool,
}

/// By what a document is known to be the one that was read.
type Unchanged = fn(&Document) -> Guard;

fn same(document: &Document, field: &str) -> Guard {
    Guard::Equals { field: field.to_owned(), value: document.get(field).cloned().unwrap_or(Bson::Null) }
}

/// A row changes when it is stored, and when its item is erased.
fn unchanged_row(row: &Document) -> Guard {
    same(row, if row.contains_key("unflushedSince") { "unflushedSince" } else { "op" })
}

/// A note of an upload changes when it is condemned.
fn unchanged_note(note: &Document) -> Guard {
    same(note, if note.contains_key(CONDEMNED) { CONDEMNED } else { "notedAt" })
}

impl Work<'_> {
    async fn collection(&self, done: &mut Assigned) -> Result<()> {
        let mut any = false;
        for pass in 1..=PASSES {
            let Names { head, ver, gc, locks, claims, .. } = &self.names;
            let version = Filter::Field("op".into(), Test::Ne(Op::Void.as_str().into()));
            // Heads last: an item is the tenant's when its head says so, and by then all its versions do.
            let (versions, left_versions) = self.documents_of(ver, version, unchanged_row).await?;
            let (mut notes, mut left) = (0, left_versions);
            let kinds: [(&Namespace, Unchanged); 3] = [
                (gc, unchanged_note),
                (locks, |lock| same(lock, "token")),
                (claims, |claim| same(claim, "itemId")),
            ];
            for (namespace, unchanged) in kinds {
                let (given, kept) = self.documents_of(namespace, Filter::All, unchanged).await?;
                (notes, left) = (notes + given, left + kept);
            }
            self.own_names().await?;
            let (items, left_items) = self.documents_of(head, Filter::All, |head| same(head, "cv")).await?;
            (done.items, done.versions, done.notes) =
                (done.items + items, done.versions + versions, done.notes + notes);
            any |= items + versions + notes > 0;
            left += left_items;
            // A writer that read a head before it changed may have written one more version since.
            if self.dry_run || items + versions + notes + left == 0 {
                break;
            }
            if pass == PASSES {
                done.left += left;
            }
        }
        done.collections += u64::from(any);
        Ok(())
    }

    /// Gives the documents of one collection of the store the tenant; returns how many got it, and how many
    /// others changed meanwhile.
    async fn documents_of(
        &self,
        namespace: &Namespace,
        filter: Filter,
        unchanged: Unchanged,
    ) -> Result<(u64, u64)> {
        let filter = Scope::Untenanted.narrow(filter);
        let without = if self.dry_run {
            ["inline", "riders", "metaIndexed", "fullShadow", "payload"].map(str::to_owned).to_vec()
        } else {
            Vec::new()
        };
        let (mut given, mut left, mut after) = (0, 0, None);
        loop {
            let order = vec![("_id".to_owned(), Direction::Ascending)];
            let scan = Scan {
                filter: filter.clone(),
                order,
                after: after.take(),
                limit: Some(ROUND),
                without: without.clone(),
                newest: None,
            };
            let found: Vec<Document> = self.documents.scan(namespace, scan).try_collect().await?;
            let Some(last) = found.last() else { return Ok((given, left)) };
            after = Some(vec![last.get("_id").cloned().unwrap_or(Bson::Null)]);
            if self.dry_run {
                given += found.len() as u64;
                continue;
            }
            let mut batch = Batch::new();
            for mut document in found {
                let guard = unchanged(&document);
                document.insert(TENANT, self.tenant);
                batch.push(namespace, Write::put(document, guard));
            }
            for outcome in self.documents.apply(batch).await? {
                if outcome == Outcome::Applied { given += 1 } else { left += 1 }
            }
        }
    }

    /// The tenant's documents have the properties for themselves that those of nobody had.
    async fn own_names(&self) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let mut batch = Batch::new();
        for (note, new) in own_names::notes_of_nobody(self.tenant) {
            if !self.documents.get(&self.names.counter, vec![note.into()]).await?.is_empty() {
                batch.push(&self.names.counter, Write::insert(new));
            }
        }
        if !batch.operations.is_empty() {
            self.documents.apply(batch).await?;
        }
        Ok(())
    }
}
