//! Moving messaging data between layouts, and bringing documents of the legacy library into today's shape.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use bson::{Bson, Document};
use futures::TryStreamExt as _;
use parking_lot::Mutex;

use super::db::MessagingDb;
use super::normalize::complete;
use super::runs;
use super::schema::{Key, Kind};
use super::table::{REV, Table};
use super::value::{id_text, system_date, text, whole};
use crate::config::{DatabaseType, Entry, Selector};
use crate::documents::{Deployment, Scan};
use crate::{Chronos, Error, ErrorKind, Json, Result, Route, Timestamp};

/// Documents on their way at once.
const AT_ONCE: usize = 16;
/// Problems that are described one by one.
const MAX_DETAILS: usize = 20;
/// How often a document is looked at again that others change at the same time.
const ROUNDS: u32 = 8;

/// Brings messaging data where, and into the shape in which, a configuration wants it; see
/// [`Chronos::migrate_messaging`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Migrate {
    to: Chronos,
    from: Option<Chronos>,
    dry_run: bool,
}

/// What a migration did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Migrated {
    /// Documents read.
    pub read: u64,
    /// Documents that were new where they belong.
    pub copied: u64,
    /// Documents brought into today's shape, or replaced by a newer state.
    pub updated: u64,
    /// Documents that were as they should be.
    pub unchanged: u64,
    /// Documents that are there with other contents, or that cannot be understood. They stay where they are.
    pub problems: u64,
    /// The first of the problems.
    pub details: Vec<String>,
}

impl Migrated {
    /// Returns the report as JSON.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let Self { read, copied, updated, unchanged, problems, details } = self;
        crate::json!({
            "read": read, "copied": copied, "updated": updated, "unchanged": unchanged, "problems": problems, "details": details,
        })
    }

    fn count(&mut self, step: Step) {
        self.read += 1;
        match step {
            Step::Copied => self.copied += 1,
            Step::Updated => self.updated += 1,
            Step::Unchanged => self.unchanged += 1,
            Step::Problem(what) => {
                self.problems += 1;
                if self.details.len() < MAX_DETAILS {
                    self.details.push(what);
                }
            }
        }
    }
}

enum Step {
    Copied,
    Updated,
    Unchanged,
    Problem(String),
}

impl Chronos {
    /// Makes the collections and indexes of every configured messaging database, and brings the documents in
    /// them to the tenants' databases and into today's shape. With [`from`](Migrate::from), copies those of
    /// another configuration, such as one with another layout. Running it again continues it and changes
    /// nothing that is done. Sources keep what they have, but for documents that stay in their database.
    pub fn migrate_messaging(&self) -> Migrate {
        Migrate { to: self.clone(), from: None, dry_run: false }
    }
}

/// Which database.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct DatabaseId {
    /// The position of its deployment among [`Run::deployments`].
    deployment: usize,
    name: String,
}

/// DatabaseId a tenant's documents belong.
struct Target {
    id: DatabaseId,
    db: Arc<MessagingDb>,
}

struct Run {
    to: Chronos,
    dry_run: bool,
    dbs: Mutex<HashMap<DatabaseId, Arc<MessagingDb>>>,
    /// The deployments met so far: what is called by two names is still one.
    deployments: tokio::sync::Mutex<Vec<Deployment>>,
    /// DatabaseId the entries of the target are, by their paths.
    targets: HashMap<String, DatabaseId>,
}

impl Migrate {
    /// Copies the data of this configuration.
    pub fn from(mut self, other: &Chronos) -> Self {
        self.from = Some(other.clone());
        self
    }

    /// Counts what would be done, and changes nothing.
    pub fn dry_run(mut self) -> Self {
        self.dry_run = true;
        self
    }

