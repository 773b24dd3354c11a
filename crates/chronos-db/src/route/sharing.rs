//! Which entries of a configuration lead to one database, and with it which documents a handle sees there.

use std::sync::Arc;

use crate::config::{Config, DatabaseType, Entry, Selector};
use crate::records::Scope;
use crate::{Error, Resolved, Result};

/// Whose documents an entry leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner<'e> {
    Tenant(&'e str),
    /// No tenant's: of a domain, or for everybody.
    Nobody,
    /// Those of whichever tenant the route names; logs, for one.
    Anybody,
}

impl Owner<'_> {
    pub(crate) fn of(entry: &Entry) -> Owner<'_> {
        match (&entry.selector, entry.database_type) {
            (_, Some(DatabaseType::Logs | DatabaseType::Identities | DatabaseType::Messaging)) | (Selector::Hashed(_), _) => Owner::Anybody,
            (Selector::Tenant(tenant), _) => Owner::Tenant(tenant),
            (Selector::Generic | Selector::Domain(_) | Selector::Single, _) => Owner::Nobody,
        }
    }

    /// Whether what one of two entries leads to is not for the other.
    pub(crate) fn is_apart_from(self, other: Owner<'_>) -> bool {
        match (self, other) {
            (Owner::Tenant(one), Owner::Tenant(other)) => one != other,
            // Their routes tell tenants apart already.
            (Owner::Anybody, Owner::Anybody) | (Owner::Nobody, Owner::Nobody) => false,
            _ => true,
        }
    }
}

/// Whose documents a handle sees.
#[derive(Clone, Debug)]
pub(crate) struct Tenancy(Arc<Result<Scope, String>>);

impl Tenancy {
    /// The tenancy of what a route leads to.
    pub(crate) fn new(config: &Config, resolved: &Resolved) -> Self {
        Self(Arc::new(scope(config, resolved)))
    }

    /// Which documents are seen.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the route says too little to tell.
    pub(crate) async fn scope(&self) -> Result<&Scope> {
        self.0.as_ref().as_ref().map_err(|message| Error::validation(message.clone()).during("route"))
    }
}

fn scope(config: &Config, resolved: &Resolved) -> Result<Scope, String> {
    let entry = &*resolved.entry;
    let named = resolved.enforced_tenant.as_deref();
    let hashed = |entry: &&Entry| matches!(entry.selector, Selector::Hashed(_));
    // Entries with a database of this name, on a store of this name.
    let beside =
        || config.entries.iter().filter(|other| other.database.as_deref() == Some(&resolved.database) && config.is_one_store(entry, other));
    match Owner::of(entry) {
        Owner::Anybody if hashed(&entry) => {
            let owned = beside().find_map(|other| match Owner::of(other) {
                Owner::Tenant(tenant) => Some((tenant, other)),
                _ => None,
            });
            match (named, owned) {
                // What such a tenant has written in a database of its own need not say whose it is.
                (None, Some((tenant, other))) => {
                    Err(format!("the database `{}` is that of the tenant `{tenant}` ({}): name the tenant", resolved.database, other.path))
                }
                (None, None) => Ok(Scope::Untenanted),
                (Some(tenant), _) => Ok(Scope::tenant(tenant)),
            }
        }
        Owner::Anybody => Ok(named.map_or(Scope::All, Scope::tenant)),
        owner => {
            let shared = beside().any(|other| owner.is_apart_from(Owner::of(other)));
            Ok(match (owner, shared) {
                (Owner::Tenant(tenant), true) => Scope::tenant(tenant),
                (Owner::Tenant(tenant), false) => {
                    let stamps = config.entries.iter().any(|other| hashed(&other) && config.is_one_store(entry, other));
                    Scope::Sole { tenant: tenant.into(), stamps }
                }
                (_, true) => Scope::Untenanted,
                (_, false) if config.entries.iter().any(|other| hashed(&other) && config.is_one_store(entry, other)) => Scope::Untenanted,
                (_, false) => Scope::All,
            })
        }
    }
}
