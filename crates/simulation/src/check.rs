//! What must be true of a history and the log that it left.
//!
//! Latest reads are linearizable if, for each item, no read sees a version below one that was known before the
//! read began: versions of an item are numbered in the order of their commits, by a unique index, so the
//! numbers are the order of the writes, and nothing else need be searched for.

use std::collections::{BTreeMap, BTreeSet};

use chronos_db::ItemId;

use crate::client::colour;
use crate::history::{Answer, Asked, Operation, Seen};
use crate::log::{Log, Row};
use crate::setting::{COPY, RULE, Setting};

/// Where backups lie, which have their own check.
const BACKUPS: &str = "__backups__/";

/// What is wrong, in sentences.
pub(crate) type Violations = Vec<String>;

/// Checks what the log says by itself: numbers and times.
#[must_use]
pub(crate) fn log(log: &Log) -> Violations {
    let mut wrong: Violations =
        log.contradictions.iter().map(|what| format!("a number has two rows: {what}")).collect();
    for (expected, row) in log.rows.iter().enumerate() {
        if row.cv != expected as i64 {
            wrong.push(format!("cv {expected} has no row, or {} has two: next is {row:?}", row.cv));
            break;
        }
    }
    if log.counter < log.rows.len() as i64 - 1 {
        wrong.push(format!("the counter is at {} with {} rows", log.counter, log.rows.len()));
    }
    for (item, rows) in &log.items {
        for (expected, row) in rows.iter().enumerate() {
            if row.ov != expected as i64 {
                wrong.push(format!("{item} has no version {expected}, or two of {}", row.ov));
                break;
            }
        }
        for pair in rows.windows(2) {
            if pair[0].cv >= pair[1].cv || pair[0].at >= pair[1].at {
                wrong.push(format!("{item}: cv or at does not grow from {:?} to {:?}", pair[0], pair[1]));
            }
        }
        let Some(erased) = rows.iter().position(|row| row.op == "ERASE") else { continue };
        for row in &rows[erased + 1..] {
            wrong.push(format!("{item} was erased in version {erased} and has {row:?} after that"));
        }
        for row in rows[..erased].iter().filter(|row| row.op != "ERASED") {
            wrong.push(format!("{item} was erased in version {erased}, and yet there is {row:?}"));
        }
    }
    wrong
}

/// Checks what writers were answered.
#[must_use]
pub(crate) fn writes(log: &Log, setting: &Setting, operations: &[Operation]) -> Violations {
    let mut wrong = Vec::new();
    let mut rows: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    for row in &log.rows {
        match row.by {
            Some(by) => rows.entry(by).or_default().push(row),
            None if row.is_bare() && row.op != "ERASE" => {}
            // An erasure of what waited to be created, with which a worker went on.
            None if row.op == "ERASE" && is_asked_to_go(operations, &row.item) => {}
            None => wrong.push(format!("nobody made {row:?}")),
        }
    }
    for operation in operations.iter().filter(|operation| operation.asked.writes()) {
        let made = rows.get(&operation.number).map_or(&[][..], Vec::as_slice);
        if !took_place_once(operation, made) {
            wrong.push(format!("op-{} took place {} times: {made:?}", operation.number, made.len()));
        }
        let stamp = setting.stamp(operation.tenant);
        for row in made.iter().filter(|row| row.tenant.as_deref() != stamp) {
            wrong.push(format!("{operation:?} made a version of another tenant: {row:?}"));
        }
        match &operation.answer {
            Answer::Written { id, ov, cv } => {
                let row = log.row(&id.to_string(), *ov);
                let right = row.is_some_and(|row| {
                    row.cv == *cv && (row.by == Some(operation.number) || row.op == "ERASED")
                });
                if !right {
                    wrong.push(format!("{operation:?} was acknowledged, and there is {row:?}"));
                }
                if let Asked::Expect(expected) = operation.asked
                    && *ov != expected + 1
                {
                    wrong.push(format!("{operation:?} does not follow the version that it expects"));
                }
                if let Some(saw) = operation.saw
                    && *ov != saw + 1
                {
                    wrong.push(format!("{operation:?} does not follow what was seen under the lock"));
                }
            }
            Answer::Erased => {
                let item = operation.item.map(|item| item.to_string()).unwrap_or_default();
                // One that waited to be created is not created any more.
                if !log.is_erased(&item) && log.items.contains_key(&item) {
                    wrong.push(format!("{operation:?}, and the item is not erased"));
                }
            }
            Answer::Imported => {
                let Asked::Import(lines) = operation.asked else { continue };
                // What was erased since says no longer who made it.
                if made.len() as i64 != lines && !made.is_empty() {
                    wrong.push(format!("{operation:?} has all its lines, and there is {made:?}"));
                }
            }
            Answer::Refused(_) | Answer::Unchanged if !made.is_empty() => {
                wrong.push(format!("{operation:?} was not done, and there is {made:?}"));
            }
            _ => {}
        }
        if let Asked::RestoreAll(cv) = operation.asked {
            wrong.extend(made.iter().filter_map(|row| restored(log, row, cv)));
        }
    }
    wrong
}