    async fn run(self) -> Result<Migrated> {
        let mut run = Run {
            to: self.to.clone(),
            dry_run: self.dry_run,
            dbs: Mutex::default(),
            deployments: tokio::sync::Mutex::default(),
            targets: HashMap::new(),
        };
        let targets = entries(&self.to);
        if targets.is_empty() {
            let message = "the configuration has no messaging database to migrate to";
            return Err(Error::new(ErrorKind::RouteNotFound, message).during("migrate"));
        }
        for entry in &targets {
            let at = run.location(&self.to, entry).await?;
            run.targets.insert(entry.path.clone(), at);
            run.db(entry)?.ready().await?;
        }
        let from = self.from.as_ref().unwrap_or(&self.to);
        let mut done = Migrated::default();
        let mut seen = BTreeSet::new();
        for entry in entries(from) {
            let source = run.location(from, &entry).await?;
            if seen.insert(source.clone()) {
                run.database(from, &entry, &source, &mut done).await?;
            }
        }
        Ok(done)
    }
}

runs!(Migrate => Migrated);

fn entries(chronos: &Chronos) -> Vec<Entry> {
    chronos
        .config()
        .entries
        .iter()
        .filter(|entry| entry.database_type == Some(DatabaseType::Messaging))
        .cloned()
        .collect()
}

impl Run {
    async fn location(&self, chronos: &Chronos, entry: &Entry) -> Result<DatabaseId> {
        let deployment = chronos.documents(&entry.connection)?.deployment().await?;
        let mut known = self.deployments.lock().await;
        let at = known.iter().position(|known| known.is_same(&deployment)).unwrap_or(known.len());
        if at == known.len() {
            known.push(deployment);
        }
        Ok(DatabaseId { deployment: at, name: entry.database.clone().unwrap_or_default() })
    }

    fn target_at(&self, entry: &Entry) -> Result<&DatabaseId> {
        self.targets
            .get(&entry.path)
            .ok_or_else(|| Error::database(format!("{} is not a messaging database", entry.path)))
    }

    /// DatabaseId documents go to. In a dry run nothing is created there.
    fn db(&self, entry: &Entry) -> Result<Arc<MessagingDb>> {
        let at = self.target_at(entry)?;
        let documents = self.to.documents(&entry.connection)?;
        let mut dbs = self.dbs.lock();
        let db = dbs.entry(at.clone()).or_insert_with(|| {
            let db = MessagingDb::new(documents, &at.name, entry.capture_deliveries, crate::Env::default());
            Arc::new(if self.dry_run { db.untouched() } else { db })
        });
        Ok(Arc::clone(db))
    }

    async fn database(
        &self,
        from: &Chronos,
        entry: &Entry,
        source: &DatabaseId,
        done: &mut Migrated,
    ) -> Result<()> {
        let documents = from.documents(&entry.connection)?;
        let db = MessagingDb::new(
            Arc::clone(&documents),
            entry.database.as_deref().unwrap_or_default(),
            true,
            crate::Env::default(),
        );
        let tenant =
            if let Selector::Tenant(tenant) = &entry.selector { Some(tenant.as_str()) } else { None };
        for kind in Kind::ALL {
            let found = documents.scan(&db.namespace(kind), Scan::default());
            let mut steps = found
                .map_ok(|document| self.document(kind, document, tenant, source))
                .try_buffer_unordered(AT_ONCE);
            while let Some(step) = steps.try_next().await? {
                done.count(step);
            }
        }
        Ok(())
    }

    /// DatabaseId a tenant's documents belong.
    fn target(&self, tenant: &str) -> Result<Target> {
        let resolved = self.to.route(&Route::messaging().tenant(tenant).collection("topics"))?;
        Ok(Target { id: self.target_at(&resolved.entry)?.clone(), db: self.db(&resolved.entry)? })
    }

