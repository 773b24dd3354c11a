//! What a write waits for.

use std::time::Duration;

use mongodb::options::{Acknowledgment, WriteConcern};

/// On a majority of the members, in their journals. Without a bound a write would wait as long as the
/// majority is away.
pub(super) fn durable(wait: Duration) -> WriteConcern {
    WriteConcern::builder().w(Acknowledgment::Majority).journal(true).w_timeout(wait).build()
}

/// What a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Concern {
    /// On a majority of the members, in their journals.
    Durable,
    /// On the primary alone: for what a durable write that follows carries along.
    OnItsWay,
}