/// Whether the erasure of an item was asked for.
fn is_asked_to_go(operations: &[Operation], item: &str) -> bool {
    let of = |operation: &Operation| operation.item.is_some_and(|id| id.to_string() == item);
    operations.iter().any(|operation| operation.asked == Asked::Erase && of(operation))
}

/// Whether there is no more of an operation than there may be.
fn took_place_once(operation: &Operation, made: &[&Row]) -> bool {
    let items: BTreeSet<&str> = made.iter().map(|row| &*row.item).collect();
    match operation.asked {
        Asked::Import(lines) => made.len() as i64 <= lines && items.len() <= 1,
        Asked::RestoreAll(_) => made.len() == items.len(),
        _ => made.len() <= 1,
    }
}

/// Whether a row of the restoration of all is what its item was then.
fn restored(log: &Log, row: &Row, cv: i64) -> Option<String> {
    let then = log.items.get(&row.item)?.iter().rfind(|other| other.cv <= cv);
    let right = match (row.op.as_str(), then) {
        ("ERASED", _) => true,
        ("DELETE", then) => then.is_none_or(Row::deletes),
        (_, Some(then)) => {
            !then.deletes() && log.content(&row.item, row.ov) == log.content(&row.item, then.ov)
        }
        (_, None) => false,
    };
    (!right).then(|| format!("as of cv {cv} it was {then:?}, and it was restored as {row:?}"))
}

/// Checks the queue of writes that wait: each was done once, those of an item in their order.
#[must_use]
pub(crate) fn queued(
    log: &Log,
    setting: &Setting,
    operations: &[Operation],
    dead: &BTreeSet<String>,
) -> Violations {
    let mut wrong = Vec::new();
    let mut made: BTreeMap<i64, (&str, i64)> = BTreeMap::new();
    for row in &log.rows {
        made.extend(row.by.map(|by| (by, (&*row.item, row.ov))));
    }
    for operation in operations {
        let Answer::Queued(id, request) = &operation.answer else { continue };
        let (id, took_place) = (id.to_string(), made.contains_key(&operation.number));
        let erased = log.is_erased(&id) || is_asked_to_go(operations, &id);
        let stamp = setting.stamp(operation.tenant);
        let is_own = |rows: &Vec<Row>| rows.first().is_none_or(|first| first.tenant.as_deref() == stamp);
        let must = matches!(operation.asked, Asked::Create | Asked::Update)
            && !erased
            && log.items.get(&id).is_none_or(is_own);
        if dead.contains(request) && took_place {
            wrong.push(format!("{operation:?} was given up, and took place"));
        }
        if must && !took_place && !dead.contains(request) {
            wrong.push(format!("{operation:?} was never done"));
        }
        let gone = log.items.get(&id).is_none_or(|rows| rows.iter().any(Row::deletes));
        if must && dead.contains(request) && (operation.asked == Asked::Create || !gone) {
            wrong.push(format!("{operation:?} was given up, and could have been done"));
        }
    }
    let answered = |operation: &&Operation| {
        matches!(operation.answer, Answer::Queued(..) | Answer::Written { .. }) && operation.ended.is_some()
    };
    for first in operations.iter().filter(answered) {
        let (Answer::Queued(..), Some((item, ov))) = (&first.answer, made.get(&first.number)) else {
            continue;
        };
        // What is written under a lock never waits, so it does not wait for others either.
        let waits = |other: &&Operation| other.asked != Asked::Locked && Some(other.began) > first.ended;
        let later = operations.iter().filter(answered).filter(waits);
        for later in later {
            if made.get(&later.number).is_some_and(|(of, at)| of == item && at < ov) {
                wrong.push(format!("{later:?} overtook {first:?}"));
            }
        }
    }
    wrong
}

/// Checks what counters said: they are what the rows say.
#[must_use]
pub(crate) fn counted(
    log: &Log,
    setting: &Setting,
    tenant: usize,
    counted: &[u64; 4],
    cv: i64,
) -> Option<String> {
    let mut right = [0; 4];
    let stamp = setting.stamp(tenant);
    for row in log.rows.iter().filter(|row| row.cv <= cv && row.tenant.as_deref() == stamp) {
        let as_what = if row.is_bare() { row.was.as_deref() } else { Some(&*row.op) };
        match as_what {
            Some("CREATE") => right[0] += 1,
            Some("UPDATE" | "RESTORE") => right[1] += 1,
            Some("DELETE") => right[2] += 1,
            _ => continue,
        }
        let matches = if row.is_bare() {
            row.rules.iter().any(|rule| rule == RULE)
        } else {
            log.content(&row.item, row.ov).is_some_and(|by| colour(by) == RULE)
        };
        right[3] += u64::from(matches);
    }
    (right != *counted).then(|| format!("up to cv {cv} counters say {counted:?}, and rows {right:?}"))
}

