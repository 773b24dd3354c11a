//! Settling, starting, renewing: guarded puts of cards this process, or another, holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::documents::{Batch, Outcome};

use super::card::{Card, State, card_id};
use super::chunk::Body;
use super::due::USED_UP;
use super::entities::Opened;
use super::store::{Engine, Held, locked, put_if, too_contended};
use crate::hot::{Advance, Advanced, Delivery, Lock, Settle, Settled};
use crate::{ErrorKind, Result, SubscriptionName, Timestamp};

/// What was looked up so long ago at most is good enough for settling.
const OPENED_MS: i64 = 1_000;

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
    held: Held,
    told: Settled,
    chain: Option<String>,
}

impl Engine {
    pub(super) async fn advance(&self, name: &SubscriptionName, advance: Advance) -> Result<Advanced> {
        let settles = advance.settle.len();
        let tasks = advance.settle.into_iter().map(|(lock, settle)| (lock, Step::Settle(settle)));
        let told = self
            .carry_out(name, tasks.chain(advance.start.into_iter().map(|lock| (lock, Step::Start))).collect())
            .await?;
        let started = told[settles..].iter().map(|told| *told == Settled::Done).collect();
        Ok(Advanced { settled: told[..settles].to_vec(), started })
    }

    pub(super) async fn renew(&self, name: &SubscriptionName, locks: Vec<Lock>) -> Result<Vec<bool>> {
        let told = self.carry_out(name, locks.into_iter().map(|lock| (lock, Step::Renew)).collect()).await?;
        Ok(told.into_iter().map(|told| told == Settled::Done).collect())
    }

    /// The subscription as it was lately, with the time of now.
    async fn opened_lately(&self, name: &SubscriptionName) -> Result<Opened> {
        let known = locked(&self.local(name).opened).clone();
        if let Some(known) = known {
            let now = self.documents.now().await?;
            if (0..OPENED_MS).contains(&(now.as_millis() - known.now.as_millis())) {
                return Ok(Opened { now, ..(*known).clone() });
            }
        }
        let opened = self.open(name).await?;
        *locked(&opened.local.opened) = Some(Arc::new(opened.clone()));
        Ok(opened)
    }

