//! The document store as a process reaches it: what all share, behind a line on which things go wrong.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bson::{Bson, RawDocumentBuf};
use chronos_db::documents::{
    Atomicity, Batch, BuildBatch, Capabilities, Deployment, DocumentStore, Filter, Index, Namespace,
    Numbered, Operation, Outcome, Scan, Sequence,
};
use chronos_db::{Error, Result, Timestamp};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::process::Process;
use crate::world::{Kind, World, wait};

/// How long a client tries to reach a server.
const LIMIT: Duration = Duration::from_secs(30);
/// What was given up lands at most so much later.
const LATEST_MILLIS: u64 = 60_000;

/// A process's client.
#[derive(Clone)]
pub struct SimulatedDocuments {
    world: Arc<World>,
    process: Arc<Process>,
    closed: Arc<AtomicBool>,
    /// The last time given out, where the time is the process's own.
    given_out: Arc<AtomicI64>,
}

impl fmt::Debug for SimulatedDocuments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimulatedDocuments(p{})", self.process.number)
    }
}

/// What becomes of a call.
enum Fate {
    Answered,
    /// It never arrives.
    Lost,
    /// It takes place, and nobody hears of it.
    Unheard,
    /// It takes place so much later than its client gives up.
    Late(Duration),
}

fn lost(what: &str) -> Error {
    Error::database(format!("no answer to `{what}`; whether it took place is unknown")).retryable()
}

impl SimulatedDocuments {
    /// The client of a process.
    #[must_use]
    pub fn new(world: Arc<World>, process: Arc<Process>) -> Self {
        let given_out = Arc::new(AtomicI64::new(i64::MIN));
        Self { world, process, closed: Arc::default(), given_out }
    }

    fn fate(&self) -> Fate {
        let (world, rates) = (&self.world, &self.world.rates);
        if world.kind == Kind::Embedded {
            return Fate::Answered;
        }
        if world.strikes(rates.request_lost) {
            Fate::Lost
        } else if world.strikes(rates.late) {
            Fate::Late(Duration::from_millis(world.chance.skewed(LATEST_MILLIS)))
        } else if world.strikes(rates.answer_lost) {
            Fate::Unheard
        } else {
            Fate::Answered
        }
    }

