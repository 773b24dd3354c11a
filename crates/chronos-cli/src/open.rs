//! From the options that all commands share to an opened configuration and a collection.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::{Config, DatabaseType, expand_env};
use chronos_db::fail::FailPoints;
use chronos_db::{Chronos, Collection, Env, Error, ErrorKind, FlushReport, Json, Route, Tier, Written};
use clap::Args;
use parking_lot::Mutex;

use crate::failure::{Failure, one_line};
use crate::input;
use crate::output::Output;
use crate::stderr::note;

/// Payloads kept in memory: a command reads few of them twice.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

/// Arms fail points, such as `commit.before_answer=abort:3`, so that tests can end this very program between
/// two steps of a write.
const FAIL_POINTS: &str = "CHRONOS_FAIL_POINTS";
/// Used if neither `--config` nor `--data` is given, in this order.
const DEFAULT_CONFIG: &str = "chronos.json";
const DEFAULT_DATA: &str = "chronos-data";
/// The tenant of the embedded default.
const DEFAULT_TENANT: &str = "default";

/// How long a short command waits for its versions to be stored as objects. They are committed already.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the end waits for clients to close, and how long if a storage is known to be down.
const CLOSE: Duration = Duration::from_secs(5);
const CLOSE_BROKEN: Duration = Duration::from_millis(500);

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Where the data is")]
pub(crate) struct Globals {
    /// A configuration file; `ENV.NAME` in it is taken from the environment.
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "data")]
    pub(crate) config: Option<PathBuf>,
    /// A folder with an embedded store: no server, one tenant `default`.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The type of database: metadata, knowledge, runtime (default), logs, messaging or identities.
    #[arg(long = "type", global = true, value_name = "TYPE")]
    pub(crate) database_type: Option<DatabaseType>,
    /// The tier: generic, domain or tenant; without it, a domain or tenant that is given decides.
    #[arg(long, global = true, value_name = "TIER")]
    pub(crate) tier: Option<Tier>,
    /// The tenant; for runtime data `default` without it.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) tenant: Option<String>,
    /// For logs, identities and messaging, which all tenants share: the records of all tenants. Without it a tenant must be
    /// named.
    #[arg(long, global = true, conflicts_with = "tenant")]
    pub(crate) cross_tenant: bool,
    /// The domain.
    #[arg(long, global = true, value_name = "ID")]
    pub(crate) domain: Option<String>,
    /// Version 1 configurations: the `key` of an entry.
    #[arg(long, global = true, value_name = "KEY")]
    pub(crate) entry: Option<String>,
    /// Version 1 configurations: the database on the backend that the hash picks.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) database: Option<String>,
    /// Show on stderr what caused an error, the warnings of the configuration, and what the libraries warn of
    /// while they work.
    #[arg(long, short, global = true, help_heading = "Options")]
    pub(crate) verbose: bool,
    /// What was opened, so that a command that fails closes it as well.
    #[arg(skip)]
    pub(crate) open: Arc<Mutex<Vec<Chronos>>>,
}

/// An opened configuration.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) chronos: Chronos,
    route: Route,
    tenant_is_given: bool,
    /// Whether versions that are committed could not be stored yet.
    pub(crate) waiting: bool,
}

impl Globals {
    /// For commands that may create what isn't there.
    pub(crate) fn open_for_writing(&self) -> Result<Session, Failure> {
        self.open(self.load()?)
    }

    /// For commands that look: they find nothing where nothing is, and leave nothing behind.
    pub(crate) fn open_for_reading(&self) -> Result<Session, Failure> {
        let mut config = self.load()?;
        absent_is_empty(&mut config);
        self.open(config)
    }

    fn open(&self, config: Config) -> Result<Session, Failure> {
        if self.verbose {
            for warning in &config.warnings {
                note(&format!("warning: {}: {}", warning.path, one_line(&warning.message)));
            }
        }
        let mut env = Env::default();
        if let Some(points) = env::var_os(FAIL_POINTS) {
            env.fail = FailPoints::parse(&points.to_string_lossy())?;
        }
        let chronos = Chronos::builder(config).env(env).cache_bytes(CACHE_BYTES).open()?;
        self.open.lock().push(chronos.clone());
        Ok(Session { chronos, route: self.route(), tenant_is_given: self.tenant.is_some(), waiting: false })
    }