/// What is known of one item before some moment.
struct Before<'o> {
    /// The newest version that anybody has seen.
    known_ov: i64,
    /// An erasure of it was acknowledged.
    erased: Option<&'o Operation>,
}

struct Reads<'o> {
    log: &'o Log,
    setting: &'o Setting,
    operations: &'o [Operation],
}

impl<'o> Reads<'o> {
    fn of(&self, item: &str) -> impl Iterator<Item = &'o Operation> {
        let item = item.to_owned();
        self.operations.iter().filter(move |operation| match &operation.answer {
            Answer::Written { id, .. } => id.to_string() == item,
            _ => operation.item.is_some_and(|id| id.to_string() == item),
        })
    }

    fn before(&self, item: &str, moment: u64) -> Before<'o> {
        let mut before = Before { known_ov: -1, erased: None };
        for operation in self.of(item).filter(|other| other.ended.is_some_and(|ended| ended < moment)) {
            match (&operation.answer, &operation.asked) {
                (Answer::Written { ov, .. }, _) | (Answer::Seen(Seen { ov, .. }), Asked::Latest) => {
                    before.known_ov = before.known_ov.max(*ov);
                }
                (Answer::Erased, _) => before.erased = Some(operation),
                _ => {}
            }
        }
        before
    }

    /// Whether an erasure of the item had begun before some moment.
    fn may_be_erased(&self, item: &str, moment: u64) -> bool {
        self.log.is_erased(item)
            && self.of(item).any(|other| other.asked == Asked::Erase && other.began < moment)
    }

    /// Whether the item may be absent for who sees no version below `known_ov`.
    fn may_be_absent(&self, item: &str, known_ov: i64, moment: u64) -> bool {
        let deleted = |row: &Row| row.ov >= known_ov && row.deletes();
        // No answer says that it is there: it may wait to be created.
        known_ov < 0
            || self.may_be_erased(item, moment)
            || self.log.items.get(item).is_some_and(|rows| rows.iter().any(deleted))
    }

    fn content_is(&self, item: &str, seen: &Seen) -> bool {
        let Some(row) = self.log.row(item, seen.ov) else { return false };
        row.cv == seen.cv && (row.is_bare() || self.log.content(item, seen.ov) == Some(seen.by))
    }

    /// Whether the item is another tenant's.
    fn is_foreign(&self, operation: &Operation, item: &str) -> bool {
        let stamp = self.setting.stamp(operation.tenant);
        self.log.items.get(item).is_some_and(|rows| rows.iter().any(|row| row.tenant.as_deref() != stamp))
    }

    fn problem(&self, operation: &Operation, item: &str, ended: u64) -> Option<String> {
        if self.is_foreign(operation, item) {
            let shown = matches!(
                operation.answer,
                Answer::Written { .. } | Answer::Seen(_) | Answer::Erased | Answer::Unchanged
            );
            return shown.then(|| "is of another tenant's item".to_owned());
        }
        let before = self.before(item, operation.began);
        if let Some(erasure) = before.erased
            && matches!(operation.answer, Answer::Written { .. } | Answer::Seen(_))
        {
            return Some(format!("comes after the erasure op-{}", erasure.number));
        }
        if let Answer::Seen(seen) = &operation.answer
            && !self.content_is(item, seen)
        {
            return Some(format!("is another version than {:?}", self.log.row(item, seen.ov)));
        }
        match (&operation.asked, &operation.answer) {
            (Asked::Latest, Answer::Seen(seen)) => {
                (seen.ov < before.known_ov).then(|| format!("version {} was known", before.known_ov))
            }
            (Asked::Latest, Answer::Nothing)
            | (
                Asked::Update | Asked::Expect(_) | Asked::Delete | Asked::Locked,
                Answer::Refused("NOT_FOUND"),
            ) => {
                let absent = self.may_be_absent(item, before.known_ov, ended);
                (!absent).then(|| format!("version {} was known, and nothing deletes it", before.known_ov))
            }
            (Asked::Expect(ov), Answer::Refused("OPTIMISTIC_LOCK")) => {
                let passed = self.log.row(item, *ov + 1).is_some() || self.may_be_erased(item, ended);
                (!passed).then(|| "is what is expected".to_owned())
            }
            (Asked::Erase, Answer::Refused("NOT_FOUND")) => (before.known_ov >= 0
                && !self.may_be_erased(item, ended))
            .then(|| "nobody erased it".to_owned()),
            (Asked::Version(ov), Answer::Seen(seen)) => {
                (seen.ov != *ov).then(|| "is not the version asked for".to_owned())
            }
            (Asked::Version(ov), Answer::Nothing) => {
                let absent = self.may_be_erased(item, ended)
                    || *ov > before.known_ov
                    || self.log.row(item, *ov).is_some_and(Row::deletes);
                (!absent).then(|| "the version was acknowledged".to_owned())
            }
            (Asked::AsOfCv(cv), Answer::Seen(_) | Answer::Nothing) => self.as_of(operation, item, *cv, ended),
            _ => None,
        }
    }

    fn as_of(&self, operation: &Operation, item: &str, cv: i64, ended: u64) -> Option<String> {
        let rows = self.log.items.get(item).map_or(&[][..], Vec::as_slice);
        let then = rows.iter().rfind(|row| row.cv <= cv && row.op != "ERASE");
        let right = match &operation.answer {
            Answer::Seen(seen) => then.is_some_and(|row| row.ov == seen.ov),
            _ => then.is_none_or(Row::deletes) || self.may_be_erased(item, ended),
        };
        (!right).then(|| format!("as of cv {cv} it was {then:?}"))
    }
}

