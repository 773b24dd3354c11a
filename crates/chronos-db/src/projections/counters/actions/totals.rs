//! Reading the totals.

use super::counters::Counters;
use crate::action::Action;
use crate::config::{CheckedRule, RuleScope};
use crate::documents::Filter;
use crate::documents::filter::Test;
use crate::projections::counters::answer::Totals;
use crate::projections::counters::projection::totals_after;
use crate::projections::counters::session::Session;
use crate::telemetry::{Observed, Operation};
use crate::{Error, Result};

/// How often totals are read anew that were replaced, or followed past an erasure, meanwhile.
const ATTEMPTS: u32 = 20;

impl Counters {
    /// The totals, up to the newest version.
    pub fn totals(&self) -> TotalsOf {
        TotalsOf { counters: self.clone() }
    }
}

/// Reads the totals; see [`Counters::totals`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct TotalsOf {
    counters: Counters,
}

impl Action for TotalsOf {
    type Output = Totals;

    fn observed(&self) -> Option<Observed> {
        Some(self.counters.collection.observed(Operation::Counters))
    }

    async fn run(self) -> Result<Totals> {
        let named = self.counters.named("read counters");
        let read = async {
            let session = self.counters.session().await?;
            read(&session).await
        };
        read.await.map_err(named)
    }
}

awaitable!(TotalsOf);

/// The totals, up to the newest version.
pub(super) async fn read(session: &Session) -> Result<Totals> {
    for _ in 0..ATTEMPTS {
        let stored = session.stored().await?;
        let mut change = session.tail(&stored).await?;
        let rows = session.store.rows(&mut change).await?;
        if !change.rows.is_empty() && !session.is_current(&change).await? {
            continue;
        }
        let present = totals_after(&stored.record, &change, &rows, stored.cv);
        let mut totals = Totals::of(&present, &session.store.owner, session.rules.rules.iter());
        for rule in session.rules.rules.iter().filter(|rule| rule.is_gauge) {
            let live = gauge(session, rule).await?;
            if let Some(rule_totals) = totals.rules.get_mut(&rule.name) {
                rule_totals.gauge = Some(live);
            }
        }
        return Ok(totals);
    }
    Err(Error::database("the counters changed again and again while they were read").retryable())
}

/// How many live items match. Heads say it: they are no older than what is settled.
async fn gauge(session: &Session, rule: &CheckedRule) -> Result<u64> {
    let matching = match rule.scope {
        RuleScope::Meta => rule.when_below("metaIndexed")?,
        RuleScope::Payload => Filter::eq("rules", rule.name.as_str()),
    };
    let live = Filter::eq("deletedAt", bson::Bson::Null)
        .and(Filter::Field("erased".into(), Test::Ne(true.into())))
        .and(matching);
    let index = &session.workers.index;
    index.documents.count(&index.names.head, session.log.scope.narrow(live), u64::MAX >> 1).await
}
