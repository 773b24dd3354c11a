//! Actions: builders that run when awaited.

use std::fmt;
use std::future::IntoFuture;
use std::time::Duration;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use serde::Serialize;

use super::collection::Collection;
use super::import::Importer;
use super::lock::{ItemLock, TIMEOUT};
use super::model::{ItemId, Lineage};
use super::own::OnBuiltIn;
use super::read::{Page, Query, ReadOptions, Which, unless_erased};
use super::restore::{RestoreOptions, Restored};
use super::verify::Verification;
use super::view::{OnDamage, Version, View, Written};
use super::write::{Change, WriteOptions};
use crate::documents::Direction;
use crate::json::to_json;
use crate::{Error, Json, Result, Timestamp};

/// Items per page if no limit is given, and the most a page can have.
const PAGE: u32 = 50;
const MAX_PAGE: u32 = 1_000;

/// What a caller gave as a document. That it cannot be JSON is said when the action runs.
#[derive(Clone)]
pub(crate) struct Given(std::result::Result<Json, String>);

impl Given {
    pub(super) fn new(document: &impl Serialize) -> Self {
        Self(to_json(document).map_err(|error| error.to_string()))
    }

    fn json(&self) -> Result<Json> {
        self.0.clone().map_err(|error| Error::validation(format!("the document cannot be JSON: {error}")))
    }
}

/// Without the document.
impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Given(..)")
    }
}

macro_rules! write_options {
    () => {
        /// Who makes this change.
        pub fn actor(mut self, actor: impl Into<String>) -> Self {
            self.options.actor = Some(actor.into());
            self
        }

        /// Why.
        pub fn reason(mut self, reason: impl Into<String>) -> Self {
            self.options.reason = Some(reason.into());
            self
        }

        /// The caller's own identifier of this request; recorded in the version.
        pub fn request_id(mut self, id: impl Into<String>) -> Self {
            self.options.request_id = Some(id.into());
            self
        }

        /// The time of an imported change. It must be after the item's newest version and not more than 5
        /// minutes ahead of the store's clock.
        pub fn at(mut self, at: Timestamp) -> Self {
            self.options.at = Some(at);
            self
        }

        /// Return when the payload is stored as an object, too. By default a write returns when its version
        /// is committed.
        pub fn ack_stored(mut self) -> Self {
            self.options.stored = true;
            self
        }
    };
}

macro_rules! change_options {
    () => {
        /// Fail with `OPTIMISTIC_LOCK` unless the item is at this version.
        pub fn expect_ov(mut self, ov: i64) -> Self {
            self.options.expected_ov = Some(ov);
            self
        }

        /// Make a version even if nothing changes.
        pub fn force(mut self) -> Self {
            self.options.force = true;
            self
        }
    };
}

macro_rules! runs {
    ($action:ty => $output:ty) => {
        impl IntoFuture for $action {
            type Output = Result<$output>;
            type IntoFuture = BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.run())
            }
        }
    };
}

/// Creates an item; see [`Collection::create`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Create {
    collection: Collection,
    document: Given,
    lineage: Lineage,
    options: WriteOptions,
}

impl Create {
    pub(super) fn new(collection: &Collection, document: Given) -> Self {
        Self {
            collection: collection.clone(),
            document,
            lineage: Lineage::default(),
            options: WriteOptions::default(),
        }
    }

    write_options!();

    /// The item this one was made from. Its origin becomes the parent, unless [`origin`](Self::origin) names
    /// another.
    pub fn parent(mut self, id: &ItemId, collection: &str) -> Self {
        set_parent(&mut self.lineage, id, collection);
        self
    }

    /// The first item of the chain: `collection` in this system, or `system:collection` in another.
    pub fn origin(mut self, id: impl Into<String>, collection: &str, system: Option<&str>) -> Self {
        set_origin(&mut self.lineage, id.into(), collection, system);
        self
    }

