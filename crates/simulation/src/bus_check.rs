//! What must be true of the bus in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chronow::Result;
use chronow::hot::{MessageStore as _, Settled};

use crate::bus::{BusWork, Did, Published, Step, number};
use crate::check::Violations;
use crate::machine::Machine;
use crate::world::wait;

/// More than there is of anything.
const ALL: u32 = 1_000;
/// Between two looks for messages that come again.
const LOOK: Duration = Duration::from_secs(20);
/// After so many looks that find nothing, nothing comes any more: what waits for its key is looked at every
/// ten minutes at the latest.
const LOOKS: u32 = 45;

/// Handles all that is left, as a consumer that never fails does. Then looks at what came of everything.
///
/// # Errors
/// Those of the store.
pub(crate) async fn end(work: &BusWork, auditor: &Machine) -> Result<Violations> {
    for (at, name) in work.subscriptions.iter().enumerate() {
        let mut empty = 0;
        while empty < LOOKS {
            let pulled = auditor.hot.pull(name, 100).await?;
            empty += 1;
            for delivery in &pulled.deliveries {
                empty = 0;
                if work.step(auditor, at, delivery, Did::Start).await {
                    work.step(auditor, at, delivery, Did::Ack).await;
                }
            }
            if empty > 0 {
                wait(LOOK).await;
            }
        }
    }
    let (published, steps) = (work.published.lock().clone(), work.steps.lock().clone());
    let mut wrong = ids(&published, &steps);
    let redrives = *work.redrives.lock();
    for (at, name) in work.subscriptions.iter().enumerate() {
        let letters = auditor.hot.dead_letters(name, None, ALL).await?.items;
        let of: Vec<&Step> = steps.iter().filter(|step| step.subscription == at).collect();
        let seen = OfSubscription {
            at,
            published: &published,
            steps: of,
            dead: letters.iter().map(|letter| number(&letter.message.payload)).collect(),
            most: work.most,
            redrives,
        };
        seen.check(&mut wrong);
    }
    for stats in auditor.hot.stats(&work.topic).await?.subscriptions {
        if stats.backlog + stats.pending + stats.scheduled > 0 {
            wrong.push(format!("in the end something is left: {stats:?}"));
        }
    }
    Ok(wrong)
}

/// No message is there twice.
fn ids(published: &[Published], steps: &[Step]) -> Violations {
    let mut wrong = Vec::new();
    let mut known: BTreeMap<i64, BTreeSet<&str>> = BTreeMap::new();
    for step in steps {
        known.entry(step.n).or_default().insert(&step.id);
    }
    for message in published {
        known.entry(message.n).or_default().extend(message.id.as_deref());
    }
    for (n, ids) in known {
        let message = usize::try_from(n).ok().and_then(|at| published.get(at));
        match message {
            None => wrong.push(format!("a message {n} came that nobody published")),
            Some(message) if ids.len() > 1 && !message.is_spread => {
                wrong.push(format!("{message:?} is there as {ids:?}"));
            }
            Some(_) => {}
        }
    }
    wrong
}

struct OfSubscription<'r> {
    at: usize,
    published: &'r [Published],
    steps: Vec<&'r Step>,
    dead: BTreeSet<i64>,
    most: u32,
    redrives: u32,
}

impl OfSubscription<'_> {
    fn of(&self, n: i64, did: Did) -> impl Iterator<Item = &Step> {
        self.steps.iter().copied().filter(move |step| step.n == n && step.did == did)
    }

    /// Whether a step was taken, or may have been.
    fn may_have(&self, n: i64, did: Did) -> bool {
        self.of(n, did).any(|step| step.answer != Some(Settled::Lost))
    }

    fn check(&self, wrong: &mut Violations) {
        for message in self.published {
            let n = message.n;
            let ended = self.dead.contains(&n) || self.may_have(n, Did::Ack);
            if message.id.is_some() && !ended {
                wrong.push(format!("subscription {}: {message:?} was accepted and never handled", self.at));
            }
            let started = self.of(n, Did::Start).filter(|step| step.answer == Some(Settled::Done)).count();
            if started > (self.most * (1 + self.redrives)) as usize {
                wrong.push(format!("subscription {}: {n} was started {started} times", self.at));
            }
            if self.dead.contains(&n) {
                self.dead_for_a_reason(n, wrong);
            }
            self.none_after_settled(n, wrong);
            self.one_at_a_time(n, wrong);
        }
        self.in_order(wrong);
    }

    fn dead_for_a_reason(&self, n: i64, wrong: &mut Violations) {
        let started = self.of(n, Did::Start).filter(|step| step.answer != Some(Settled::Lost)).count();
        let reason = self.may_have(n, Did::DeadLetter) || started >= self.most as usize;
        if !reason {
            wrong.push(format!("subscription {}: {n} is dead after {started} starts", self.at));
        }
        if self.redrives == 0 && self.of(n, Did::Ack).any(|step| step.answer == Some(Settled::Done)) {
            wrong.push(format!("subscription {}: {n} was settled, and is a dead letter", self.at));
        }
    }

    fn none_after_settled(&self, n: i64, wrong: &mut Violations) {
        let settled = self.of(n, Did::Ack).filter(|step| step.answer == Some(Settled::Done));
        let Some(settled) = settled.filter_map(|step| step.ended).min() else { return };
        for step in self.of(n, Did::Start).filter(|step| step.answer == Some(Settled::Done)) {
            if step.began > settled {
                wrong.push(format!("subscription {}: {step:?} comes after {n} was settled", self.at));
            }
        }
    }

    /// Who settled a message held it until then: nobody else began with it in between.
    fn one_at_a_time(&self, n: i64, wrong: &mut Violations) {
        for settled in self.of(n, Did::Ack).filter(|step| step.answer == Some(Settled::Done)) {
            let own = self.of(n, Did::Start).find(|step| step.token == settled.token);
            let Some(since) = own.and_then(|own| own.ended) else { continue };
            for other in self.of(n, Did::Start).filter(|step| step.answer == Some(Settled::Done)) {
                let between = other.began > since && other.ended.is_some_and(|ended| ended < settled.began);
                if other.token != settled.token && between {
                    wrong.push(format!("subscription {}: {settled:?} though {other:?}", self.at));
                }
            }
        }
    }

    /// Messages of a key are begun one after the other has ended.
    fn in_order(&self, wrong: &mut Violations) {
        if self.redrives > 0 {
            return;
        }
        let ordered =
            |message: &&Published| message.key.is_some() && message.id.is_some() && !message.is_delayed;
        for first in self.published.iter().filter(ordered) {
            // Of what was given up nobody knows when.
            if self.dead.contains(&first.n) {
                continue;
            }
            let ended = self.of(first.n, Did::Ack).filter(|step| step.answer != Some(Settled::Lost));
            let Some(ended) = ended.map(|step| step.began).min() else { continue };
            let after = |message: &&Published| {
                message.key == first.key
                    && (Some(message.began) > first.ended
                        || message.began == first.began && message.n > first.n)
            };
            for second in self.published.iter().filter(ordered).filter(after) {
                let begun = self.of(second.n, Did::Start).filter(|step| step.answer == Some(Settled::Done));
                if let Some(begun) = begun.filter_map(|step| step.ended).min()
                    && begun < ended
                {
                    let (first, second) = (first.n, second.n);
                    wrong.push(format!("subscription {}: {second} was begun before {first} ended", self.at));
                }
            }
        }
    }
}
