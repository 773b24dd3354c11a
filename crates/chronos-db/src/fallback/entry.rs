//! An operation that waits: what was asked for, where, and what became of it so far. docs/format.md explains
//! the stored fields.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};

use crate::documents::whole;
use crate::records::{Change, ItemId, Lineage, Request, VersionSelector, WriteOptions, int, number};
use crate::{Error, Json, Result, Route, Timestamp};

/// An operation of the queue.
#[derive(Clone)]
pub(crate) struct Entry {
    /// The identity of the operation: the version that it makes carries it.
    pub(crate) id: ObjectId,
    /// The order of what waits.
    pub(crate) seq: i64,
    /// Grows with each change of the entry.
    pub(crate) revision: i64,
    /// The operations of one item wait one behind the other.
    pub(crate) lane: String,
    pub(crate) route: Route,
    /// The database that the route led to.
    pub(crate) database: String,
    /// In a spool, which configurations may share: what else tells where the route led.
    pub(crate) target: Option<Target>,
    pub(crate) item: ItemId,
    pub(crate) request: Request,
    pub(crate) options: WriteOptions,
    /// If the operation took place unseen, its version is a later one than this. None: it cannot have.
    pub(crate) follows: Option<i64>,
    /// Attempts from the queue that failed.
    pub(crate) attempt: u32,
    pub(crate) due: Timestamp,
    /// A process works on it until then.
    pub(crate) claimed_until: Option<Timestamp>,
    pub(crate) last_error: Option<(String, String)>,
    pub(crate) created: Timestamp,
}

crate::debug_some!(Entry { id, seq, item, attempt, due });

/// What tells the store of a route from those of other configurations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// A digest of its address without credentials.
    pub(crate) store: String,
    /// The tenant that the route was forced to.
    pub(crate) tenant: Option<String>,
}

/// What an entry says without what was asked for.
#[derive(Clone, Debug)]
pub(crate) struct LaneEntry {
    pub(crate) lane: String,
    due: Timestamp,
    claimed_until: Option<Timestamp>,
}

impl LaneEntry {
    pub(crate) fn read(stored: &Document) -> Result<Self> {
        Ok(Self {
            lane: text(stored, "lane").ok_or_else(|| malformed(stored, "lane"))?,
            // Without a time it is looked at now, and found malformed.
            due: date(stored, "nextAttemptAt").unwrap_or(Timestamp::from_millis(0)),
            claimed_until: date(stored, "claimedUntil"),
        })
    }

    /// When it may be tried; none while a process works on it.
    pub(crate) fn is_free(&self, now: Timestamp) -> bool {
        self.due <= now && self.claimed_until.is_none_or(|until| until <= now)
    }
}

/// The name of the lane of an item.
pub(crate) fn lane_of(target: Option<&Target>, database: &str, collection: &str, item: ItemId) -> String {
    // Neither of the names can hold a `/`.
    match target {
        Some(Target { store, .. }) => format!("{store}/{database}/{collection}/{item}"),
        None => format!("{database}/{collection}/{item}"),
    }
}

/// The identity of the operation that a request id names.
pub(crate) fn parse_request_id(text: &str) -> Option<ObjectId> {
    ObjectId::parse_str(text.rsplit('_').next()?).ok()
}

impl Entry {
    /// By what callers know it.
    pub(crate) fn request_id(&self) -> String {
        format!("req_{}_{}", self.created.as_millis(), self.id.to_hex())
    }

    pub(crate) fn lane_entry(&self) -> LaneEntry {
        LaneEntry { lane: self.lane.clone(), due: self.due, claimed_until: self.claimed_until }
    }

    pub(crate) fn stored(&self) -> Document {
        let (kind, payload) = request_fields(&self.request);
        let mut out = doc! {
            "_id": self.id,
            "requestId": self.request_id(),
            "seq": self.seq,
            "revision": self.revision,
            "lane": &self.lane,
            "type": kind,
            "ctx": route_fields(&self.route),
            "database": &self.database,
            "itemId": self.item.object_id(),
            "payload": payload,
            "opts": option_fields(&self.options),
            "attempt": i64::from(self.attempt),
            "nextAttemptAt": self.due,
            "createdAt": self.created,
        };
        if let Some(Target { store, tenant }) = &self.target {
            out.insert("store", store);
            put(&mut out, "enforcedTenant", tenant.clone());
        }
        put(&mut out, "follows", self.follows.map(int));
        put(&mut out, "claimedUntil", self.claimed_until);
        let error = self.last_error.as_ref();
        put(&mut out, "lastError", error.map(|(code, message)| doc! { "code": code, "message": message }));
        out
    }

