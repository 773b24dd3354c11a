//! The workers of one collection, put together once and shared by all its handles.
//!
//! Each is a struct with what it needs as fields; a worker knows those above it in this list, and none below.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::index::scope::Scope;
use super::index::{RecordIndex, Settings};
use super::manifests::Manifests;
use super::model::Names;
use super::read::Reader;
use super::restore::Restorer;
use super::retention::Retainer;
use super::storage::eraser::Eraser;
use super::storage::expire::Expirer;
use super::storage::flush::{FlushReport, Flusher};
use super::storage::gc::Collector;
use super::storage::payload_store::{ObjectBuckets, PayloadCache, PayloadStore};
use super::storage::trim::Trimmer;
use super::storage::unnamed::Sweeper;
use super::verify::Verifier;
use super::versions::Versions;
use super::write::commit::Committer;
use super::write::lock::Locks;
use super::write::schema::Schema;
use super::write::watermark::Watermark;
use super::write::{KeyedMutex, Writer};
use crate::documents::DocumentStore;
use crate::{Env, Result};

pub(crate) struct Workers {
    pub(crate) index: Arc<RecordIndex>,
    pub(crate) manifests: Arc<Manifests>,
    pub(crate) watermark: Arc<Watermark>,
    pub(crate) flusher: Arc<Flusher>,
    pub(crate) schema: Arc<Schema>,
    pub(crate) locks: Arc<Locks>,
    pub(crate) committer: Arc<Committer>,
    pub(crate) reader: Arc<Reader>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) restorer: Arc<Restorer>,
    pub(crate) collector: Arc<Collector>,
    pub(crate) trimmer: Arc<Trimmer>,
    pub(crate) sweeper: Arc<Sweeper>,
    pub(crate) expirer: Arc<Expirer>,
    pub(crate) retainer: Arc<Retainer>,
    pub(crate) verifier: Arc<Verifier>,
    pub(crate) eraser: Arc<Eraser>,
    pub(crate) versions: Arc<Versions>,
}

/// Which collection it is. The rest holds documents of its users.
impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Workers").field("index", &self.index).finish_non_exhaustive()
    }
}

/// What all others stand on.
struct Base {
    index: Arc<RecordIndex>,
    payloads: Arc<PayloadStore>,
    manifests: Arc<Manifests>,
    watermark: Arc<Watermark>,
    versions: Arc<Versions>,
    eraser: Arc<Eraser>,
    flusher: Arc<Flusher>,
    schema: Arc<Schema>,
}

impl Base {
    fn new(index: RecordIndex, buckets: Option<ObjectBuckets>, cache: PayloadCache, number: u64) -> Self {
        let index = Arc::new(index);
        let payloads = Arc::new(PayloadStore::new(index.clone(), buckets, cache, number));
        let manifests = Arc::new(Manifests::new(&index, &payloads));
        let eraser = Arc::new(Eraser::new(index.clone(), payloads.clone(), manifests.clone()));
        let flusher = Arc::new(Flusher::new(index.clone(), payloads.clone(), eraser.clone()));
        Self {
            watermark: Arc::new(Watermark::new(index.clone())),
            versions: Arc::new(Versions { index: index.clone(), manifests: manifests.clone() }),
            schema: Arc::new(Schema::new(index.clone(), flusher.clone())),
            index,
            payloads,
            manifests,
            eraser,
            flusher,
        }
    }

    fn collector(&self) -> Arc<Collector> {
        Arc::new(Collector {
            index: self.index.clone(),
            payloads: self.payloads.clone(),
            watermark: self.watermark.clone(),
            eraser: self.eraser.clone(),
            manifests: self.manifests.clone(),
            versions: self.versions.clone(),
        })
    }

    fn verifier(&self, collector: &Arc<Collector>) -> Arc<Verifier> {
        Arc::new(Verifier {
            index: self.index.clone(),
            payloads: self.payloads.clone(),
            watermark: self.watermark.clone(),
            schema: self.schema.clone(),
            flusher: self.flusher.clone(),
            eraser: self.eraser.clone(),
            collector: collector.clone(),
            versions: self.versions.clone(),
        })
    }
}

