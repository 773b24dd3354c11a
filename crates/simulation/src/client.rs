//! What clients do: one operation after the other, on few items, and what they are answered.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::counters::Totals;
use chronos_db::{Error, ErrorKind, ImportOp, ItemId, Json, View, Written, json};
use parking_lot::Mutex;

use crate::history::{Answer, Asked, Seen};
use crate::machine::Machine;
use crate::setting::RULE;
use crate::world::{World, wait};

/// The property that says which operation wrote a document.
pub(crate) const BY: &str = "by";

/// The colour of the documents of an operation.
#[must_use]
pub(crate) const fn colour(number: i64) -> &'static str {
    if number % 3 == 0 { RULE } else { "blue" }
}

/// What clients know of what there is.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// With the tenants whose they are.
    items: Mutex<Vec<(usize, ItemId)>>,
    /// Items and versions that were answered.
    versions: Mutex<Vec<(ItemId, i64)>>,
    cvs: Mutex<Vec<i64>>,
}

impl Known {
    fn learn(&self, tenant: usize, answer: &Answer) {
        let id = match answer {
            Answer::Written { id, ov, cv } => {
                self.versions.lock().push((*id, *ov));
                self.cvs.lock().push(*cv);
                *id
            }
            Answer::Queued(id, _) => *id,
            _ => return,
        };
        let mut items = self.items.lock();
        if !items.iter().any(|(_, known)| *known == id) {
            items.push((tenant, id));
        }
    }
}

/// A client of one process.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where it is.
    pub world: Arc<World>,
    /// What all clients know.
    pub known: Arc<Known>,
    /// Its process.
    pub machine: Machine,
}

impl Client {
    /// Does so many operations.
    pub(crate) async fn run(self, operations: u64, rest_millis: u64) {
        for _ in 0..operations {
            wait(Duration::from_millis(self.world.chance.skewed(rest_millis))).await;
            self.machine.process.pass().await;
            let (tenant, item, asked) = self.choose();
            let process = self.machine.process.number;
            let number = self.world.history.begin(process, tenant, item, asked.clone());
            let (answer, words) = match self.carry_out(number, tenant, item, &asked).await {
                Ok(answer) => (answer, String::new()),
                Err(error) => (refused(&error, &asked), error.to_string()),
            };
            // A process that was killed tells nobody anything.
            self.machine.process.pass().await;
            self.known.learn(tenant, &answer);
            self.world.history.end(number, answer, &words);
        }
    }

    /// As whom, of which item, and what.
    fn choose(&self) -> (usize, Option<ItemId>, Asked) {
        let chance = &self.world.chance;
        let own = chance.below(self.world.setting.tenants as u64) as usize;
        let items = self.known.items.lock();
        let Some((of, item)) = items.get(items.len().saturating_sub(1 + chance.skewed(4) as usize)).copied()
        else {
            return (own, None, Asked::Create);
        };
        drop(items);
        // Now and then a tenant asks for an item of the other.
        let tenant = if chance.hits(60) { own } else { of };
        let of_item: Vec<i64> =
            self.known.versions.lock().iter().filter(|(id, _)| *id == item).map(|(_, ov)| *ov).collect();
        let version = *chance.pick(&of_item).unwrap_or(&0);
        let Some(cv) = chance.pick(&self.known.cvs.lock()).copied() else {
            return (own, None, Asked::Create);
        };
        let asked = match chance.below(1000) {
            0..60 => return (own, None, Asked::Create),
            60..70 => return (own, None, Asked::Import(1 + chance.below(4).cast_signed())),
            70..76 => return (own, None, Asked::RestoreAll(cv)),
            76..90 => return (own, None, Asked::ListAsOf(cv)),
            90..100 if self.world.setting.counts => return (own, None, Asked::Totals),
            100..110 if self.world.setting.backs_up => return (own, None, Asked::BackUp),
            90..430 => Asked::Update,
            430..480 => Asked::Expect(of_item.iter().max().copied().unwrap_or(0)),
            480..520 => Asked::Locked,
            520..570 => Asked::Delete,
            570..625 => Asked::Restore(version),
            625..660 => Asked::Erase,
            660..820 => Asked::Latest,
            820..920 => Asked::Version(version),
            _ => Asked::AsOfCv(cv),
        };
        (tenant, Some(item), asked)
    }

    /// A document of this operation; some are too big for their row.
    fn document(&self, number: i64) -> Json {
        let length = if self.world.chance.hits(350) { 900 } else { self.world.chance.below(40) };
        json!({ BY: number, "colour": colour(number), "fill": "x".repeat(length as usize) })
    }