    /// Waits for a way to the server.
    async fn reach(&self, what: &str) -> Result<()> {
        self.process.pass().await;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::database("the store is closed"));
        }
        let deadline = Instant::now() + LIMIT;
        loop {
            let open = self.process.documents_from().max(self.world.primary_from());
            if Instant::now() >= open {
                return Ok(());
            }
            sleep_until(open.min(deadline)).await;
            self.process.pass().await;
            if Instant::now() >= deadline {
                return Err(Error::database(format!("no server for `{what}` within 30 s; nothing was done"))
                    .retryable());
            }
        }
    }

    /// Carries out something at the server: the request travels, it takes place, the answer travels. What was
    /// sent takes place whatever becomes of the process.
    async fn call<T: Send + 'static>(
        &self,
        what: &'static str,
        writes: bool,
        effect: BoxFuture<'static, Result<T>>,
    ) -> Result<T> {
        self.reach(what).await?;
        self.world.asked();
        let fate = self.fate();
        let (there, back) = (self.world.latency(), self.world.latency());
        let number = self.process.number;
        let (answer, answered) = oneshot::channel();
        let (delay, hears) = match fate {
            Fate::Answered => (Some(there), true),
            Fate::Lost => (None, false),
            Fate::Unheard => (Some(there), false),
            Fate::Late(later) => (Some(there + later), false),
        };
        if let Some(delay) = delay {
            let world = Arc::clone(&self.world);
            let work = async move {
                wait(delay).await;
                let done = effect.await;
                if writes || world.shows_reads {
                    let heard = if hears { "" } else { ", which it does not hear" };
                    world.history.line(format_args!("p{number} {what} takes place{heard}"));
                }
                // The process may be gone.
                let _ = answer.send(done);
            };
            if there.is_zero() && hears { work.await } else { drop(tokio::spawn(work)) }
        }
        if !hears {
            wait(there + back).await;
            self.process.pass().await;
            return Err(lost(what));
        }
        let done = answered.await.map_err(|_| lost(what))?;
        wait(back).await;
        self.process.pass().await;
        if self.process.documents_from() > Instant::now() {
            // The line was cut while the answer was on its way.
            return Err(lost(what));
        }
        done
    }

    /// The time as this process has it.
    fn local(&self, now: Timestamp) -> Timestamp {
        if self.world.kind != Kind::Embedded {
            return now;
        }
        let mine = now.plus_millis(self.process.skew_millis()).as_millis();
        Timestamp::from_millis(self.given_out.fetch_max(mine, Ordering::AcqRel).max(mine))
    }

    /// The operations of a batch that stand alone first, then those that follow from what was applied.
    async fn by_stages(&self, batch: Batch) -> Result<Vec<Outcome>> {
        check(&batch)?;
        let mut left: Vec<(usize, Operation)> = batch.operations.into_iter().enumerate().collect();
        let mut outcomes: Vec<Option<Outcome>> = vec![None; left.len()];
        while !left.is_empty() {
            let (ready, later): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, operation)| {
                operation.requires.is_none_or(|before| outcomes[before].is_some())
            });
            left = later;
            let (runs, skipped): (Vec<_>, Vec<_>) = ready.into_iter().partition(|(_, operation)| {
                operation.requires.is_none_or(|before| outcomes[before] == Some(Outcome::Applied))
            });
            for (at, _) in skipped {
                outcomes[at] = Some(Outcome::Skipped);
            }
            if runs.is_empty() {
                continue;
            }
            let mut stage = Batch::new();
            let mut places = Vec::new();
            for (at, operation) in runs {
                places.push(at);
                stage.push(&operation.namespace, operation.write);
            }
            for (at, outcome) in places.into_iter().zip(self.stage(stage).await?) {
                outcomes[at] = Some(outcome);
            }
        }
        Ok(outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Skipped)).collect())
    }

    /// One unordered command.
    async fn stage(&self, mut stage: Batch) -> Result<Vec<Outcome>> {
        let documents = Arc::clone(&self.world.documents);
        if stage.operations.len() > 1 && self.world.strikes(self.world.rates.in_part) {
            let chance = &self.world.chance;
            stage.operations.retain(|_| chance.hits(500));
            let effect = async move { documents.apply(stage).await };
            self.call("apply in part", true, Box::pin(effect)).await?;
            return Err(lost("apply"));
        }
        self.call("apply", true, Box::pin(async move { documents.apply(stage).await })).await
    }

    async fn all_or_each(&self, batch: Batch) -> Result<Vec<Outcome>> {
        if batch.operations.is_empty() {
            self.reach("apply").await?;
            return Ok(Vec::new());
        }
        let documents = Arc::clone(&self.world.documents);
        match (self.world.kind, batch.atomicity) {
            (Kind::Standalone, Atomicity::All) => {
                Err(Error::validation("a standalone server has no transactions"))
            }
            (Kind::Embedded, _) | (_, Atomicity::All) => {
                self.call("apply", true, Box::pin(async move { documents.apply(batch).await })).await
            }
            (_, Atomicity::Each) => self.by_stages(batch).await,
        }
    }
}

/// What the store would say of the whole batch.
fn check(batch: &Batch) -> Result<()> {
    for (at, operation) in batch.operations.iter().enumerate() {
        if operation.requires.is_some_and(|before| before >= at) {
            return Err(Error::validation("an operation may require an earlier one alone"));
        }
    }
    Ok(())
}

#[async_trait]
impl DocumentStore for SimulatedDocuments {
    async fn capabilities(&self) -> Result<Capabilities> {
        self.process.pass().await;
        Ok(Capabilities {
            transactions: self.world.kind != Kind::Standalone,
            atomic_sequence: self.world.kind == Kind::Embedded,
        })
    }

    async fn apply(&self, batch: Batch) -> Result<Vec<Outcome>> {
        self.all_or_each(batch).await
    }

