//! The card: what one subscription has to do with one message.

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};

use super::chunk::Body;
use super::store::{damaged, int, text};
use crate::hot::{DeadLetter, Delivery, Lock, Place};
use crate::{Result, Timestamp};

/// Where a message is, for one subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Handed out; `due` is when the lock ends.
    Locked,
    /// To be handed out at `due`.
    Waiting,
    /// Behind another message of its ordering key; `due` is when somebody looks whether it still is.
    Queued,
    /// Set aside.
    Deferred,
    /// A dead letter since `due`.
    Dead,
    /// Settled: a tombstone, for ever.
    Done,
}

/// Classes of cards, the first part of an index: after the subscription's id comes one of these letters.
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

/// One card as stored. Only who holds the token changes a locked card, but a revision guards every put all
/// the same.
#[derive(Clone)]
pub(super) struct Card {
    pub(super) subscription: String,
    /// The message's id.
    pub(super) id: String,
    /// Its place in the topic's sequence.
    pub(super) place: i64,
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
    /// The `_id`'s number of the chunk that holds the message, if the card has no copy.
    pub(super) chunk: i64,
    pub(super) body: Option<Body>,
    pub(super) at: Timestamp,
    pub(super) expires: Option<Timestamp>,
    /// The last failure's reason.
    pub(super) why: String,
}

chronos_db::debug_some!(Card { subscription, id, place, state, due, starts, total, acked, chunk, at });

pub(super) fn card_id(subscription: &str, id: &str) -> String {
    format!("{subscription}/{id}")
}

