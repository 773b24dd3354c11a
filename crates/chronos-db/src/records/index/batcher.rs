//! Concurrent reads of single documents become few reads of many.

use std::collections::HashMap;
use std::sync::Arc;

use bson::oid::ObjectId;
use bson::{Bson, RawDocumentBuf};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::documents::{DocumentStore, Namespace};
use crate::{Error, Result};

/// Reads under way at once; more would only shrink the groups.
const IN_FLIGHT: usize = 2;
/// Documents per read.
const GROUP: usize = 256;

type Reply = oneshot::Sender<Result<Option<RawDocumentBuf>, Error>>;

/// Collects `get`s of one collection while others are under way. A read begins after it was asked for, so it
/// sees every write acknowledged before.
#[derive(Debug)]
pub(crate) struct Batcher {
    documents: Arc<dyn DocumentStore>,
    namespace: Namespace,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: Vec<(Bson, Reply)>,
    in_flight: usize,
    /// A group is about to be taken; a read that comes now joins it.
    gathering: bool,
}

crate::debug_some!(Queue { in_flight, gathering });

impl Batcher {
    pub(crate) fn new(documents: Arc<dyn DocumentStore>, namespace: Namespace) -> Arc<Self> {
        Arc::new(Self { documents, namespace, queue: Mutex::default() })
    }

    pub(crate) async fn get(self: &Arc<Self>, id: ObjectId) -> Result<Option<RawDocumentBuf>> {
        if let Some(_alone) = Alone::begin(self) {
            return Ok(self.documents.get_stored(&self.namespace, vec![Bson::ObjectId(id)]).await?.pop());
        }
        let (reply, answer) = oneshot::channel();
        self.queue.lock().waiting.push((Bson::ObjectId(id), reply));
        self.dispatch();
        match answer.await {
            Ok(found) => found,
            Err(_) => Err(Error::database("the read was given up: the runtime is shutting down").retryable()),
        }
    }

    fn dispatch(self: &Arc<Self>) {
        {
            let mut queue = self.queue.lock();
            if queue.gathering || queue.in_flight >= IN_FLIGHT || queue.waiting.is_empty() {
                return;
            }
            queue.gathering = true;
            queue.in_flight += 1;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            // A read was dropped after its runtime: a caller that still waits hears that it was given up.
            let mut queue = self.queue.lock();
            queue.waiting.clear();
            queue.gathering = false;
            queue.in_flight -= 1;
            return;
        };
        let place = Slot { batcher: Arc::clone(self), gathered: false };
        // The task lives as long as its one read; the caller that waits for it owns it through the reply.
        runtime.spawn(async move {
            let mut place = place;
            let this = Arc::clone(&place.batcher);
            // A reader that was woken together with this one gets the chance to join the group.
            tokio::task::yield_now().await;
            let group: Vec<_> = {
                let mut queue = this.queue.lock();
                queue.gathering = false;
                place.gathered = true;
                let take = queue.waiting.len().min(GROUP);
                queue.waiting.drain(..take).collect()
            };
            // What did not fit.
            this.dispatch();
            this.read(group).await;
        });
    }

    async fn read(&self, group: Vec<(Bson, Reply)>) {
        let mut ids: Vec<Bson> = Vec::with_capacity(group.len());
        for (id, _) in &group {
            if !ids.contains(id) {
                ids.push(id.clone());
            }
        }
        match self.documents.get_stored(&self.namespace, ids).await {
            Ok(found) => {
                let found: HashMap<ObjectId, RawDocumentBuf> =
                    found.into_iter().filter_map(|doc| Some((doc.get_object_id("_id").ok()?, doc))).collect();
                for (id, reply) in group {
                    // A reader that no longer waits is no error.
                    let _ = reply.send(Ok(id.as_object_id().and_then(|id| found.get(&id).cloned())));
                }
            }
            Err(error) => {
                for (_, reply) in group {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }
}

/// One of the places for reads under way, given back whatever becomes of the read: a panic must not leave one
/// less.
struct Slot {
    batcher: Arc<Batcher>,
    gathered: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        {
            let mut queue = self.batcher.queue.lock();
            queue.in_flight -= 1;
            if !self.gathered {
                // The runtime ends, or it would have been polled. A caller that waits hears that the read was
                // given up.
                queue.gathering = false;
                queue.waiting.clear();
            }
        }
        self.batcher.dispatch();
    }
}

/// A read that nobody else could share takes place in its caller's task, which saves the way to another one.
/// Those that come meanwhile are grouped.
struct Alone(Arc<Batcher>);

impl Alone {
    fn begin(batcher: &Arc<Batcher>) -> Option<Self> {
        let mut queue = batcher.queue.lock();
        if queue.in_flight > 0 || !queue.waiting.is_empty() {
            return None;
        }
        queue.in_flight += 1;
        Some(Self(Arc::clone(batcher)))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.queue.lock().in_flight -= 1;
        self.0.dispatch();
    }
}
