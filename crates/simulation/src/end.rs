//! What there is in the end, through the front door.

use std::collections::BTreeSet;

use chronos_db::{Page, Result, View};

use crate::check::{self, Violations};
use crate::client::{BY, seen, totals};
use crate::history::{Answer, Operation};
use crate::log::Log;
use crate::machine::Machine;
use crate::setting::{COPY, Setting};

/// More than there is of anything.
const ALL: u32 = 1000;

/// The end of a run.
pub(crate) struct End<'r> {
    /// The last process.
    pub auditor: &'r Machine,
    /// What the stores hold.
    pub log: &'r Log,
    /// What is at work.
    pub setting: &'r Setting,
}

impl End<'_> {
    /// Every version of every item.
    pub(crate) async fn reads(&self) -> Result<Violations> {
        let mut wrong = Vec::new();
        for (tenant, things) in self.auditor.things.iter().enumerate() {
            let stamp = self.setting.stamp(tenant);
            let mut live = Vec::new();
            for (item, rows) in &self.log.items {
                let id = item.parse()?;
                let is_own = rows.iter().all(|row| row.tenant.as_deref() == stamp);
                let erased = self.log.is_erased(item) || !is_own;
                for row in rows.iter().filter(|row| !row.deletes()) {
                    let answer = things.get(&id).version(row.ov).await.map(seen);
                    let right = match &answer {
                        Ok(Answer::Nothing) => erased,
                        Ok(Answer::Seen(seen)) => {
                            let by = self.log.content(item, row.ov).unwrap_or(-1);
                            !erased && seen.by == by && seen.cv == row.cv
                        }
                        _ => false,
                    };
                    if !right {
                        wrong.push(format!("in the end {answer:?} is {row:?}"));
                    }
                }
                let Some(newest) = rows.last() else { continue };
                let answer = things.get(&id).await.map(seen);
                let absent = erased || newest.deletes();
                if !absent {
                    live.push(item.clone());
                }
                let right = match &answer {
                    Ok(Answer::Nothing) => absent,
                    Ok(Answer::Seen(seen)) => !absent && seen.ov == newest.ov,
                    _ => false,
                };
                if !right {
                    wrong.push(format!("in the end {answer:?} is the newest of {item}, which is {newest:?}"));
                }
            }
            let listed = things.list().limit(ALL).await?;
            let mut listed: Vec<String> = listed.items.iter().map(|view| view.id.to_string()).collect();
            listed.sort();
            if listed != live {
                wrong.push(format!("a list has {listed:?}, and there are {live:?}"));
            }
        }
        Ok(wrong)
    }

    /// Counters are what the rows say, as followed and counted anew.
    pub(crate) async fn counters(&self) -> Result<Violations> {
        let mut wrong = Vec::new();
        if !self.setting.counts {
            return Ok(wrong);
        }
        for (tenant, things) in self.auditor.things.iter().enumerate() {
            things.counters().follow().await?;
            let followed = things.counters().totals().await?;
            let anew = things.counters().recount().await?.totals;
            for (how, counters) in [("followed", followed), ("counted anew", anew)] {
                if let Answer::Counted(counts, cv) = totals(&counters) {
                    let problem = check::counted(self.log, self.setting, tenant, &counts, cv);
                    wrong.extend(problem.map(|problem| format!("{how}: {problem}")));
                }
            }
        }
        Ok(wrong)
    }

    /// Nothing waits any more, and what was given up could not be done.
    pub(crate) async fn queue(&self, operations: &[Operation]) -> Result<Violations> {
        if !self.setting.queues {
            return Ok(Vec::new());
        }
        let queue = self.auditor.chronos.fallback()?;
        let waiting = queue.list().await?.operations;
        let dead = queue.dead().limit(ALL.into()).await?.operations;
        let dead: BTreeSet<String> = dead.into_iter().map(|operation| operation.request_id).collect();
        let mut wrong = check::queued(self.log, self.setting, operations, &dead);
        wrong.extend(waiting.iter().map(|operation| format!("still waits to be done: {operation:?}")));
        Ok(wrong)
    }

    /// A backup is whole, and what is built from it is what there is.
    pub(crate) async fn backups(&self) -> Result<Violations> {
        let mut wrong = Vec::new();
        if !self.setting.backs_up {
            return Ok(wrong);
        }
        for (tenant, things) in self.auditor.things.iter().enumerate() {
            let done = things.backup().await?;
            wrong.extend(done.damage.iter().map(|damage| format!("the backup is damaged: {damage}")));
            for backup in self.auditor.chronos.verify_backups(Setting::route(tenant)).await? {
                wrong.extend(backup.problems.iter().map(|problem| format!("of a backup: {problem:?}")));
            }
            let copy = self.auditor.chronos.with(Setting::route_to(tenant, &format!("{COPY}{tenant}")))?;
            copy.restore_backup().of(things).await?;
            let shown = |page: Page<View>| -> Vec<(String, i64, i64)> {
                let by = |view: &View| view.document()[BY].as_i64().unwrap_or(-1);
                page.items.iter().map(|view| (view.id.to_string(), view.ov, by(view))).collect()
            };
            let here = shown(things.list().limit(ALL).await?);
            let there = shown(copy.list().limit(ALL).await?);
            if here != there {
                wrong.push(format!("from the backup came {there:?}, and there are {here:?}"));
            }
        }
        Ok(wrong)
    }
}
