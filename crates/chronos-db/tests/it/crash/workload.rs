//! What the victims do, and the ledger in which they write down every attempt and every answer.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use chronos_db::{Collection, ErrorKind, ItemId, Json as Value, Random as _, Result, Written, json};
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use test_support::SeededRandom;

use super::sites::INLINE_MAX;

/// A document of the workload: text properties only.
pub(super) type Doc = BTreeMap<String, String>;

/// Written before and after every call; each line is in the file before the next step.
#[derive(Debug)]
pub(super) struct Ledger(Mutex<File>);

impl Ledger {
    pub(super) fn append(path: &Path) -> Self {
        let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        // Ends the half line of a killed one that wrote here before.
        file.write_all(b"\n").unwrap();
        Self(Mutex::new(file))
    }

    fn line(&self, value: &Value) {
        let mut file = self.0.lock();
        file.write_all(format!("{value}\n").as_bytes()).unwrap();
        file.flush().unwrap();
    }
}

#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// Begins every request id.
    pub(super) run: String,
    pub(super) seed: u64,
    pub(super) tasks: usize,
    pub(super) steps: usize,
    /// Injected errors may come; without them no call on an own item may fail.
    pub(super) lenient: bool,
    /// Deletes erase, so nothing can be restored.
    pub(super) erasing: bool,
}

/// The text that belongs to a request.
pub(super) fn filler(request: &str, length: usize) -> String {
    let digest: String = Sha256::digest(request).iter().map(|byte| format!("{byte:02x}")).collect();
    digest.chars().cycle().take(length).collect()
}

