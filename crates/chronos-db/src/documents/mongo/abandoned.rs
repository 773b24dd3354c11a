//! Ending the transactions of clients that died.
//!
//! The server keeps the transaction of a client that is gone, with everything it wrote locked, for a minute
//! and more, and who writes the same documents waits. Ours have all their writes at hand when they begin, so
//! one that does nothing at all between two looks has no client any more. The server itself knows which these
//! are, so nothing has to be written down for it; it is asked by a write that has been waiting for long.
//!
//! Transactions of other programs are none of our business, whatever they are called: only sessions that were
//! opened by this library (its name stands beside the driver's in what each client tells the server), of the
//! same user, are looked at.

use std::collections::HashMap;
use std::time::Duration;

use bson::{Bson, Document, doc};
use futures::TryStreamExt as _;
use mongodb::options::ReadConcern;
use tokio::time::sleep;

use super::call::Call;
use super::client::DRIVER_NAME;
use super::failure::Failure;

/// How long a write waits before it looks for what is in its way, and between two looks: what did nothing in
/// all that time is ended. If its client lives after all, it runs the transaction again.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The open transactions of this library that were waiting for their client at a look: the session, with the
/// number of its transaction and for how long the server had worked for it.
type Seen = HashMap<Vec<u8>, (i64, i64)>;

/// Carries out writes, and ends what dead clients left in their way.
pub(super) async fn watched<T>(call: &Call, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    let mut seen = Seen::new();
    loop {
        let look = async {
            sleep(LOOK_INTERVAL).await;
            if let Err(failure) = end_abandoned(call, &mut seen).await {
                // The write goes on waiting; it ends by its own time.
                tracing::warn!(?failure, "what stands in the way of a write is not known");
            }
        };
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = look => {}
        }
    }
}

async fn end_abandoned(call: &Call, seen: &mut Seen) -> Result<(), Failure> {
    if !call.connector.capabilities(&call.lease).await?.transactions {
        return Ok(());
    }
    let admin = call.lease.client.database("admin");
    // Without `allUsers` these are this user's own, which every user may ask for and end.
    let ours = doc! { "$match": {
        "type": "idleSession", "transaction.parameters.autocommit": false,
        "clientMetadata.driver.name": { "$regex": format!("(^|\\|){DRIVER_NAME}(\\||$)") },
    } };
    let asked = admin.aggregate([doc! { "$currentOp": { "idleSessions": true } }, ours]);
    // What goes on is known to the server itself; it refuses the client's own read concern here.
    let sessions: Vec<Document> = asked.read_concern(ReadConcern::local()).await?.try_collect().await?;
    let now: Vec<_> = sessions.iter().filter_map(idle_transaction).collect();
    let abandoned = now.iter().filter(|(session, _, state)| seen.get(session) == Some(state));
    let ids: Vec<Bson> = abandoned.map(|(_, id, _)| doc! { "id": id.clone() }.into()).collect();
    *seen = now.into_iter().map(|(session, _, state)| (session, state)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    tracing::warn!(transactions = ids.len(), "ending transactions that their clients have abandoned");
    admin.run_command(doc! { "killSessions": ids }).await?;
    Ok(())
}

/// The session of a transaction that waits for its client, and how far it is.
fn idle_transaction(session: &Document) -> Option<(Vec<u8>, Bson, (i64, i64))> {
    let Some(Bson::Binary(id)) = session.get_document("lsid").ok()?.get("id") else { return None };
    let transaction = session.get_document("transaction").ok()?;
    let number = whole(transaction.get_document("parameters").ok()?.get("txnNumber")?)?;
    let worked = whole(transaction.get("timeActiveMicros")?)?;
    Some((id.bytes.clone(), Bson::Binary(id.clone()), (number, worked)))
}

fn whole(value: &Bson) -> Option<i64> {
    value.as_i64().or_else(|| value.as_i32().map(i64::from))
}