/// What the ordering key of a subscription is indexed by.
pub(super) fn chain(subscription: &str, key: &str) -> String {
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

impl Card {
    /// A card for a message that lies in the chunk `chunk`.
    pub(super) fn new(
        subscription: &str,
        place: i64,
        chunk: i64,
        body: &Body,
        state: State,
        due: i64,
        rev: ObjectId,
    ) -> Self {
        Self {
            subscription: subscription.to_owned(),
            id: body.id.clone(),
            place,
            state,
            due,
            key: body.key.clone(),
            aside: false,
            token: (state == State::Locked).then_some(rev),
            rev,
            starts: 0,
            total: 0,
            acked: false,
            chunk,
            body: None,
            at: body.at,
            expires: body.expires,
            why: String::new(),
        }
    }

    pub(super) fn stored_id(&self) -> String {
        card_id(&self.subscription, &self.id)
    }

    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Dead | State::Done)
    }

    /// Whether the card of a message that lies in its chunk is at or below the floor, so that it cannot be
    /// one.
    pub(super) fn is_void(&self, floor: i64) -> bool {
        self.is_open() && self.body.is_none() && self.place <= floor
    }

    pub(super) fn has_expired(&self, now: Timestamp) -> bool {
        self.total == 0 && self.expires.is_some_and(|at| at <= now)
    }

    /// The chain it stands in, if it does.
    pub(super) fn chain(&self) -> Option<String> {
        let in_chain = !self.aside && matches!(self.state, State::Locked | State::Waiting | State::Queued);
        self.key.as_ref().filter(|_| in_chain).map(|key| chain(&self.subscription, key))
    }

    /// The end: nothing of the message stays but the counts.
    pub(super) fn finish(&mut self, acked: bool) {
        self.state = State::Done;
        self.acked = acked;
        self.body = None;
        self.token = None;
    }

    /// To the dead letters, or to the end if the subscription keeps none.
    pub(super) fn bury(&mut self, keep: bool, body: Body, reason: &str, now: Timestamp) {
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

    /// The same card under a new revision, as stored.
    pub(super) fn to_document(&self) -> Document {
        let Self { subscription, place, .. } = self;
        let class = match (self.state, &self.body) {
            (State::Dead, _) => class::DEAD,
            (State::Done, _) => class::DONE,
            (_, Some(_)) => class::DETACHED,
            (_, None) => class::OPEN,
        };
        let mut card = doc! {
            "_id": self.stored_id(), "c": format!("{subscription}{class}"), "s": place, "st": self.state.letter(), "rev": self.rev,
            "n": i64::from(self.starts), "tn": i64::from(self.total),
        };
        if self.state == State::Done {
            if self.acked {
                card.insert("ok", true);
            }
            return card;
        }
        card.insert("at", self.at.as_millis());
        match self.state {
            State::Dead => card.insert("w", format!("{subscription}{}", class::DEAD)),
            State::Queued => card.insert("w", format!("{subscription}{}", class::QUEUED)),
            State::Deferred => None,
            _ => card.insert("w", subscription),
        };
        card.insert("due", self.due);
        if let Some(chain) = self.chain() {
            if self.state == State::Locked {
                card.insert("h", &chain);
            }
            card.insert("k", chain);
            card.insert("ns", -place);
        }
        if let Some(key) = &self.key {
            card.insert("key", key);
        }
        if self.aside {
            card.insert("as", true);
        }
        if let Some(token) = self.token {
            card.insert("tok", token);
        }
        match &self.body {
            Some(body) => card.insert("b", body.to_document()),
            None => card.insert("m", self.chunk),
        };
        if let Some(expires) = self.expires {
            card.insert("x", expires.as_millis());
        }
        if !self.why.is_empty() {
            card.insert("why", &self.why);
        }
        card
    }

    pub(super) fn read(mut card: Document) -> Result<Self> {
        let stored = text(&card, "_id")?;
        let (subscription, id) = stored.split_once('/').ok_or_else(|| damaged("card", "_id"))?;
        let (subscription, id) = (subscription.to_owned(), id.to_owned());
        let state = State::read(text(&card, "st")?).ok_or_else(|| damaged("card", "st"))?;
        let at = Timestamp::from_millis(if state == State::Done { 0 } else { int(&card, "at")? });
        let body = match card.remove("b") {
            Some(Bson::Document(body)) => Some(Body::read(body, id.clone(), at)?),
            _ => None,
        };
        let count = |field: &str| int(&card, field).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
        Ok(Self {
            place: int(&card, "s")?,
            state,
            due: int(&card, "due").unwrap_or(0),
            key: card.get_str("key").ok().map(str::to_owned),
            aside: card.get_bool("as").unwrap_or(false),
            token: card.get_object_id("tok").ok(),
            rev: card.get_object_id("rev").map_err(|_| damaged("card", "rev"))?,
            starts: count("n")?,
            total: count("tn")?,
            acked: card.get_bool("ok").unwrap_or(false),
            chunk: int(&card, "m").unwrap_or(0),
            body,
            at,
            expires: int(&card, "x").ok().map(Timestamp::from_millis),
            why: card.get_str("why").unwrap_or_default().to_owned(),
            subscription,
            id,
        })
    }

    /// The lock of a locked card.
    pub(super) fn lock_of(&self) -> Lock {
        Lock { id: self.id.clone(), token: self.token.map(|t| t.to_hex()).unwrap_or_default() }
    }

    pub(super) fn is_held_by(&self, lock: &Lock) -> bool {
        self.state == State::Locked && self.token.is_some_and(|token| token.to_hex() == lock.token)
    }

    pub(super) fn delivery(&self, body: &Body) -> Delivery {
        Delivery {
            lock: self.lock_of(),
            payload: body.payload.clone(),
            content_type: body.content_type.clone(),
            headers: body.headers.clone(),
            key: body.key.clone(),
            published_at: body.at,
            deliveries: self.starts,
            locked_until: Timestamp::from_millis(self.due),
        }
    }

    /// The dead letter that a dead card is.
    pub(super) fn dead_letter(self) -> Option<DeadLetter> {
        let body = self.body?;
        Some(DeadLetter {
            id: self.id,
            payload: body.payload,
            content_type: body.content_type,
            headers: body.headers,
            key: body.key,
            reason: self.why,
            deliveries: self.starts,
            published_at: body.at,
            failed_at: Timestamp::from_millis(self.due),
        })
    }

    /// Where an open card's message is at `now`, and until when.
    pub(super) fn whereabouts(&self, now: Timestamp) -> (Place, Option<Timestamp>) {
        let due = Timestamp::from_millis(self.due);
        match self.state {
            State::Locked => (Place::InFlight, Some(due)),
            State::Waiting if due > now => (Place::Scheduled, Some(due)),
            State::Deferred => (Place::Deferred, None),
            _ => (Place::Unread, None),
        }
    }
}
