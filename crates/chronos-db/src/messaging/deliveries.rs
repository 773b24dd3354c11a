//! Delivery attempts, for the audit.

use std::fmt;
use std::str::FromStr;

use bson::{Bson, Document, doc};

use super::schema::{Key, Kind, check_text, is};
use super::table::Table;
use super::value::{date, new_system, required_text, system_date, text, whole};
use super::{DEFAULT_NAMESPACE, runs};
use crate::documents::{Direction, Filter, Scan};
use crate::{Error, Result, Timestamp};

/// Delivery attempts of one tenant; see [`Messaging::deliveries`](super::Messaging::deliveries).
#[derive(Clone, Debug)]
pub struct Deliveries {
    table: Table,
}

/// How far an attempt has come. It only ever moves down this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    /// Handed to a consumer.
    Pending,
    /// Refused by it.
    Nack,
    /// Settled; final.
    Ack,
    /// In the dead letters; final.
    Dead,
}

impl DeliveryStatus {
    const ALL: [Self; 4] = [Self::Pending, Self::Nack, Self::Ack, Self::Dead];

    /// Returns the stored name, such as `pending`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Nack => "nack",
            Self::Ack => "ack",
            Self::Dead => "dead",
        }
    }

    /// A status gives way to higher ones only; the two ends to none.
    const fn rank(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Nack => 1,
            Self::Ack | Self::Dead => 2,
        }
    }
}

impl fmt::Display for DeliveryStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DeliveryStatus {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|status| status.name() == name);
        known.ok_or_else(|| {
            Error::validation(format!(
                "`{}` is not a delivery status; there are pending, nack, ack, dead",
                name.escape_debug()
            ))
        })
    }
}

/// One attempt to deliver a message to a subscription.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The message's topic.
    pub topic: String,
    /// The topic's namespace.
    pub namespace: String,
    /// The subscription.
    pub subscription: String,
    /// The message's id.
    pub msg_id: String,
    /// Which attempt, from 1 on.
    pub attempt: u32,
    /// How far it has come.
    pub status: DeliveryStatus,
    /// Who had it.
    pub consumer_id: Option<String>,
    /// Why it was refused.
    pub reason: Option<String>,
    /// When it came that far.
    pub ts: Timestamp,
    /// When it may be removed.
    pub expires_at: Option<Timestamp>,
}

impl Delivery {
    fn read(document: &Document) -> Result<Self> {
        Ok(Self {
            topic: required_text(document, "topic")?,
            namespace: text(document, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            subscription: required_text(document, "subscription")?,
            msg_id: required_text(document, "msgId")?,
            attempt: whole(document, "attempt").and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            status: required_text(document, "status")?.parse()?,
            consumer_id: text(document, "consumerId"),
            reason: text(document, "reason"),
            ts: date(document, "ts").ok_or_else(|| super::value::damaged(document, "ts"))?,
            expires_at: system_date(document, "expiresAt"),
        })
    }
}

impl Deliveries {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Records how far an attempt has come; what comes late or twice changes nothing. Answers what is
    /// recorded now.
    pub fn append(
        &self,
        topic: impl Into<String>,
        subscription: impl Into<String>,
        msg_id: impl Into<String>,
        attempt: u32,
        status: DeliveryStatus,
    ) -> AppendDelivery {
        AppendDelivery {
            table: self.table.clone(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            topic: topic.into(),
            subscription: subscription.into(),
            msg_id: msg_id.into(),
            attempt,
            status,
            consumer_id: None,
            reason: None,
            ts: None,
            retention_days: None,
        }
    }

    /// Lists the attempts to deliver a message, by subscription and attempt.
    pub fn list_by_message(&self, topic: impl Into<String>, msg_id: impl Into<String>) -> ListDeliveries {
        let namespace = DEFAULT_NAMESPACE.to_owned();
        ListDeliveries {
            table: self.table.clone(),
            namespace,
            topic: topic.into(),
            msg_id: msg_id.into(),
            subscription: None,
        }
    }
}

/// Records an attempt; see [`Deliveries::append`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct AppendDelivery {
    table: Table,
    namespace: String,
    topic: String,
    subscription: String,
    msg_id: String,
    attempt: u32,
    status: DeliveryStatus,
    consumer_id: Option<String>,
    reason: Option<String>,
    ts: Option<Timestamp>,
    retention_days: Option<u32>,
}

impl AppendDelivery {
    /// Names the topic's namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Says which consumer has the message.
    pub fn consumer_id(mut self, id: impl Into<String>) -> Self {
        self.consumer_id = Some(id.into());
        self
    }

