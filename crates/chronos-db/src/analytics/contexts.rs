//! Where there is a collection of a name: in which entries of a configuration, and of which tenants.

use std::sync::Arc;

use futures::TryStreamExt as _;

use crate::config::{DatabaseType, Entry};
use crate::documents::Namespace;
use crate::records::{Collection, tenants_of};
use crate::{Chronos, ErrorKind, Resolved, Result};

/// A collection, and how it is named to people.
pub(super) struct Context {
    pub(super) collection: Collection,
    pub(super) shown: String,
}

/// The collections of that name that an entry leads to, and that something was written to.
pub(super) async fn of_entry(chronos: &Chronos, entry: &Arc<Entry>, name: &str) -> Result<Vec<Context>> {
    // In a messaging database nothing is a record.
    if entry.database_type == Some(DatabaseType::Messaging) {
        return Ok(Vec::new());
    }
    let resolved = |database: &str, tenant: Option<String>| Resolved {
        entry: Arc::clone(entry),
        database: database.to_owned(),
        collection: name.to_owned(),
        enforced_tenant: tenant,
    };
    let mut all = Vec::new();
    match &entry.database {
        Some(database) => all.push(resolved(database, None)),
        // Contexts of version 1 name their database.
        None => {
            let documents = chronos.documents(&entry.connection)?;
            let heads = format!("{name}_head");
            for database in documents.databases().await? {
                if documents.collections(&database).await?.contains(&heads) {
                    let heads = Namespace::new(database.as_str(), heads.as_str());
                    let mut tenants = tenants_of(Arc::clone(&documents), heads);
                    while let Some(tenant) = tenants.try_next().await? {
                        all.push(resolved(&database, tenant));
                    }
                }
            }
        }
    }
    let mut contexts = Vec::new();
    for resolved in all {
        let collection = chronos.resolved(&resolved)?;
        match collection.exists().await {
            Ok(true) => contexts.push(Context { shown: shown(&resolved), collection }),
            Ok(false) => {}
            // The database of one tenant, which a context without a tenant does not reach.
            Err(error) if entry.database.is_none() && error.kind() == ErrorKind::Validation => {}
            Err(error) => return Err(error),
        }
    }
    Ok(contexts)
}

fn shown(resolved: &Resolved) -> String {
    let tenant = resolved.enforced_tenant.as_ref();
    let of = tenant.map(|tenant| format!(" of tenant `{tenant}`")).unwrap_or_default();
    format!(
        "`{}`{of} of {} (connection `{}`)",
        resolved.collection, resolved.entry.path, resolved.entry.connection
    )
}