    /// Closes what a command that failed left open: a client that is dropped with the runtime, while it works,
    /// panics. What the command failed with is what counts.
    pub(crate) async fn close(&self) {
        let open = std::mem::take(&mut *self.open.lock());
        let closed = open.iter().map(|chronos| chronos.shutdown_within(CLOSE_BROKEN));
        for closed in futures::future::join_all(closed).await {
            match closed {
                Err(error) if self.verbose => note(&format!("closing: {}", one_line(&error.to_string()))),
                _ => {}
            }
        }
    }

    fn load(&self) -> Result<Config, Failure> {
        let config = match (&self.config, &self.data) {
            (Some(file), _) => from_file(file)?,
            (None, Some(data)) if data.is_file() => {
                return Err(Failure::wrong(format!(
                    "--data takes a folder, and {} is a file; --config takes a file",
                    data.display()
                )));
            }
            (None, Some(data)) => Config::embedded(data),
            (None, None) if Path::new(DEFAULT_CONFIG).exists() => from_file(Path::new(DEFAULT_CONFIG))?,
            (None, None) => Config::embedded(Path::new(DEFAULT_DATA)),
        };
        Ok(config)
    }

    /// Whether any option says where the data is, within the configuration.
    pub(crate) fn says_where(&self) -> bool {
        let Self { database_type, tier, tenant, cross_tenant, domain, entry, database, .. } = self;
        let names = [tenant, domain, entry, database];
        database_type.is_some() || tier.is_some() || *cross_tenant || names.iter().any(|name| name.is_some())
    }

    fn route(&self) -> Route {
        let Self { database_type, tier, tenant, cross_tenant, domain, entry, database, .. } = self.clone();
        // Version 1's own ways to a database take no type unless one is given.
        let database_type =
            database_type.or((entry.is_none() && database.is_none()).then_some(DatabaseType::Runtime));
        let tenant =
            tenant.or((database_type == Some(DatabaseType::Runtime)).then(|| DEFAULT_TENANT.to_owned()));
        Route { database_type, tier, tenant, cross_tenant, domain, key: entry, database, ..Route::default() }
    }
}

impl Session {
    /// Where the options lead to for this tenant, unless they name another.
    pub(crate) fn route_of(&self, tenant: &str) -> Route {
        let named = self.tenant_is_given;
        Route {
            tenant: if named { self.route.tenant.clone() } else { Some(tenant.to_owned()) },
            ..self.route.clone()
        }
    }

    /// Where the options lead to.
    pub(crate) fn route(&self) -> Route {
        self.route.clone()
    }

    /// Where the options lead to for a collection of that name.
    pub(crate) fn route_to(&self, name: &str) -> Route {
        self.route.clone().collection(name)
    }

    /// The collection of that name in the database the options lead to.
    pub(crate) fn collection(&self, name: &str) -> Result<Collection, Failure> {
        Ok(self.chronos.with(self.route_to(name))?)
    }

    /// The collection of that name, which something was written to: for commands that mean to find something
    /// there.
    pub(crate) async fn existing(&self, name: &str) -> Result<Collection, Failure> {
        Ok(self.chronos.existing(self.route_to(name)).await?)
    }

    /// The collection of that name, for a change of what is in it: something was written to it, or waits to be.
    /// Where writes can wait, a store that is away must not make them fail.
    pub(crate) async fn changeable(&self, name: &str) -> Result<Collection, Failure> {
        let error = match self.chronos.existing(self.route.clone().collection(name)).await {
            Ok(collection) => return Ok(collection),
            Err(error) => error,
        };
        if self.chronos.config().fallback.is_none() {
            return Err(error.into());
        }
        let waits = error.kind() == ErrorKind::NotFound
            && !self.chronos.fallback()?.list().collection(name).limit(1).await?.operations.is_empty();
        if waits || error.is_retryable() { self.collection(name) } else { Err(error.into()) }
    }