    async fn sequence(&self, namespace: &Namespace, name: &str, count: u32) -> Result<Sequence> {
        let (documents, namespace, name) =
            (Arc::clone(&self.world.documents), namespace.clone(), name.to_owned());
        let effect = async move { documents.sequence(&namespace, &name, count).await };
        let given = self.call("sequence", true, Box::pin(effect)).await?;
        Ok(Sequence { now: self.local(given.now), ..given })
    }

    async fn sequence_then(
        &self,
        namespace: &Namespace,
        name: &str,
        count: u32,
        build: BuildBatch,
    ) -> Result<Numbered> {
        if self.world.kind != Kind::Embedded {
            let sequence = self.sequence(namespace, name, count).await?;
            let outcomes = self.all_or_each(build(sequence)?).await?;
            return Ok(Numbered { sequence, outcomes });
        }
        let (documents, namespace, name, this) =
            (Arc::clone(&self.world.documents), namespace.clone(), name.to_owned(), self.clone());
        let build: BuildBatch =
            Box::new(move |given| build(Sequence { now: this.local(given.now), ..given }));
        let effect = async move { documents.sequence_then(&namespace, &name, count, build).await };
        let mut done = self.call("sequence and apply", true, Box::pin(effect)).await?;
        done.sequence.now = self.local(done.sequence.now);
        Ok(done)
    }

    async fn get_stored(&self, namespace: &Namespace, ids: Vec<Bson>) -> Result<Vec<RawDocumentBuf>> {
        let (documents, namespace) = (Arc::clone(&self.world.documents), namespace.clone());
        self.call("get", false, Box::pin(async move { documents.get_stored(&namespace, ids).await })).await
    }

    fn scan_stored(&self, namespace: &Namespace, scan: Scan) -> BoxStream<'static, Result<RawDocumentBuf>> {
        let (this, namespace) = (self.clone(), namespace.clone());
        let found = async move {
            let documents = Arc::clone(&this.world.documents);
            let begun = async move { Ok(documents.scan_stored(&namespace, scan).peekable()) };
            // What it finds, it finds when the request arrives; the answer is under way after that.
            let mut found = this.call("scan", false, Box::pin(begun)).await?;
            std::pin::Pin::new(&mut found).peek().await;
            wait(this.world.latency()).await;
            let process = Arc::clone(&this.process);
            Ok::<_, Error>(found.then(move |document| {
                let process = Arc::clone(&process);
                async move {
                    process.pass().await;
                    document
                }
            }))
        };
        futures::stream::once(found).try_flatten().boxed()
    }

    async fn count(&self, namespace: &Namespace, filter: Filter, at_most: u64) -> Result<u64> {
        let (documents, namespace) = (Arc::clone(&self.world.documents), namespace.clone());
        let effect = async move { documents.count(&namespace, filter, at_most).await };
        self.call("count", false, Box::pin(effect)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        let documents = Arc::clone(&self.world.documents);
        let now = self.call("now", false, Box::pin(async move { documents.now().await })).await?;
        Ok(self.local(now))
    }

    async fn ensure(&self, namespace: &Namespace, indexes: &[Index]) -> Result<()> {
        let (documents, namespace, indexes) =
            (Arc::clone(&self.world.documents), namespace.clone(), indexes.to_vec());
        let effect = async move { documents.ensure(&namespace, &indexes).await };
        self.call("ensure", false, Box::pin(effect)).await
    }

    async fn deployment(&self) -> Result<Deployment> {
        self.reach("deployment").await?;
        Ok(Deployment::of(["simulated".to_owned()]))
    }

    async fn databases(&self) -> Result<Vec<String>> {
        let documents = Arc::clone(&self.world.documents);
        self.call("databases", false, Box::pin(async move { documents.databases().await })).await
    }

    async fn collections(&self, database: &str) -> Result<Vec<String>> {
        let (documents, database) = (Arc::clone(&self.world.documents), database.to_owned());
        self.call("collections", false, Box::pin(async move { documents.collections(&database).await })).await
    }

    async fn close(&self) -> Result<()> {
        self.closed.store(true, Ordering::Release);
        Ok(())
    }
}