    async fn run(self) -> Result<Written> {
        let engine = &self.collection.engine;
        let id = ItemId::new(engine.env.random.object_id());
        let change = Change::Create { document: self.document.json()?, lineage: self.lineage };
        let scope = self.collection.scope().await?;
        Ok(engine.write(id, &change, &self.options, scope, None).await?.into())
    }
}

runs!(Create => Written);

fn set_parent(lineage: &mut Lineage, id: &ItemId, collection: &str) {
    lineage.parent_id = Some(id.to_string());
    lineage.parent_collection = Some(collection.to_owned());
    if lineage.origin_id.is_none() {
        lineage.origin_id = Some(id.to_string());
        lineage.origin_collection = Some(collection.to_owned());
    }
}

fn set_origin(lineage: &mut Lineage, id: String, collection: &str, system: Option<&str>) {
    lineage.origin_id = Some(id);
    lineage.origin_collection =
        Some(system.map_or_else(|| collection.to_owned(), |system| format!("{system}:{collection}")));
}

macro_rules! change_action {
    ($(#[$doc:meta])* $name:ident, $($field:ident: $type:ty)? => |$this:ident| $change:expr) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        #[must_use = "an action runs when it is awaited"]
        pub struct $name {
            collection: Collection,
            id: ItemId,
            $($field: $type,)?
            options: WriteOptions,
        }

        impl $name {
            pub(super) fn new(collection: &Collection, id: ItemId $(, $field: impl Into<$type>)?) -> Self {
                Self { collection: collection.clone(), id, $($field: $field.into(),)? options: WriteOptions::default() }
            }

            write_options!();
            change_options!();

            /// Writes as the holder of a lock: the change must follow the version the holder saw.
            ///
            /// # Errors
            /// `VALIDATION_ERROR` if the lock is of another item; `OPTIMISTIC_LOCK` if the item moved on,
            /// which means the lease was lost.
            pub async fn under(self, lock: &ItemLock) -> Result<Written> {
                if lock.id() != self.id {
                    return Err(Error::validation("this lock is of another item").on_item(self.id));
                }
                self.run_with(Some(lock)).await
            }

            async fn run_with(self, lock: Option<&ItemLock>) -> Result<Written> {
                let $this = self;
                let change = $change;
                let scope = $this.collection.scope().await?;
                Ok($this.collection.engine.write($this.id, &change, &$this.options, scope, lock).await?.into())
            }

            async fn run(self) -> Result<Written> {
                self.run_with(None).await
            }
        }

        runs!($name => Written);
    };
}

change_action! {
    /// Merges top-level fields; see [`Collection::update`].
    Update, document: Given => |this| Change::Update { document: this.document.json()? }
}

change_action! {
    /// Replaces the whole document; see [`Collection::replace`].
    Replace, document: Given => |this| Change::Replace { document: this.document.json()? }
}

change_action! {
    /// Deletes the item; see [`Collection::delete`].
    Delete, => |this| Change::Delete
}

change_action! {
    /// Merges patches deeply; see [`Collection::enrich`].
    Enrich, patch: Patch => |this| Change::Enrich { patches: this.patch.list()?, function_id: this.patch.function_id.clone() }
}

/// What an enrichment brings, and who computed it.
#[derive(Clone)]
pub(crate) struct Patch {
    patches: Given,
    function_id: Option<String>,
}

crate::debug_some!(Patch { function_id });

impl From<Given> for Patch {
    fn from(patches: Given) -> Self {
        Self { patches, function_id: None }
    }
}

impl Patch {
    fn list(&self) -> Result<Vec<Json>> {
        let list = match self.patches.json()? {
            Json::Array(list) => list,
            one => vec![one],
        };
        if list.iter().any(|patch| !patch.is_object()) {
            return Err(
                Error::validation("an enrichment is an object or an array of objects").during("enrich")
            );
        }
        Ok(list)
    }
}

impl Enrich {
    /// The function that computed the patch, such as `enricher@v1`; kept in `_system.functionIds`, once.
    pub fn function_id(mut self, id: impl Into<String>) -> Self {
        self.patch.function_id = Some(id.into());
        self
    }
}

/// Enriches or creates; see [`Collection::smart_insert`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct SmartInsert {
    collection: Collection,
    document: Given,
    keys: Vec<String>,
    lineage: Lineage,
    function_id: Option<String>,
    options: WriteOptions,
}

