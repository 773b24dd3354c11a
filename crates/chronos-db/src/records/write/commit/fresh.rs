//! Heads that changes follow are read again before they are too old.
//!
//! Rows that are superseded leave the index some time after, whichever process's configuration says so, and decide no race
//! from then on. So a change takes no number if its head was read longer ago than that. Where a head is on the way
//! there, because its writer was slow or its queue is long, it is read once more right before: then only a store that
//! takes this long to give a number out keeps a write from committing.

use std::time::Duration;

use super::{CommitError, Committer, PendingCommit, Prepared};
use crate::Error;
use crate::clock::Moment;
use crate::records::model::{Head, ItemId};

/// The oldest head a change may follow: less than a prune waits (see `records/retention/prune.rs`).
const STALE: Duration = Duration::from_secs(2);
/// The same where versions are not kept: far less than the time superseded rows stay.
const STALE_UNVERSIONED: Duration = Duration::from_secs(10);
/// A head of this age is read again.
const OLD: Duration = Duration::from_secs(1);
/// How often a change may be too late in a row.
const DELAYS: u32 = 8;

impl Committer {
    /// Whether a change has its number too late to know that nothing came after its head and is gone again.
    pub(super) fn is_stale(&self, prepared: &Prepared) -> bool {
        let oldest = if self.index.settings.versioning { STALE } else { STALE_UNVERSIONED };
        prepared.read_at.age(&*self.index.env.clock) > oldest
    }

    /// Reads old heads again. Whose head is another one by now is answered; the others are returned.
    pub(super) async fn with_fresh_heads(&self, members: Vec<PendingCommit>) -> Vec<PendingCommit> {
        let clock = &*self.index.env.clock;
        let is_old = |member: &PendingCommit| member.prepared.read_at.age(clock) > OLD;
        let ids: Vec<ItemId> =
            members.iter().filter(|member| is_old(member)).map(|member| member.prepared.id).collect();
        if ids.is_empty() || self.index.env.fail.skips("guard.old_heads") {
            return members;
        }
        let read_at = Moment::now(clock);
        let heads = self.index.bare_heads(&ids).await;
        let mut fresh = Vec::with_capacity(members.len());
        for mut member in members {
            if !ids.contains(&member.prepared.id) {
                fresh.push(member);
                continue;
            }
            let refused = match &heads {
                _ if member.delays > DELAYS => CommitError::Failed(too_slow()),
                Err(error) => CommitError::Failed(error.clone()),
                Ok(heads) if is_as_before(heads.get(&member.prepared.id), &member.prepared) => {
                    member.prepared.read_at = read_at;
                    fresh.push(member);
                    continue;
                }
                Ok(_) => CommitError::Conflict,
            };
            // A caller that gave up wrote nothing.
            let _ = member.reply.send(Err(refused));
        }
        fresh
    }
}

/// Whether the head that is there now, or that there is none, is what the change follows.
fn is_as_before(now: Option<&Head>, prepared: &Prepared) -> bool {
    match (now, &prepared.previous) {
        (None, None) => true,
        (Some(now), Some(then)) => now.is_same(then),
        _ => false,
    }
}

fn too_slow() -> Error {
    let message = format!(
        "the store took longer than {} s each time to give out a number for the change: nothing was written",
        STALE.as_secs()
    );
    Error::database(message).retryable()
}