    pub(crate) fn read(stored: &Document) -> Result<Self> {
        let need = |key: &'static str| move || malformed(stored, key);
        let part = |key: &'static str| stored.get_document(key).map_err(|_| malformed(stored, key));
        let whole = |key: &'static str| number(stored, key).ok_or_else(need(key));
        let attempt = u32::try_from(whole("attempt")?).map_err(|_| malformed(stored, "attempt"))?;
        Ok(Self {
            id: stored.get_object_id("_id").map_err(|_| malformed(stored, "_id"))?,
            seq: whole("seq")?,
            revision: whole("revision")?,
            lane: text(stored, "lane").ok_or_else(need("lane"))?,
            route: read_route(part("ctx")?).ok_or_else(need("ctx"))?,
            database: text(stored, "database").ok_or_else(need("database"))?,
            target: text(stored, "store")
                .map(|store| Target { store, tenant: text(stored, "enforcedTenant") }),
            item: stored.get_object_id("itemId").map(ItemId::new).map_err(|_| malformed(stored, "itemId"))?,
            request: read_request(stored.get_str("type").unwrap_or_default(), part("payload")?)
                .ok_or_else(need("payload"))?,
            options: read_options(part("opts")?),
            follows: number(stored, "follows"),
            attempt,
            due: date(stored, "nextAttemptAt").ok_or_else(need("nextAttemptAt"))?,
            claimed_until: date(stored, "claimedUntil"),
            last_error: read_error(stored),
            created: date(stored, "createdAt").ok_or_else(need("createdAt"))?,
        })
    }
}

pub(crate) fn malformed(stored: &Document, key: &str) -> Error {
    let id = stored.get("_id").map(ToString::to_string).unwrap_or_default();
    Error::database(format!(
        "the queued operation {id} is malformed: its `{key}` is missing or of another kind"
    ))
}

pub(crate) fn text(doc: &Document, key: &str) -> Option<String> {
    doc.get_str(key).ok().map(str::to_owned)
}

pub(crate) fn date(doc: &Document, key: &str) -> Option<Timestamp> {
    doc.get_datetime(key).ok().map(|at| Timestamp::from(*at))
}

pub(crate) fn read_error(stored: &Document) -> Option<(String, String)> {
    let error = stored.get_document("lastError").ok()?;
    Some((text(error, "code")?, text(error, "message")?))
}

fn put(out: &mut Document, key: &str, value: Option<impl Into<Bson>>) {
    if let Some(value) = value {
        out.insert(key, value);
    }
}

/// Documents are kept as JSON text: no digit of a number and no order of keys changes.
fn json_text(json: &Json) -> Bson {
    Bson::String(String::from_utf8_lossy(&json.to_vec()).into_owned())
}

fn json_of(doc: &Document, key: &str) -> Option<Json> {
    Json::parse(doc.get_str(key).ok()?).ok()
}

fn request_fields(request: &Request) -> (&'static str, Document) {
    match request {
        Request::Change(Change::Create { document, lineage }) => {
            let mut out = doc! { "document": json_text(document) };
            put(&mut out, "parentId", lineage.parent_id.clone());
            put(&mut out, "parentCollection", lineage.parent_collection.clone());
            put(&mut out, "originId", lineage.origin_id.clone());
            put(&mut out, "originCollection", lineage.origin_collection.clone());
            ("CREATE", out)
        }
        Request::Change(Change::Update { document }) => ("UPDATE", doc! { "document": json_text(document) }),
        Request::Change(Change::Replace { document }) => {
            ("REPLACE", doc! { "document": json_text(document) })
        }
        Request::Change(Change::Enrich { patches, function_id }) => {
            let mut out = doc! { "patches": patches.iter().map(json_text).collect::<Vec<_>>() };
            put(&mut out, "functionId", function_id.clone());
            ("ENRICH", out)
        }
        Request::Change(Change::Delete) => ("DELETE", Document::new()),
        // The row that a restore brings back is looked up when it is carried out.
        Request::Change(Change::Restore { row }) => ("RESTORE", doc! { "ov": int(row.ov) }),
        Request::Restore(which) => (
            "RESTORE",
            match which {
                VersionSelector::Latest => Document::new(),
                VersionSelector::Ov(ov) => doc! { "ov": int(*ov) },
                VersionSelector::Cv(cv) => doc! { "cv": int(*cv) },
                VersionSelector::At(at) => doc! { "at": *at },
            },
        ),
    }
}

