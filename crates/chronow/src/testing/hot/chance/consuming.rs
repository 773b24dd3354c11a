//! What consumers of the history do.

use std::time::{Duration, Instant};

use super::super::{TIMEOUT, text};
use super::model::{Modelled, Where};
use super::{History, LIMIT};
use crate::hot::{Select, Settle, SettleAndStart, Settled};

impl Modelled {
    /// A settlement has ended so.
    fn end(&mut self, n: usize, settle: Settle, outcome: Settled) {
        let owed = self.owed.get_mut(&n).unwrap();
        let (at, expected) = match settle {
            Settle::Ack => (Where::Done, Settled::Done),
            Settle::Release => (Where::Ready, Settled::Done),
            Settle::Defer => (Where::Deferred, Settled::Done),
            Settle::DeadLetter { reason } => (Where::Dead(reason), outcome),
            Settle::Refuse { reason } => {
                owed.deliveries -= 1;
                self.started -= 1;
                (Where::Dead(reason), Settled::Done)
            }
            Settle::Retry { reason, .. } if owed.deliveries >= LIMIT => {
                (Where::Dead(reason), Settled::DeadLettered)
            }
            Settle::Retry { .. } => (Where::Ready, Settled::Done),
        };
        assert_eq!(outcome, expected, "{n} of {}", self.name);
        assert_ne!(outcome, Settled::Lost);
        self.acked += u64::from(at == Where::Done);
        if matches!(at, Where::Dead(_)) {
            self.dead.push(n);
        }
        owed.at = at;
    }
}

