//! Marks of erasures: which groups of a rule are to be computed once in all their timeframes, and from when on their
//! results hold.
//!
//! A run with a window computes the timeframes alone that its window has all of. An erasure removes the results of
//! the groups that the item was in, of whatever timeframe, so it leaves a mark for each of these groups first. The
//! next run computes them also where its window does not reach, and notes that in the mark. Whatever is
//! killed: a mark that is not done is computed by the run after, and results of the group with a lower number than
//! the mark go at the end of every run. So it stays for a day after it was done, for a run from before the
//! erasure that ends late.

use std::collections::{HashMap, HashSet};

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;

use super::result::{ARGUMENTS, GROUP, RUN, Stamp};
use super::store::{BATCH, ResultStore};
use crate::documents::filter::Test;
use crate::documents::{Batch, Filter, Guard, Scan, Write};
use crate::records::{int, number};
use crate::{Result, Timestamp};

/// When it was computed.
const DONE_AT: &str = "doneAt";
/// The same in a mark of all groups as in the others the digest of theirs.
const ALL: &str = "*";
/// How long a mark stays after it was done.
const KEPT_MILLIS: i64 = 24 * 60 * 60 * 1000;
/// Groups that are marked one by one. With more, all groups are computed.
const MAX_GROUPS: usize = 10_000;

/// The groups that are computed whatever the window is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Owed {
    All,
    Groups(HashSet<String>),
}

impl Owed {
    pub(super) fn has(&self, group: &str) -> bool {
        match self {
            Self::All => true,
            Self::Groups(groups) => groups.contains(group),
        }
    }
}

struct Mark {
    id: String,
    group: String,
    /// Results of the group with lower numbers are out of date.
    run: i64,
    done_at: Option<Timestamp>,
}

impl Mark {
    fn read(stored: &Document) -> Option<Self> {
        Some(Self {
            id: stored.get_str("_id").ok()?.to_owned(),
            group: stored.get_str(GROUP).ok()?.to_owned(),
            run: number(stored, RUN)?,
            done_at: stored.get_datetime(DONE_AT).ok().map(|at| Timestamp::from(*at)),
        })
    }

    fn stored(&self) -> Document {
        let mut stored = doc! { "_id": &self.id, GROUP: &self.group, RUN: int(self.run) };
        if let Some(at) = self.done_at {
            stored.insert(DONE_AT, at);
        }
        stored
    }
}

/// The marks that a run has found at its beginning, and that are not done.
pub(super) struct OpenMarks(Vec<Mark>);

impl OpenMarks {
    /// What is to be computed for them; none if there are none.
    pub(super) fn owed(&self) -> Option<Owed> {
        let is_all = self.0.len() > MAX_GROUPS || self.0.iter().any(|mark| mark.group == ALL);
        match self.0.as_slice() {
            [] => None,
            _ if is_all => Some(Owed::All),
            marks => Some(Owed::Groups(marks.iter().map(|mark| mark.group.clone()).collect())),
        }
    }
}

impl ResultStore {
    fn mark_id(&self, group: &str) -> String {
        format!("{}|erased|{group}", self.state_id())
    }

    async fn marks(&self) -> Result<Vec<Mark>> {
        let id = |test: Test| Filter::Field("_id".to_owned(), test);
        let (from, to) = (self.mark_id(""), self.mark_id("~"));
        let filter = id(Test::Gte(from.into())).and(id(Test::Lt(to.into())));
        let found = self.documents.scan(&self.states, Scan { filter, ..Scan::default() });
        found.try_filter_map(|stored| async move { Ok(Mark::read(&stored)) }).try_collect().await
    }

    /// The groups that are still to be computed. Asked for after the run has taken its number.
    pub(super) async fn open_marks(&self) -> Result<OpenMarks> {
        let mut marks = self.marks().await?;
        marks.retain(|mark| mark.done_at.is_none());
        Ok(OpenMarks(marks))
    }

    /// Puts marks unless there are newer ones.
    async fn put_marks(&self, marks: &[Mark]) -> Result<()> {
        for chunk in marks.chunks(BATCH) {
            let mut batch = Batch::new();
            for mark in chunk {
                batch.push(&self.states, Write::put(mark.stored(), Guard::Newer { field: RUN.into() }));
            }
            self.documents.apply(batch).await?;
        }
        Ok(())
    }

    /// Notes that results of these groups, by their digests, or of all, are out of date.
    pub(super) async fn mark(&self, erasure: &Stamp, groups: Option<Vec<String>>) -> Result<()> {
        let groups = groups.unwrap_or_else(|| vec![ALL.to_owned()]);
        let mark = |group: String| Mark { id: self.mark_id(&group), group, run: erasure.run, done_at: None };
        self.put_marks(&groups.into_iter().map(mark).collect::<Vec<_>>()).await?;
        self.env.fail.hit("analytics.after_marks")
    }

    /// Notes that a run has put all results of these groups. One of an erasure that came later stays open; one that
    /// came before the run began is done with it.
    pub(super) async fn close(&self, run: &Stamp, OpenMarks(mut marks): OpenMarks) -> Result<()> {
        if marks.is_empty() {
            return Ok(());
        }
        for mark in &mut marks {
            (mark.run, mark.done_at) = (run.run, Some(run.computed_at));
        }
        self.put_marks(&marks).await?;
        self.env.fail.hit("analytics.after_settling")
    }

    /// Removes what the marks say is out of date, then marks that were done long ago. Returns how many results went.
    pub(super) async fn sweep(&self) -> Result<u64> {
        let marks = self.marks().await?;
        let Some(newest) = marks.iter().map(|mark| mark.run).max() else { return Ok(0) };
        let from: HashMap<&str, i64> = marks.iter().map(|mark| (mark.group.as_str(), mark.run)).collect();
        let of_all = from.get(ALL).copied().unwrap_or(i64::MIN);
        let grouped = Filter::exists(ARGUMENTS, true);
        let is_stale = |result: &Document| {
            let group = result.get_str(GROUP).unwrap_or_default();
            let holds_from = from.get(group).copied().unwrap_or(i64::MIN).max(of_all);
            number(result, RUN).is_some_and(|run| run < holds_from)
        };
        let removed = self.remove_if(newest, grouped, is_stale).await?;
        let now = self.now().await?;
        let is_over = |mark: &&Mark| {
            mark.done_at.is_some_and(|at| now.as_millis().saturating_sub(at.as_millis()) > KEPT_MILLIS)
        };
        let over: Vec<&Mark> = marks.iter().filter(is_over).collect();
        for chunk in over.chunks(BATCH) {
            let mut batch = Batch::new();
            for mark in chunk {
                let guard = Guard::Equals { field: RUN.into(), value: int(mark.run) };
                batch.push(&self.states, Write::Delete { id: Bson::from(mark.id.as_str()), guard });
            }
            self.documents.apply(batch).await?;
        }
        Ok(removed)
    }
}