impl Reads<'_> {
    /// A list of the past has what there was then, but for what was erased since.
    fn listed(&self, operation: &Operation, cv: i64, listed: &[(ItemId, i64)], ended: u64) -> Option<String> {
        let stamp = self.setting.stamp(operation.tenant);
        let listed: BTreeMap<String, i64> = listed.iter().map(|(id, ov)| (id.to_string(), *ov)).collect();
        for (item, rows) in &self.log.items {
            let then = rows.iter().rfind(|row| row.cv <= cv && row.op != "ERASE");
            let then = then.filter(|row| !row.deletes() && row.tenant.as_deref() == stamp);
            let (then, shown) = (then.map(|row| row.ov), listed.get(item).copied());
            if then != shown && !(shown.is_none() && self.may_be_erased(item, ended)) {
                return Some(format!("has {item} in version {shown:?}, and as of cv {cv} it was {then:?}"));
            }
        }
        let unknown = listed.keys().find(|item| !self.log.items.contains_key(*item));
        unknown.map(|item| format!("has {item}, which nobody made"))
    }
}

/// Checks what readers were answered.
#[must_use]
pub(crate) fn reads(log: &Log, setting: &Setting, operations: &[Operation]) -> Violations {
    let reads = Reads { log, setting, operations };
    let mut wrong = Vec::new();
    for operation in operations {
        let Some(ended) = operation.ended else { continue };
        if let (Asked::ListAsOf(cv), Answer::Listed(listed)) = (&operation.asked, &operation.answer)
            && let Some(problem) = reads.listed(operation, *cv, listed, ended)
        {
            wrong.push(format!("{operation:?} {problem}"));
        }
        if let Answer::Counted(counts, cv) = &operation.answer {
            let problem = counted(log, setting, operation.tenant, counts, *cv);
            wrong.extend(problem.map(|problem| format!("{operation:?}: {problem}")));
        }
        let Some(item) = operation.item else { continue };
        if let Some(problem) = reads.problem(operation, &item.to_string(), ended) {
            wrong.push(format!("{operation:?} {problem}"));
        }
    }
    wrong
}

/// Checks that nothing lies in the object storage that no version names, and nothing waits.
#[must_use]
pub(crate) fn leftovers(log: &Log, keys: &[String]) -> Violations {
    let of_rows = log.rows.iter().flat_map(|row| &row.keys);
    let named: BTreeSet<&String> = of_rows.chain(&log.manifests).collect();
    let mut wrong: Violations = keys
        .iter()
        .filter(|key| !named.contains(key) && !key.starts_with(BACKUPS) && !key.contains(COPY))
        .map(|key| format!("no version names the object {key}"))
        .collect();
    wrong.extend(log.notes.iter().map(|note| format!("the note {note} was never worked off")));
    wrong
}

/// Checks that everything was stored.
#[must_use]
pub(crate) fn drained(log: &Log) -> Violations {
    log.rows.iter().filter(|row| row.waits).map(|row| format!("never stored: {row:?}")).collect()
}

/// Checks that each process that committed a version has stored it, if it lived on.
#[must_use]
pub(crate) fn stored_by_the_living(log: &Log, operations: &[Operation], living: &[u32]) -> Violations {
    let lives = |row: &&Row| {
        let by = row.by.and_then(|by| operations.get(usize::try_from(by).ok()?));
        // A writer without an answer does not know that there is anything to store; a worker finds it.
        by.is_some_and(|operation| {
            living.contains(&operation.process) && matches!(operation.answer, Answer::Written { .. })
        })
    };
    let waiting = log.rows.iter().filter(|row| row.waits).filter(lives);
    waiting.map(|row| format!("its process lives and has not stored {row:?}")).collect()
}