impl SmartInsert {
    pub(super) fn new(collection: &Collection, document: Given, keys: &[&str]) -> Self {
        Self {
            collection: collection.clone(),
            document,
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            lineage: Lineage::default(),
            function_id: None,
            options: WriteOptions::default(),
        }
    }

    write_options!();

    /// The function that computed the document.
    pub fn function_id(mut self, id: impl Into<String>) -> Self {
        self.function_id = Some(id.into());
        self
    }

    /// The item a new one was made from; see [`Create::parent`].
    pub fn parent(mut self, id: &ItemId, collection: &str) -> Self {
        set_parent(&mut self.lineage, id, collection);
        self
    }

    /// The first item of the chain of a new one; see [`Create::origin`].
    pub fn origin(mut self, id: impl Into<String>, collection: &str, system: Option<&str>) -> Self {
        set_origin(&mut self.lineage, id.into(), collection, system);
        self
    }

    async fn run(self) -> Result<Written> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        let done = engine
            .smart_insert(
                self.document.json()?,
                &self.keys,
                self.lineage,
                self.function_id,
                &self.options,
                scope,
            )
            .await;
        done.map_err(|e| e.during("smart insert").in_collection(self.collection.name()))
    }
}

runs!(SmartInsert => Written);

/// Reads one item; see [`Collection::get`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Get {
    collection: Collection,
    id: ItemId,
    which: Which,
    options: ReadOptions,
}

macro_rules! read_options {
    () => {
        /// Show deleted items too, with `deletedAt`.
        pub fn include_deleted(mut self) -> Self {
            self.options().include_deleted = true;
            self
        }

        /// Keep only these top-level properties (`_system` is one of them).
        pub fn project<S: Into<String>>(mut self, properties: impl IntoIterator<Item = S>) -> Self {
            self.options().projection = Some(properties.into_iter().map(Into::into).collect());
            self
        }

        /// Sign URLs for externalised properties, good for `ttl` (1 s to 7 days). S3 and Azure can.
        pub fn presign(mut self, ttl: Duration) -> Self {
            self.options().presign = Some(ttl);
            self
        }
    };
}

impl Get {
    pub(super) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, which: Which::Latest, options: ReadOptions::default() }
    }

    fn options(&mut self) -> &mut ReadOptions {
        &mut self.options
    }

    read_options!();

    /// The version with this number.
    pub fn version(mut self, ov: i64) -> Self {
        self.which = Which::Ov(ov);
        self
    }

    /// The newest version at this time.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.which = Which::At(at);
        self
    }

    /// The newest version at this version of the collection.
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.which = Which::Cv(cv);
        self
    }

    async fn run(self) -> Result<Option<View>> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        let named = |e: Error| e.during("get").in_collection(&engine.names.collection).on_item(self.id);
        match engine.find(self.id, self.which, &self.options, scope).await.map_err(named)? {
            Some(found) => unless_erased(engine.view(found, &self.options).await).map_err(named),
            None => Ok(None),
        }
    }
}

runs!(Get => Option<View>);

/// Lists items; see [`Collection::list`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct List {
    collection: Collection,
    query: Query,
}

impl List {
    pub(super) fn new(collection: &Collection) -> Self {
        Self { collection: collection.clone(), query: Query { limit: PAGE, ..Query::default() } }
    }

    fn options(&mut self) -> &mut ReadOptions {
        &mut self.query.read
    }

    read_options!();

