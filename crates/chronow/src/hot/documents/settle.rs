//! Settling, starting, renewing: guarded puts of delivery records this process, or another, holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use chronos_db::documents::{Batch, Outcome};

use super::cache::InFlight;
use super::cache::SubscriptionContext;
use super::chunk::Body;
use super::delivery_record::{DeliveryRecord, State, record_id};
use super::fields::{put_if, too_contended};
use super::pull_due::USED_UP;
use super::store::Engine;
use crate::hot::millis::to_signed_millis;
use crate::hot::{Delivery, Lock, Settle, SettleAndStart, SettleAndStartResult, Settled};
use crate::{ErrorKind, Result, SubscriptionName, Timestamp};

/// What was looked up so long ago at most is good enough for settling.
const CONTEXT_MS: i64 = 1_000;

/// How often a put that met another one of the same holder is tried.
const ATTEMPTS: usize = 16;

/// What to do with a held message.
#[derive(Clone, Debug)]
enum Step {
    Settle(Settle),
    Start,
    Renew,
}

struct Task {
    index: usize,
    lock: Lock,
    step: Step,
}

/// What a put will have done once it is applied.
struct Planned {
    task: Task,
    in_flight: InFlight,
    result: Settled,
    ordering_group: Option<String>,
}

impl Engine {
    pub(super) async fn settle_and_start(
        &self,
        name: &SubscriptionName,
        step: SettleAndStart,
    ) -> Result<SettleAndStartResult> {
        let settles = step.settle.len();
        let tasks = step.settle.into_iter().map(|(lock, settle)| (lock, Step::Settle(settle)));
        let results = self
            .carry_out(name, tasks.chain(step.start.into_iter().map(|lock| (lock, Step::Start))).collect())
            .await?;
        let started = results[settles..].iter().map(|result| *result == Settled::Done).collect();
        Ok(SettleAndStartResult { settled: results[..settles].to_vec(), started })
    }

    pub(super) async fn renew(&self, name: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        let results =
            self.carry_out(name, locks.into_iter().map(|lock| (lock, Step::Renew)).collect()).await?;
        Ok(results.into_iter().map(|result| result == Settled::Done).collect())
    }

    /// The subscription as it was lately, with the time of now.
    async fn recent_context(&self, name: &SubscriptionName) -> Result<SubscriptionContext> {
        let known = self.cache(name).context.lock().clone();
        if let Some(known) = known {
            let now = self.documents.now().await?;
            if (0..CONTEXT_MS).contains(&(now.as_millis() - known.now.as_millis())) {
                return Ok(SubscriptionContext { now, ..(*known).clone() });
            }
        }
        let context = self.open(name).await?;
        *context.cache.context.lock() = Some(Arc::new(context.clone()));
        Ok(context)
    }

    async fn carry_out(&self, name: &SubscriptionName, steps: Vec<(Lock, Step)>) -> Result<Vec<Settled>> {
        let mut results = vec![Settled::Lost; steps.len()];
        if steps.is_empty() {
            return Ok(results);
        }
        let context = match self.recent_context(name).await {
            Ok(context) => context,
            // With the subscription all its locks are gone.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(results),
            Err(error) => return Err(error),
        };
        let mut tasks: Vec<Task> =
            steps.into_iter().enumerate().map(|(index, (lock, step))| Task { index, lock, step }).collect();
        let mut freed = HashSet::new();
        let mut stale: HashSet<String> = HashSet::new();
        for _ in 0..ATTEMPTS {
            // One change of a message after the other.
            let (mut ids, mut later) = (HashSet::new(), Vec::new());
            let (now_due, rest): (Vec<Task>, Vec<Task>) =
                tasks.into_iter().partition(|task| ids.insert(task.lock.id.clone()));
            later.extend(rest);
            let mut in_flight = self.in_flight_records(&context, &now_due, &stale).await?;
            stale.clear();
            let (mut batch, mut planned) = (Batch::new(), Vec::new());
            for task in now_due {
                let Some(before) = in_flight.remove(&task.lock.id) else { continue };
                let Some(plan) = self.plan(&context, task, &before) else { continue };
                batch.push(
                    &self.collections.deliveries,
                    put_if(plan.in_flight.record.to_document(), before.record.rev),
                );
                planned.push(plan);
            }
            if !planned.is_empty() {
                let outcomes = self.documents.apply(batch).await?;
                for (plan, outcome) in planned.into_iter().zip(outcomes) {
                    if self.took_place(&plan, &outcome).await? {
                        results[plan.task.index] = plan.result;
                        if let Some(ordering_group) = plan.ordering_group.clone().filter(|ordering_group| {
                            plan.in_flight.record.ordering_group().as_ref() != Some(ordering_group)
                        }) {
                            freed.insert(ordering_group);
                        }
                        self.note(&context, plan);
                    } else {
                        stale.insert(plan.task.lock.id.clone());
                        later.push(plan.task);
                    }
                }
            }
            tasks = later;
            if tasks.is_empty() {
                self.env.fail.hit("bus.before_wake")?;
                self.wake(freed).await?;
                if context.subscription.options.auto_delete.is_some()
                    && results.iter().any(|result| *result != Settled::Lost)
                {
                    self.note_work(name, context).await;
                }
                return Ok(results);
            }
        }
        Err(too_contended("the messages' locks"))
    }

