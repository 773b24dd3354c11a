//! The loop that every follower of the log shares.

use async_trait::async_trait;

use super::log::{DamagedRow, Log, Piece};
use crate::Result;
use crate::lease::Lease;

/// Damaged rows that a report names.
const MAX_NAMED: usize = 100;

/// What a follower makes of the log.
///
/// The state has the position in it, or is put together with it in one write that takes place only if nobody
/// else has moved it. What is written before that must be the same from every follower, and however often.
#[async_trait]
pub(super) trait Projection: Sync {
    type State: Send;

    /// The state as it is stored.
    async fn load(&self) -> Result<Self::State>;

    /// The number up to which rows are in it.
    fn position(&self, state: &Self::State) -> i64;

    /// Takes in the rows behind the position and moves it to the end of the piece. None if another has
    /// moved it meanwhile.
    async fn advance(&self, state: Self::State, piece: &Piece) -> Result<Option<Self::State>>;
}

/// How far a follower came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Progress {
    pub(super) position: i64,
    pub(super) rows: u64,
    pub(super) damaged: Vec<DamagedRow>,
    pub(super) damaged_count: u64,
    /// The lease went to another on the way.
    pub(super) lost_lease: bool,
}

impl Progress {
    fn take_in(&mut self, piece: Piece) {
        self.rows += piece.entries.len() as u64;
        self.damaged_count += piece.damaged.len() as u64;
        let room = MAX_NAMED.saturating_sub(self.damaged.len());
        self.damaged.extend(piece.damaged.into_iter().take(room));
    }
}

/// Follows the log up to a number that is settled. Any number may do so at once; with a lease, it ends when
/// that is lost.
pub(super) async fn follow<P: Projection>(
    projection: &P,
    log: &Log,
    up_to: i64,
    lease: Option<&Lease>,
) -> Result<Progress> {
    let mut progress = Progress::default();
    let mut state = projection.load().await?;
    loop {
        progress.position = projection.position(&state);
        if progress.position >= up_to {
            return Ok(progress);
        }
        if let Some(lease) = lease
            && !lease.keep().await?
        {
            progress.lost_lease = true;
            return Ok(progress);
        }
        for piece in log.read(progress.position, up_to).await? {
            let Some(next) = projection.advance(state, &piece).await? else {
                state = projection.load().await?;
                break;
            };
            progress.take_in(piece);
            state = next;
        }
    }
}