/// The content of a document, but for the property that is stored elsewhere.
pub(super) fn digest(document: &Doc) -> String {
    let kept: BTreeMap<_, _> = document.iter().filter(|(key, _)| *key != "file").collect();
    Sha256::digest(chronos_db::json::to_vec(&kept).unwrap())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

fn to_json(document: &Doc) -> Value {
    chronos_db::json::to_json(document).unwrap()
}

/// An item that one task alone writes.
#[derive(Debug)]
struct Own {
    id: ItemId,
    /// By version; none for a deletion.
    versions: Vec<Option<Doc>>,
}

impl Own {
    fn current(&self) -> Option<&Doc> {
        self.versions.last()?.as_ref()
    }
}

struct Task {
    things: Collection,
    ledger: Arc<Ledger>,
    plan: Plan,
    number: usize,
    random: SeededRandom,
    own: Vec<Own>,
}

/// Runs the whole plan.
pub(super) async fn run(things: &Collection, ledger: &Arc<Ledger>, plan: &Plan) {
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..plan.tasks {
        let task = Task {
            things: things.clone(),
            ledger: Arc::clone(ledger),
            plan: plan.clone(),
            number,
            random: SeededRandom::new(plan.seed * 100 + number as u64),
            own: Vec::new(),
        };
        tasks.spawn(task.run());
    }
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
}

impl Task {
    async fn run(mut self) {
        for step in 0..self.plan.steps {
            let request = format!("{}.{}.{step}", self.plan.run, self.number);
            // Every kind of write soon, then in any order.
            let kind = if step < 12 { (step + self.number * 3) % 12 } else { self.below(12) };
            self.step(kind, &request, step).await;
        }
    }

    fn below(&self, bound: usize) -> usize {
        usize::try_from(self.random.next_u64() % bound as u64).unwrap()
    }

    fn fields(&self, request: &str, large: bool) -> Doc {
        let length = if large { INLINE_MAX + 100 } else { 40 + self.below(200) };
        [("tag", request.to_owned()), ("body", filler(request, length))]
            .map(|(key, value)| (key.to_owned(), value))
            .into()
    }

    fn with_file(&self, request: &str, large: bool) -> Doc {
        let mut document = self.fields(request, large);
        document
            .insert("file".into(), base64::engine::general_purpose::STANDARD.encode(filler(request, 120)));
        document.insert("fileTag".into(), request.to_owned());
        document
    }

    async fn step(&mut self, kind: usize, request: &str, step: usize) {
        // A few items get many versions.
        let live: Vec<usize> =
            (0..self.own.len()).rev().filter(|i| self.own[*i].current().is_some()).take(3).collect();
        let dead = self.own.iter().position(|own| own.current().is_none());
        match kind {
            0 => self.create(request, self.fields(request, false)).await,
            1 => self.create(request, self.with_file(request, false)).await,
            2 => self.create(request, self.with_file(request, true)).await,
            3 | 4 => self.shared(request, step).await,
            5 if dead.is_some() && !self.plan.erasing => {
                self.restore(request, dead.unwrap_or_default()).await
            }
            _ if live.is_empty() => self.create(request, self.fields(request, false)).await,
            _ => {
                let at = live[self.below(live.len())];
                self.change(kind, request, at).await;
            }
        }
    }

    async fn create(&mut self, request: &str, document: Doc) {
        self.try_line(request, "create");
        let result = self.things.create(to_json(&document)).request_id(request).await;
        if let Some(written) = self.answer(request, result, Some(&document), true) {
            self.own.push(Own { id: written.id, versions: vec![Some(document)] });
        }
    }

    async fn change(&mut self, kind: usize, request: &str, at: usize) {
        let id = self.own[at].id;
        let current = self.own[at].current().cloned().unwrap_or_default();
        let things = &self.things;
        let (result, document) = match kind {
            6 | 7 => {
                self.try_line(request, "update");
                let fields = self.fields(request, kind == 7);
                let mut merged = current;
                merged.extend(fields.clone());
                (things.update(&id, to_json(&fields)).request_id(request).await, Some(merged))
            }
            8 => {
                self.try_line(request, "replace");
                let document = self.with_file(request, false);
                (things.replace(&id, to_json(&document)).request_id(request).await, Some(document))
            }
            9 => {
                self.try_line(request, "delete");
                (things.delete(&id).request_id(request).await, None)
            }
            _ => {
                self.try_line(request, "enrich");
                let fields = self.fields(request, false);
                let mut merged = current;
                merged.extend(fields.clone());
                (
                    things.enrich(&id, to_json(&fields)).function_id("f@1").request_id(request).await,
                    Some(merged),
                )
            }
        };
        match self.answer(request, result, document.as_ref(), true) {
            Some(written) => {
                assert_eq!(
                    usize::try_from(written.ov).unwrap(),
                    self.own[at].versions.len(),
                    "nobody else writes this item"
                );
                self.own[at].versions.push(document);
            }
            // Whether it happened is not known, so the item is left alone.
            None => drop(self.own.swap_remove(at)),
        }
    }

    async fn restore(&mut self, request: &str, at: usize) {
        let own = &self.own[at];
        let target = (0..own.versions.len())
            .filter(|ov| own.versions[*ov].is_some())
            .nth(self.below(own.versions.len()) / 2)
            .unwrap_or(0);
        let document = own.versions[target].clone();
        self.try_line(request, "restore");
        let result =
            self.things.restore(&own.id).to_version(i64::try_from(target).unwrap()).request_id(request).await;
        match self.answer(request, result, document.as_ref(), true) {
            Some(_) => self.own[at].versions.push(document),
            None => drop(self.own.swap_remove(at)),
        }
    }

    /// Everybody writes these, also other processes.
    async fn shared(&self, request: &str, step: usize) {
        let mut document = self.fields(request, false);
        document.insert("key".into(), format!("shared-{}", self.below(3) + step / 8));
        self.try_line(request, "smart-insert");
        let result = self.things.smart_insert(to_json(&document), &["key"]).request_id(request).await;
        let Some(written) = self.answer(request, result, Some(&document), false) else { return };
        let request = format!("{request}+");
        let mut again = self.fields(&request, false);
        again.insert("key".into(), document["key"].clone());
        if self.below(8) == 0 {
            self.try_line(&request, "delete");
            let result = self.things.delete(&written.id).request_id(&request).await;
            self.answer(&request, result, None, false);
        } else {
            self.try_line(&request, "replace");
            let result = self.things.replace(&written.id, to_json(&again)).request_id(&request).await;
            self.answer(&request, result, Some(&again), false);
        }
    }

    fn try_line(&self, request: &str, op: &str) {
        self.ledger.line(&json!({ "try": request, "op": op }));
    }

    fn answer(
        &self,
        request: &str,
        result: Result<Written>,
        document: Option<&Doc>,
        own: bool,
    ) -> Option<Written> {
        match result {
            Ok(written) => {
                self.ledger.line(&json!({
                    "ack": request, "id": written.id.to_string(), "ov": written.ov, "cv": written.cv, "at": written.at.as_millis(),
                    "changed": written.changed, "digest": document.map(digest),
                }));
                Some(written)
            }
            Err(error) => {
                self.ledger.line(&json!({ "err": request, "code": error.code() }));
                let raced = !own && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::OptimisticLock);
                // The storage's emulator stands still, or closes its connections, on a busy machine. A bucket
                // that is taken to be gone is another matter.
                let stalled = error.kind() == ErrorKind::Storage
                    && error.is_retryable()
                    && !error.message().contains("bring it back");
                assert!(
                    self.plan.lenient || raced || stalled,
                    "{request} failed without a reason: {error} ({error:?})"
                );
                None
            }
        }
    }
}