impl Workers {
    /// `number` tells collections apart in the shared cache.
    pub(crate) fn new(
        number: u64,
        names: Names,
        documents: Arc<dyn DocumentStore>,
        buckets: Option<ObjectBuckets>,
        settings: Settings,
        env: Env,
        cache: PayloadCache,
    ) -> Arc<Self> {
        let base = Base::new(RecordIndex::new(names, documents, settings, env), buckets, cache, number);
        let Base { index, payloads, manifests, watermark, versions, eraser, flusher, schema } = &base;
        let locks = &Arc::new(Locks::new(index.clone(), schema.clone()));
        let committer = Committer::new(index.clone(), payloads.clone(), watermark.clone(), flusher.clone());
        let committer = &Arc::new(committer);
        let reader = &Arc::new(Reader::new(index, payloads, watermark, versions));
        let writer = &Arc::new(Writer {
            index: index.clone(),
            payloads: payloads.clone(),
            schema: schema.clone(),
            flusher: flusher.clone(),
            locks: locks.clone(),
            reader: reader.clone(),
            committer: committer.clone(),
            versions: versions.clone(),
            turns: KeyedMutex::default(),
            unique_indexes: Mutex::new(HashSet::new()),
        });
        let collector = base.collector();
        Arc::new(Self {
            restorer: Arc::new(Restorer {
                index: index.clone(),
                watermark: watermark.clone(),
                schema: schema.clone(),
                locks: locks.clone(),
                reader: reader.clone(),
                committer: committer.clone(),
                writer: writer.clone(),
                versions: versions.clone(),
            }),
            retainer: Arc::new(Retainer {
                index: index.clone(),
                watermark: watermark.clone(),
                manifests: manifests.clone(),
            }),
            trimmer: Arc::new(Trimmer::new(index, payloads, watermark)),
            sweeper: Arc::new(Sweeper {
                index: index.clone(),
                payloads: payloads.clone(),
                versions: versions.clone(),
            }),
            expirer: Arc::new(Expirer { index: index.clone(), reader: reader.clone() }),
            verifier: base.verifier(&collector),
            index: index.clone(),
            manifests: manifests.clone(),
            watermark: watermark.clone(),
            flusher: flusher.clone(),
            schema: schema.clone(),
            locks: locks.clone(),
            committer: committer.clone(),
            reader: reader.clone(),
            writer: writer.clone(),
            versions: versions.clone(),
            collector,
            eraser: eraser.clone(),
        })
    }

    /// Waits until nothing is left to store, or `limit` has passed; with `own_only` what others wrote is left
    /// to them. Says what still waits.
    pub(crate) async fn flush(&self, limit: Duration, own_only: bool, scope: &Scope) -> Result<FlushReport> {
        self.index.serve(scope);
        let deadline = self.flusher.deadline(limit);
        self.flusher.until(deadline, self.committer.drained()).await;
        self.flusher.flush(deadline, own_only, scope).await
    }

    /// Whether payloads are put into an object storage.
    pub(crate) fn stores_objects(&self) -> bool {
        self.reader.payloads.buckets.is_some()
    }

    /// Whether nothing is under way: no commit, nothing to store, no handle.
    pub(crate) fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && self.committer.is_idle() && self.flusher.is_idle()
    }

    /// What is begun is the last.
    pub(crate) fn stop(&self) {
        self.flusher.stop();
    }

    /// The end, within `limit`: commits come to rest, then what can be stored is. Returns how many versions
    /// of this process are left to the next one.
    pub(crate) async fn finish(&self, limit: Duration) -> u64 {
        let deadline = self.flusher.deadline(limit);
        self.flusher.until(deadline, self.committer.drained()).await;
        self.flusher.finish(deadline).await
    }
}
