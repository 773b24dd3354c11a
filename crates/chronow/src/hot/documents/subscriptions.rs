//! Subscriptions: making, listing and removing them.

use chronos_db::documents::{Guard, Write};

use super::entities::{Cursor, Listed, Subscription, Topic, last_sequence};
use super::fields::{delete, int, put_if, too_contended};
use super::keys::{
    counters_key, cursor_key, sequence_key, sequence_of, signal_key, subscription_key, with_prefix,
};
use super::store::Engine;
use super::topics::{ATTEMPTS, no_topic};
use crate::hot::{DeliverPolicy, SubscriptionOptions, SubscriptionPatch};
use crate::{Error, ErrorKind, Result, SubscriptionName, Timestamp, TopicName};

pub(super) fn no_subscription() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such subscription")
}

impl Engine {
    pub(super) async fn remove_belongings(&self, id: &str) -> Result<()> {
        // The cursor first: who is about to insert delivery records looks at it afterwards.
        let own = [cursor_key(id), subscription_key(id), counters_key(id), signal_key(id)];
        self.write(&self.collections.topics, own.map(delete)).await?;
        self.sweep(&self.collections.deliveries, with_prefix(&format!("{id}/")), &["b"]).await?;
        Ok(())
    }

    pub(super) async fn ensure_subscription(
        &self,
        name: &SubscriptionName,
        patch: &SubscriptionPatch,
    ) -> Result<SubscriptionOptions> {
        self.ready().await?;
        for _ in 0..ATTEMPTS {
            let mut topic = self.find_topic(name.topic()).await?.ok_or_else(no_topic)?;
            if topic.subscriptions.iter().any(|listed| listed.gone && listed.name == name.name()) {
                self.delete_subscription(name).await?;
                continue;
            }
            if let Some(listed) = topic.find(name.name()).cloned() {
                let now = self.documents.now().await?;
                if self.expire_idle(name, &listed, now).await? {
                    continue;
                }
                let Some(stored) =
                    self.get_one(&self.collections.topics, subscription_key(&listed.id)).await?
                else {
                    continue;
                };
                let stored = Subscription::read(&listed.id, &stored)?;
                let mut options = patch.apply(&stored.options);
                options.start = stored.options.start.clone();
                options.check()?;
                if options == stored.options {
                    return Ok(options);
                }
                if options.auto_delete != stored.options.auto_delete {
                    // Pulls were noted only now and then; the time counts from now.
                    self.touch(&listed.id, now).await?;
                }
                let resumed = stored.options.paused && !options.paused;
                let changed = Subscription { options, ..stored };
                let put = put_if(changed.to_document(self.new_revision())?, changed.rev);
                if self.write_one(&self.collections.topics, put).await?.is_applied() {
                    self.cache(name).context.lock().take();
                    if resumed {
                        self.signal(&changed.id).await?;
                    }
                    return Ok(changed.options);
                }
                continue;
            }
            let options = patch.apply(&SubscriptionOptions::default());
            options.check()?;
            let id = self.new_revision().to_hex();
            let at = self.starting_sequence(&topic, &options.start).await?;
            let seen = self.documents.now().await?.as_millis();
            let rev = self.new_revision();
            let cursor = Cursor { subscription: id.clone(), at, ack_floor: at, seen, rev };
            let from = if options.start == DeliverPolicy::Earliest { 0 } else { at };
            let made = Subscription { id: id.clone(), options, filter: None, from, rev };
            let put = |document| Write::put(document, Guard::Any);
            self.write(&self.collections.topics, [put(cursor.to_document(rev)), put(made.to_document(rev)?)])
                .await?;
            // It is there once its topic lists it.
            topic.subscriptions.push(Listed { name: name.name().to_owned(), id: id.clone(), gone: false });
            if self.put_topic(&topic).await? {
                return Ok(made.options);
            }
            self.write(&self.collections.topics, [cursor_key(&id), subscription_key(&id)].map(delete))
                .await?;
        }
        Err(too_contended("the topic"))
    }

