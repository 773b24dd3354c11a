//! Topics and subscriptions: looked up with one read, made, changed and removed.

use chronos_db::documents::{Guard, Scan, Write};

use super::entities::{Cursor, Topic};
use super::fields::{ascending, delete, put_if, too_contended};
use super::keys::{counters_key, cursor_key, sequence_key, topic_key, topic_prefix, with_prefix};
use super::store::Engine;
use crate::hot::{TopicOptions, TopicPatch};
use crate::{Error, ErrorKind, Result, Scope, TopicName};

/// How often a change of a document that others change too is tried.
pub(super) const ATTEMPTS: usize = 64;

pub(super) fn no_topic() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such topic")
}

impl Engine {
    /// The topic, also one that is being removed.
    async fn any_topic(&self, name: &TopicName) -> Result<Option<Topic>> {
        self.get_one(&self.collections.topics, topic_key(name)).await?.as_ref().map(Topic::read).transpose()
    }

    pub(super) async fn find_topic(&self, name: &TopicName) -> Result<Option<Topic>> {
        Ok(self.any_topic(name).await?.filter(|topic| !topic.gone))
    }

    /// Puts a changed topic; false if another process changed it meanwhile.
    pub(super) async fn put_topic(&self, topic: &Topic) -> Result<bool> {
        let put = put_if(topic.to_document(self.new_revision())?, topic.rev);
        Ok(self.write_one(&self.collections.topics, put).await?.is_applied())
    }

    pub(super) async fn ensure_topic(&self, name: &TopicName, patch: &TopicPatch) -> Result<TopicOptions> {
        self.ready().await?;
        for _ in 0..ATTEMPTS {
            match self.any_topic(name).await? {
                Some(topic) if topic.gone => self.finish_removal(&topic).await?,
                Some(topic) => {
                    let mut options = patch.apply(&topic.options);
                    options.shards = topic.options.shards;
                    options.check()?;
                    if options == topic.options
                        || self.put_topic(&Topic { options: options.clone(), ..topic }).await?
                    {
                        return Ok(options);
                    }
                }
                None => {
                    let options = patch.apply(&TopicOptions::default());
                    options.check()?;
                    let (key, id, rev) = (topic_key(name), self.new_revision().to_hex(), self.new_revision());
                    let topic = Topic {
                        key,
                        id,
                        options,
                        subscriptions: Vec::new(),
                        has_list: true,
                        schedules: false,
                        gone: false,
                        rev,
                    };
                    if self
                        .write_one(&self.collections.topics, Write::insert(topic.to_document(rev)?))
                        .await?
                        .is_applied()
                    {
                        return Ok(topic.options);
                    }
                }
            }
        }
        Err(too_contended("the topic"))
    }

    /// Notes that the topic has scheduled messages, which readers then look for.
    pub(super) async fn note_schedules(&self, name: &TopicName) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let topic = self.find_topic(name).await?.ok_or_else(no_topic)?;
            if topic.schedules || self.put_topic(&Topic { schedules: true, ..topic }).await? {
                return Ok(());
            }
        }
        Err(too_contended("the topic"))
    }

    pub(super) async fn topics(&self, scope: &Scope) -> Result<Vec<String>> {
        self.looking().await?;
        let prefix = topic_prefix(scope);
        let scan = Scan { filter: with_prefix(&prefix), order: ascending(&["_id"]), ..Scan::default() };
        let mut names = Vec::new();
        for topic in self.scan(&self.collections.topics, scan).await? {
            let topic = Topic::read(&topic)?;
            if !topic.gone {
                names.push(topic.key[prefix.len()..].to_owned());
            }
        }
        Ok(names)
    }

    pub(super) async fn delete_topic(&self, name: &TopicName) -> Result<bool> {
        self.ready().await?;
        for _ in 0..ATTEMPTS {
            let Some(topic) = self.any_topic(name).await? else { return Ok(false) };
            if topic.gone {
                // Another process died, or is busy, removing it.
                self.finish_removal(&topic).await?;
                return Ok(false);
            }
            let id = topic.id.clone();
            if self.put_topic(&Topic { gone: true, ..topic }).await? {
                // Another process may have finished it, and have made another one.
                if let Some(topic) = self.any_topic(name).await?.filter(|topic| topic.id == id) {
                    self.finish_removal(&topic).await?;
                }
                self.tell_all();
                return Ok(true);
            }
        }
        Err(too_contended("the topic"))
    }

    /// Removes what belongs to a topic that is marked as gone, at last the topic.
    async fn finish_removal(&self, topic: &Topic) -> Result<()> {
        for listed in &topic.subscriptions {
            self.remove_belongings(&listed.id).await?;
        }
        let prefix = with_prefix(&format!("{}/", topic.id));
        self.sweep(&self.collections.messages, prefix.clone(), &["m"]).await?;
        self.sweep(&self.collections.scheduled, prefix.clone(), &["b"]).await?;
        self.sweep(&self.collections.dedup, prefix.clone(), &[]).await?;
        self.write(&self.collections.topics, [counters_key(&topic.id), sequence_key(&topic.id)].map(delete))
            .await?;
        // A publish that had begun before may have come in between.
        self.sweep(&self.collections.messages, prefix, &["m"]).await?;
        let guard = Guard::Equals { field: "id".to_owned(), value: topic.id.as_str().into() };
        self.write_one(&self.collections.topics, Write::Delete { id: topic.key.as_str().into(), guard })
            .await?;
        Ok(())
    }

    pub(super) async fn cursors(&self, topic: &Topic) -> Result<Vec<Cursor>> {
        let ids = topic.listed().map(|listed| cursor_key(&listed.id)).collect();
        let found = self.get_map(&self.collections.topics, ids).await?;
        topic
            .listed()
            .filter_map(|l| found.get(&cursor_key(&l.id)).map(|cursor| Cursor::read(&l.id, cursor)))
            .collect()
    }

    /// The sequence number up to which messages have been removed or are needed by nobody.
    pub(super) async fn lowest_ack_floor(&self, topic: &Topic) -> Result<i64> {
        let low = self.low_watermark(topic).await?;
        Ok(self.cursors(topic).await?.iter().map(|cursor| cursor.ack_floor).min().unwrap_or(low).max(low))
    }
}