    /// Only items that match, in MongoDB's syntax over indexed properties, `_id`, `_system.ov`, `_system.cv`,
    /// `_system.insertedAt` and `_system.updatedAt`. The last ones are also called `id`, `ov`, `cv`,
    /// `createdAt` and `updatedAt` in collections whose documents have no property of that name for
    /// themselves; see [`on_built_in`](Self::on_built_in).
    pub fn filter(mut self, filter: impl Into<Json>) -> Self {
        self.query.filter = Some(filter.into());
        self
    }

    /// Sort by a property, then by those of further calls, then by id.
    pub fn sort(mut self, property: impl Into<String>, direction: Direction) -> Self {
        self.query.sort.push((property.into(), direction));
        self
    }

    /// Hears of every short name in filter or sort that means the built-in property, and the full name of
    /// that: `cv`, `_system.cv`.
    pub fn on_built_in(mut self, hear: impl Fn(&str, &str) + Send + Sync + 'static) -> Self {
        self.query.on_built_in = OnBuiltIn(Some(std::sync::Arc::new(hear)));
        self
    }

    /// What to do about an item that cannot be shown or ordered; by default the list ends with its error.
    pub fn on_damage(mut self, on_damage: OnDamage) -> Self {
        self.query.on_damage = on_damage;
        self
    }

    /// The properties in filter and sort that no document of the collection has, though the list asks for
    /// them: they may be misspelt. A page says so by itself ([`Page::unknown`]); looking for what is not
    /// there looks at every item, unless an index tells.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token.
    pub async fn unknown_properties(&self) -> Result<Vec<String>> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine
            .unknown_properties(&self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(self.collection.name()))
    }

    /// At most so many items a page: 1 to 1000, default 50.
    pub fn limit(mut self, limit: u32) -> Self {
        self.query.limit = limit.clamp(1, MAX_PAGE);
        self
    }

    /// Go on after a page, by its [`Page::next`].
    pub fn after(mut self, token: impl Into<String>) -> Self {
        self.query.after = Some(token.into());
        self
    }

    /// As it was at this time.
    pub fn as_of(mut self, at: Timestamp) -> Self {
        self.query.which = Which::At(at);
        self
    }

    /// As it was at this version of the collection.
    pub fn as_of_cv(mut self, cv: i64) -> Self {
        self.query.which = Which::Cv(cv);
        self
    }

    /// The whole list, item by item, in bounded memory; the limit is not looked at.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<View>>> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine
            .stream(self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(self.collection.name()))
    }

    async fn run(self) -> Result<Page> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine
            .page(&self.query, scope)
            .await
            .map_err(|e| e.during("list").in_collection(&engine.names.collection))
    }
}

runs!(List => Page);

/// The versions of one item; see [`Collection::history`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct History {
    collection: Collection,
    id: ItemId,
    newest_first: bool,
}

impl History {
    pub(super) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, newest_first: false }
    }

    /// The newest version first.
    pub fn newest_first(mut self) -> Self {
        self.newest_first = true;
        self
    }

    /// Version by version, in bounded memory.
    ///
    /// # Errors
    /// `NOT_FOUND` if there is no such item.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<Version>>> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine.versions(self.id, scope, self.newest_first).await
    }

    async fn run(self) -> Result<Vec<Version>> {
        self.stream().await?.try_collect().await
    }
}

runs!(History => Vec<Version>);

/// Restores one item; see [`Collection::restore`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Restore {
    collection: Collection,
    id: ItemId,
    which: Which,
    options: WriteOptions,
}

impl Restore {
    pub(super) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, which: Which::Latest, options: WriteOptions::default() }
    }

    write_options!();
    change_options!();

    /// To the version with this number.
    pub fn to_version(mut self, ov: i64) -> Self {
        self.which = Which::Ov(ov);
        self
    }

    /// To the newest version at this time.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = Which::At(at);
        self
    }

    async fn run(self) -> Result<Written> {
        if self.which == Which::Latest {
            return Err(Error::validation("name the version or the time to restore to")
                .during("restore")
                .on_item(self.id));
        }
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        Ok(engine.restore(self.id, self.which, &self.options, scope).await?.into())
    }
}

runs!(Restore => Written);

