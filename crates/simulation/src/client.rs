//! What clients do: one operation after the other, on few items, and what they are told.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Error, ErrorKind, ItemId, Json, View, Written, json};
use parking_lot::Mutex;

use crate::history::{Asked, Seen, Told};
use crate::machine::Machine;
use crate::world::{World, wait};

/// The property that says which operation wrote a document.
pub(crate) const BY: &str = "by";

/// What clients know of what there is.
#[derive(Debug, Default)]
pub(crate) struct Known {
    items: Mutex<Vec<ItemId>>,
    /// Items and versions that were told.
    versions: Mutex<Vec<(ItemId, i64)>>,
    cvs: Mutex<Vec<i64>>,
}

impl Known {
    fn learn(&self, id: ItemId, ov: i64, cv: i64) {
        let mut items = self.items.lock();
        if !items.contains(&id) {
            items.push(id);
        }
        self.versions.lock().push((id, ov));
        self.cvs.lock().push(cv);
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
            let (item, asked) = self.choose();
            let number = self.world.history.begin(self.machine.process.number, item, asked.clone());
            let (told, words) = match self.carry_out(number, item, &asked).await {
                Ok(told) => (told, String::new()),
                Err(error) => (refused(&error, &asked), error.to_string()),
            };
            // A process that was killed tells nobody anything.
            self.machine.process.pass().await;
            if let Told::Written { id, ov, cv } = told {
                self.known.learn(id, ov, cv);
            }
            self.world.history.end(number, told, &words);
        }
    }

    fn choose(&self) -> (Option<ItemId>, Asked) {
        let chance = &self.world.chance;
        let items = self.known.items.lock();
        let Some(item) = items.get(items.len().saturating_sub(1 + chance.skewed(4) as usize)).copied() else {
            return (None, Asked::Create);
        };
        drop(items);
        let of_item: Vec<i64> =
            self.known.versions.lock().iter().filter(|(id, _)| *id == item).map(|(_, ov)| *ov).collect();
        let version = *chance.pick(&of_item).unwrap_or(&0);
        let asked = match chance.below(100) {
            0..6 => return (None, Asked::Create),
            6..50 => Asked::Update,
            50..55 => Asked::Delete,
            55..61 => Asked::Restore(version),
            61..65 => Asked::Erase,
            65..82 => Asked::Latest,
            82..92 => Asked::Version(version),
            _ => Asked::AsOfCv(*chance.pick(&self.known.cvs.lock()).unwrap_or(&0)),
        };
        (Some(item), asked)
    }

    /// A document of this operation; some are too big for their row.
    fn document(&self, number: i64) -> Json {
        let length = if self.world.chance.hits(350) { 900 } else { self.world.chance.below(40) };
        json!({ BY: number, "fill": "x".repeat(length as usize) })
    }

    async fn carry_out(&self, number: i64, item: Option<ItemId>, asked: &Asked) -> Result<Told, Error> {
        let (things, actor) = (&self.machine.things, format!("op-{number}"));
        let Some(id) = item else {
            return Ok(written(&things.create(self.document(number)).actor(actor).await?));
        };
        Ok(match asked {
            Asked::Create => Told::Nothing,
            Asked::Update => written(&things.update(&id, self.document(number)).actor(actor).await?),
            Asked::Delete => written(&things.delete(&id).actor(actor).await?),
            Asked::Restore(ov) => written(&things.restore(&id).to_version(*ov).actor(actor).await?),
            Asked::Erase => {
                things.erase(&id).actor(actor).await?;
                Told::Erased
            }
            Asked::Latest => seen(things.get(&id).await?),
            Asked::Version(ov) => seen(things.get(&id).version(*ov).await?),
            Asked::AsOfCv(cv) => seen(things.get(&id).as_of_cv(*cv).await?),
        })
    }
}

fn written(written: &Written) -> Told {
    if !written.changed {
        return Told::Unchanged;
    }
    Told::Written { id: written.id, ov: written.ov, cv: written.cv }
}

/// What a reader was given.
#[must_use]
pub(crate) fn seen(view: Option<View>) -> Told {
    view.map_or(Told::Nothing, |view| {
        let by = view.document()[BY].as_i64().unwrap_or(-1);
        Told::Seen(Seen { ov: view.ov, cv: view.cv, by })
    })
}

fn refused(error: &Error, asked: &Asked) -> Told {
    match error.kind() {
        // What is left of an erasure may fail after its row is there.
        ErrorKind::Database | ErrorKind::Storage if asked.writes() => Told::Unknown,
        _ if error.is_undecided() => Told::Unknown,
        _ => Told::Refused(error.code()),
    }
}