    /// What was settled and renewed is use of the subscription. That it could not be noted takes nothing
    /// back.
    async fn note_work(&self, name: &SubscriptionName, mut context: SubscriptionContext) {
        let noted = self.note_use(name, &mut context).await;
        *self.cache(name).context.lock() = Some(Arc::new(context));
        if let Err(error) = noted
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(subscription = %name, %error, "that a subscription is in use could not be noted");
        }
    }

    /// The delivery records as this process knows them; those it does not know, or should look at again, as
    /// stored. Lost ones are left out.
    async fn in_flight_records(
        &self,
        context: &SubscriptionContext,
        tasks: &[Task],
        stale: &HashSet<String>,
    ) -> Result<HashMap<String, InFlight>> {
        let (mut in_flight, mut unknown) = (HashMap::new(), Vec::new());
        {
            let known = context.cache.in_flight.lock();
            for task in tasks {
                match known.get(&task.lock.id) {
                    Some(known)
                        if self.is_held(&known.record, &task.lock) && !stale.contains(&task.lock.id) =>
                    {
                        in_flight.insert(task.lock.id.clone(), known.clone());
                    }
                    _ => unknown.push(record_id(&context.subscription.id, &task.lock.id)),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(in_flight);
        }
        let records = self.records_by_id(unknown).await?;
        let lasts: HashSet<i64> =
            records.values().filter(|c| c.is_open() && c.body.is_none()).map(|c| c.chunk).collect();
        let chunks = self.chunks(&context.topic.id, lasts).await?;
        let mut lost = Vec::new();
        for record in records.into_values() {
            let ours =
                tasks.iter().any(|task| record.id == task.lock.id && self.is_held(&record, &task.lock));
            let body = match &record.body {
                Some(body) => Some(Arc::new(body.clone())),
                None => chunks
                    .get(&record.chunk)
                    .and_then(|chunk| chunk.by_id(record.sequence, &record.id))
                    .cloned(),
            };
            match body {
                Some(body) if ours => drop(in_flight.insert(record.id.clone(), InFlight { record, body })),
                _ => lost.push(record.id),
            }
        }
        let mut known = context.cache.in_flight.lock();
        for id in lost {
            // A newer delivery to this same process stays known.
            if known.get(&id).is_some_and(|known| {
                tasks.iter().any(|task| task.lock.id == id && known.record.is_held_by(&task.lock))
            }) {
                known.remove(&id);
            }
        }
        Ok(in_flight)
    }

    /// Whether the lock is the one that the message has now.
    fn is_held(&self, record: &DeliveryRecord, lock: &Lock) -> bool {
        record.is_held_by(lock) || self.env.fail.skips("guard.token")
    }

    /// What the delivery record will be; none if the lock is not that of the task.
    fn plan(&self, context: &SubscriptionContext, task: Task, before: &InFlight) -> Option<Planned> {
        if !self.is_held(&before.record, &task.lock) {
            return None;
        }
        let mut record = before.record.clone();
        record.rev = self.new_revision();
        let (body, now) = (&before.body, context.now);
        let result = match &task.step {
            Step::Settle(settle) => self.settled(context, &mut record, body, settle, now),
            Step::Start if self.is_used_up(record.starts, context) => {
                let reason = if record.why.is_empty() { USED_UP.to_owned() } else { record.why.clone() };
                record.dead_letter(context.subscription.options.dead_letters, (**body).clone(), &reason, now);
                Settled::DeadLettered
            }
            Step::Start => {
                record.starts += 1;
                record.total += 1;
                Settled::Done
            }
            Step::Renew => {
                record.due = context.locked_until();
                Settled::Done
            }
        };
        let ordering_group = before.record.ordering_group();
        Some(Planned { task, in_flight: InFlight { record, body: body.clone() }, result, ordering_group })
    }

    fn settled(
        &self,
        context: &SubscriptionContext,
        record: &mut DeliveryRecord,
        body: &Arc<Body>,
        settle: &Settle,
        now: Timestamp,
    ) -> Settled {
        let options = &context.subscription.options;
        match settle {
            Settle::Ack => record.finish(true),
            Settle::Retry { reason, .. } if record.starts >= options.max_deliveries => {
                record.dead_letter(options.dead_letters, (**body).clone(), reason, now);
                return Settled::DeadLettered;
            }
            Settle::Retry { delay, reason } => {
                // The quotient of two 64 bit numbers is good enough as a chance.
                let chance = self.env.random.next_u64() as f64 / u64::MAX as f64;
                let wait = delay.unwrap_or_else(|| options.wait_after(record.starts, chance));
                detach(record, body, State::Waiting, now.as_millis().saturating_add(to_signed_millis(wait)));
                record.why.clone_from(reason);
            }
            Settle::DeadLetter { reason } => {
                record.dead_letter(options.dead_letters, (**body).clone(), reason, now)
            }
            Settle::Refuse { reason } => {
                record.starts = record.starts.saturating_sub(1);
                record.total = record.total.saturating_sub(1);
                record.dead_letter(options.dead_letters, (**body).clone(), reason, now);
            }
            Settle::Defer => detach(record, body, State::Deferred, 0),
            Settle::Release => {
                record.state = State::Waiting;
                record.due = now.as_millis();
                record.token = None;
                record.aside = false;
            }
        }
        Settled::Done
    }

    /// Whether a put took place: the store may have said no because another process was quick to change the
    /// delivery record again.
    async fn took_place(&self, plan: &Planned, outcome: &Outcome) -> Result<bool> {
        if outcome.is_applied() {
            return Ok(true);
        }
        let id = plan.in_flight.record.stored_id();
        Ok(self
            .records_by_id(vec![id.clone()])
            .await?
            .get(&id)
            .is_some_and(|stored| stored.rev == plan.in_flight.record.rev))
    }

    /// Remembers what was done.
    fn note(&self, context: &SubscriptionContext, plan: Planned) {
        let mut in_flight = context.cache.in_flight.lock();
        if plan.in_flight.record.state == State::Locked {
            in_flight.insert(plan.task.lock.id, plan.in_flight);
            return;
        }
        in_flight.remove(&plan.task.lock.id);
        drop(in_flight);
        if plan.in_flight.record.state == State::Done {
            self.note_settled(&context.cache, 1);
        } else {
            self.tell_subscription(&context.subscription.id);
        }
    }

    pub(super) async fn fetch_deferred(
        &self,
        name: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>> {
        let context = self.open(name).await?;
        let stored = self
            .records_by_id(ids.iter().map(|id| record_id(&context.subscription.id, id)).collect())
            .await?;
        let (mut batch, mut put, mut seen) = (Batch::new(), Vec::new(), HashSet::new());
        for id in ids {
            let record = stored
                .get(&record_id(&context.subscription.id, &id))
                .filter(|record| record.state == State::Deferred);
            let Some(mut record) = record.filter(|_| seen.insert(id)).cloned() else { continue };
            let Some(body) = record.body.clone() else { continue };
            let rev = std::mem::replace(&mut record.rev, self.new_revision());
            record.lock(context.locked_until(), self.new_revision());
            record.aside = true;
            batch.push(&self.collections.deliveries, put_if(record.to_document(), rev));
            put.push((record, Arc::new(body)));
        }
        if put.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = self.documents.apply(batch).await?;
        let mine = put.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_applied());
        Ok(mine.map(|((record, body), _)| self.deliver(&context, record, body)).collect())
    }
}

/// Gives a delivery record its own copy of the message, so that it needs the chunk no more.
fn detach(record: &mut DeliveryRecord, body: &Arc<Body>, state: State, due: i64) {
    record.state = state;
    record.due = due;
    record.token = None;
    record.aside = false;
    record.body = Some((**body).clone());
}