    async fn carry_out(&self, name: &SubscriptionName, steps: Vec<(Lock, Step)>) -> Result<Vec<Settled>> {
        let mut told = vec![Settled::Lost; steps.len()];
        if steps.is_empty() {
            return Ok(told);
        }
        let opened = match self.opened_lately(name).await {
            Ok(opened) => opened,
            // With the subscription all its locks are gone.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(told),
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
            let mut held = self.held_cards(&opened, &now_due, &stale).await?;
            stale.clear();
            let (mut batch, mut planned) = (Batch::new(), Vec::new());
            for task in now_due {
                let Some(before) = held.remove(&task.lock.id) else { continue };
                let Some(plan) = self.plan(&opened, task, &before) else { continue };
                batch.push(&self.spaces.cards, put_if(plan.held.card.to_document(), before.card.rev));
                planned.push(plan);
            }
            if !planned.is_empty() {
                let outcomes = self.documents.apply(batch).await?;
                for (plan, outcome) in planned.into_iter().zip(outcomes) {
                    if self.took_place(&plan, &outcome).await? {
                        told[plan.task.index] = plan.told;
                        if let Some(chain) =
                            plan.chain.clone().filter(|chain| plan.held.card.chain().as_ref() != Some(chain))
                        {
                            freed.insert(chain);
                        }
                        self.note(&opened, plan);
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
                if opened.subscription.options.auto_delete_ms.is_some()
                    && told.iter().any(|told| *told != Settled::Lost)
                {
                    self.note_work(name, opened).await;
                }
                return Ok(told);
            }
        }
        Err(too_contended("the messages' locks"))
    }

    /// What was settled and renewed is use of the subscription. That it could not be noted takes nothing
    /// back.
    async fn note_work(&self, name: &SubscriptionName, mut opened: Opened) {
        let noted = self.note_use(name, &mut opened).await;
        *locked(&self.local(name).opened) = Some(Arc::new(opened));
        if let Err(error) = noted
            && error.kind() != ErrorKind::NotFound
        {
            tracing::warn!(subscription = %name, %error, "that a subscription is in use could not be noted");
        }
    }

    /// The cards as this process knows them; those it does not know, or should look at again, as stored. Lost
    /// ones are left out.
    async fn held_cards(
        &self,
        opened: &Opened,
        tasks: &[Task],
        stale: &HashSet<String>,
    ) -> Result<HashMap<String, Held>> {
        let (mut held, mut unknown) = (HashMap::new(), Vec::new());
        {
            let known = locked(&opened.local.held);
            for task in tasks {
                match known.get(&task.lock.id) {
                    Some(known) if known.card.is_held_by(&task.lock) && !stale.contains(&task.lock.id) => {
                        held.insert(task.lock.id.clone(), known.clone());
                    }
                    _ => unknown.push(card_id(&opened.subscription.id, &task.lock.id)),
                }
            }
        }
        if unknown.is_empty() {
            return Ok(held);
        }
        let cards = self.cards_by_id(unknown).await?;
        let lasts: HashSet<i64> =
            cards.values().filter(|c| c.is_open() && c.body.is_none()).map(|c| c.chunk).collect();
        let chunks = self.chunks(&opened.topic.id, lasts).await?;
        let mut lost = Vec::new();
        for card in cards.into_values() {
            let ours = tasks.iter().any(|task| card.id == task.lock.id && card.is_held_by(&task.lock));
            let body = match &card.body {
                Some(body) => Some(Arc::new(body.clone())),
                None => chunks.get(&card.chunk).and_then(|chunk| chunk.by_id(card.place, &card.id)).cloned(),
            };
            match body {
                Some(body) if ours => drop(held.insert(card.id.clone(), Held { card, body })),
                _ => lost.push(card.id),
            }
        }
        let mut known = locked(&opened.local.held);
        for id in lost {
            // A newer delivery to this same process stays known.
            if known.get(&id).is_some_and(|known| {
                tasks.iter().any(|task| task.lock.id == id && known.card.is_held_by(&task.lock))
            }) {
                known.remove(&id);
            }
        }
        Ok(held)
    }

    /// What the card will be; none if the lock is not that of the task.
    fn plan(&self, opened: &Opened, task: Task, before: &Held) -> Option<Planned> {
        if !before.card.is_held_by(&task.lock) {
            return None;
        }
        let mut card = before.card.clone();
        card.rev = self.fresh();
        let (body, now) = (&before.body, opened.now);
        let told = match &task.step {
            Step::Settle(settle) => self.settled(opened, &mut card, body, settle, now),
            Step::Start if card.starts >= opened.subscription.options.max_deliveries => {
                let reason = if card.why.is_empty() { USED_UP.to_owned() } else { card.why.clone() };
                card.bury(opened.subscription.options.dead_letters, (**body).clone(), &reason, now);
                Settled::DeadLettered
            }
            Step::Start => {
                card.starts += 1;
                card.total += 1;
                Settled::Done
            }
            Step::Renew => {
                card.due = opened.locked_until();
                Settled::Done
            }
        };
        let chain = before.card.chain();
        Some(Planned { task, held: Held { card, body: body.clone() }, told, chain })
    }

    fn settled(
        &self,
        opened: &Opened,
        card: &mut Card,
        body: &Arc<Body>,
        settle: &Settle,
        now: Timestamp,
    ) -> Settled {
        let options = &opened.subscription.options;
        match settle {
            Settle::Ack => card.finish(true),
            Settle::Retry { reason, .. } if card.starts >= options.max_deliveries => {
                card.bury(options.dead_letters, (**body).clone(), reason, now);
                return Settled::DeadLettered;
            }
            Settle::Retry { delay, reason } => {
                // The quotient of two 64 bit numbers is good enough as a chance.
                let chance = self.env.random.next_u64() as f64 / u64::MAX as f64;
                let wait = delay.unwrap_or_else(|| options.backoff(card.starts, chance));
                detach(card, body, State::Waiting, now.as_millis().saturating_add(millis(wait)));
                card.why.clone_from(reason);
            }
            Settle::DeadLetter { reason } => card.bury(options.dead_letters, (**body).clone(), reason, now),
            Settle::Refuse { reason } => {
                card.starts = card.starts.saturating_sub(1);
                card.total = card.total.saturating_sub(1);
                card.bury(options.dead_letters, (**body).clone(), reason, now);
            }
            Settle::Defer => detach(card, body, State::Deferred, 0),
            Settle::Release => {
                card.state = State::Waiting;
                card.due = now.as_millis();
                card.token = None;
                card.aside = false;
            }
        }
        Settled::Done
    }

    /// Whether a put took place: the store may have said no because somebody was quick to change the card
    /// again.
    async fn took_place(&self, plan: &Planned, outcome: &Outcome) -> Result<bool> {
        if outcome.is_applied() {
            return Ok(true);
        }
        let id = plan.held.card.stored_id();
        Ok(self
            .cards_by_id(vec![id.clone()])
            .await?
            .get(&id)
            .is_some_and(|stored| stored.rev == plan.held.card.rev))
    }

    /// Remembers what was done.
    fn note(&self, opened: &Opened, plan: Planned) {
        let mut held = locked(&opened.local.held);
        if plan.held.card.state == State::Locked {
            held.insert(plan.task.lock.id, plan.held);
            return;
        }
        held.remove(&plan.task.lock.id);
        drop(held);
        if plan.held.card.state == State::Done {
            self.note_settled(&opened.local, 1);
        } else {
            self.tell_subscription(&opened.subscription.id);
        }
    }

    pub(super) async fn fetch_deferred(
        &self,
        name: &SubscriptionName,
        ids: Vec<String>,
    ) -> Result<Vec<Delivery>> {
        let opened = self.open(name).await?;
        let stored =
            self.cards_by_id(ids.iter().map(|id| card_id(&opened.subscription.id, id)).collect()).await?;
        let (mut batch, mut put, mut seen) = (Batch::new(), Vec::new(), HashSet::new());
        for id in ids {
            let card = stored
                .get(&card_id(&opened.subscription.id, &id))
                .filter(|card| card.state == State::Deferred);
            let Some(mut card) = card.filter(|_| seen.insert(id)).cloned() else { continue };
            let Some(body) = card.body.clone() else { continue };
            let rev = std::mem::replace(&mut card.rev, self.fresh());
            card.lock(opened.locked_until(), self.fresh());
            card.aside = true;
            batch.push(&self.spaces.cards, put_if(card.to_document(), rev));
            put.push((card, Arc::new(body)));
        }
        if put.is_empty() {
            return Ok(Vec::new());
        }
        let outcomes = self.documents.apply(batch).await?;
        let mine = put.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_applied());
        Ok(mine.map(|((card, body), _)| self.hand_out(&opened, card, body)).collect())
    }
}

/// Gives a card its own copy of the message, so that it needs the chunk no more.
fn detach(card: &mut Card, body: &Arc<Body>, state: State, due: i64) {
    card.state = state;
    card.due = due;
    card.token = None;
    card.aside = false;
    card.body = Some((**body).clone());
}

pub(super) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
