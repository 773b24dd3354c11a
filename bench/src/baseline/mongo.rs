//! The MongoDB driver by itself.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bson::{DateTime, Document, doc};
use chronos_db::{Json as Value, json};
use futures::TryStreamExt as _;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection, Database};
use parking_lot::Mutex;

use crate::Result;
use crate::disk::device_of;
use crate::stored::COLLECTION;

/// Documents of one insert while loading.
const LOAD: usize = 1_000;
/// Inserts under way at once while loading.
const LOADS: usize = 4;

/// The replica set's connection string.
pub(crate) fn uri() -> Result<String> {
    std::env::var("MONGO_RS_URI").ok().filter(|uri| !uri.is_empty()).ok_or_else(|| {
        "MONGO_RS_URI is not set: `scripts/services up mongo-rs && eval \"$(scripts/services env)\"` starts a replica set and names it"
            .into()
    })
}

/// A database name that nobody else uses.
fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let millis = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    format!("bench_{what}_{millis:x}_{:x}_{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn durable() -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build()
}

/// A database of its own for one scenario.
#[derive(Clone, Debug)]
pub(crate) struct Baseline {
    pub(crate) database: Database,
    client: Client,
}

impl Baseline {
    pub(crate) async fn connect(what: &str) -> Result<Self> {
        let mut options = ClientOptions::parse(uri()?).await?;
        options.max_pool_size = Some(32);
        options.write_concern = Some(durable());
        options.server_selection_timeout = Some(Duration::from_secs(5));
        let client = Client::with_options(options)?;
        Ok(Self { database: client.database(&unique(what)), client })
    }

    /// Another client of the same database.
    pub(crate) async fn again(&self) -> Result<Self> {
        let other = Self::connect("unused").await?;
        Ok(Self { database: other.client.database(self.name()), client: other.client })
    }

    pub(crate) fn name(&self) -> &str {
        self.database.name()
    }

    pub(crate) fn heads(&self) -> Collection<Document> {
        self.collection("head")
    }

    pub(crate) fn rows(&self) -> Collection<Document> {
        self.collection("ver")
    }

    /// One of the collections that make up the collection of the scenarios.
    pub(crate) fn collection(&self, suffix: &str) -> Collection<Document> {
        self.database.collection(&format!("{COLLECTION}_{suffix}"))
    }

    pub(crate) async fn drop(&self) -> Result<()> {
        Ok(self.database.drop().await?)
    }

    /// Which server this is and what it writes on.
    pub(crate) async fn describe(&self) -> Result<Value> {
        let admin = self.client.database("admin");
        let build = admin.run_command(doc! { "buildInfo": 1 }).await?;
        let options = admin.run_command(doc! { "getCmdLineOpts": 1 }).await?;
        let storage = options.get_document("parsed").and_then(|parsed| parsed.get_document("storage"));
        let path = storage.and_then(|storage| storage.get_str("dbPath")).unwrap_or("unknown");
        Ok(json!({
            "version": build.get_str("version").unwrap_or("unknown"), "durability": "w: majority, j: true",
            "on": device_of(Path::new(path)), "members": 1,
        }))
    }

    /// Makes the server write everything to its files.
    pub(crate) async fn checkpoint(&self) -> Result<()> {
        self.client.database("admin").run_command(doc! { "fsync": 1 }).await?;
        Ok(())
    }

    /// Gives `to` the indexes of `from`.
    pub(crate) async fn copy_indexes(
        &self,
        from: &Collection<Document>,
        to: &Collection<Document>,
    ) -> Result<()> {
        let indexes: Vec<_> = from.list_indexes().await?.try_collect().await?;
        let wanted = indexes.into_iter().filter(|index| index.keys != doc! { "_id": 1 });
        to.create_indexes(wanted.collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// The newest `limit` documents by collection version, oldest first.
    pub(crate) async fn newest(
        &self,
        of: &Collection<Document>,
        filter: Document,
        limit: i64,
    ) -> Result<Vec<Document>> {
        let mut found: Vec<Document> =
            of.find(filter).sort(doc! { "cv": -1 }).limit(limit).await?.try_collect().await?;
        found.reverse();
        Ok(found)
    }

    /// Inserts many documents, not waiting for the disk.
    pub(crate) async fn load(
        &self,
        into: &Collection<Document>,
        documents: impl Iterator<Item = Result<Document>>,
    ) -> Result<()> {
        let quick = WriteConcern::builder().w(Acknowledgment::Nodes(1)).journal(false).build();
        let mut under_way = tokio::task::JoinSet::new();
        let mut documents = documents.peekable();
        while documents.peek().is_some() {
            let portion: Vec<Document> = documents.by_ref().take(LOAD).collect::<Result<_>>()?;
            let (into, quick) = (into.clone(), quick.clone());
            under_way.spawn(async move {
                into.insert_many(portion).ordered(false).write_concern(quick).await.map(drop)
            });
            if under_way.len() >= LOADS
                && let Some(done) = under_way.join_next().await
            {
                done??;
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    /// Sets the numbers of a loaded collection: all of them given out, and settled.
    pub(crate) async fn set_counter(&self, last: i64) -> Result<()> {
        for name in ["cv", "stable"] {
            let counter = doc! { "_id": name, "value": last, "at": DateTime::now() };
            self.collection("counter").replace_one(doc! { "_id": name }, counter).upsert(true).await?;
        }
        Ok(())
    }

    /// Inserts rows and their heads group by group, rows first, as many concurrent writers would; returns
    /// pairs per second.
    pub(crate) async fn create_pairs(
        &self,
        rows: &[Document],
        heads: &[Document],
        group: usize,
        in_flight: usize,
    ) -> Result<f64> {
        let mut groups = VecDeque::new();
        for (rows, heads) in rows.chunks(group).zip(heads.chunks(group)) {
            groups.push_back((rows.to_vec(), heads.to_vec()));
        }
        let groups = Arc::new(Mutex::new(groups));
        let begun = Instant::now();
        let writers = (0..in_flight).map(|_| {
            let (groups, rows, heads) = (Arc::clone(&groups), self.rows(), self.heads());
            tokio::spawn(async move {
                loop {
                    let next = groups.lock().pop_front();
                    let Some((some_rows, some_heads)) = next else {
                        return Ok::<_, mongodb::error::Error>(());
                    };
                    rows.insert_many(some_rows).ordered(false).await?;
                    heads.insert_many(some_heads).ordered(false).await?;
                }
            })
        });
        for writer in writers.collect::<Vec<_>>() {
            writer.await??;
        }
        Ok(rows.len() as f64 / begun.elapsed().as_secs_f64())
    }
}