    pub(super) async fn touch(&self, id: &str, now: Timestamp) -> Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(stored) = self.get_one(&self.collections.topics, cursor_key(id)).await? else {
                return Ok(());
            };
            let cursor = Cursor { seen: now.as_millis(), ..Cursor::read(id, &stored)? };
            if self
                .write_one(
                    &self.collections.topics,
                    put_if(cursor.to_document(self.new_revision()), cursor.rev),
                )
                .await?
                .is_applied()
            {
                return Ok(());
            }
        }
        Err(too_contended("the subscription's cursor"))
    }

    async fn starting_sequence(&self, topic: &Topic, start: &DeliverPolicy) -> Result<i64> {
        let counter = self.get_one(&self.collections.topics, sequence_key(&topic.id)).await?;
        let last = last_sequence(counter.as_ref())?;
        let earliest = self.lowest_ack_floor(topic).await?;
        Ok(match start {
            DeliverPolicy::New => last,
            DeliverPolicy::Earliest => earliest,
            DeliverPolicy::Id(id) => sequence_of(id)
                .ok_or_else(|| Error::validation(format!("`{id}` is not a message id of this topic")))?
                .clamp(earliest, last.max(earliest)),
            DeliverPolicy::Time(at) => {
                let mut sequence = earliest;
                'search: loop {
                    let chunks = self.chunks_behind(&topic.id, sequence, 100, false).await?;
                    if chunks.is_empty() {
                        break sequence;
                    }
                    for chunk in chunks {
                        if int(&chunk, "at")? >= *at {
                            break 'search (int(&chunk, "f")? - 1).max(sequence);
                        }
                        sequence = int(&chunk, "l")?;
                    }
                }
            }
        })
    }

    pub(super) async fn subscription(&self, name: &SubscriptionName) -> Result<Option<SubscriptionOptions>> {
        match self.open_to_look(name).await {
            Ok(context) => Ok(Some(context.subscription.options)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn subscriptions(&self, name: &TopicName) -> Result<Vec<String>> {
        self.looking().await?;
        let Some(topic) = self.find_topic(name).await? else { return Ok(Vec::new()) };
        let idle = self.idle_of(&topic, self.documents.now().await?).await?;
        let shown =
            topic.listed().filter(|listed| !listed.name.starts_with("__") && !idle.contains(&listed.id));
        let mut names: Vec<String> = shown.map(|listed| listed.name.clone()).collect();
        names.sort();
        Ok(names)
    }

    pub(super) async fn delete_subscription(&self, name: &SubscriptionName) -> Result<bool> {
        self.remove_subscription(name, None).await
    }

    /// Removes a subscription; only the one of this id, if one is given.
    pub(super) async fn remove_subscription(
        &self,
        name: &SubscriptionName,
        id: Option<&str>,
    ) -> Result<bool> {
        self.ready().await?;
        let mut mine: Option<String> = None;
        for _ in 0..ATTEMPTS {
            let Some(mut topic) = self.find_topic(name.topic()).await? else { return Ok(mine.is_some()) };
            let listed = topic.subscriptions.iter_mut().find(|listed| listed.name == name.name());
            // What was made since is another one.
            let Some(listed) =
                listed.filter(|listed| id.or(mine.as_deref()).is_none_or(|id| listed.id == id))
            else {
                return Ok(mine.is_some());
            };
            if !listed.gone {
                listed.gone = true;
                let id = listed.id.clone();
                if self.put_topic(&topic).await? {
                    mine = Some(id);
                }
                continue;
            }
            let id = listed.id.clone();
            self.remove_belongings(&id).await?;
            topic.subscriptions.retain(|listed| listed.id != id);
            if self.put_topic(&topic).await? {
                self.tell_all();
                self.forget_cache(name);
                return Ok(mine.is_some());
            }
        }
        Err(too_contended("the topic"))
    }

    /// Makes pullers of all processes look again.
    pub(super) async fn signal(&self, subscription: &str) -> Result<()> {
        self.documents.sequence(&self.collections.topics, &signal_key(subscription), 1).await?;
        self.tell_subscription(subscription);
        Ok(())
    }
}
