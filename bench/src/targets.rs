//! The targets, as numbers.

/// Which figure of a line a target is about, and its bound.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Bound {
    /// Ours by the ceiling is at least this.
    RatioAtLeast(f64),
    /// Ours by the ceiling is at most this.
    RatioAtMost(f64),
    /// Our figure is at most this.
    OursAtMost(f64),
    /// Our figure is this.
    OursIs(f64),
}

/// A bound and the row it stands in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) bound: Bound,
    pub(crate) row: &'static str,
}

const fn target(bound: Bound, row: &'static str) -> Target {
    Target { bound, row }
}

pub(crate) const EMBEDDED_CREATES: Target =
    target(Bound::RatioAtLeast(0.6), "embedded, durable (fsync) versioned creates, 64 writers");
pub(crate) const MONGO_CREATES: Target =
    target(Bound::RatioAtLeast(0.7), "MongoDB replica set, versioned creates, 64 writers");
const ONE_CREATE: &str = "one create, one client, MongoDB";
pub(crate) const CREATE_COMMANDS: Target = target(Bound::OursAtMost(3.0), ONE_CREATE);
pub(crate) const CREATE_CONNECTIONS: Target = target(Bound::OursIs(0.0), ONE_CREATE);
const ONE_PUT: &str = "exactly one PUT and no HEAD or read-back per stored object";
pub(crate) const PUTS: Target = target(Bound::OursIs(1.0), ONE_PUT);
pub(crate) const READ_BACKS: Target = target(Bound::OursIs(0.0), ONE_PUT);
const PROCESSES: &str = "4 and 8 processes writing one collection";
pub(crate) const FOUR_PROCESSES: Target = target(Bound::RatioAtLeast(0.8), PROCESSES);
pub(crate) const EIGHT_PROCESSES: Target = target(Bound::RatioAtLeast(0.7), PROCESSES);
pub(crate) const PROCESSES_P99: Target = target(Bound::RatioAtMost(1.5), PROCESSES);
pub(crate) const PROCESSES_FAILED: Target = target(Bound::OursIs(0.0), PROCESSES);
pub(crate) const LATEST_READ: Target =
    target(Bound::RatioAtLeast(0.8), "latest read, MongoDB, head with shadow / cached object");
const AS_OF: &str = "as-of read with 1,000 versions of the item, with 1,000,000 rows in the index";
pub(crate) const AS_OF_READ: Target = target(Bound::RatioAtLeast(0.5), AS_OF);
/// "Flat": what two measurements of the same thing may differ by.
pub(crate) const AS_OF_FLAT: Target = target(Bound::RatioAtLeast(0.85), AS_OF);
pub(crate) const AS_OF_P99: Target =
    target(Bound::RatioAtMost(1.2), "as-of p99 with 100,000 versions of one item against 10");
pub(crate) const LIST: Target =
    target(Bound::RatioAtLeast(0.7), "list of 50 by an indexed property among 1,000,000 heads");
const RESTORE_ROW: &str = "collection restore, 100,000 items, nothing to copy";
pub(crate) const RESTORE: Target = target(Bound::RatioAtLeast(0.5), RESTORE_ROW);
/// "Memory flat": four times the items may not take noticeably more.
pub(crate) const RESTORE_MEMORY: Target = target(Bound::RatioAtMost(1.5), RESTORE_ROW);
pub(crate) const COUNTED_CREATES: Target =
    target(Bound::RatioAtLeast(0.95), "writes with counters and 20 rules on, against off");
pub(crate) const FOLLOWER: Target =
    target(Bound::RatioAtLeast(5.0), "follower of the log, against the rate of writing");
/// "Memory flat", as of restores.
pub(crate) const ROLL_UP_MEMORY: Target = target(Bound::RatioAtMost(1.5), "roll-up of 1,000,000 rows");
pub(crate) const METADATA: Target =
    target(Bound::OursAtMost(200.0), "bytes of index metadata per version beside the indexed fields");
pub(crate) const PUBLISH: Target = target(Bound::RatioAtLeast(0.7), "publish, batched");
pub(crate) const CONSUME: Target = target(Bound::RatioAtLeast(0.6), "consume + ack, one process");
pub(crate) const END_TO_END: Target = target(
    Bound::RatioAtMost(3.0),
    "end to end publish, handler, ack, p99 at 10,000 messages/s, with retry, dead letters and outbox on",
);
pub(crate) const BULLMQ: Target =
    target(Bound::RatioAtLeast(3.0), "the same jobs through BullMQ on the same Redis");
