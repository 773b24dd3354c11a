//! Restoring a whole collection: each item moves by compare-and-swap to its own newest version at the target.
//! No lock, no payload copied, resumable.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::clock::Moment;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::scope::Scope;
use crate::records::model::VersionSelector;
use crate::records::model::{Head, ItemId, Op, Row};
use crate::records::write::commit::{CommitError, Prepared};
use crate::records::write::{WriteOptions, no_past};
use crate::{Error, ErrorKind, Json, Result};

/// Items that failed, that a report names.
const MAX_PROBLEMS: usize = 1_000;

/// What a collection restore did, or (as a dry run) would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// The collection version up to which the restore looked: later writes are left alone.
    pub stable_cv: i64,
    /// Items looked at.
    pub items: u64,
    /// Items that got an earlier state back.
    pub restored: u64,
    /// Items that did not exist at the target, or were deleted then, and are deleted now.
    pub removed: u64,
    /// Items that were already as they were at the target.
    pub unchanged: u64,
    /// Items left alone because another writer changed them after the restore began.
    pub skipped: u64,
    /// Items that could not be restored, such as locked ones: running the restore again tries them again.
    pub failed: u64,
    /// Why, for the first thousand of them.
    pub problems: Vec<RestoreProblem>,
}

/// Why an item could not be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RestoreProblem {
    /// The item, if it is known.
    pub id: Option<String>,
    /// The code of its error.
    pub code: String,
    /// The words of its error.
    pub message: String,
}

impl Restored {
    /// Returns the counts as a JSON object.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = crate::json!({
            "stableCv": self.stable_cv, "items": self.items, "restored": self.restored, "removed": self.removed,
            "unchanged": self.unchanged, "skipped": self.skipped, "failed": self.failed,
        });
        if !self.problems.is_empty() {
            let problem = |p: &RestoreProblem| crate::json!({ "id": p.id.clone(), "code": p.code.clone(), "message": p.message.clone() });
            out["problems"] = Json::Array(self.problems.iter().map(problem).collect());
        }
        out
    }

    fn fails(&mut self, error: &Error) {
        self.failed += 1;
        if self.problems.len() < MAX_PROBLEMS {
            let id = error.id().map(str::to_owned);
            self.problems.push(RestoreProblem {
                id,
                code: error.code().to_owned(),
                message: error.message().to_owned(),
            });
        }
    }
}

/// Called with the counts so far, once for as many items as a page has, and at the end.
pub(crate) type Progress = Arc<dyn Fn(&Restored) + Send + Sync>;

#[derive(Clone, Default)]
pub(crate) struct RestoreOptions {
    pub(crate) write: WriteOptions,
    pub(crate) dry_run: bool,
    pub(crate) page: usize,
    pub(crate) parallel: usize,
    pub(crate) progress: Option<Progress>,
}

impl fmt::Debug for RestoreOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RestoreOptions")
            .field("dry_run", &self.dry_run)
            .field("page", &self.page)
            .finish_non_exhaustive()
    }
}

/// Where one item has to go.
enum Move {
    Stay,
    Skip,
    Delete(Head),
    Restore(Head, Box<Row>),
}

fn no_target() -> Error {
    Error::validation("a collection is restored to a time or a collection version")
}

impl super::Restorer {
    pub(crate) async fn restore_collection(
        self: &Arc<Self>,
        target: VersionSelector,
        options: &RestoreOptions,
        scope: &Scope,
    ) -> Result<Restored> {
        let named = |e: Error| e.during("restore collection").in_collection(&self.index.names.collection);
        self.restore_all(target, options, scope).await.map_err(named)
    }

    async fn restore_all(
        self: &Arc<Self>,
        target: VersionSelector,
        options: &RestoreOptions,
        scope: &Scope,
    ) -> Result<Restored> {
        if matches!(target, VersionSelector::Latest | VersionSelector::Ov(_)) {
            return Err(no_target());
        }
        if self.index.settings.inline {
            return Err(no_past());
        }
        if !options.dry_run {
            self.schema.ensure(scope).await?;
        }
        let mut counts = Restored { stable_cv: self.watermark.stable_cv().await?, ..Restored::default() };
        // No head is read before this. The committer reads those again that are old by their turn.
        let read_at = Moment::now(&*self.index.env.clock);
        if let VersionSelector::Cv(cv) = target
            && cv > counts.stable_cv
        {
            return Err(Error::validation(format!(
                "collection version {cv} is not reached yet; the newest settled one is {}",
                counts.stable_cv
            )));
        }
        if !self.index.settings.versioning {
            self.reader.kept(target, scope).await?;
        }
        let filter = scope.narrow(Filter::All);
        let heads = Scan {
            filter,
            order: vec![("_id".into(), Direction::Ascending)],
            without: vec!["fullShadow".into()],
            ..Scan::default()
        };
        let stable = counts.stable_cv;
        let page = options.page.max(1);
        // A damaged head is its item's problem.
        let pages = self.index.scan_heads(heads).chunks(page);
        // The next page is looked up while this one is written, so that no commit group waits for a read.
        let moves = pages.map(|heads| self.plan_page(heads, target, stable, scope)).buffered(2);
        let moves = moves.map_ok(futures::stream::iter).try_flatten();
        // Enough of them under way at once fill a commit group.
        let done = moves
            .map(|step| async move { self.carry_out(step?, read_at, options).await })
            .buffer_unordered(options.parallel.max(1));
        let mut done = std::pin::pin!(done);
        while let Some(change) = done.next().await {
            match change {
                Ok(count) => count(&mut counts),
                Err(error) if is_the_items(&error) => counts.fails(&error),
                // Of the store: every other item would fail as well.
                Err(error) => return Err(error),
            }
            counts.items += 1;
            if let Some(progress) =
                options.progress.as_ref().filter(|_| counts.items.is_multiple_of(page as u64))
            {
                progress(&counts);
            }
        }
        let reported = counts.items > 0 && counts.items.is_multiple_of(page as u64);
        if let Some(progress) = options.progress.as_ref().filter(|_| !reported) {
            progress(&counts);
        }
        Ok(counts)
    }