    /// Ends a command that wrote: what it wrote gets a moment to be stored, then what is left is reported.
    pub(crate) async fn end(mut self, collection: &Collection, made: &Written) -> Result<(), Failure> {
        if made.queued.is_some() {
            note("the write waits in the fallback queue; `chronos worker` carries it out");
            // The store is away, or another caller is at work on the item: it is not waited for.
            self.waiting = true;
        } else {
            self.flush(collection).await?;
        }
        self.close().await?;
        Output::new().value(&made.to_json())
    }

    /// After writes: gives the storage a moment to take the versions, and says what still waits: this
    /// program's, else what others left. They are safe in the version index. Returns how many of this
    /// program's wait.
    pub(crate) async fn flush(&mut self, collection: &Collection) -> Result<u64, Failure> {
        let report = collection.flush_local(DRAIN).await?;
        self.waiting |= report.own > 0;
        if report.own > 0 || report.left > 0 {
            note(&unflushed_notice(collection.name(), &report));
        }
        Ok(report.own)
    }

    /// Closes every client. What hangs is left behind: everything this program said it wrote is committed.
    pub(crate) async fn close(self) -> Result<(), Failure> {
        let limit = if self.waiting { CLOSE_BROKEN } else { CLOSE };
        match tokio::time::timeout(limit + CLOSE_BROKEN, self.chronos.shutdown_within(limit)).await {
            Ok(closed) => Ok(closed.map(drop)?),
            Err(_) => Ok(()),
        }
    }
}

/// What waits, why, and what to do about it.
fn unflushed_notice(name: &str, report: &FlushReport) -> String {
    let (count, of_others) =
        if report.own > 0 { (report.own, "") } else { (report.left, " of other programs") };
    let (what, them) = if count == 1 {
        (format!("1 version{of_others} waits"), "it")
    } else {
        (format!("{count} versions{of_others} wait"), "them")
    };
    let advice = format!("{what} to be stored; `chronos worker -c {name}` or the next write stores {them}");
    match report.failing.first() {
        Some(failing) => format!(
            "{advice} (version {} of {}: {})",
            failing.ov,
            failing.id,
            one_line(failing.error.message())
        ),
        None => advice,
    }
}

/// Reads a configuration; `ENV.NAME` in it is taken from the environment.
pub(crate) fn from_file(path: &Path) -> Result<Config, Failure> {
    let named = |what: String| Failure::wrong(format!("{}: {what}", path.display()));
    let text = std::fs::read(path).map_err(|error| named(format!("the file cannot be read: {error}")))?;
    let mut document: Json = input::parse(&text, &path.display().to_string())?;
    let in_file = |error: Error| named(error.message().to_owned());
    expand_env(&mut document, |name| env::var(name).ok()).map_err(in_file)?;
    Config::from_json(&document, path.parent().unwrap_or(Path::new(""))).map_err(in_file)
}

/// Puts an empty store in memory in place of every embedded store that does not exist yet, the spool of the
/// fallback queue too. Returns the references of the connections.
pub(crate) fn absent_is_empty(config: &mut Config) -> Vec<String> {
    let described = config.describe();
    let entries = described["entries"].as_array().map_or(&[][..], Vec::as_slice);
    let absent = entries.iter().filter_map(|entry| {
        let file = entry["file"].as_str().filter(|file| *file != ":memory:")?;
        (!Path::new(file).exists()).then(|| entry["connection"].as_str().map(str::to_owned))?
    });
    let mut absent: Vec<String> = absent.collect();
    absent.sort();
    absent.dedup();
    if let Some(spool) = config.fallback.as_mut().and_then(|fallback| fallback.spool.as_mut())
        && !spool.exists()
    {
        *spool = PathBuf::from(":memory:");
    }
    for reference in &absent {
        if let Some(connection) = config.connections.get_mut(reference) {
            connection.uri = "embedded::memory:".into();
        }
    }
    absent
}
