//! Where operations wait: in the spool if there is one, else each beside the records that it is for.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use sha2::{Digest as _, Sha256};

use super::breaker::Breaker;
use super::entry::Target;
use super::queue::Queue;
use crate::config::{Config, Fallback};
use crate::connections::Connections;
use crate::{Env, Resolved, Result};

/// The database of the queue in a spool, and on backends whose contexts name their database.
const SYSTEM: &str = "chronos_system";

/// A connection, none for the spool, and a database.
type Home = (Option<String>, String);

/// The queues of one configuration.
pub(crate) struct Queues {
    options: Fallback,
    connections: Arc<Connections>,
    env: Env,
    open: Mutex<HashMap<Home, Arc<Queue>>>,
    /// The digests of the addresses of stores, by connection.
    stores: Mutex<HashMap<String, String>>,
    /// By connection.
    breakers: Mutex<HashMap<String, Arc<Breaker>>>,
}

crate::debug_some!(Queues { options });

impl Queues {
    pub(crate) fn new(options: Fallback, connections: Arc<Connections>, env: Env) -> Self {
        Self {
            options,
            connections,
            env,
            open: Mutex::default(),
            stores: Mutex::default(),
            breakers: Mutex::default(),
        }
    }

    /// The queue of what is written through a route. No I/O.
    pub(crate) fn of(&self, resolved: &Resolved) -> Result<Arc<Queue>> {
        self.open(self.home(&resolved.entry.connection, resolved.entry.database.as_deref()))
    }

    /// What tells the store that a route leads to from those of other configurations that use the same spool.
    /// None where operations wait beside their records: they are in that store. No I/O but one look at the path
    /// of an embedded store.
    pub(crate) fn target(&self, resolved: &Resolved) -> Option<Target> {
        self.options.spool.as_ref()?;
        let connection = &resolved.entry.connection;
        let mut stores = self.stores.lock();
        let store = match stores.get(connection) {
            Some(store) => store.clone(),
            None => {
                let store = short_digest(&self.connections.address(connection)?);
                stores.insert(connection.clone(), store.clone());
                store
            }
        };
        Some(Target { store, tenant: resolved.enforced_tenant.clone() })
    }

    /// What tells whether the store that a route leads to is away; none without a spool.
    pub(crate) fn breaker(&self, resolved: &Resolved) -> Option<Arc<Breaker>> {
        self.options.spool.as_ref()?;
        let mut breakers = self.breakers.lock();
        let new = || Arc::new(Breaker::new(Arc::clone(&self.env.clock)));
        Some(Arc::clone(breakers.entry(resolved.entry.connection.clone()).or_insert_with(new)))
    }

    /// The queues in which something may wait for records of a database of that name.
    pub(crate) fn near(&self, config: &Config, database: &str) -> Result<Vec<Arc<Queue>>> {
        let mut queues = self.all(config)?;
        queues.retain(|queue| self.options.spool.is_some() || queue.is_in(database) || queue.is_in(SYSTEM));
        Ok(queues)
    }

    /// Every queue of a configuration.
    pub(super) fn all(&self, config: &Config) -> Result<Vec<Arc<Queue>>> {
        let homes = config.entries.iter();
        let mut homes: Vec<Home> =
            homes.map(|entry| self.home(&entry.connection, entry.database.as_deref())).collect();
        homes.sort();
        homes.dedup();
        homes.into_iter().map(|home| self.open(home)).collect()
    }

    fn home(&self, connection: &str, database: Option<&str>) -> Home {
        if self.options.spool.is_some() {
            return (None, SYSTEM.to_owned());
        }
        (Some(connection.to_owned()), database.unwrap_or(SYSTEM).to_owned())
    }

    fn open(&self, home: Home) -> Result<Arc<Queue>> {
        let mut open = self.open.lock();
        if let Some(queue) = open.get(&home) {
            return Ok(Arc::clone(queue));
        }
        let documents = match (&home.0, &self.options.spool) {
            (Some(connection), _) => self.connections.open(connection)?,
            (None, spool) => self.connections.spool(spool.as_deref().unwrap_or("".as_ref()))?,
        };
        let place = match &home.0 {
            Some(connection) => format!("database `{}` (connection `{connection}`)", home.1),
            None => "the spool".to_owned(),
        };
        let queue = Queue::new(place, documents, &home.1, self.options.clone(), self.env.clone());
        let queue = Arc::new(queue);
        open.insert(home, Arc::clone(&queue));
        Ok(queue)
    }
}

/// The first 64 bits in hex: an address has no place in a file that others read, and collisions are not made
/// on purpose.
fn short_digest(address: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(address).into();
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}
