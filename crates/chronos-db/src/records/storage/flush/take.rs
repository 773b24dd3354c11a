//! What the worker takes next: this process's own, what failed before, what memory had no room for, what
//! others left.

use super::version::{Entry, Version};
use super::worker::{Position, RETRIES, Worker};
use crate::documents::filter::Test;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::without_content;
use crate::records::model::Row;
use crate::{Result, Timestamp};
use bson::oid::ObjectId;
use futures::TryStreamExt as _;

/// How long a row of another process is left to that process.
pub(crate) const LEFT_TO_ITS_WRITER_MILLIS: i64 = 5_000;

/// Rows read back together: at most this many, and no further one behind this many bytes.
const READ_ROWS: u64 = 128;

pub(crate) const READ_BYTES: usize = 8 * 1024 * 1024;

/// Rows that are looked at for one of another process; at most this many are under way here.
const MAX_KNOWN: u64 = 1_024;

/// While this process's own versions wait, every nth put is of one that another process left.
const SHARE_OF_OTHERS: u64 = 8;

impl Worker {
    /// The next version: this process's own first, but a share of the places is for those that failed and
    /// those that others left.
    pub(super) async fn take(&mut self, now: Timestamp) -> Result<Option<Version>> {
        loop {
            let (due, look, read_back) = {
                let mut work = self.storer.queue.lock();
                let own = work.has_queued(now)
                    || self.read.front().is_some_and(|version| version.entry.own)
                    || work.spilled().is_some();
                // What came while the rows of others were looked for is still being gathered by the time that
                // this began with: looking again at once would find it there again, and so on without end.
                let gathers =
                    work.oldest_own().is_some() && !self.storer.index.env.fail.skips("guard.gathers");
                if !own && !gathers && std::mem::take(&mut self.ended_early) {
                    work.look();
                }
                let turn = |every: u64| !own || self.turn % every == every - 1;
                let retry = self.retries.len() < RETRIES && (turn(4) || work.is_crowded());
                let due = if retry { work.take_due(now) } else { None };
                let others = self.read.front().is_some_and(|version| !version.entry.own);
                let turn_of_others = self.has_room_for_others() && turn(SHARE_OF_OTHERS);
                let look =
                    self.read.is_empty() && work.look_at().is_some_and(|at| at <= now) && turn_of_others;
                if due.is_none() && !look {
                    if others && turn_of_others {
                        return Ok(self.read.pop_front());
                    }
                    if let Some(version) = work.take_queued(now) {
                        return Ok(Some(version));
                    }
                    if !others && let Some(version) = self.read.pop_front() {
                        return Ok(Some(version));
                    }
                }
                if others && work.spilled().is_some() {
                    // The buffer is for this process's own; the rows of others are gone through once more,
                    // later.
                    self.read.clear();
                    self.passed = None;
                    self.ended_early = true;
                }
                (due, look, work.spilled().is_some())
            };
            if let Some(due) = due {
                match self.read_again(due).await {
                    Ok(None) => continue,
                    again => return again,
                }
            } else if look {
                self.look_for_others().await?;
            } else if read_back {
                self.read_back().await?;
            } else {
                return Ok(None);
            }
        }
    }

    /// A version that failed before, from its row; none if nothing is left to do for it.
    async fn read_again(&mut self, due: Entry) -> Result<Option<Version>> {
        let found = self
            .storer
            .index
            .documents
            .get_stored(&self.storer.index.names.ver, vec![due.row_id.into()])
            .await;
        let versions = match found
            .and_then(|found| found.iter().map(|stored| Row::read(stored)).collect::<Result<Vec<_>>>())
        {
            Ok(rows) => {
                self.with_heads(rows.into_iter().filter(|row| row.unflushed_since.is_some()).collect()).await
            }
            Err(error) => Err(error),
        };
        let mut versions = match versions {
            Ok(versions) => versions,
            Err(error) => {
                self.storer.queue.lock().not_tried(due.row_id);
                return Err(error);
            }
        };
        let Some(mut version) = versions.pop() else {
            // Another process has stored it, or it was erased: those that wait look at its row.
            self.storer.queue.lock().gone(&due);
            self.storer.queue.changed.notify_waiters();
            return Ok(None);
        };
        version.entry.own = due.own;
        self.retries.insert(due.row_id);
        Ok(Some(version))
    }

