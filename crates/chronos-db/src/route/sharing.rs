//! Which entries of a configuration lead to one database, and with it which documents a handle sees there.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::OnceCell;

use crate::config::{Config, Entry, OneStore, Owner, Selector};
use crate::connections::Connections;
use crate::records::Scope;
use crate::{Env, Error, Resolved, Result, Timestamp};

/// A store that did not answer which deployment it is, is asked again after this.
const ASK_AGAIN_MILLIS: i64 = 30_000;

/// Whether an entry's contexts name their database, as version 1's hashed ones do.
fn is_hashed(entry: &Entry) -> bool {
    matches!(entry.selector, Selector::Hashed(_))
}

/// Whose documents a handle sees. Entries of other tenants whose database has the same name may lead to the
/// same one though their connection strings differ; then the stores are asked, when the handle is first used.
#[derive(Clone)]
pub(crate) struct Tenancy(Arc<Inner>);

struct Inner {
    /// What the connection strings leave open, and the scope if any of it comes true. None: the scope is
    /// `otherwise`.
    open: Option<Open>,
    /// The scope if nothing of `open` comes true.
    otherwise: Result<Scope, String>,
    decided: OnceCell<Result<Scope, String>>,
}

struct Open {
    connections: Arc<Connections>,
    env: Env,
    connection: String,
    /// Connections that may lead to the same deployment.
    suspects: Vec<String>,
    scope: Result<Scope, String>,
    /// The scope while a store does not answer: it sees nothing of other tenants, and what it makes is seen
    /// under either answer. None: there is none.
    meanwhile: Option<Scope>,
    ask_again: Mutex<Option<Timestamp>>,
}

impl fmt::Debug for Tenancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenancy")
            .field("otherwise", &self.0.otherwise)
            .field("decided", &self.0.decided)
            .finish_non_exhaustive()
    }
}

impl Tenancy {
    /// One that is decided.
    pub(crate) fn of(scope: Scope) -> Self {
        Self(Arc::new(Inner { open: None, otherwise: Ok(scope), decided: OnceCell::new() }))
    }

    /// The tenancy of what a route leads to. No I/O.
    pub(crate) fn new(
        config: &Config,
        resolved: &Resolved,
        connections: &Arc<Connections>,
        env: &Env,
    ) -> Self {
        let entry = &*resolved.entry;
        let (mut beside, mut suspects) = (Vec::new(), Vec::new());
        for other in
            config.entries.iter().filter(|other| other.database.as_deref() == Some(&resolved.database))
        {
            match config.one_store(entry, other) {
                OneStore::Yes => beside.push(other),
                OneStore::Unknown => suspects.push(other),
                OneStore::No => {}
            }
        }
        // Contexts that name their database may come upon this one.
        let is_named = !is_hashed(entry)
            && config.entries.iter().any(|e| is_hashed(e) && config.one_store(entry, e) != OneStore::No);
        let view = View {
            owner: Owner::of(entry),
            named: resolved.enforced_tenant.as_deref(),
            database: &resolved.database,
            is_named,
        };
        let hashed = is_hashed(entry);
        let scope_with =
            |others: &[&Entry]| if hashed { view.of_hashed(others) } else { Ok(view.of_typed(others)) };
        let otherwise = scope_with(&beside);
        // Only what would make a difference is asked for.
        suspects.retain(|suspect| {
            let with: Vec<&Entry> = beside.iter().copied().chain([*suspect]).collect();
            scope_with(&with) != otherwise
        });
        let scope = scope_with(&beside.iter().copied().chain(suspects.iter().copied()).collect::<Vec<_>>());
        let meanwhile = match (&otherwise, &view.owner) {
            (Ok(Scope::Sole { tenant, .. }), _) => {
                Some(Scope::Sole { tenant: Arc::clone(tenant), stamps: true })
            }
            (Ok(Scope::All), Owner::Nobody) => Some(Scope::Untenanted),
            _ => None,
        };
        let open = (!suspects.is_empty()).then(|| Open {
            connections: Arc::clone(connections),
            env: env.clone(),
            connection: entry.connection.clone(),
            suspects: suspects.iter().map(|suspect| suspect.connection.clone()).collect(),
            scope,
            meanwhile,
            ask_again: Mutex::default(),
        });
        Self(Arc::new(Inner { open, otherwise, decided: OnceCell::new() }))
    }

