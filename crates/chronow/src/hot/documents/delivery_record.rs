//! The delivery record: what one subscription has to do with one message.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};

use super::chunk::Body;
use super::fields::{damaged, int, text};
use crate::hot::{DeadLetter, Delivery, Lock, MessageState, StoredMessage};
use crate::{Result, Timestamp};

/// Where a message is, for one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Handed out; `due` is when the lock ends.
    Locked,
    /// To be handed out at `due`.
    Waiting,
    /// Behind another message of its ordering key; `due` is when it is looked at whether it still is.
    Queued,
    /// Set aside.
    Deferred,
    /// A dead letter since `due`.
    Dead,
    /// Settled: a tombstone, for ever.
    Done,
}

/// Classes of delivery records, the first part of an index: after the subscription's id comes one of these
/// letters.
pub(super) mod class {
    /// Open, and the message lies in its chunk.
    pub(in super::super) const OPEN: char = 'o';
    /// Open, with its own copy of the message.
    pub(in super::super) const DETACHED: char = 'd';
    /// A dead letter.
    pub(in super::super) const DEAD: char = 'x';
    /// A tombstone.
    pub(in super::super) const DONE: char = 'z';
    /// Behind another message of its key; for looking whether it still is, apart from what is due.
    pub(in super::super) const QUEUED: char = 'q';
}

/// One delivery record as stored. Only who holds the token changes a locked delivery record, but a revision
/// guards every put all the same.
#[derive(Clone)]
pub(super) struct DeliveryRecord {
    pub(super) subscription: String,
    /// The message's id.
    pub(super) id: String,
    /// Its sequence number in the topic's sequence.
    pub(super) sequence: i64,
    pub(super) state: State,
    /// Milliseconds; what it means depends on the state.
    pub(super) due: i64,
    pub(super) key: Option<String>,
    /// Handed out by id, out of its key's order.
    pub(super) aside: bool,
    pub(super) token: Option<ObjectId>,
    pub(super) rev: ObjectId,
    /// Handler starts that count against the limit.
    pub(super) starts: u32,
    /// Handler starts ever.
    pub(super) total: u32,
    pub(super) acked: bool,
    /// The `_id`'s number of the chunk that holds the message, if the delivery record has no copy.
    pub(super) chunk: i64,
    pub(super) body: Option<Body>,
    pub(super) at: Timestamp,
    pub(super) expires: Option<Timestamp>,
    /// The last failure's reason.
    pub(super) why: String,
}

chronos_db::debug_some!(DeliveryRecord {
    subscription,
    id,
    sequence,
    state,
    due,
    starts,
    total,
    acked,
    chunk,
    at
});

pub(super) fn record_id(subscription: &str, id: &str) -> String {
    format!("{subscription}/{id}")
}

/// What the ordering key of a subscription is indexed by.
pub(super) fn ordering_group(subscription: &str, key: &str) -> String {
    format!("{subscription}|{key}")
}

impl State {
    pub(super) fn letter(self) -> &'static str {
        match self {
            Self::Locked => "l",
            Self::Waiting => "w",
            Self::Queued => "q",
            Self::Deferred => "d",
            Self::Dead => "x",
            Self::Done => "z",
        }
    }

    fn read(letter: &str) -> Option<Self> {
        Some(match letter {
            "l" => Self::Locked,
            "w" => Self::Waiting,
            "q" => Self::Queued,
            "d" => Self::Deferred,
            "x" => Self::Dead,
            "z" => Self::Done,
            _ => return None,
        })
    }
}

impl DeliveryRecord {
    /// A delivery record for a message that lies in the chunk `chunk`.
    pub(super) fn new(
        subscription: &str,
        sequence: i64,
        chunk: i64,
        body: &Body,
        state: State,
        due: i64,
        rev: ObjectId,
    ) -> Self {
        Self {
            subscription: subscription.to_owned(),
            id: body.message.id.clone(),
            sequence,
            state,
            due,
            key: body.message.key.clone(),
            aside: false,
            token: (state == State::Locked).then_some(rev),
            rev,
            starts: 0,
            total: 0,
            acked: false,
            chunk,
            body: None,
            at: body.message.published_at,
            expires: body.expires,
            why: String::new(),
        }
    }

