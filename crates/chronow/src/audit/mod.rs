//! The audit: dead letters, and how every attempt ended if the configuration says `captureDeliveries`, are
//! kept in the warm tier. It happens in the background, and a failing warm tier fails no settlement. Dead
//! letters wait in the hot tier until they are kept; attempts wait in memory, at most this many, and what waits
//! there is lost with the process.

mod state;

pub(crate) use self::state::Audit;

use std::sync::Arc;
use std::time::Duration;

use chronos_db::messaging::DeliveryStatus;
use chronos_db::{Clock as _, SystemClock};
use futures::future::try_join_all;

use self::state::Progress;
use crate::context::Context;
use crate::hot::{DeadLetter, DeadLetterId, HotTier, Settle, Settled};
use crate::metrics::Counters;
use crate::warm::{Attempt, Warm};
use crate::{ErrorKind, Result, SubscriptionName, Timestamp};

/// Attempts that wait; then the oldest are given up.
const MAX_WAITING: usize = 100_000;

/// Documents written at the same time.
const TOGETHER: usize = 16;

/// Attempts taken from the waiting ones in one step.
const BATCH: usize = 256;

/// Ids of dead letters read at once.
const PAGE: u32 = 1_000;

/// How often other processes' dead letters are looked for.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Wait after a failure.
const TROUBLE: Duration = Duration::from_secs(2);

/// What failed so long ago is in its place: later letters come in behind it, whatever the clocks of consumers
/// say.
const SETTLED_MS: i64 = 60_000;

/// Dead letters often come together.
const GATHER: Duration = Duration::from_millis(200);

/// How a settlement is named in the record of an attempt.
fn status_of(settle: &Settle, settled: Settled) -> Option<(DeliveryStatus, Option<String>)> {
    let reason = |reason: &String| Some(reason.clone()).filter(|reason| !reason.is_empty());
    Some(match (settled, settle) {
        (Settled::Lost, _) | (_, Settle::Defer | Settle::Release) => return None,
        (_, Settle::Ack) => (DeliveryStatus::Ack, None),
        (_, Settle::DeadLetter { reason: why } | Settle::Refuse { reason: why }) => {
            (DeliveryStatus::Dead, reason(why))
        }
        (Settled::DeadLettered, Settle::Retry { reason: why, .. }) => (DeliveryStatus::Dead, reason(why)),
        (Settled::Done, Settle::Retry { reason: why, .. }) => (DeliveryStatus::Nack, reason(why)),
    })
}

impl Context {
    /// Keeps the dead letters of a subscription from now on.
    pub(crate) fn audit_dead_letters(&self, subscription: &SubscriptionName) {
        if self.warm().is_none() || subscription.is_internal() {
            return;
        }
        self.audit.state.lock().followed.entry(subscription.clone()).or_default();
        self.run_audit();
    }

    /// Notes how attempts ended, as far as it is wanted.
    pub(crate) fn audit_attempts<'a>(
        &self,
        subscription: &SubscriptionName,
        ended: impl IntoIterator<Item = (&'a str, u32, &'a Settle, Settled)>,
    ) {
        let mut dead = false;
        let mut noted = Vec::new();
        let at = self.captures.then(|| SystemClock.now());
        for (id, attempt, settle, settled) in ended {
            let Some((status, reason)) = status_of(settle, settled) else { continue };
            dead |= status == DeliveryStatus::Dead;
            if let Some(at) = at {
                noted
                    .push((subscription.clone(), Attempt { id: id.to_owned(), attempt, status, reason, at }));
            }
        }
        if self.warm().is_none() || (!dead && noted.is_empty()) {
            return;
        }
        {
            let mut state = self.audit.state.lock();
            let over = (state.attempts.len() + noted.len()).saturating_sub(MAX_WAITING);
            if over > 0 {
                let over = over.min(state.attempts.len());
                tracing::warn!(
                    lost = over,
                    "the warm tier is too slow for the audit of deliveries; the oldest attempts are given up"
                );
                state.attempts.drain(..over);
            }
            state.attempts.extend(noted);
        }
        self.run_audit();
        self.audit.wake.notify_one();
    }

    /// Keeps the dead letters that are there, before another process takes them away. The audit must not
    /// stand in the way of that.
    pub(crate) async fn audit_now(&self, subscription: &SubscriptionName) {
        let Some(warm) = self.warm() else { return };
        let mut progress = self.audit.state.lock().followed.get(subscription).cloned().unwrap_or_default();
        if let Err(error) = keep_letters(&*self.hot, warm, &self.counters, subscription, &mut progress).await
        {
            tracing::warn!(%subscription, %error, "dead letters are given back or removed without being kept in the warm tier");
        }
    }

    /// Makes up for what waits, if nothing fails: when nobody settles any more.
    pub(crate) async fn finish_audit(&self) {
        if self.audit.state.lock().running
            && let Some(auditor) = self.auditor()
        {
            auditor.work().await;
        }
    }

    fn auditor(&self) -> Option<Auditor> {
        let (hot, audit, counters) =
            (Arc::clone(&self.hot), Arc::clone(&self.audit), Arc::clone(&self.counters));
        self.warm().cloned().map(|warm| Auditor { hot, warm, audit, counters })
    }

    /// Begins to work in the background, unless it has begun. It ends with the connection; closing waits for
    /// [`finish_audit`](Self::finish_audit).
    fn run_audit(&self) {
        let Some(auditor) = self.auditor() else { return };
        if std::mem::replace(&mut self.audit.state.lock().running, true) {
            return;
        }
        let closing = self.tasks.closing();
        tokio::spawn(async move {
            loop {
                let clean = auditor.work().await;
                tokio::select! {
                    () = auditor.woken(), if clean => {}
                    () = tokio::time::sleep(if clean { TIMEOUT } else { TROUBLE }) => {}
                    () = closing.cancelled() => return,
                }
            }
        });
    }
}

