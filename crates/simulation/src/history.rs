//! What happened, line by line, and what each client was answered.

use std::fmt::Write as _;

use chronos_db::ItemId;
use parking_lot::Mutex;

use crate::process::Time;

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// A new item.
    Create,
    /// Other fields.
    Update,
    /// Other fields, if this is the newest version.
    Expect(i64),
    /// Other fields, after a look, while nobody else may write.
    Locked,
    /// A deletion.
    Delete,
    /// An earlier version back.
    Restore(i64),
    /// Everything of the item gone.
    Erase,
    /// Every item as it was at this number of the collection.
    RestoreAll(i64),
    /// A log of so many lines about one new item.
    Import(i64),
    /// What is new into the backup.
    BackUp,
    /// The newest version.
    Latest,
    /// The version with this number.
    Version(i64),
    /// What the item was at this number of the collection.
    AsOfCv(i64),
    /// All items there were at this number.
    ListAsOf(i64),
    /// What the counters say.
    Totals,
}

impl Asked {
    /// Whether it changes something.
    #[must_use]
    pub fn writes(&self) -> bool {
        !matches!(
            self,
            Self::Latest
                | Self::Version(_)
                | Self::AsOfCv(_)
                | Self::ListAsOf(_)
                | Self::Totals
                | Self::BackUp
        )
    }
}

/// A version as a reader saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Of the item.
    pub ov: i64,
    /// Of the collection.
    pub cv: i64,
    /// The operation whose document it is.
    pub by: i64,
}

/// What a client got as its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A version was made.
    Written {
        /// The item.
        id: ItemId,
        /// Its version.
        ov: i64,
        /// The collection's.
        cv: i64,
    },
    /// There was nothing to do.
    Unchanged,
    /// It waits to be done.
    Queued(ItemId, String),
    /// Every item was restored, or is named as one that was not.
    Restored,
    /// Every line is there.
    Imported,
    /// The backup reaches up to this number.
    BackedUp(i64),
    /// The item is erased.
    Erased,
    /// A version.
    Seen(Seen),
    /// There is none.
    Nothing,
    /// Items with their versions.
    Listed(Vec<(ItemId, i64)>),
    /// How many versions created, updated, deleted, and matched the rule, up to a number of the collection.
    Counted([u64; 4], i64),
    /// It was not done.
    Refused(&'static str),
    /// Whether it was done is unknown.
    Unknown,
}

/// One operation of a client.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its number.
    pub number: i64,
    /// The process it ran in.
    pub process: u32,
    /// As which tenant.
    pub tenant: usize,
    /// The item, if it was known beforehand.
    pub item: Option<ItemId>,
    /// What was asked.
    pub asked: Asked,
    /// Its place among all beginnings and ends.
    pub began: u64,
    /// The place of its end; none if no answer came.
    pub ended: Option<u64>,
    /// The answer.
    pub answer: Answer,
    /// The version that was seen under a lock.
    pub saw: Option<i64>,
}

/// All of it.
#[derive(Debug)]
pub struct History {
    time: Time,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lines: String,
    operations: Vec<Operation>,
    moments: u64,
    steps: usize,
}

impl History {
    /// Nothing has happened.
    #[must_use]
    pub fn new(time: Time) -> Self {
        Self { time, inner: Mutex::default() }
    }

    /// Adds a line to the time line.
    pub fn line(&self, text: impl std::fmt::Display) {
        let passed = self.time.passed();
        // Writing to a String cannot fail.
        let _ =
            writeln!(self.inner.lock().lines, "{:>6}.{:03} {text}", passed.as_secs(), passed.subsec_millis());
    }

    /// An operation begins. Returns its number.
    pub fn begin(&self, process: u32, tenant: usize, item: Option<ItemId>, asked: Asked) -> i64 {
        let number = {
            let mut inner = self.inner.lock();
            let number = i64::try_from(inner.operations.len()).unwrap_or(i64::MAX);
            inner.moments += 1;
            let began = inner.moments;
            inner.operations.push(Operation {
                number,
                process,
                tenant,
                item,
                asked: asked.clone(),
                began,
                ended: None,
                answer: Answer::Unknown,
                saw: None,
            });
            number
        };
        let item = item.map_or_else(String::new, |item| format!(" of {item}"));
        self.line(format_args!("p{process} op-{number} asks {asked:?}{item} as tenant {tenant}"));
        number
    }

    /// An operation saw this version under its lock.
    pub fn saw(&self, number: i64, ov: i64) {
        let mut inner = self.inner.lock();
        if let Some(operation) = usize::try_from(number).ok().and_then(|at| inner.operations.get_mut(at)) {
            operation.saw = Some(ov);
        }
    }

    /// An operation ends.
    pub fn end(&self, number: i64, answer: Answer, words: &str) {
        {
            let mut inner = self.inner.lock();
            inner.moments += 1;
            let moment = inner.moments;
            if let Some(operation) = usize::try_from(number).ok().and_then(|at| inner.operations.get_mut(at))
            {
                operation.ended = Some(moment);
                operation.answer = answer.clone();
            }
        }
        self.line(format_args!("     op-{number} is answered {answer:?} {words}"));
    }

    /// Counts steps that are not operations of records.
    pub fn step(&self) {
        self.inner.lock().steps += 1;
    }

    /// How many there were.
    #[must_use]
    pub fn steps(&self) -> usize {
        self.inner.lock().steps
    }

    /// The time line so far.
    #[must_use]
    pub fn text(&self) -> String {
        self.inner.lock().lines.clone()
    }

    /// The operations so far.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation> {
        self.inner.lock().operations.clone()
    }
}
