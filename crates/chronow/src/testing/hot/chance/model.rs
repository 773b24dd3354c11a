//! What a topic and its subscriptions must look like.

use std::collections::BTreeMap;

use crate::SubscriptionName;
use crate::hot::Delivery;

/// Where a message of a subscription is, in the model.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Where {
    Ready,
    InFlight(Delivery, bool),
    Deferred,
    Dead(String),
    /// Its time is over, and a pull makes it a dead letter on its way.
    Expiring,
    Done,
}

#[derive(Clone, Debug)]
pub(super) struct Owed {
    pub(super) text: String,
    pub(super) key: Option<String>,
    pub(super) at: Where,
    pub(super) deliveries: u32,
    /// It came back from the dead letters, behind what was published later.
    pub(super) redriven: bool,
}

/// One subscription of the model.
#[derive(Clone, Debug)]
pub(super) struct Modelled {
    pub(super) name: SubscriptionName,
    pub(super) even_only: bool,
    pub(super) owed: BTreeMap<usize, Owed>,
    pub(super) started: u64,
    pub(super) acked: u64,
    /// The order in which messages became dead letters.
    pub(super) dead: Vec<usize>,
}

impl Modelled {
    /// Whether a pull may hand out this message now.
    pub(super) fn available(&self, n: usize) -> bool {
        let owed = &self.owed[&n];
        let Some(key) = &owed.key else { return owed.at == Where::Ready };
        let same = || self.owed.iter().filter(|(_, other)| other.key.as_ref() == Some(key));
        let blocked = same().any(|(m, other)| {
            matches!(other.at, Where::InFlight(..))
                || (!owed.redriven && !other.redriven && *m < n && other.at == Where::Ready)
        });
        owed.at == Where::Ready && !blocked
    }

    pub(super) fn held(&self) -> Vec<usize> {
        self.owed.iter().filter(|(_, owed)| matches!(owed.at, Where::InFlight(..))).map(|(n, _)| *n).collect()
    }

    pub(super) fn count(&self, holds: impl Fn(&Where) -> bool) -> u64 {
        self.owed.values().filter(|owed| holds(&owed.at)).count() as u64
    }
}