    /// Where the items of one page have to go.
    async fn plan_page(
        &self,
        page: Vec<Result<Head>>,
        target: VersionSelector,
        stable: i64,
        scope: &Scope,
    ) -> Result<Vec<Result<Move>>> {
        let mut heads = Vec::with_capacity(page.len());
        let mut moves = Vec::new();
        for head in page {
            match head {
                Ok(head) => heads.push(head),
                Err(error) if is_the_items(&error) => moves.push(Err(error)),
                Err(error) => return Err(error),
            }
        }
        let ids: Vec<ItemId> = heads.iter().map(|head| head.id).collect();
        let heads = heads.into_iter().filter(|head| !head.erased);
        if !self.index.settings.versioning {
            // The only version there is of each; the others have been asked for already.
            for head in heads {
                moves.push(match self.reader.only_version(&head, target) {
                    // Written since the restore began.
                    _ if head.cv > stable => Ok(Move::Skip),
                    Ok(is_there) => {
                        let there = is_there.then(|| (head.id, head.as_row()));
                        Ok(plan(head, &there.into_iter().collect(), stable))
                    }
                    Err(error) => Err(error),
                });
            }
            return Ok(moves);
        }
        match self.versions.rows_at(&ids, target, scope).await {
            Ok(targets) => moves.extend(heads.map(|head| Ok(plan(head, &targets, stable)))),
            Err(error) if is_the_items(&error) => {
                // The rows of one of them: each for itself, then.
                for head in heads {
                    moves.push(match self.versions.rows_at(&[head.id], target, scope).await {
                        Ok(targets) => Ok(plan(head, &targets, stable)),
                        Err(error) if is_the_items(&error) => Err(error.on_item(head.id)),
                        Err(error) => return Err(error),
                    });
                }
            }
            Err(error) => return Err(error),
        }
        Ok(moves)
    }

    async fn carry_out(
        self: &Arc<Self>,
        step: Move,
        read_at: Moment,
        options: &RestoreOptions,
    ) -> Result<fn(&mut Restored)> {
        let (head, op, meta, counted): (_, _, _, fn(&mut Restored)) = match step {
            Move::Stay => return Ok(|counts| counts.unchanged += 1),
            Move::Skip => return Ok(|counts| counts.skipped += 1),
            Move::Delete(head) => {
                let meta = head.meta.clone();
                (head, Op::Delete, meta, |counts| counts.removed += 1)
            }
            Move::Restore(head, row) => {
                let mut meta = head.meta.clone();
                meta.indexed = row.meta.indexed;
                meta.missing = row.meta.missing;
                meta.payload = row.meta.payload;
                meta.refs = row.meta.refs;
                meta.rules = row.meta.rules;
                (head, Op::Restore, meta, |counts| counts.restored += 1)
            }
        };
        if options.dry_run {
            return Ok(counted);
        }
        self.locks.pass_lock(head.id, None).await.map_err(|error| error.on_item(head.id))?;
        let id = head.id;
        let prepared = Prepared {
            op,
            previous: Some(head),
            read_at,
            actor: options.write.actor.clone(),
            reason: options.write.reason.clone(),
            request_id: options.write.request_id.clone(),
            ..Prepared::blank(self.index.env.random.object_id(), id, meta, None, Vec::new())
        };
        match self.committer.commit(prepared).await {
            Ok(_) => Ok(counted),
            // Written since the restore began, or its head lagged behind a row; the next run sees it as it is
            // then.
            Err(CommitError::Conflict | CommitError::Condemned) => {
                self.index.roll_forward(id).await?;
                Ok(|counts| counts.skipped += 1)
            }
            Err(CommitError::Failed(error)) => Err(error.on_item(id)),
        }
    }
}

/// Whether an error is that of one item, and says nothing about the others.
fn is_the_items(error: &Error) -> bool {
    !matches!(error.kind(), ErrorKind::Database | ErrorKind::Storage)
}

fn plan(head: Head, targets: &HashMap<ItemId, Row>, stable: i64) -> Move {
    if head.cv > stable {
        return Move::Skip;
    }
    match targets.get(&head.id) {
        Some(row) if row.op != Op::Delete => {
            if head.is_live() && head.meta.payload.ov == row.meta.payload.ov {
                Move::Stay
            } else {
                Move::Restore(head, Box::new(row.clone()))
            }
        }
        _ if head.is_live() => Move::Delete(head),
        _ => Move::Stay,
    }
}