fn read_request(kind: &str, payload: &Document) -> Option<Request> {
    let document = || json_of(payload, "document");
    Some(match kind {
        "CREATE" => {
            let lineage = Lineage {
                parent_id: text(payload, "parentId"),
                parent_collection: text(payload, "parentCollection"),
                origin_id: text(payload, "originId"),
                origin_collection: text(payload, "originCollection"),
            };
            Request::Change(Change::Create { document: document()?, lineage })
        }
        "UPDATE" => Request::Change(Change::Update { document: document()? }),
        "REPLACE" => Request::Change(Change::Replace { document: document()? }),
        "ENRICH" => {
            let patches = payload.get_array("patches").ok()?.iter();
            let patches = patches.map(|patch| Json::parse(patch.as_str()?).ok()).collect::<Option<_>>()?;
            Request::Change(Change::Enrich { patches, function_id: text(payload, "functionId") })
        }
        "DELETE" => Request::Change(Change::Delete),
        "RESTORE" => {
            let (ov, cv) = (number(payload, "ov"), number(payload, "cv"));
            let which = ov.map(VersionSelector::Ov).or(cv.map(VersionSelector::Cv));
            Request::Restore(which.or(date(payload, "at").map(VersionSelector::At))?)
        }
        _ => return None,
    })
}

fn option_fields(options: &WriteOptions) -> Document {
    let mut out = Document::new();
    put(&mut out, "expectedOv", options.expected_ov.map(int));
    put(&mut out, "actor", options.actor.clone());
    put(&mut out, "reason", options.reason.clone());
    put(&mut out, "requestId", options.request_id.clone());
    put(&mut out, "at", options.at);
    put(&mut out, "force", options.force.then_some(true));
    out
}

fn read_options(opts: &Document) -> WriteOptions {
    WriteOptions {
        expected_ov: number(opts, "expectedOv"),
        actor: text(opts, "actor"),
        reason: text(opts, "reason"),
        request_id: text(opts, "requestId"),
        at: date(opts, "at"),
        force: opts.get_bool("force").unwrap_or(false),
        ..WriteOptions::default()
    }
}

/// The whole route, so that the operation is carried out exactly where it was meant to be.
fn route_fields(route: &Route) -> Document {
    let mut out = Document::new();
    put(&mut out, "databaseType", route.database_type.map(|kind| kind.name()));
    put(&mut out, "tier", route.tier.map(|tier| tier.name()));
    put(&mut out, "tenantId", route.tenant.clone());
    put(&mut out, "domain", route.domain.clone());
    put(&mut out, "key", route.key.clone());
    put(&mut out, "extIdentifier", route.ext_identifier.clone());
    put(&mut out, "dbName", route.database.clone());
    put(&mut out, "forcedIndex", route.forced_index.and_then(|index| i64::try_from(index).ok()));
    put(&mut out, "objectId", route.object_id.clone());
    put(&mut out, "collection", route.collection.clone());
    put(&mut out, "crossTenant", route.cross_tenant.then_some(true));
    out
}

/// None if the type or the tier is not known here: leaving one out would lead somewhere else.
fn read_route(ctx: &Document) -> Option<Route> {
    let (database_type, tier) = (ctx.get_str("databaseType").ok(), ctx.get_str("tier").ok());
    let forced_index = ctx.get("forcedIndex").and_then(whole);
    Some(Route {
        database_type: database_type.map(str::parse).transpose().ok()?,
        tier: tier.map(str::parse).transpose().ok()?,
        tenant: text(ctx, "tenantId"),
        domain: text(ctx, "domain"),
        key: text(ctx, "key"),
        ext_identifier: text(ctx, "extIdentifier"),
        database: text(ctx, "dbName"),
        forced_index: forced_index.map(usize::try_from).transpose().ok()?,
        object_id: text(ctx, "objectId"),
        collection: text(ctx, "collection"),
        cross_tenant: ctx.get_bool("crossTenant").unwrap_or(false),
    })
}
