//! Opening the library the way the scenarios need it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::{CollectionMap, Config, CounterRule, Database, DevShadow, Retention};
use chronos_db::documents::DocumentStore;
use chronos_db::documents::mongo::{CommandStats, MongoDocuments};
use chronos_db::{Chronos, Collection, Env, Route, json};
use secrecy::SecretString;
use test_support::objects::{Call, decorate};
use test_support::{Counting, Layer};

use crate::Result;
use crate::baseline::mongo;
use crate::stored::{CITIES, COLLECTION, INDEXED};
use crate::watch::{Gate, Groups, Watched};

const CONNECTION: &str = "main";
pub(crate) const BUCKET: &str = "chronos";

/// How to open.
#[derive(Clone, Debug, Default)]
pub(crate) struct How<'a> {
    /// The embedded store's folder; none: the replica set.
    pub(crate) embedded: Option<&'a Path>,
    pub(crate) database: &'a str,
    pub(crate) collection: Option<&'a str>,
    /// The folder of the objects; none: payloads stay in the version rows.
    pub(crate) objects: Option<&'a Path>,
    pub(crate) shadow: bool,
    /// Bytes of payloads kept in memory; none: the library's default.
    pub(crate) cache: Option<u64>,
    pub(crate) gate: Option<Arc<Gate>>,
    /// Counter rules, each with a filter of its own and every other one with unique values.
    pub(crate) rules: usize,
    /// Versions of an item that stay in the index; none: all.
    pub(crate) kept: Option<u32>,
    /// Count the commands sent to MongoDB. The driver copies every command for its listeners, so only where
    /// commands are the figure.
    pub(crate) count_commands: bool,
}

/// The library with what looks at it from outside.
#[derive(Debug)]
pub(crate) struct BenchStore {
    pub(crate) chronos: Chronos,
    pub(crate) people: Collection,
    pub(crate) groups: Arc<Groups>,
    /// Commands and connections, on MongoDB.
    pub(crate) stats: Option<Arc<CommandStats>>,
    pub(crate) calls: Arc<Counting<Call>>,
}

impl BenchStore {
    pub(crate) fn stats(&self) -> Result<&CommandStats> {
        self.stats.as_deref().ok_or_else(|| "this store sends no commands".into())
    }
}

pub(crate) fn open(how: &How<'_>) -> Result<BenchStore> {
    let mut config = Config::builder();
    let mut observed: Option<(Arc<dyn DocumentStore>, Arc<CommandStats>)> = None;
    if let Some(folder) = how.embedded {
        config = config.embedded(CONNECTION, folder);
    } else {
        let uri = SecretString::from(mongo::uri()?);
        config = config.connection(CONNECTION, uri.clone());
        if how.count_commands {
            let (documents, stats) = MongoDocuments::observed(uri, Env::default())?;
            observed = Some((Arc::new(documents), stats));
        }
    }
    if let Some(folder) = how.objects {
        config = config.local_storage(folder);
    }
    if how.shadow {
        config = config.dev_shadow(DevShadow::new(Duration::from_secs(24 * 3_600)));
    }
    for number in 0..how.rules {
        config = config.counter_rule(rule(number));
    }
    if let Some(versions) = how.kept {
        config = config.retention(Retention::default().max_per_item(versions));
    }
    let collection = how.collection.unwrap_or(COLLECTION);
    let config = config
        // A name as long as the default one, so that the bytes of a row can be compared.
        .database(Database::runtime("default", CONNECTION, how.database).bucket(BUCKET))
        .collection(collection, CollectionMap::default().indexed(INDEXED))
        .build()?;
    let (groups, calls) = (Arc::new(Groups::default()), Counting::new());
    let stats = observed.as_ref().map(|(_, stats)| Arc::clone(stats));
    let (watching, counting, gate) = (Arc::clone(&groups), Arc::clone(&calls), how.gate.clone());
    let mut builder = Chronos::builder(config)
        .wrap_documents(move |plain| {
            let inner = observed.as_ref().map_or(plain, |(documents, _)| Arc::clone(documents));
            Arc::new(Watched { inner, groups: Arc::clone(&watching) })
        })
        .wrap_objects(move |objects| {
            let counted = decorate(objects, Arc::clone(&counting));
            gate.as_ref().map_or(Arc::clone(&counted), |gate| around(&counted, gate))
        });
    if let Some(bytes) = how.cache {
        builder = builder.cache_bytes(bytes);
    }
    let chronos = builder.open()?;
    let people = chronos.with(Route::runtime().tenant("default").collection(collection))?;
    Ok(BenchStore { chronos, people, groups, stats, calls })
}

/// A rule that a tenth of all persons match.
fn rule(number: usize) -> CounterRule {
    let rule =
        CounterRule::new(format!("rule{number:02}")).when(json!({ "city": CITIES[number % CITIES.len()] }));
    if number.is_multiple_of(2) { rule } else { rule.count_unique(["status"]) }
}

fn around(
    objects: &Arc<dyn chronos_db::objects::ObjectStorage>,
    layer: &Arc<impl Layer<Call>>,
) -> Arc<dyn chronos_db::objects::ObjectStorage> {
    decorate(Arc::clone(objects), Arc::clone(layer))
}