struct Auditor {
    hot: Arc<dyn HotTier>,
    warm: Warm,
    audit: Arc<Audit>,
    counters: Arc<Counters>,
}

impl Auditor {
    async fn woken(&self) {
        self.audit.wake.notified().await;
        tokio::time::sleep(GATHER).await;
    }

    /// Does what there is to do. False if something failed.
    async fn work(&self) -> bool {
        let _turn = self.audit.turn.lock().await;
        let attempts = self.note_attempts().await;
        if let Err(error) = &attempts {
            tracing::warn!(%error, "attempts wait to be noted in the warm tier");
        }
        let mut clean = attempts.is_ok();
        let followed: Vec<(SubscriptionName, Progress)> = self
            .audit
            .state
            .lock()
            .followed
            .iter()
            .map(|(name, progress)| (name.clone(), progress.clone()))
            .collect();
        for (name, mut progress) in followed {
            match keep_letters(&*self.hot, &self.warm, &self.counters, &name, &mut progress).await {
                Ok(()) => {
                    self.audit.state.lock().followed.insert(name, progress);
                }
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Closed) => {
                    self.audit.state.lock().followed.remove(&name);
                }
                Err(error) => {
                    tracing::warn!(subscription = %name, %error, "dead letters wait to be kept in the warm tier");
                    clean = false;
                }
            }
        }
        clean
    }

    async fn note_all(&self, attempts: &[(SubscriptionName, Attempt)]) -> Result<()> {
        for together in attempts.chunks(TOGETHER) {
            try_join_all(together.iter().map(|(name, attempt)| self.warm.note(name, attempt))).await?;
        }
        Ok(())
    }

    async fn note_attempts(&self) -> Result<()> {
        loop {
            let batch: Vec<(SubscriptionName, Attempt)> = {
                let mut state = self.audit.state.lock();
                let count = state.attempts.len().min(BATCH);
                state.attempts.drain(..count).collect()
            };
            if batch.is_empty() {
                return Ok(());
            }
            let noted = self.note_all(&batch).await;
            if let Err(error) = noted {
                // Noting one twice changes nothing.
                let mut state = self.audit.state.lock();
                for one in batch.into_iter().rev() {
                    state.attempts.push_front(one);
                }
                return Err(error);
            }
        }
    }
}

async fn keep_letters(
    hot: &dyn HotTier,
    warm: &Warm,
    counters: &Counters,
    name: &SubscriptionName,
    progress: &mut Progress,
) -> Result<()> {
    let since = match progress.since {
        Some(since) => since,
        None => warm
            .last_dead_lettered(name)
            .await?
            .map_or(Timestamp::from_millis(0), |at| at.plus_millis(-SETTLED_MS)),
    };
    progress.since = Some(since);
    let young = hot.now().await.map_err(|error| error.during("now"))?.plus_millis(-SETTLED_MS);
    let mut after = progress.settled.clone();
    loop {
        let page = hot
            .dead_letter_ids(name, since, after.as_deref(), PAGE)
            .await
            .map_err(|error| error.during("dead_letter_ids"))?;
        let mut fresh: Vec<&DeadLetterId> =
            page.iter().filter(|letter| !progress.kept.contains(&letter.cursor)).collect();
        if !fresh.is_empty() {
            // Other processes kept many of them, which need not be read to know it.
            let dead_lettered =
                warm.dead_lettered(name, fresh.iter().map(|letter| letter.id.clone()).collect()).await?;
            let (kept, missing) = fresh.into_iter().partition(|letter| dead_lettered.contains(&letter.id));
            progress.kept.extend(Vec::into_iter(kept).map(|letter: &DeadLetterId| letter.cursor.clone()));
            fresh = missing;
        }
        // In order: what is older than the newest that is kept is kept.
        for together in fresh.chunks(TOGETHER) {
            let ids: Vec<String> = together.iter().map(|letter| letter.id.clone()).collect();
            let letters = hot
                .dead_letters_by_id(name, &ids)
                .await
                .map_err(|error| error.during("dead_letters_by_id"))?;
            try_join_all(letters.into_iter().map(|letter| keep_letter(warm, counters, name, letter))).await?;
            progress.kept.extend(together.iter().map(|letter| letter.cursor.clone()));
        }
        for letter in page.iter().take_while(|letter| letter.failed_at < young) {
            progress.kept.remove(&letter.cursor);
            progress.settled = Some(letter.cursor.clone());
        }
        match page.last() {
            Some(last) if page.len() == PAGE as usize => after = Some(last.cursor.clone()),
            _ => return Ok(()),
        }
    }
}

/// Keeps a dead letter. One that the warm tier refuses for good stays in the hot tier, and in nobody's way.
async fn keep_letter(
    warm: &Warm,
    counters: &Counters,
    name: &SubscriptionName,
    letter: DeadLetter,
) -> Result<()> {
    let id = letter.message.id.clone();
    match warm.dead_letter(name, letter).await {
        Ok(()) => Counters::add(&counters.warm_dead_letters, 1),
        Err(error) if error.kind() == ErrorKind::Validation => {
            tracing::error!(subscription = %name, id, %error, "the warm tier refuses a dead letter");
            Counters::add(&counters.warm_refused, 1);
        }
        Err(error) => return Err(error),
    }
    Ok(())
}
