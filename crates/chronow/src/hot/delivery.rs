//! Deliveries: locks, settlements, dead letters, and looking at what waits.

use std::time::Duration;

use super::message::StoredMessage;
use crate::Timestamp;

/// Most dead letters of one page, whatever is asked for.
pub const MAX_LETTERS: u32 = 1_000;

/// A delivery's lock on its message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lock {
    /// The message.
    pub id: String,
    /// Fresh for every delivery; a consumer with another one no longer holds the message.
    pub token: String,
}

/// A message handed out to one subscription.
#[derive(Clone, PartialEq)]
pub struct Delivery {
    /// The lock on it.
    pub lock: Lock,
    /// The message.
    pub message: StoredMessage,
    /// How often a handler of this subscription has been started on it so far, without this time.
    pub deliveries: u32,
    /// The lock ends then, unless it is renewed.
    pub locked_until: Timestamp,
}

chronos_db::debug_some!(Delivery { lock, message, deliveries, locked_until });

/// How a delivery ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Done.
    Ack,
    /// Again: after `delay`, else after the subscription's backoff. With its deliveries used up: to the dead
    /// letters, with `reason`.
    Retry {
        /// An explicit wait.
        delay: Option<Duration>,
        /// Why, for the dead letters.
        reason: String,
    },
    /// To the dead letters, now.
    DeadLetter {
        /// Why.
        reason: String,
    },
    /// To the dead letters, now, without a handler having seen it: it was started by its pull, and that does
    /// not count.
    Refuse {
        /// Why.
        reason: String,
    },
    /// Set aside until it is fetched by id.
    Defer,
    /// Given back unused (it was prefetched and its handler not started): at once available again, and not
    /// counted.
    Release,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// As asked.
    Done,
    /// The message went to the dead letters: its deliveries were used up.
    DeadLettered,
    /// The lock was no longer the caller's; nothing happened.
    Lost,
}

/// Settlements and handler starts that belong together: settling one message and starting the next is one
/// step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettleAndStart {
    /// Ends.
    pub settle: Vec<(Lock, Settle)>,
    /// Starts: each counts one delivery of its message.
    pub start: Vec<Lock>,
}

/// What became of a [`SettleAndStart`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SettleAndStartResult {
    /// One per settlement.
    pub settled: Vec<Settled>,
    /// One per start: whether the lock still holds and the message's deliveries were not used up (then it is
    /// dead-lettered, and must not be handled).
    pub started: Vec<bool>,
}

/// What a pull brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pulled {
    /// The messages, each locked for the subscription's visibility timeout.
    pub deliveries: Vec<Delivery>,
    /// How many of the first of them were started with it; see
    /// [`MessageStore::pull_and_start`](super::MessageStore::pull_and_start).
    pub started: usize,
    /// When something more becomes due at the earliest, as far as the store knows; publishing may be earlier.
    pub next_due: Option<Duration>,
}

/// A dead letter of one subscription.
#[derive(Clone, PartialEq)]
pub struct DeadLetter {
    /// The message, under its own id.
    pub message: StoredMessage,
    /// Why it is here: the last failure's reason, `expired`, `undecodable`, or what the handler said.
    pub reason: String,
    /// How often a handler was started on it.
    pub deliveries: u32,
    /// When it came here.
    pub failed_at: Timestamp,
}

chronos_db::debug_some!(DeadLetter { message, deliveries, failed_at });

/// Where a dead letter lies, without the letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterId {
    /// The message's own id.
    pub id: String,
    /// For going on behind it.
    pub cursor: String,
    /// When it came here.
    pub failed_at: Timestamp,
}

/// Which dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// All.
    All,
    /// At most this many, the oldest first.
    Oldest(u64),
    /// These.
    Ids(Vec<String>),
}

/// Where a message of a subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageState {
    /// Not handed out yet.
    Unread,
    /// Handed out, not settled.
    InFlight,
    /// Waits for its time: scheduled, or retried after a while.
    Scheduled,
    /// Set aside.
    Deferred,
}

/// A message of a subscription, looked at without taking it.
#[derive(Clone, PartialEq)]
pub struct Peeked {
    /// The message.
    pub message: StoredMessage,
    /// Where it is.
    pub state: MessageState,
    /// How often a handler was started on it.
    pub deliveries: u32,
    /// When it becomes due or its lock ends, if it waits for that.
    pub until: Option<Timestamp>,
}

chronos_db::debug_some!(Peeked { message, state, deliveries, until });
