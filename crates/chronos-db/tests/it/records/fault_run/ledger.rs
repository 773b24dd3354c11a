//! What every caller asked for, and was answered.

use std::collections::{BTreeMap, BTreeSet};

use chronos_db::{ItemId, Result, Written};
use parking_lot::Mutex;

use super::may_pass;

/// How a write ended for its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It is this version.
    Acknowledged { ov: i64, cv: i64 },
    /// It waits, and will take place once.
    Queued,
    /// Nobody knows.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Attempt {
    pub(super) request: String,
    /// None of a creation that was not answered.
    pub(super) item: Option<ItemId>,
    /// Whether one task alone writes the item, one write after the other.
    pub(super) is_own: bool,
    /// The request whose content the version has.
    pub(super) content: String,
    pub(super) end: End,
}

/// An order that was inserted with its entities.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) number: String,
    pub(super) id: Option<ItemId>,
}

#[derive(Debug, Default)]
pub(super) struct Ledger {
    attempts: Mutex<Vec<Attempt>>,
    /// Items that were asked to be erased, with the words that only they hold; whether that was certified.
    erased: Mutex<BTreeMap<ItemId, (String, bool)>>,
    orders: Mutex<Vec<Order>>,
    errors: Mutex<BTreeSet<String>>,
}

impl Ledger {
    /// Notes how a write ended; none if that is not known.
    ///
    /// # Panics
    /// If it was refused: nothing that is asked for here is wrong.
    pub(super) fn note(
        &self,
        result: Result<Written>,
        (request, content): (&str, &str),
        (item, is_own): (Option<ItemId>, bool),
    ) -> Option<Written> {
        let (item, end) = match &result {
            Ok(written) if written.queued.is_some() => (Some(written.id), End::Queued),
            Ok(written) => (Some(written.id), End::Acknowledged { ov: written.ov, cv: written.cv }),
            Err(error) => {
                assert!(may_pass(error), "{request} was refused: {error} ({error:?})");
                self.failed("write", error);
                (item, End::Unknown)
            }
        };
        let (request, content) = (request.to_owned(), content.to_owned());
        self.attempts.lock().push(Attempt { request, item, is_own, content, end });
        result.ok()
    }

    pub(super) fn failed(&self, what: &str, error: &chronos_db::Error) {
        self.errors.lock().insert(format!(
            "{what}: {} {}",
            error.code(),
            error.operation().unwrap_or_default()
        ));
    }

    pub(super) fn to_be_erased(&self, item: ItemId, words: &str) {
        self.erased.lock().insert(item, (words.to_owned(), false));
    }

    pub(super) fn is_certified(&self, item: &ItemId) {
        self.erased.lock().get_mut(item).unwrap().1 = true;
    }

    pub(super) fn ordered(&self, number: String, id: Option<ItemId>) {
        self.orders.lock().push(Order { number, id });
    }

    pub(super) fn attempts(&self) -> Vec<Attempt> {
        self.attempts.lock().clone()
    }

    pub(super) fn erased(&self) -> BTreeMap<ItemId, (String, bool)> {
        self.erased.lock().clone()
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        self.orders.lock().clone()
    }

    /// A version that was acknowledged, the `n`th of them or so.
    pub(super) fn acknowledged(&self, n: u64) -> Option<(ItemId, i64, i64, String)> {
        let attempts = self.attempts.lock();
        let at = usize::try_from(n).unwrap_or_default() % attempts.len().max(1);
        attempts.get(at).and_then(|attempt| match (attempt.end, attempt.item) {
            (End::Acknowledged { ov, cv }, Some(item)) => Some((item, ov, cv, attempt.content.clone())),
            _ => None,
        })
    }

    pub(super) fn summary(&self) -> String {
        let attempts = self.attempts.lock();
        let count = |is: fn(&End) -> bool| attempts.iter().filter(|attempt| is(&attempt.end)).count();
        let acknowledged = count(|end| matches!(end, End::Acknowledged { .. }));
        let (queued, unknown) = (count(|end| *end == End::Queued), count(|end| *end == End::Unknown));
        let erased = self.erased.lock();
        let certified = erased.values().filter(|(_, certified)| *certified).count();
        let orders = self.orders.lock();
        let inserted = orders.iter().filter(|order| order.id.is_some()).count();
        format!(
            "{acknowledged} writes acknowledged, {queued} queued, {unknown} unknown, {certified} of {} erasures certified, {inserted} of {} orders acknowledged, errors {:?}",
            erased.len(),
            orders.len(),
            self.errors.lock()
        )
    }
}
