//! What must be true of a history and the log that it left.
//!
//! Latest reads are linearizable if, for each item, no read sees a version below one that was known before the
//! read began: versions of an item are numbered in the order of their commits, by a unique index, so the
//! numbers are the order of the writes, and nothing else need be searched for.

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{Asked, Operation, Seen, Told};
use crate::log::{Log, Row};

/// What is wrong, in sentences.
pub(crate) type Violations = Vec<String>;

/// Checks what the log says by itself: numbers and times.
#[must_use]
pub(crate) fn log(log: &Log) -> Violations {
    let mut wrong = Vec::new();
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

/// Checks what writers were told.
#[must_use]
pub(crate) fn writes(log: &Log, operations: &[Operation]) -> Violations {
    let mut wrong = Vec::new();
    let mut rows: BTreeMap<i64, Vec<&Row>> = BTreeMap::new();
    for row in &log.rows {
        match row.by {
            Some(by) => rows.entry(by).or_default().push(row),
            None if row.is_bare() && row.op != "ERASE" => {}
            None => wrong.push(format!("nobody made {row:?}")),
        }
    }
    for operation in operations.iter().filter(|operation| operation.asked.writes()) {
        let made = rows.get(&operation.number).map_or(&[][..], Vec::as_slice);
        if made.len() > 1 {
            wrong.push(format!("op-{} took place {} times: {made:?}", operation.number, made.len()));
        }
        match &operation.told {
            Told::Written { id, ov, cv } => {
                let row = log.row(&id.to_string(), *ov);
                let right = row.is_some_and(|row| {
                    row.cv == *cv && (row.by == Some(operation.number) || row.op == "ERASED")
                });
                if !right {
                    wrong.push(format!("{operation:?} was acknowledged, and there is {row:?}"));
                }
            }
            Told::Erased if !operation.item.is_some_and(|item| log.is_erased(&item.to_string())) => {
                wrong.push(format!("{operation:?}, and the item is not erased"));
            }
            Told::Refused(_) | Told::Unchanged if !made.is_empty() => {
                wrong.push(format!("{operation:?} was not done, and there is {made:?}"));
            }
            _ => {}
        }
    }
    wrong
}

/// What is known of one item before some moment.
struct Before<'o> {
    /// The newest version anybody was told of.
    known_ov: i64,
    /// Somebody was told that it is erased.
    erased: Option<&'o Operation>,
}

struct Reads<'o> {
    log: &'o Log,
    operations: &'o [Operation],
}

impl<'o> Reads<'o> {
    fn of(&self, item: &str) -> impl Iterator<Item = &'o Operation> {
        let item = item.to_owned();
        self.operations.iter().filter(move |operation| match &operation.told {
            Told::Written { id, .. } => id.to_string() == item,
            _ => operation.item.is_some_and(|id| id.to_string() == item),
        })
    }

    fn before(&self, item: &str, moment: u64) -> Before<'o> {
        let mut before = Before { known_ov: -1, erased: None };
        for operation in self.of(item).filter(|other| other.ended.is_some_and(|ended| ended < moment)) {
            match (&operation.told, &operation.asked) {
                (Told::Written { ov, .. }, _) | (Told::Seen(Seen { ov, .. }), Asked::Latest) => {
                    before.known_ov = before.known_ov.max(*ov);
                }
                (Told::Erased, _) => before.erased = Some(operation),
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
        self.may_be_erased(item, moment)
            || self.log.items.get(item).is_some_and(|rows| rows.iter().any(deleted))
    }

    fn content_is(&self, item: &str, seen: &Seen) -> bool {
        let Some(row) = self.log.row(item, seen.ov) else { return false };
        row.cv == seen.cv && (row.is_bare() || self.log.content(item, seen.ov) == Some(seen.by))
    }

    fn problem(&self, operation: &Operation, item: &str, ended: u64) -> Option<String> {
        let before = self.before(item, operation.began);
        if let Some(erasure) = before.erased
            && matches!(operation.told, Told::Written { .. } | Told::Seen(_))
        {
            return Some(format!("comes after the erasure op-{}", erasure.number));
        }
        if let Told::Seen(seen) = &operation.told
            && !self.content_is(item, seen)
        {
            return Some(format!("is another version than {:?}", self.log.row(item, seen.ov)));
        }
        match (&operation.asked, &operation.told) {
            (Asked::Latest, Told::Seen(seen)) => {
                (seen.ov < before.known_ov).then(|| format!("version {} was known", before.known_ov))
            }
            (Asked::Latest, Told::Nothing) | (Asked::Update | Asked::Delete, Told::Refused("NOT_FOUND")) => {
                let absent = self.may_be_absent(item, before.known_ov, ended);
                (!absent).then(|| format!("version {} was known, and nothing deletes it", before.known_ov))
            }
            (Asked::Erase, Told::Refused("NOT_FOUND")) => {
                (!self.may_be_erased(item, ended)).then(|| "nobody erased it".to_owned())
            }
            (Asked::Version(ov), Told::Seen(seen)) => {
                (seen.ov != *ov).then(|| "is not the version asked for".to_owned())
            }
            (Asked::Version(ov), Told::Nothing) => {
                let absent =
                    self.may_be_erased(item, ended) || self.log.row(item, *ov).is_some_and(Row::deletes);
                (!absent).then(|| "the version was acknowledged".to_owned())
            }
            (Asked::AsOfCv(cv), Told::Seen(_) | Told::Nothing) => self.as_of(operation, item, *cv, ended),
            _ => None,
        }
    }

    fn as_of(&self, operation: &Operation, item: &str, cv: i64, ended: u64) -> Option<String> {
        let rows = self.log.items.get(item).map_or(&[][..], Vec::as_slice);
        let then = rows.iter().rfind(|row| row.cv <= cv && row.op != "ERASE");
        let right = match &operation.told {
            Told::Seen(seen) => then.is_some_and(|row| row.ov == seen.ov),
            _ => then.is_none_or(Row::deletes) || self.may_be_erased(item, ended),
        };
        (!right).then(|| format!("as of cv {cv} it was {then:?}"))
    }
}

/// Checks what readers were told.
#[must_use]
pub(crate) fn reads(log: &Log, operations: &[Operation]) -> Violations {
    let reads = Reads { log, operations };
    let mut wrong = Vec::new();
    for operation in operations {
        let (Some(item), Some(ended)) = (operation.item, operation.ended) else { continue };
        if let Some(problem) = reads.problem(operation, &item.to_string(), ended) {
            wrong.push(format!("{operation:?} {problem}"));
        }
    }
    wrong
}

/// Checks that nothing lies in the object storage that no version names, and nothing waits.
#[must_use]
pub(crate) fn leftovers(log: &Log, keys: &[String]) -> Violations {
    let named: BTreeSet<&String> = log.rows.iter().flat_map(|row| &row.keys).collect();
    let mut wrong: Violations = keys
        .iter()
        .filter(|key| !named.contains(key))
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

/// Checks that whoever committed a version has stored it, if it lived on.
#[must_use]
pub(crate) fn stored_by_the_living(log: &Log, operations: &[Operation], living: &[u32]) -> Violations {
    let lives = |row: &&Row| {
        let by = row.by.and_then(|by| operations.get(usize::try_from(by).ok()?));
        // Whoever had no answer does not know that there is anything to store; a worker finds it.
        by.is_some_and(|operation| {
            living.contains(&operation.process) && matches!(operation.told, Told::Written { .. })
        })
    };
    let waiting = log.rows.iter().filter(|row| row.waits).filter(lives);
    waiting.map(|row| format!("its process lives and has not stored {row:?}")).collect()
}
