//! Those who write, read and look after things all day.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::{Collection, ItemId, Json, Problem, View, json};
use test_support::SeededRandom;
use tokio_util::sync::CancellationToken;

use super::ledger::{End, Ledger};
use super::weather::below;
use super::{INLINE_MAX, erased, may_pass, shop};
use crate::records::pairing::Store;

const WRITERS: u64 = 4;
/// Items of one writer; more versions come to the same ones.
const ITEMS: usize = 12;
/// It is about faults, not about how much is written.
const PACE: Duration = Duration::from_millis(10);

/// Text that belongs to a request.
pub(super) fn filler(request: &str, length: usize) -> String {
    request.chars().chain(std::iter::once(' ')).cycle().take(length).collect()
}

/// That a version has the content of a request, whole.
pub(super) fn has_content(view: &View, content: &str, what: &str) {
    let document = view.document();
    assert_eq!(document["tag"], content, "{what}: {} v{}", view.id, view.ov);
    let body = document["body"].as_str().unwrap();
    assert_eq!(body, filler(content, body.len()), "{what}: {} v{} is whole", view.id, view.ov);
}

/// Runs everybody until the day is over.
pub(super) async fn all(store: &Store, ledger: &Arc<Ledger>, seed: u64, over: &CancellationToken) {
    let things = store.collection("things");
    let shared = things.create(fields("shared", 50)).request_id("shared").await;
    let shared = ledger.note(shared, ("shared", "shared"), (None, false));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..WRITERS {
        let random = SeededRandom::new(seed * 100 + number);
        let (things, ledger) = (things.clone(), Arc::clone(ledger));
        let shared = shared.as_ref().map(|written| written.id);
        let writer = Writer { things, ledger, random, number, own: Vec::new(), shared };
        tasks.spawn(writer.run(over.clone()));
    }
    let random = |number: u64| SeededRandom::new(seed * 100 + 50 + number);
    tasks.spawn(read(things.clone(), Arc::clone(ledger), random(0), over.clone()));
    tasks.spawn(look_after(things, store.collection("people"), Arc::clone(ledger), random(1), over.clone()));
    for number in 2..4 {
        let people = store.collection("people");
        tasks.spawn(erased::erase(people, Arc::clone(ledger), random(number), over.clone()));
    }
    tasks.spawn(shop::sell(store.clone(), Arc::clone(ledger), random(4), over.clone()));
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            over.cancel();
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

fn fields(request: &str, length: usize) -> Json {
    let n = length % 7;
    let s = if length.is_multiple_of(2) { "open" } else { "closed" };
    json!({ "tag": request, "body": filler(request, length), "s": s, "n": n, "deep": {"x": n} })
}

/// An item that one task alone writes.
struct Own {
    id: ItemId,
    /// Versions that were acknowledged, and whose content they have.
    acknowledged: Vec<(i64, String)>,
    content: String,
    is_live: bool,
}

struct Writer {
    things: Collection,
    ledger: Arc<Ledger>,
    random: SeededRandom,
    number: u64,
    own: Vec<Own>,
    shared: Option<ItemId>,
}

impl Writer {
    async fn run(mut self, over: CancellationToken) {
        for step in 0_u64.. {
            if over.is_cancelled() {
                return;
            }
            let request = format!("{}.{step}", self.number);
            match below(&self.random, 12) {
                _ if self.own.len() < ITEMS && step % 3 == 0 => self.create(&request).await,
                0 | 1 => self.share(&request).await,
                _ if self.own.is_empty() => {}
                kind => {
                    let at = usize::try_from(below(&self.random, self.own.len() as u64)).unwrap();
                    self.change(kind, &request, at).await;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn document(&self, request: &str, is_large: bool) -> Json {
        let length = usize::try_from(30 + below(&self.random, 200)).unwrap();
        fields(request, if is_large { length + INLINE_MAX } else { length })
    }

    fn with_file(&self, request: &str, is_large: bool) -> Json {
        let mut document = self.document(request, is_large);
        document["file"] = STANDARD.encode(filler(request, 120)).into();
        document["fileTag"] = request.into();
        document
    }

    async fn create(&mut self, request: &str) {
        let document = match below(&self.random, 3) {
            0 => self.document(request, false),
            kind => self.with_file(request, kind == 1),
        };
        let result = self.things.create(document).request_id(request).await;
        let written = self.ledger.note(result, (request, request), (None, true));
        if let Some(written) = written {
            let acknowledged =
                if written.queued.is_none() { vec![(written.ov, request.to_owned())] } else { vec![] };
            self.own.push(Own { id: written.id, acknowledged, content: request.to_owned(), is_live: true });
        }
    }

    async fn share(&self, request: &str) {
        let Some(id) = self.shared else { return };
        let result = self.things.update(&id, self.document(request, false)).request_id(request).await;
        self.ledger.note(result, (request, request), (Some(id), false));
    }

    async fn change(&mut self, kind: u64, request: &str, at: usize) {
        let (things, Own { id, acknowledged, content, is_live }) = (&self.things, &self.own[at]);
        let (id, old) = (*id, content.clone());
        // What is as it was makes no version.
        let others: Vec<_> = acknowledged.iter().filter(|(_, content)| !is_live || *content != old).collect();
        let earlier = usize::try_from(below(&self.random, others.len().max(1) as u64)).unwrap();
        let earlier = others.get(earlier).map(|earlier| (*earlier).clone());
        let (result, content, is_live) = match (kind, is_live) {
            (2, true) => (things.delete(&id).request_id(request).await, old, false),
            (3, _) | (_, false) => {
                let Some((ov, content)) = earlier else { return };
                let restore = things.restore(&id).to_version(ov).request_id(request);
                (restore.await, content, true)
            }
            (4, _) => {
                let fields = self.with_file(request, false);
                (things.replace(&id, fields).request_id(request).await, request.to_owned(), true)
            }
            (5, _) => {
                let fields = self.document(request, false);
                let enrich = things.enrich(&id, fields).function_id("f@1").request_id(request);
                (enrich.await, request.to_owned(), true)
            }
            _ => {
                let fields = match kind {
                    6 => self.with_file(request, true),
                    kind => self.document(request, kind == 7),
                };
                (things.update(&id, fields).request_id(request).await, request.to_owned(), true)
            }
        };
        match self.ledger.note(result, (request, &content), (Some(id), true)) {
            Some(written) => {
                let own = &mut self.own[at];
                if written.queued.is_none() && is_live {
                    own.acknowledged.push((written.ov, content.clone()));
                }
                (own.content, own.is_live) = (content, is_live);
            }
            // Whether it took place is not known, so the item is left alone.
            None => drop(self.own.swap_remove(at)),
        }
    }
}

/// Reads what was acknowledged, long ago or just now, and finds it or hears that a store is away.
async fn read(things: Collection, ledger: Arc<Ledger>, random: SeededRandom, over: CancellationToken) {
    while !over.is_cancelled() {
        tokio::time::sleep(PACE).await;
        let Some((id, ov, cv, content)) = ledger.acknowledged(below(&random, u64::MAX)) else { continue };
        let found = match below(&random, 2) {
            0 => things.get(&id).version(ov).include_deleted().await,
            _ => things.get(&id).as_of_cv(cv).include_deleted().await,
        };
        match found {
            Ok(Some(view)) => {
                assert_eq!((view.ov, view.cv), (ov, cv), "a version of {id} that was acknowledged");
                has_content(&view, &content, "read meanwhile");
            }
            Ok(None) => panic!("version {ov} of {id} at {cv} was acknowledged, and is not found"),
            Err(error) => {
                assert!(may_pass(&error), "version {ov} of {id}: {error} ({error:?})");
                ledger.failed("read", &error);
            }
        }
    }
}

/// What an administrator does now and then, beside the workers.
async fn look_after(
    things: Collection,
    people: Collection,
    ledger: Arc<Ledger>,
    random: SeededRandom,
    over: CancellationToken,
) {
    while !over.is_cancelled() {
        let ended = match below(&random, 6) {
            0 => things.prune().await.map(drop),
            1 => things.roll_up().await.map(drop),
            2 => things.backup().await.map(drop),
            3 => people.backup().await.map(drop),
            4 => things.counters().follow().await.map(drop),
            _ => things.verify().await.map(|found| {
                // Of a storage that is away.
                let passes = |problem: &Problem| problem.kind == "unreadable-payload";
                let is_right = found.problems.iter().all(passes);
                assert!(is_right, "verified meanwhile: {:#}", found.to_json());
            }),
        };
        if let Err(error) = ended {
            assert!(may_pass(&error), "{error} ({error:?})");
            ledger.failed("upkeep", &error);
        }
        tokio::time::sleep(PACE * 10).await;
    }
}

/// Of an attempt that must be there once.
pub(super) fn must_be_there(end: End) -> bool {
    end != End::Unknown
}