    /// Says why it was refused.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says when it came that far (default: now).
    pub fn ts(mut self, at: Timestamp) -> Self {
        self.ts = Some(at);
        self
    }

    /// Lets [`prune`](super::Messaging::prune) remove it after this many days.
    pub fn retention_days(mut self, days: u32) -> Self {
        self.retention_days = Some(days);
        self
    }

    async fn run(self) -> Result<Delivery> {
        self.append().await.map_err(|error| error.during("deliveries.append"))
    }

    async fn append(self) -> Result<Delivery> {
        let values: [Bson; 5] = [
            check_text("namespace", &self.namespace)?.into(),
            check_text("topic", &self.topic)?.into(),
            check_text("message id", &self.msg_id)?.into(),
            check_text("subscription", &self.subscription)?.into(),
            i64::from(self.attempt).into(),
        ];
        let changed = self.table.change(Key::new(Kind::Deliveries, values), |found, now| {
            let ts = self.ts.unwrap_or(now);
            if let Some(found) = found
                && !self.moves(&Delivery::read(found)?, ts)
            {
                return Ok(None);
            }
            let created = found.and_then(|found| system_date(found, "createdAt")).unwrap_or(now);
            let kept = found
                .and_then(|found| super::value::system_whole(found, "retentionDays"))
                .and_then(|days| u32::try_from(days).ok());
            let mut document = found.cloned().unwrap_or_default();
            document.extend(doc! { "status": self.status.name(), "ts": ts });
            for (field, value) in [("consumerId", &self.consumer_id), ("reason", &self.reason)] {
                if let Some(value) = value {
                    document.insert(field, value);
                }
            }
            document.insert("_system", new_system(created, now, self.retention_days.or(kept)));
            Ok(Some(document))
        });
        Delivery::read(&changed.await?.document.unwrap_or_default())
    }

    /// Whether this tells more than what is recorded.
    fn moves(&self, recorded: &Delivery, ts: Timestamp) -> bool {
        self.status.rank() > recorded.status.rank() || (self.status == recorded.status && ts > recorded.ts)
    }
}

runs!(AppendDelivery => Delivery);

/// Lists attempts; see [`Deliveries::list_by_message`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListDeliveries {
    table: Table,
    namespace: String,
    topic: String,
    msg_id: String,
    subscription: Option<String>,
}

impl ListDeliveries {
    /// Names the topic's namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Lists only those of this subscription.
    pub fn subscription(mut self, subscription: impl Into<String>) -> Self {
        self.subscription = Some(subscription.into());
        self
    }

    async fn run(self) -> Result<Vec<Delivery>> {
        let namespace = check_text("namespace", &self.namespace)?.into();
        let mut filter = is(Kind::Deliveries, "namespace", &namespace)
            .and(Filter::eq("topic", check_text("topic", &self.topic)?))
            .and(Filter::eq("msgId", check_text("message id", &self.msg_id)?));
        if let Some(subscription) = &self.subscription {
            filter = filter.and(Filter::eq("subscription", check_text("subscription", subscription)?));
        }
        let order =
            ["subscription", "attempt", "_id"].map(|path| (path.to_owned(), Direction::Ascending)).to_vec();
        let found = self.table.all(Scan { filter, order, ..Scan::default() }).await?;
        found.iter().map(Delivery::read).collect()
    }
}

runs!(ListDeliveries => Vec<Delivery>);