    /// Which documents are seen.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the route says too little to tell; `TXN_ERROR` if a store must be asked that
    /// does not answer.
    pub(crate) async fn scope(&self) -> Result<&Scope> {
        let inner = &*self.0;
        let decided = match &inner.open {
            None => &inner.otherwise,
            Some(open) => match inner.decided.get_or_try_init(|| open.decide(&inner.otherwise)).await {
                Ok(decided) => decided,
                Err(error) => {
                    let Some(meanwhile) = &open.meanwhile else { return Err(error.during("route")) };
                    return Ok(meanwhile);
                }
            },
        };
        decided.as_ref().map_err(|message| Error::validation(message.clone()).during("route"))
    }
}

impl Open {
    /// # Errors
    /// Nothing is known while a store does not answer.
    async fn decide(&self, otherwise: &Result<Scope, String>) -> Result<Result<Scope, String>> {
        let asked = *self.ask_again.lock();
        if self.meanwhile.is_some() && asked.is_some_and(|again| self.env.clock.now() < again) {
            return Err(Error::database("a store did not answer which deployment it is").retryable());
        }
        let mut unknown = None;
        for suspect in &self.suspects {
            match self.connections.are_one(&self.connection, suspect).await {
                Ok(true) => return Ok(self.scope.clone()),
                Ok(false) => {}
                Err(error) => unknown = Some((suspect, error)),
            }
        }
        let Some((suspect, error)) = unknown else { return Ok(otherwise.clone()) };
        tracing::warn!(connection = %self.connection, other = %suspect, %error, "whether two connections reach one deployment is not known yet");
        *self.ask_again.lock() = Some(self.env.clock.now().plus_millis(ASK_AGAIN_MILLIS));
        let message = format!(
            "the connections `{}` and `{suspect}` may reach one deployment, where tenants meet: {}",
            self.connection,
            error.message()
        );
        Err(Error::database(message).retryable().caused_by(error))
    }
}

/// What a route leads to, as far as tenants are concerned.
struct View<'r> {
    owner: Owner,
    named: Option<&'r str>,
    database: &'r str,
    is_named: bool,
}

impl View<'_> {
    /// The scope of an entry beside `others` in one database.
    fn of_typed(&self, others: &[&Entry]) -> Scope {
        let shared = others.iter().any(|other| self.owner.is_apart_from(&Owner::of(other)));
        match (&self.owner, shared) {
            (Owner::Anybody, _) => self.named.map_or(Scope::All, Scope::tenant),
            (Owner::Tenant(tenant), true) => Scope::Tenant(Arc::clone(tenant)),
            (Owner::Tenant(tenant), false) => {
                Scope::Sole { tenant: Arc::clone(tenant), stamps: self.is_named }
            }
            (Owner::Nobody, shared) if shared || self.is_named => Scope::Untenanted,
            (Owner::Nobody, _) => Scope::All,
        }
    }

    /// The scope of a context that names its database, which entries may be for, too.
    fn of_hashed(&self, others: &[&Entry]) -> Result<Scope, String> {
        if let Some(tenant) = self.named {
            return Ok(Scope::tenant(tenant));
        }
        for other in others {
            if let Owner::Tenant(tenant) = Owner::of(other) {
                // What is stored in a tenant's own database need not say whose it is.
                return Err(format!(
                    "the database `{}` is that of the tenant `{tenant}` ({}): name the tenant",
                    self.database, other.path
                ));
            }
        }
        Ok(Scope::Untenanted)
    }
}