    async fn carry_out(
        &self,
        number: i64,
        tenant: usize,
        item: Option<ItemId>,
        asked: &Asked,
    ) -> Result<Answer, Error> {
        let (things, actor) = (&self.machine.things[tenant], format!("op-{number}"));
        let Some(id) = item else { return self.carry_out_for_all(number, tenant, asked).await };
        Ok(match asked {
            Asked::Update => written(&things.update(&id, self.document(number)).actor(actor).await?),
            Asked::Expect(ov) => {
                written(&things.update(&id, self.document(number)).expect_ov(*ov).actor(actor).await?)
            }
            Asked::Locked => self.under_a_lock(number, tenant, id).await?,
            Asked::Delete => written(&things.delete(&id).actor(actor).await?),
            Asked::Restore(ov) => written(&things.restore(&id).to_version(*ov).actor(actor).await?),
            Asked::Erase => {
                things.erase(&id).actor(actor).await?;
                Answer::Erased
            }
            Asked::Latest => seen(things.get(&id).await?),
            Asked::Version(ov) => seen(things.get(&id).version(*ov).await?),
            Asked::AsOfCv(cv) => seen(things.get(&id).as_of_cv(*cv).await?),
            _ => Answer::Nothing,
        })
    }

    /// What is asked of no item, or of all.
    async fn carry_out_for_all(&self, number: i64, tenant: usize, asked: &Asked) -> Result<Answer, Error> {
        let (things, actor) = (&self.machine.things[tenant], format!("op-{number}"));
        Ok(match asked {
            Asked::Create => written(&things.create(self.document(number)).actor(actor).await?),
            Asked::Import(lines) => self.import(number, tenant, *lines).await?,
            Asked::RestoreAll(cv) => {
                things.restore_collection().to_cv(*cv).actor(actor).await?;
                Answer::Restored
            }
            Asked::ListAsOf(cv) => {
                let page = things.list().as_of_cv(*cv).limit(1000).await?;
                Answer::Listed(page.items.iter().map(|view| (view.id, view.ov)).collect())
            }
            Asked::Totals => totals(&things.counters().totals().await?),
            Asked::BackUp => Answer::BackedUp(things.backup().await?.cv),
            _ => Answer::Nothing,
        })
    }

    /// Looks, then writes, while nobody else may.
    async fn under_a_lock(&self, number: i64, tenant: usize, id: ItemId) -> Result<Answer, Error> {
        let things = &self.machine.things[tenant];
        let lock = things.lock(&id).wait(Duration::from_secs(20)).await?;
        let Some(view) = things.get(&id).await? else {
            lock.release().await?;
            return Ok(Answer::Nothing);
        };
        self.world.history.saw(number, view.ov);
        wait(Duration::from_millis(self.world.chance.skewed(40_000))).await;
        self.machine.process.pass().await;
        let update = things.update(&id, self.document(number)).actor(format!("op-{number}"));
        let done = update.with_lock(&lock).await;
        // It ends by itself, too.
        let _ = lock.release().await;
        Ok(written(&done?))
    }

    /// Imports a log about an item of its own, again and again until all of it is there.
    async fn import(&self, number: i64, tenant: usize, lines: i64) -> Result<Answer, Error> {
        let name = format!("op-{number}");
        let mut last = Error::database("it was not tried");
        for _ in 0..3 {
            let begun = self.machine.things[tenant].import("key").log(&name).await;
            let importer = match begun {
                Ok(importer) => importer,
                Err(error) => {
                    last = error;
                    continue;
                }
            };
            let line = |at: i64| {
                let op = if at == 0 { "create" } else { "update" };
                let data = json!({ "key": &name, BY: number, "colour": colour(number), "line": at });
                ImportOp::parse(&json!({ "op": op, "key": &name, "data": data, "actor": &name }))
            };
            let operations = (0..lines).map(line).collect::<Result<Vec<_>, _>>()?;
            match importer.apply(operations, true).await {
                Ok(results) => match results.into_iter().find_map(Result::err) {
                    None => return Ok(Answer::Imported),
                    Some(error) => last = error,
                },
                Err(error) => last = error,
            }
        }
        Err(last.undecided())
    }
}

/// What counters say.
pub(crate) fn totals(totals: &Totals) -> Answer {
    let rule = totals.rules.get(RULE).map_or(0, |rule| rule.counts.sum());
    let counts = totals.counts;
    Answer::Counted([counts.created, counts.updated, counts.deleted, rule], totals.cv)
}

fn written(written: &Written) -> Answer {
    if let Some(request) = &written.queued {
        return Answer::Queued(written.id, request.clone());
    }
    if !written.changed {
        return Answer::Unchanged;
    }
    Answer::Written { id: written.id, ov: written.ov, cv: written.cv }
}

/// What a reader was given.
#[must_use]
pub(crate) fn seen(view: Option<View>) -> Answer {
    view.map_or(Answer::Nothing, |view| {
        let by = view.document()[BY].as_i64().unwrap_or(-1);
        Answer::Seen(Seen { ov: view.ov, cv: view.cv, by })
    })
}

fn refused(error: &Error, asked: &Asked) -> Answer {
    match error.kind() {
        // What is left of an erasure may fail after its row is there.
        ErrorKind::Database | ErrorKind::Storage if asked.writes() => Answer::Unknown,
        _ if error.is_undecided() => Answer::Unknown,
        _ => Answer::Refused(error.code()),
    }
}
