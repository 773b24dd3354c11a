//! Whose documents an entry of a configuration leads to.

use std::sync::Arc;

use super::{Config, DatabaseType, Entry, Selector};

/// Whose documents an entry leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Tenant(Arc<str>),
    /// No tenant's: of a domain, or for everybody.
    Nobody,
    /// Those of whichever tenant the route names; logs, for one.
    Anybody,
}

impl Owner {
    pub(crate) fn of(entry: &Entry) -> Self {
        match &entry.selector {
            Selector::Hashed(_) => Self::Anybody,
            _ if entry.is_for_all_tenants() => Self::Anybody,
            Selector::Tenant(tenant) => Self::Tenant(tenant.as_str().into()),
            Selector::Generic | Selector::Domain(_) | Selector::Single => Self::Nobody,
        }
    }

    /// Whether what one of two entries leads to is not for the other.
    pub(crate) fn is_apart_from(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tenant(one), Self::Tenant(other)) => one != other,
            // Their routes tell tenants apart already.
            (Self::Anybody, Self::Anybody) | (Self::Nobody, Self::Nobody) => false,
            _ => true,
        }
    }
}

impl Config {
    /// The entries that lead to different documents, counters or objects. Of those that see the same ones, the
    /// first.
    pub(crate) fn distinct_entries(&self) -> Vec<Arc<Entry>> {
        let is_same = |one: &Entry, other: &Entry| {
            one.connection == other.connection
                && one.database == other.database
                && one.objects == other.objects
                && one.analytics_database == other.analytics_database
                && one.database_type == other.database_type
                && Owner::of(one) == Owner::of(other)
        };
        let mut distinct: Vec<Arc<Entry>> = Vec::new();
        for entry in &self.entries {
            if !distinct.iter().any(|known| is_same(known, entry)) {
                distinct.push(Arc::new(entry.clone()));
            }
        }
        distinct
    }
}

impl Entry {
    /// The tenant whose it is, if it is one's.
    pub(crate) fn tenant(&self) -> Option<&str> {
        match &self.selector {
            Selector::Tenant(tenant) => Some(tenant),
            _ => None,
        }
    }

    /// Its position among version 1's hashed backends.
    pub(crate) fn position(&self) -> Option<usize> {
        match self.selector {
            Selector::Hashed(position) => Some(position),
            _ => None,
        }
    }

    /// Whether all tenants share it by design: logs, identities, messaging.
    pub(crate) fn is_for_all_tenants(&self) -> bool {
        matches!(
            self.database_type,
            Some(DatabaseType::Logs | DatabaseType::Identities | DatabaseType::Messaging)
        )
    }

    /// Whether it asks for inline records: whole in the document store, without versions.
    pub(super) fn asks_for_inline(&self) -> bool {
        self.is_for_all_tenants() && self.objects.is_none()
    }
}
