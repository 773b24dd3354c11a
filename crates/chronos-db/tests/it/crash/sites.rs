//! Where the crash tests write: a database and a bucket of their own on every pairing of stores.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::{Base64Property, CollectionMap, Config, Database, SpaceConnection};
use chronos_db::documents::DocumentStore;
use chronos_db::objects::{ObjectStorage, ObjectsPool};
use chronos_db::{Chronos, Clock, Collection, Env, Json as Value, Route, SystemClock, Timestamp, json};
use futures::future::BoxFuture;
use test_support::servers;

/// Larger payloads are stored before their commit.
pub(super) const INLINE_MAX: usize = 4096;
pub(super) const COLLECTION: &str = "things";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Embedded,
    StandaloneLocal,
    ReplicaSetS3,
    ReplicaSetAzure,
}

#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) kind: Kind,
    pub(super) dir: PathBuf,
    pub(super) name: String,
    /// Deletes erase.
    pub(super) erasing: bool,
}

impl Site {
    pub(super) fn new(kind: Kind, dir: PathBuf) -> Self {
        Self { kind, dir, name: servers::unique_name("crash"), erasing: false }
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "kind": format!("{:?}", self.kind), "dir": self.dir, "name": self.name, "erasing": self.erasing })
    }

    pub(super) fn from_json(value: &Value) -> Self {
        let kinds = [Kind::Embedded, Kind::StandaloneLocal, Kind::ReplicaSetS3, Kind::ReplicaSetAzure];
        Self {
            kind: kinds.into_iter().find(|kind| value["kind"] == format!("{kind:?}")).unwrap(),
            dir: value["dir"].as_str().unwrap().into(),
            name: value["name"].as_str().unwrap().to_owned(),
            erasing: value["erasing"].as_bool().unwrap(),
        }
    }

    fn config(&self) -> Config {
        let here = || Database::runtime("default", "main", &*self.name).bucket(&*self.name);
        let builder = match self.kind {
            Kind::Embedded => Config::embedded_builder(&self.dir),
            Kind::StandaloneLocal => Config::builder()
                .connection("main", servers::mongo_standalone_uri())
                .local_storage(&self.dir)
                .database(here()),
            Kind::ReplicaSetS3 => {
                let s3 = servers::s3();
                let space = SpaceConnection::s3(s3.endpoint, s3.access_key, s3.secret_key);
                Config::builder()
                    .connection("main", servers::mongo_rs_uri())
                    .space("store", space.force_path_style(true))
                    .database(here().space("store"))
            }
            Kind::ReplicaSetAzure => {
                let azure = servers::azure();
                Config::builder()
                    .connection("main", servers::mongo_rs_uri())
                    .space("store", SpaceConnection::azure(azure.endpoint, azure.account, azure.key))
                    .database(here().space("store"))
            }
        };
        let file = Base64Property::new("text/plain").preferred_text(true);
        builder
            .inline_max_bytes(INLINE_MAX)
            .logical_delete(!self.erasing)
            .collection(COLLECTION, CollectionMap::default().indexed(["key", "tag"]).base64("file", file))
            .build()
            .unwrap()
    }

    pub(super) fn open(&self, env: Env) -> SiteHandle {
        let config = self.config();
        let chronos = Chronos::builder(config.clone()).env(env).open().unwrap();
        let things = chronos.with(Route::runtime().tenant("default").collection(COLLECTION)).unwrap();
        let connection = if self.kind == Kind::Embedded { "embedded" } else { "main" };
        let documents = chronos.documents(connection).unwrap();
        let objects = config.entries.iter().find_map(|entry| entry.objects.clone()).unwrap();
        let bucket = ObjectsPool::new().objects(&config, &objects, &objects.buckets.json).unwrap();
        SiteHandle { chronos, things, documents, bucket }
    }

    /// SiteHandle by a caller that knows that all other writers are dead, and need not wait for them.
    pub(super) fn open_alone(&self) -> SiteHandle {
        let ahead = if self.kind == Kind::Embedded { Duration::from_secs(10) } else { Duration::ZERO };
        self.open(Env { clock: Arc::new(Impatient { ahead }), ..Env::default() })
    }
}

pub(super) struct SiteHandle {
    pub(super) chronos: Chronos,
    pub(super) things: Collection,
    pub(super) documents: Arc<dyn DocumentStore>,
    pub(super) bucket: Arc<dyn ObjectStorage>,
}

/// The machine's clock, ahead, and with short waits.
#[derive(Debug)]
struct Impatient {
    ahead: Duration,
}

impl Clock for Impatient {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_millis(i64::try_from(self.ahead.as_millis()).unwrap())
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration.min(Duration::from_millis(50))))
    }
}
