//! What the user of a connection may do.

use bson::{Document, doc};

use super::call::Call;
use super::failure::Failure;
use crate::documents::Rights;

pub(super) async fn rights(call: &Call, database: &str) -> Result<Rights, Failure> {
    // Any collection will do, also one that does not exist.
    let looked = call
        .lease
        .client
        .database(database)
        .run_command(doc! { "find": "chronos", "limit": 1, "singleBatch": true })
        .await;
    let read = match looked.map_err(Failure::from) {
        Ok(_) => true,
        Err(failure) if failure.is_forbidden() => false,
        Err(failure) => return Err(failure),
    };
    let status = call
        .lease
        .client
        .database("admin")
        .run_command(doc! { "connectionStatus": 1, "showPrivileges": true })
        .await?;
    let info = status.get_document("authInfo").cloned().unwrap_or_default();
    if info.get_array("authenticatedUsers").is_ok_and(Vec::is_empty) {
        // A server that lets a user without a name read allows everything to all.
        return Ok(Rights { read, write: read, index: read });
    }
    let privileges: Vec<&Document> = info
        .get_array("authenticatedUserPrivileges")
        .into_iter()
        .flatten()
        .filter_map(|privilege| privilege.as_document())
        .collect();
    let may = |action: &str| {
        privileges.iter().any(|privilege| {
            let grants =
                |actions: &Vec<bson::Bson>| actions.iter().any(|granted| granted.as_str() == Some(action));
            privilege.get_document("resource").is_ok_and(|resource| covers(resource, database))
                && privilege.get_array("actions").is_ok_and(grants)
        })
    };
    Ok(Rights { read, write: ["insert", "update", "remove"].into_iter().all(may), index: may("createIndex") })
}

/// Whether a privilege's resource is every collection of the database.
fn covers(resource: &Document, database: &str) -> bool {
    let any = resource.get_bool("anyResource").unwrap_or(false);
    let of = resource.get_str("db").is_ok_and(|db| db.is_empty() || db == database);
    any || of && resource.get_str("collection").is_ok_and(str::is_empty)
}