    async fn document(
        &self,
        kind: Kind,
        document: Document,
        of: Option<&str>,
        source: &DatabaseId,
    ) -> Result<Step> {
        let problem = |what: &dyn std::fmt::Display| {
            Ok(Step::Problem(format!("{kind} {}: {what}", id_text(&document))))
        };
        let tenant = text(&document, "tenantId").or_else(|| of.map(str::to_owned));
        let Some(tenant) = tenant else { return problem(&"it names no tenant") };
        let mut adopted = document.clone();
        adopted.insert("tenantId", &tenant);
        let key = match complete(kind, &mut adopted, born(&document)) {
            Ok(key) => key,
            Err(error) => return problem(&error.message()),
        };
        let Target { id, db } = match self.target(&tenant) {
            Ok(target) => target,
            Err(error) => return problem(&error.message()),
        };
        if kind == Kind::Deliveries && !db.captures_deliveries() {
            return problem(&"the database it belongs to keeps no deliveries");
        }
        let table = Table::new(db, tenant.as_str().into(), kind);
        if *source == id {
            return self.adopt(&table, document, &tenant).await;
        }
        self.copy(&table, &key, adopted, &document).await
    }

    /// Brings a document into today's shape where it is. Another migration may be at it at the same time, and
    /// comes to the same.
    async fn adopt(&self, table: &Table, mut document: Document, tenant: &str) -> Result<Step> {
        let problem = |document: &Document, what: &dyn std::fmt::Display| {
            Ok(Step::Problem(format!("{} {}: {what}", table.kind, id_text(document))))
        };
        for _ in 0..ROUNDS {
            let mut adopted = document.clone();
            adopted.insert("tenantId", tenant);
            if let Err(error) = complete(table.kind, &mut adopted, born(&document)) {
                return problem(&document, &error.message());
            }
            if adopted == document {
                return Ok(Step::Unchanged);
            }
            if self.dry_run || table.replace(&document, adopted).await?.is_some() {
                return Ok(Step::Updated);
            }
            // Gone is as good as done.
            let Some(now) = table.stored(&document).await? else { return Ok(Step::Unchanged) };
            if now == document {
                return problem(&document, &"its key is taken");
            }
            document = now;
        }
        problem(&document, &"others are changing it; run the migration again")
    }

    async fn copy(&self, table: &Table, key: &Key, adopted: Document, document: &Document) -> Result<Step> {
        for _ in 0..ROUNDS {
            let Some(there) = table.find(key).await? else {
                if self.dry_run {
                    return Ok(Step::Copied);
                }
                let mut new = adopted.clone();
                table.stamp(&mut new, key);
                if table.insert(new, key).await? {
                    return Ok(Step::Copied);
                }
                continue;
            };
            if contents(&there) == contents(&adopted) {
                return Ok(Step::Unchanged);
            }
            let changes = match table.kind {
                Kind::SharedMemory => whole(document, "version").is_none(),
                Kind::Topics | Kind::Deliveries => true,
                Kind::Messages | Kind::DeadLetters => false,
            };
            if !changes {
                let what = "another document with the same key is there already; both stay as they are";
                return Ok(Step::Problem(format!("{} {}: {what}", table.kind, id_text(document))));
            }
            // The target lives on after it was filled; only what the source has newer goes over it.
            if system_date(&adopted, "updatedAt") <= system_date(&there, "updatedAt") {
                return Ok(Step::Unchanged);
            }
            if self.dry_run || table.replace(&there, adopted.clone()).await?.is_some() {
                return Ok(Step::Updated);
            }
        }
        Ok(Step::Problem(format!(
            "{} {}: others are changing it; run the migration again",
            table.kind,
            id_text(document)
        )))
    }
}

/// What two documents of one key are compared by.
fn contents(document: &Document) -> Document {
    let mut fields: Vec<(String, Bson)> = document
        .iter()
        .filter(|(field, _)| *field != "_id" && *field != REV)
        .map(|(field, value)| (field.clone(), value.clone()))
        .collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields.into_iter().collect()
}

/// The creation time of a document that has none. The same on every run.
fn born(document: &Document) -> Timestamp {
    document.get_object_id("_id").map(|id| Timestamp::from(id.timestamp())).unwrap_or_default()
}