impl History {
    pub(super) async fn pull(&mut self, s: usize) {
        let (max, start) = (1 + self.chance.below(5), self.chance.below(4));
        let name = self.subscriptions[s].name.clone();
        let begun = Instant::now();
        loop {
            let [most, first] = [max, start].map(|count| u32::try_from(count).unwrap());
            let pulled = self.bus.hot.pull_and_start(&name, most, first).await.unwrap();
            let (started, pulled) = (pulled.started, pulled.deliveries);
            assert!(pulled.len() <= max && started <= start.min(pulled.len()));
            let subscription = &mut self.subscriptions[s];
            for (place, delivery) in pulled.iter().enumerate() {
                let n = self.numbers[&delivery.lock.id];
                assert!(subscription.owed.contains_key(&n), "{n} is none of {name}'s");
                assert!(subscription.available(n), "{n} of {name} was not due: {:?}", subscription.owed[&n]);
                let owed = subscription.owed.get_mut(&n).unwrap();
                assert_eq!(
                    (text(&delivery.message.payload), &delivery.message.key, delivery.deliveries),
                    (owed.text.clone(), &owed.key, owed.deliveries)
                );
                let begun = place < started;
                owed.at = Where::InFlight(delivery.clone(), begun);
                owed.deliveries += u32::from(begun);
                assert!(owed.deliveries <= LIMIT, "{n} was started too often in {name}");
                subscription.started += u64::from(begun);
            }
            let due = subscription.owed.keys().any(|n| subscription.available(*n));
            if !pulled.is_empty() || !due {
                return;
            }
            assert!(begun.elapsed() < TIMEOUT, "something is due in {name} and does not come");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Settles some and starts some, in one step.
    pub(super) async fn advance(&mut self, s: usize) {
        let mut step = SettleAndStart::default();
        let (mut settled, mut started) = (Vec::new(), Vec::new());
        for n in self.subscriptions[s].held() {
            let owed = &self.subscriptions[s].owed[&n];
            let Where::InFlight(delivery, begun) = &owed.at else { continue };
            let reason = format!("failure {n}");
            match (begun, self.chance.below(8)) {
                (false, 0..5) => {
                    step.start.push(delivery.lock.clone());
                    started.push(n);
                }
                (false, 5) => {
                    step.settle.push((delivery.lock.clone(), Settle::Release));
                    settled.push(n);
                }
                // Begun, and given back: that counts.
                (true, 7) if owed.deliveries < LIMIT => {
                    step.settle.push((delivery.lock.clone(), Settle::Release));
                    settled.push(n);
                }
                (true, choice) if choice < 7 => {
                    let settle = match choice {
                        0..3 => Settle::Ack,
                        3..5 => Settle::Retry { delay: Some(Duration::ZERO), reason },
                        // A key whose deferred message is fetched while the next is in flight has no one
                        // order.
                        5 if owed.key.is_none() => Settle::Defer,
                        5 => Settle::Ack,
                        _ if self.chance.below(2) == 0 => Settle::Refuse { reason },
                        _ => Settle::DeadLetter { reason },
                    };
                    step.settle.push((delivery.lock.clone(), settle));
                    settled.push(n);
                }
                _ => {}
            }
        }
        let name = self.subscriptions[s].name.clone();
        let outcome = self.bus.hot.settle_and_start(&name, step.clone()).await.unwrap();
        assert_eq!(outcome.started, vec![true; started.len()]);
        let subscription = &mut self.subscriptions[s];
        for n in started {
            let owed = subscription.owed.get_mut(&n).unwrap();
            owed.deliveries += 1;
            assert!(owed.deliveries <= LIMIT, "{n} was started too often in {name}");
            subscription.started += 1;
            if let Where::InFlight(_, begun) = &mut owed.at {
                *begun = true;
            }
        }
        for ((n, (_, settle)), outcome) in settled.into_iter().zip(step.settle).zip(outcome.settled) {
            subscription.end(n, settle, outcome);
        }
    }

    pub(super) async fn fetch_deferred(&mut self, s: usize) {
        let ids: Vec<String> = self.numbers.keys().cloned().collect();
        let asked: Vec<String> = ids.into_iter().filter(|_| self.chance.below(3) == 0).collect();
        let subscription = &mut self.subscriptions[s];
        let mut expected: Vec<usize> = asked.iter().map(|id| self.numbers[id]).collect();
        expected.retain(|n| subscription.owed.get(n).is_some_and(|owed| owed.at == Where::Deferred));
        expected.sort_unstable();
        let fetched = self.bus.hot.fetch_deferred(&subscription.name, asked).await.unwrap();
        let mut got = Vec::new();
        for delivery in fetched {
            let n = self.numbers[&delivery.lock.id];
            let owed = subscription.owed.get_mut(&n).unwrap();
            assert_eq!(delivery.deliveries, owed.deliveries);
            // With its deliveries used up it cannot be started again.
            let begun = owed.deliveries >= LIMIT;
            owed.at = Where::InFlight(delivery, begun);
            got.push(n);
        }
        got.sort_unstable();
        assert_eq!(got, expected);
    }

    /// Gives dead letters back, or removes them.
    pub(super) async fn dead(&mut self, s: usize) {
        self.learn(s).await;
        let redrives = self.chance.below(4) > 0;
        let all = self.subscriptions[s].dead.clone();
        let (select, chosen) = match self.chance.below(3) {
            0 => (Select::All, all),
            // Letters of one step have one time, so the oldest are clear only if there is one.
            1 if all.len() == 1 => (Select::Oldest(1), all),
            _ => {
                let chosen: Vec<usize> = all.into_iter().filter(|_| self.chance.below(2) == 0).collect();
                (Select::Ids(chosen.iter().map(|n| self.id_of(*n)).collect()), chosen)
            }
        };
        let name = self.subscriptions[s].name.clone();
        let outcome = if redrives {
            self.bus.hot.redrive(&name, &select).await
        } else {
            self.bus.hot.purge_dead_letters(&name, &select).await
        };
        assert_eq!(outcome.unwrap(), chosen.len() as u64, "{select:?}");
        let subscription = &mut self.subscriptions[s];
        subscription.dead.retain(|n| !chosen.contains(n));
        for n in chosen {
            let owed = subscription.owed.get_mut(&n).unwrap();
            if redrives {
                (owed.at, owed.deliveries, owed.redriven) = (Where::Ready, 0, true);
            } else {
                owed.at = Where::Done;
            }
        }
    }

    /// Learns which messages have expired by now: a pull that had enough did not look at them.
    pub(super) async fn learn(&mut self, s: usize) {
        let letters = self.bus.dead(&self.subscriptions[s].name).await;
        let subscription = &mut self.subscriptions[s];
        for letter in letters {
            let n = self.numbers[&letter.message.id];
            let owed = subscription
                .owed
                .get_mut(&n)
                .unwrap_or_else(|| panic!("{n} is none of {}'s: {letter:?}", subscription.name));
            if owed.at == Where::Expiring {
                owed.at = Where::Dead("expired".to_owned());
                subscription.dead.push(n);
            }
        }
    }
}