    pub(super) fn stored_id(&self) -> String {
        record_id(&self.subscription, &self.id)
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Dead | State::Done)
    }

    /// Whether the delivery record of a message that lies in its chunk is at or below the ack floor, so that
    /// it cannot be one.
    pub(super) fn is_void(&self, ack_floor: i64) -> bool {
        self.is_open() && self.body.is_none() && self.sequence <= ack_floor
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.total == 0 && self.expires.is_some_and(|at| at <= now)
    }

    /// The ordering group it stands in, if it does.
    pub(super) fn ordering_group(&self) -> Option<String> {
        let in_group = !self.aside && matches!(self.state, State::Locked | State::Waiting | State::Queued);
        self.key.as_ref().filter(|_| in_group).map(|key| ordering_group(&self.subscription, key))
    }

    /// The end: nothing of the message stays but the counts.
    pub(super) fn finish(&mut self, acked: bool) {
        self.state = State::Done;
        self.acked = acked;
        self.body = None;
        self.token = None;
    }

    /// To the dead letters, or to the end if the subscription keeps none.
    pub(super) fn dead_letter(&mut self, keep: bool, body: Body, reason: &str, now: Timestamp) {
        if !keep {
            return self.finish(false);
        }
        self.state = State::Dead;
        self.due = now.as_millis();
        self.token = None;
        self.aside = false;
        self.body = Some(body);
        reason.clone_into(&mut self.why);
    }

    /// Locks it with a fresh token.
    pub(super) fn lock(&mut self, until: i64, token: ObjectId) {
        self.state = State::Locked;
        self.due = until;
        self.token = Some(token);
    }

    /// The same delivery record under a new revision, as stored.
    pub(super) fn to_document(&self) -> Document {
        let Self { subscription, sequence, .. } = self;
        let class = match (self.state, &self.body) {
            (State::Dead, _) => class::DEAD,
            (State::Done, _) => class::DONE,
            (_, Some(_)) => class::DETACHED,
            (_, None) => class::OPEN,
        };
        let mut record = doc! {
            "_id": self.stored_id(), "c": format!("{subscription}{class}"), "s": sequence, "st": self.state.letter(), "rev": self.rev,
            "n": i64::from(self.starts), "tn": i64::from(self.total),
        };
        if self.state == State::Done {
            if self.acked {
                record.insert("ok", true);
            }
            return record;
        }
        record.insert("at", self.at.as_millis());
        match self.state {
            State::Dead => record.insert("w", format!("{subscription}{}", class::DEAD)),
            State::Queued => record.insert("w", format!("{subscription}{}", class::QUEUED)),
            State::Deferred => None,
            _ => record.insert("w", subscription),
        };
        record.insert("due", self.due);
        if let Some(ordering_group) = self.ordering_group() {
            if self.state == State::Locked {
                record.insert("h", &ordering_group);
            }
            record.insert("k", ordering_group);
            record.insert("ns", -sequence);
        }
        if let Some(key) = &self.key {
            record.insert("key", key);
        }
        if self.aside {
            record.insert("as", true);
        }
        if let Some(token) = self.token {
            record.insert("tok", token);
        }
        match &self.body {
            Some(body) => record.insert("b", body.to_document()),
            None => record.insert("m", self.chunk),
        };
        if let Some(expires) = self.expires {
            record.insert("x", expires.as_millis());
        }
        if !self.why.is_empty() {
            record.insert("why", &self.why);
        }
        record
    }

    pub(super) fn read(mut record: Document) -> Result<Self> {
        let stored = text(&record, "_id")?;
        let (subscription, id) = stored.split_once('/').ok_or_else(|| damaged("delivery record", "_id"))?;
        let (subscription, id) = (subscription.to_owned(), id.to_owned());
        let state = State::read(text(&record, "st")?).ok_or_else(|| damaged("delivery record", "st"))?;
        let at = Timestamp::from_millis(if state == State::Done { 0 } else { int(&record, "at")? });
        let body = match record.remove("b") {
            Some(Bson::Document(body)) => Some(Body::read(body, id.clone(), at)?),
            _ => None,
        };
        let count = |field: &str| int(&record, field).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            sequence: int(&record, "s")?,
            state,
            due: int(&record, "due").unwrap_or(0),
            key: record.get_str("key").ok().map(str::to_owned),
            aside: record.get_bool("as").unwrap_or(false),
            token: record.get_object_id("tok").ok(),
            rev: record.get_object_id("rev").map_err(|_| damaged("delivery record", "rev"))?,
            starts: count("n")?,
            total: count("tn")?,
            acked: record.get_bool("ok").unwrap_or(false),
            chunk: int(&record, "m").unwrap_or(0),
            body,
            at,
            expires: int(&record, "x").ok().map(Timestamp::from_millis),
            why: record.get_str("why").unwrap_or_default().to_owned(),
            subscription,
            id,
        })
    }

    /// The lock of a locked delivery record.
    pub(super) fn lock_of(&self) -> Lock {
        Lock { id: self.id.clone(), token: self.token.map(|t| t.to_hex()).unwrap_or_default() }
    }

    pub(super) fn is_held_by(&self, lock: &Lock) -> bool {
        self.state == State::Locked && self.token.is_some_and(|token| token.to_hex() == lock.token)
    }

    pub(super) fn delivery(&self, body: &Body) -> Delivery {
        Delivery {
            lock: self.lock_of(),
            message: body.message.clone(),
            deliveries: self.starts,
            locked_until: Timestamp::from_millis(self.due),
        }
    }

    /// The dead letter that a dead delivery record is.
    pub(super) fn into_dead_letter(self) -> Option<DeadLetter> {
        Some(DeadLetter {
            message: StoredMessage { id: self.id, ..self.body?.message },
            reason: self.why,
            deliveries: self.starts,
            failed_at: Timestamp::from_millis(self.due),
        })
    }

    /// Where an open delivery record's message is at `now`, and until when.
    pub(super) fn whereabouts(&self, now: Timestamp) -> (MessageState, Option<Timestamp>) {
        let due = Timestamp::from_millis(self.due);
        match self.state {
            State::Locked => (MessageState::InFlight, Some(due)),
            State::Waiting if due > now => (MessageState::Scheduled, Some(due)),
            State::Deferred => (MessageState::Deferred, None),
            _ => (MessageState::Unread, None),
        }
    }
}
