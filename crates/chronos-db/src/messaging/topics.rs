//! What is known of topics.

use bson::{Document, doc};
use futures::stream::BoxStream;

use super::listing::Listing;
use super::schema::{Key, Kind, check_text};
use super::table::{Changed, Table};
use super::value::{date, required_text, system_date, text, whole};
use super::{DEFAULT_NAMESPACE, runs};
use crate::documents::{Direction, Filter};
use crate::{Error, Page, Result, Timestamp};

/// Topics of one tenant; see [`Messaging::topics`](super::Messaging::topics).
#[derive(Clone, Debug)]
pub struct Topics {
    table: Table,
}

/// A topic.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Topic {
    /// Its name.
    pub topic: String,
    /// Its namespace.
    pub namespace: String,
    /// Its shards.
    pub shards: u32,
    /// When it was first ensured.
    pub created_at: Option<Timestamp>,
    /// When it was last changed.
    pub updated_at: Option<Timestamp>,
}

impl Topic {
    fn read(document: &Document) -> Result<Self> {
        Ok(Self {
            topic: required_text(document, "topic")?,
            namespace: text(document, "namespace").unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned()),
            shards: whole(document, "shards").and_then(|shards| u32::try_from(shards).ok()).unwrap_or(1),
            created_at: date(document, "createdAt").or_else(|| system_date(document, "createdAt")),
            updated_at: system_date(document, "updatedAt"),
        })
    }
}

impl Topics {
    pub(super) fn new(table: Table) -> Self {
        Self { table }
    }

    /// Creates the topic unless it is there.
    pub fn ensure(&self, topic: impl Into<String>) -> EnsureTopic {
        EnsureTopic {
            table: self.table.clone(),
            topic: topic.into(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
            shards: None,
        }
    }

    /// Reads the topic, if there is one.
    pub fn get(&self, topic: impl Into<String>) -> GetTopic {
        GetTopic { table: self.table.clone(), topic: topic.into(), namespace: DEFAULT_NAMESPACE.to_owned() }
    }

    /// Lists the topics of a namespace, by name.
    pub fn list(&self) -> ListTopics {
        let order = vec![("topic".to_owned(), Direction::Ascending)];
        let namespace = DEFAULT_NAMESPACE.to_owned();
        ListTopics {
            table: self.table.clone(),
            listing: Listing {
                filter: Filter::All,
                namespace,
                order,
                after: None,
                limit: None,
                without: Vec::new(),
            },
        }
    }

    /// Removes what is known of a topic; its messages stay. Answers whether there was something.
    pub fn delete(&self, topic: impl Into<String>) -> DeleteTopic {
        DeleteTopic {
            table: self.table.clone(),
            topic: topic.into(),
            namespace: DEFAULT_NAMESPACE.to_owned(),
        }
    }
}

fn key(topic: &str, namespace: &str) -> Result<Key> {
    Ok(Key::new(
        Kind::Topics,
        [check_text("namespace", namespace)?.into(), check_text("topic", topic)?.into()],
    ))
}

/// Creates a topic; see [`Topics::ensure`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct EnsureTopic {
    table: Table,
    topic: String,
    namespace: String,
    shards: Option<u32>,
}

impl EnsureTopic {
    /// Names the namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the number of shards, also of a topic that is there. Without it a new topic has 1, and an
    /// existing one keeps what it has.
    pub fn shards(mut self, shards: u32) -> Self {
        self.shards = Some(shards);
        self
    }

    async fn run(self) -> Result<Topic> {
        if self.shards == Some(0) {
            return Err(Error::validation("a topic has at least one shard").during("topics.ensure"));
        }
        let key = key(&self.topic, &self.namespace).map_err(|error| error.during("topics.ensure"))?;
        let wanted = self.shards.map(i64::from);
        let Changed { document, .. } = self
            .table
            .change(key, |found, now| {
                let Some(found) = found else {
                    let shards = wanted.unwrap_or(1);
                    return Ok(Some(doc! { "shards": shards, "createdAt": now, "_system": { "createdAt": now, "updatedAt": now } }));
                };
                if wanted.is_none() || whole(found, "shards") == wanted {
                    return Ok(None);
                }
                let created = date(found, "createdAt").or_else(|| system_date(found, "createdAt")).unwrap_or(now);
                let mut document = found.clone();
                document.insert("shards", wanted);
                document.insert("_system", doc! { "createdAt": created, "updatedAt": now });
                Ok(Some(document))
            })
            .await
            .map_err(|error| error.during("topics.ensure"))?;
        Topic::read(&document.unwrap_or_default())
    }
}

runs!(EnsureTopic => Topic);

/// Looks a topic up; see [`Topics::get`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct GetTopic {
    table: Table,
    topic: String,
    namespace: String,
}

impl GetTopic {
    /// Names the namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    async fn run(self) -> Result<Option<Topic>> {
        let key = key(&self.topic, &self.namespace)?;
        self.table.find(&key).await?.as_ref().map(Topic::read).transpose()
    }
}

runs!(GetTopic => Option<Topic>);

/// Removes a topic; see [`Topics::delete`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct DeleteTopic {
    table: Table,
    topic: String,
    namespace: String,
}

impl DeleteTopic {
    /// Names the namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    async fn run(self) -> Result<bool> {
        self.table
            .remove_key(&key(&self.topic, &self.namespace)?)
            .await
            .map_err(|error| error.during("topics.delete"))
    }
}

runs!(DeleteTopic => bool);

/// Lists topics; see [`Topics::list`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListTopics {
    table: Table,
    listing: Listing,
}

impl ListTopics {
    /// Names the namespace (default `default`).
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.listing.namespace = namespace.into();
        self
    }

    /// Goes on behind a page: its [`next`](Page::next).
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.listing.after = Some(cursor.into());
        self
    }

    /// Limits a page to this many (default 100, at most 1,000).
    pub fn limit(mut self, limit: u32) -> Self {
        self.listing.limit = Some(limit);
        self
    }

    /// Streams all of them, page by page.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<Topic>> {
        self.listing.stream(self.table, Topic::read)
    }

    async fn run(self) -> Result<Page<Topic>> {
        self.listing.page_of(&self.table, Topic::read).await
    }
}

runs!(ListTopics => Page<Topic>);
