//! How the processes of a run are configured: what of the engine is at work in it.

use std::time::Duration;

use chronos_db::config::{Config, CounterRule, Database, Fallback, Retention, SpaceConnection};
use chronos_db::{Result, Route, json};

use crate::chance::Chance;

/// The database that all write.
pub(crate) const DATABASE: &str = "sim";
/// The collection that all write.
pub(crate) const COLLECTION: &str = "things";
/// How the collections into which backups are restored begin.
pub(crate) const COPY: &str = "copies";
/// The rule of the counters: versions whose document has this colour.
pub(crate) const RULE: &str = "red";
/// The tenants that there may be.
const TENANTS: [&str; 2] = ["acme", "globex"];

/// What of the engine is at work.
#[derive(Clone, Debug)]
pub struct Setting {
    /// How many tenants share the database.
    pub tenants: usize,
    /// How many versions of an item stay in the index; none for all.
    pub keeps: Option<u32>,
    /// Versions are counted.
    pub counts: bool,
    /// Writes that fail in a way that passes wait in a queue.
    pub queues: bool,
    /// The collection is backed up now and then.
    pub backs_up: bool,
    /// Processes differ in what they may differ in, as while they are configured anew.
    pub differs: bool,
}

impl Setting {
    /// Records alone.
    #[must_use]
    pub const fn plain() -> Self {
        Self { tenants: 1, keeps: None, counts: false, queues: false, backs_up: false, differs: false }
    }

    /// That of a run.
    #[must_use]
    pub fn drawn(chance: &Chance) -> Self {
        Self {
            tenants: if chance.hits(300) { 2 } else { 1 },
            keeps: chance.hits(450).then(|| 1 + u32::try_from(chance.below(4)).unwrap_or(0)),
            counts: chance.hits(500),
            queues: chance.hits(350),
            backs_up: chance.hits(250),
            differs: chance.hits(400),
        }
    }

    /// The way to the collection of a tenant.
    #[must_use]
    pub(crate) fn route(tenant: usize) -> Route {
        Self::route_to(tenant, COLLECTION)
    }

    /// The way to some collection of a tenant.
    #[must_use]
    pub(crate) fn route_to(tenant: usize, collection: &str) -> Route {
        Route::runtime().tenant(TENANTS[tenant]).collection(collection)
    }

    /// What documents of a tenant carry; nothing where it is alone.
    #[must_use]
    pub(crate) fn stamp(&self, tenant: usize) -> Option<&'static str> {
        (self.tenants > 1).then(|| TENANTS[tenant])
    }

    /// The configuration of one process.
    ///
    /// # Errors
    /// None that the simulation does not make itself.
    pub(crate) fn config(&self, chance: &Chance) -> Result<Config> {
        let differs = |chance: &Chance| self.differs && chance.hits(400);
        let mut config = Config::builder()
            .connection("main", "embedded::memory:")
            .space("objects", SpaceConnection::memory())
            .inline_max_bytes(if differs(chance) { 5_000 } else { 600 });
        for tenant in TENANTS.iter().take(self.tenants) {
            let mut database =
                Database::runtime(*tenant, "main", DATABASE).space("objects").bucket("simulated");
            if self.counts {
                database = database.analytics("sim_analytics");
            }
            config = config.database(database);
        }
        if self.counts {
            config = config.counter_rule(CounterRule::new(RULE).when(json!({ "colour": RULE })));
        }
        if let Some(keeps) = self.keeps
            && !differs(chance)
        {
            let keeps = if differs(chance) { keeps + 2 } else { keeps };
            config = config.retention(Retention::default().max_per_item(keeps));
        }
        if self.queues {
            let longest = Duration::from_secs(60);
            // What passes is tried until it has passed, so that what is given up could never succeed.
            let fallback = Fallback::default().max_attempts(100_000).delays(Duration::from_secs(2), longest);
            config = config.fallback(fallback);
        }
        config.build()
    }
}
