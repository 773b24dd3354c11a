//! Looking at a deployment: which it is, and what it holds.

use bson::{Document, doc};
use futures::TryStreamExt as _;

use super::client::Lease;
use super::failure::Failure;
use crate::Error;
use crate::documents::Deployment;

/// Members of a replica set are called alike whichever of them is asked; a standalone server is known by its
/// process, a cluster by its id.
pub(super) async fn deployment(lease: &Lease) -> Result<Deployment, Failure> {
    let hello = lease.hello().await?;
    let process =
        hello.get_document("topologyVersion").and_then(|version| version.get_object_id("processId"));
    let mut marks: Vec<String> = process.into_iter().map(|process| format!("process {process}")).collect();
    if let Ok(set) = hello.get_str("setName") {
        let members = ["hosts", "passives", "arbiters"]
            .into_iter()
            .filter_map(|list| hello.get_array(list).ok())
            .flatten();
        marks.extend(members.filter_map(|host| host.as_str()).map(|host| format!("member {set}/{host}")));
    }
    if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") {
        // Each router is a process of its own.
        let version =
            lease.client.database("config").collection::<Document>("version").find_one(doc! {}).await?;
        let cluster = version.and_then(|version| version.get_object_id("clusterId").ok());
        let cluster = cluster.ok_or_else(|| Error::database("the sharded cluster does not report its id"))?;
        marks.push(format!("cluster {cluster}"));
    }
    if marks.is_empty() {
        return Err(Error::database("the server reports neither its process nor its replica set").into());
    }
    Ok(Deployment::of(marks))
}

pub(super) async fn collections(lease: &Lease, database: &str) -> Result<Vec<String>, Failure> {
    let command = doc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true, "filter": { "type": "collection" } };
    let listed: Vec<Document> =
        lease.client.database(database).run_cursor_command(command).await?.try_collect().await?;
    Ok(listed.iter().filter_map(|collection| collection.get_str("name").ok().map(str::to_owned)).collect())
}

/// Those that are the server's.
const OWN: [&str; 3] = ["admin", "config", "local"];

pub(super) async fn databases(lease: &Lease) -> Result<Vec<String>, Failure> {
    let command = doc! { "listDatabases": 1, "nameOnly": true, "authorizedDatabases": true };
    let listed = lease.client.database("admin").run_command(command).await?;
    let databases =
        listed.get_array("databases").map_err(|_| Error::database("the server lists no databases"))?;
    let names = databases.iter().filter_map(|database| database.as_document()?.get_str("name").ok());
    Ok(names.filter(|name| !OWN.contains(name)).map(str::to_owned).collect())
}