    /// Reads back some of this process's versions that memory had no room for.
    async fn read_back(&mut self) -> Result<()> {
        let Some(spilled) = self.storer.queue.lock().begin_to_read_back() else { return Ok(()) };
        let filter = Filter::And(vec![from(spilled.from), Filter::lte("unflushedSince", spilled.to)]);
        let (rows, end) = self.read_rows(filter, spilled.after).await?;
        let versions = self.with_heads(rows).await?;
        let mut work = self.storer.queue.lock();
        for mut version in versions {
            if self.active.contains_key(&version.entry.row_id) || work.knows(version.entry.row_id) {
                continue;
            }
            version.entry.own = true;
            work.took_back(&version.entry);
            self.read.push_back(version);
        }
        work.have_read_back(end);
        Ok(())
    }

    /// Goes on through what others left: rows that wait for so long that their writer must have died.
    async fn look_for_others(&mut self) -> Result<()> {
        let now = self.storer.index.documents.now().await?;
        let old = now.plus_millis(-LEFT_TO_ITS_WRITER_MILLIS);
        let oldest_own = self.storer.queue.lock().oldest_own();
        let until = oldest_own.map_or(old, |oldest| old.min(oldest.plus_millis(-1)));
        if self.passed.is_none() {
            self.storer.queue.lock().begin_to_look_through();
        }
        let (rows, end) = self
            .read_rows(self.storer.index.of_served(Filter::lte("unflushedSince", until)), self.passed)
            .await?;
        if end.is_some() {
            let versions = self.with_heads(rows).await?;
            self.passed = end;
            let work = self.storer.queue.lock();
            let is_news = |row: ObjectId| !self.active.contains_key(&row) && !work.knows(row);
            self.read.extend(versions.into_iter().filter(|version| is_news(version.entry.row_id)));
            return Ok(());
        }
        // The end: what was passed and still waits is known to fail. What is young by now is looked at when
        // it is old.
        self.ended_early = oldest_own.is_some();
        let next = if self.ended_early {
            Some(LEFT_TO_ITS_WRITER_MILLIS)
        } else {
            self.left_to_their_writers(now, until).await?
        };
        self.passed = None;
        let clock = self.now();
        self.storer.queue.lock().looked_through(next.map(|left| clock.plus_millis(left)), clock);
        self.storer.queue.changed.notify_waiters();
        Ok(())
    }

    /// In how many milliseconds the first row of another process that was written after `until` is old
    /// enough; none if there is no such row.
    async fn left_to_their_writers(&self, now: Timestamp, until: Timestamp) -> Result<Option<i64>> {
        let scan = Scan {
            filter: self.storer.index.of_served(Filter::gt("unflushedSince", until)),
            order: order(),
            limit: Some(MAX_KNOWN),
            without: without_content(),
            ..Scan::default()
        };
        let mut rows = self.storer.index.scan_rows(scan);
        while let Some(row) = rows.try_next().await? {
            let is_known =
                self.active.contains_key(&row.row_id) || self.storer.queue.lock().knows(row.row_id);
            if let (false, Some(since)) = (is_known, row.unflushed_since) {
                let left = since.as_millis() + LEFT_TO_ITS_WRITER_MILLIS - now.as_millis();
                return Ok(Some(left.clamp(1, LEFT_TO_ITS_WRITER_MILLIS)));
            }
        }
        Ok(None)
    }

    /// Some rows that wait, oldest first, and the place of the last; no place if there are none. A row counts
    /// with all its bytes, so that memory does not depend on what rows weigh.
    async fn read_rows(
        &self,
        filter: Filter,
        after: Option<Position>,
    ) -> Result<(Vec<Row>, Option<Position>)> {
        let after = after.map(|(since, row)| vec![since.into(), row.into()]);
        let scan = Scan { filter, order: order(), after, limit: Some(READ_ROWS), ..Scan::default() };
        let mut stored = self.storer.index.documents.scan_stored(&self.storer.index.names.ver, scan);
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while bytes < READ_BYTES
            && let Some(found) = stored.try_next().await?
        {
            bytes += found.as_bytes().len();
            rows.push(Row::read(&found)?);
        }
        let end = rows.last().and_then(|row| Some((row.unflushed_since?, row.row_id)));
        Ok((rows, end))
    }

    /// The rows with the heads they belong to.
    async fn with_heads(&self, rows: Vec<Row>) -> Result<Vec<Version>> {
        let heads = self.storer.index.heads(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
        let with_head = |row: Row| {
            let known = heads.get(&row.id);
            let head =
                known.filter(|head| head.cv >= row.cv).cloned().unwrap_or_else(|| row.head_after(known));
            Version::new(row, head, false)
        };
        Ok(rows.into_iter().map(with_head).collect())
    }
}

fn order() -> Vec<(String, Direction)> {
    vec![("unflushedSince".into(), Direction::Ascending), ("_id".into(), Direction::Ascending)]
}

fn from(since: Timestamp) -> Filter {
    Filter::Field("unflushedSince".into(), Test::Gte(since.into()))
}
