//! The document stores of one configuration: opened once each, and which of them are one deployment.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select, try_join};
use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::{DocumentConnection, IN_MEMORY};
use crate::documents::{Deployment, DocumentStore, ObservedDocuments};
use crate::{Env, Error, Result};

pub(crate) type WrapDocuments = Arc<dyn Fn(Arc<dyn DocumentStore>) -> Arc<dyn DocumentStore> + Send + Sync>;

/// How long two stores are asked which deployment they are.
const ASKING: Duration = Duration::from_secs(5);
/// A server that starts anew between two questions is asked again, at most this often.
const ATTEMPTS: u32 = 5;

pub(crate) struct Connections {
    configured: BTreeMap<String, DocumentConnection>,
    env: Env,
    wrap: Option<WrapDocuments>,
    /// How long a call may take, unless a connection string says so.
    timeout: Option<Duration>,
    /// Clients by connection string: references that name the same server with the same credentials share
    /// one.
    open: Mutex<HashMap<String, Arc<dyn DocumentStore>>>,
    /// Whether two connections, by their references in order, reach one deployment.
    same: Mutex<HashMap<(String, String), bool>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("configured", &self.configured).finish_non_exhaustive()
    }
}

impl Connections {
    pub(crate) fn new(
        configured: BTreeMap<String, DocumentConnection>,
        env: Env,
        wrap: Option<WrapDocuments>,
        timeout: Option<Duration>,
    ) -> Self {
        Self { configured, env, wrap, timeout, open: Mutex::default(), same: Mutex::default() }
    }

    /// The store of a connection. No I/O: its client is made on first use.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there is no such connection, or this build has no backend for it.
    pub(crate) fn open(&self, reference: &str) -> Result<Arc<dyn DocumentStore>> {
        let wanted = self.configured.get(reference);
        let wanted = wanted
            .ok_or_else(|| Error::validation(format!("there is no document connection `{reference}`")))?;
        let key = match wanted.uri.expose_secret() {
            IN_MEMORY => format!("{IN_MEMORY} {reference}"),
            uri => uri.to_owned(),
        };
        let mut open = self.open.lock();
        if let Some(documents) = open.get(&key) {
            return Ok(Arc::clone(documents));
        }
        let mut documents = connect(reference, &wanted.uri, self.timeout, &self.env)?;
        if let Some(wrap) = &self.wrap {
            documents = wrap(documents);
        }
        let documents: Arc<dyn DocumentStore> =
            Arc::new(ObservedDocuments::new(documents, &self.env.telemetry, reference));
        open.insert(key, Arc::clone(&documents));
        Ok(documents)
    }

    /// The embedded store at a path, which is not a connection of the configuration: no layer is put around it.
    /// No I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if this build has no embedded store, or the path is not UTF-8.
    pub(crate) fn spool(&self, path: &Path) -> Result<Arc<dyn DocumentStore>> {
        let path = path.to_str().ok_or_else(|| {
            Error::validation(
                "fallback.spoolPath: the path is not UTF-8, as paths of embedded stores must be",
            )
        })?;
        let uri = format!("embedded:{path}");
        let mut open = self.open.lock();
        // Beside the clients, so that it is closed with them; with a mark, as those may have layers.
        let key = format!("spool {uri}");
        if let Some(documents) = open.get(&key) {
            return Ok(Arc::clone(documents));
        }
        let documents = connect("fallback.spoolPath", &SecretString::from(uri), None, &self.env)?;
        open.insert(key, Arc::clone(&documents));
        Ok(documents)
    }

    /// By what the store of a connection is known in every configuration; see [`DocumentConnection::address`].
    pub(crate) fn address(&self, reference: &str) -> Option<String> {
        self.configured.get(reference).map(DocumentConnection::address)
    }

    /// Whether two connections reach one deployment, as the stores themselves say.
    ///
    /// # Errors
    /// The error of a store that does not answer; nothing is known then.
    pub(crate) async fn are_one(&self, one: &str, other: &str) -> Result<bool> {
        let key =
            if one < other { (one.to_owned(), other.to_owned()) } else { (other.to_owned(), one.to_owned()) };
        if let Some(known) = self.same.lock().get(&key) {
            return Ok(*known);
        }
        let asking = std::pin::pin!(self.ask(one, other));
        let same = match select(asking, self.env.clock.sleep(ASKING)).await {
            Either::Left((answer, _)) => answer?,
            Either::Right(_) => {
                let message = format!(
                    "the document connections `{one}` and `{other}` did not answer within {} s",
                    ASKING.as_secs()
                );
                return Err(Error::database(message).retryable());
            }
        };
        self.same.lock().insert(key, same);
        Ok(same)
    }

    async fn ask(&self, one: &str, other: &str) -> Result<bool> {
        let (one, other) = (self.open(one)?, self.open(other)?);
        let mut before: Option<Deployment> = None;
        for _ in 0..ATTEMPTS {
            let (a, b) = try_join(one.deployment(), other.deployment()).await?;
            if a.is_same(&b) {
                return Ok(true);
            }
            // A server may have started anew between the two answers, and be another process.
            if before.replace(a.clone()).is_some_and(|before| before.is_same(&a)) {
                return Ok(false);
            }
        }
        Err(Error::database("a server starts again and again while it is asked which deployment it is")
            .retryable())
    }

    /// Takes every client out, to be closed.
    pub(crate) fn take(&self) -> Vec<Arc<dyn DocumentStore>> {
        self.open.lock().drain().map(|(_, documents)| documents).collect()
    }
}

fn connect(
    reference: &str,
    uri: &SecretString,
    timeout: Option<Duration>,
    env: &Env,
) -> Result<Arc<dyn DocumentStore>> {
    #[cfg(feature = "embedded")]
    if let Some(path) = uri.expose_secret().strip_prefix("embedded:") {
        return Ok(Arc::new(crate::documents::embedded::EmbeddedDocuments::open(path, env.clone())?));
    }
    #[cfg(feature = "mongodb")]
    if uri.expose_secret().starts_with("mongodb") {
        let documents = crate::documents::mongo::MongoDocuments::new(uri.clone(), env.clone())?;
        return Ok(Arc::new(match timeout {
            Some(timeout) => documents.timeout(timeout),
            None => documents,
        }));
    }
    let _ = (uri, timeout, env);
    Err(Error::validation(format!(
        "this build has no backend for the document connection `{reference}`: mongodb and embedded are features"
    )))
}