/// Restores every item; see [`Collection::restore_collection`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct RestoreCollection {
    collection: Collection,
    which: Which,
    options: RestoreOptions,
}

impl RestoreCollection {
    pub(super) fn new(collection: &Collection) -> Self {
        let options = RestoreOptions { page: 500, parallel: 500, ..RestoreOptions::default() };
        Self { collection: collection.clone(), which: Which::Latest, options }
    }

    /// To this version of the collection. Items created later are deleted; −1 empties the collection.
    pub fn to_cv(mut self, cv: i64) -> Self {
        self.which = Which::Cv(cv);
        self
    }

    /// To this time.
    pub fn to_time(mut self, at: Timestamp) -> Self {
        self.which = Which::At(at);
        self
    }

    /// Count what would be done, and do nothing.
    pub fn dry_run(mut self) -> Self {
        self.options.dry_run = true;
        self
    }

    /// Who does this.
    pub fn actor(mut self, actor: impl Into<String>) -> Self {
        self.options.write.actor = Some(actor.into());
        self
    }

    /// Why.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.options.write.reason = Some(reason.into());
        self
    }

    /// Items planned together (default 500), and changes under way at once (default 500).
    pub fn page_size(mut self, items: usize, parallel: usize) -> Self {
        self.options.page = items.clamp(1, 10_000);
        self.options.parallel = parallel.clamp(1, 10_000);
        self
    }

    /// Hears the counts so far after every page.
    pub fn on_progress(mut self, progress: impl Fn(&Restored) + Send + Sync + 'static) -> Self {
        self.options.progress = Some(std::sync::Arc::new(progress));
        self
    }

    async fn run(self) -> Result<Restored> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine.restore_collection(self.which, &self.options, scope).await
    }
}

runs!(RestoreCollection => Restored);

/// Takes a lease; see [`Collection::lock`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Lock {
    collection: Collection,
    id: ItemId,
    patience: Duration,
}

impl Lock {
    pub(super) fn new(collection: &Collection, id: ItemId) -> Self {
        Self { collection: collection.clone(), id, patience: TIMEOUT }
    }

    /// Wait so long for another holder (default 5 s), then fail with `LOCKED`.
    pub fn wait(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    async fn run(self) -> Result<ItemLock> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        let locked = engine.lock(self.id, self.patience, scope).await;
        locked.map_err(|e| e.during("lock").in_collection(&engine.names.collection).on_item(self.id))
    }
}

runs!(Lock => ItemLock);

/// Checks a collection; see [`Collection::verify`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Verify {
    collection: Collection,
    repair: bool,
}

impl Verify {
    pub(super) fn new(collection: &Collection) -> Self {
        Self { collection: collection.clone(), repair: false }
    }

    /// Roll lagging heads forward, store what waits, remove old orphans.
    pub fn repair(mut self) -> Self {
        self.repair = true;
        self
    }

    async fn run(self) -> Result<Verification> {
        let (engine, scope) = (&self.collection.engine, self.collection.scope().await?);
        engine
            .verify(self.repair, scope)
            .await
            .map_err(|e| e.during("verify").in_collection(&engine.names.collection))
    }
}

runs!(Verify => Verification);

/// Prepares an import; see [`Collection::import`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct Import {
    collection: Collection,
    key: String,
    log: Option<String>,
}

impl Import {
    pub(super) fn new(collection: &Collection, key: &str) -> Self {
        Self { collection: collection.clone(), key: key.to_owned(), log: None }
    }

    /// Gives the log a name (1 to 200 bytes), so that its lines are recognised when it is imported again,
    /// those without a time too. How far it was carried out is kept with what was written: lines up to there
    /// are skipped unread. A named log may grow at its end; another log has another name.
    pub fn log(mut self, name: impl Into<String>) -> Self {
        self.log = Some(name.into());
        self
    }

    async fn run(self) -> Result<Importer> {
        Importer::new(self.collection, self.key, self.log).await
    }
}

runs!(Import => Importer);
