//! Topics and subscriptions: looked up with one read, made, changed and removed.

use std::collections::HashSet;

use chronos_db::documents::{Filter, Guard, Outcome, Scan, Write};

use super::delivery_record::State;
use super::entities::{Cursor, Listed, Subscription, SubscriptionContext, Topic, is_idle, last_sequence};
use super::keys::{
    counters_key, cursor_key, sequence_key, sequence_of, signal_key, subscription_key, topic_key,
    topic_prefix, with_prefix,
};
use super::store::{Engine, ascending, delete, delete_if, int, locked, put_if, too_contended};
use crate::hot::{DeliverPolicy, SubscriptionOptions, SubscriptionPatch, TopicOptions, TopicPatch};
use crate::{Error, ErrorKind, Result, Scope, SubscriptionName, Timestamp, TopicName};

/// How often a change of a document that others change too is tried.
pub(super) const ATTEMPTS: usize = 64;

pub(super) fn no_topic() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such topic")
}

pub(super) fn no_subscription() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such subscription")
}

impl Engine {
    /// The topic, also one that is being removed.
    async fn any_topic(&self, name: &TopicName) -> Result<Option<Topic>> {
        self.get_one(&self.collections.topics, topic_key(name)).await?.as_ref().map(Topic::read).transpose()
    }

    pub(super) async fn find_topic(&self, name: &TopicName) -> Result<Option<Topic>> {
        Ok(self.any_topic(name).await?.filter(|topic| !topic.gone))
    }

    /// Puts a changed topic; false if somebody else changed it meanwhile.
    async fn put_topic(&self, topic: &Topic) -> Result<bool> {
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
                // Somebody died, or is busy, removing it.
                self.finish_removal(&topic).await?;
                return Ok(false);
            }
            let id = topic.id.clone();
            if self.put_topic(&Topic { gone: true, ..topic }).await? {
                // Somebody else may have finished it, and have made another one.
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

    async fn remove_belongings(&self, id: &str) -> Result<()> {
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
                if options.auto_delete_ms != stored.options.auto_delete_ms {
                    // Whoever pulls was noted only now and then; the time counts from now.
                    self.touch(&listed.id, now).await?;
                }
                let resumed = stored.options.paused && !options.paused;
                let changed = Subscription { options, ..stored };
                let put = put_if(changed.to_document(self.new_revision())?, changed.rev);
                if self.write_one(&self.collections.topics, put).await?.is_applied() {
                    locked(&self.cache(name).context).take();
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

    async fn touch(&self, id: &str, now: Timestamp) -> Result<()> {
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
                .ok_or_else(|| Error::validation(format!("`{id}` is no message id of this topic")))?
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

    /// Whether a message of a subscription is locked.
    async fn has_lock(&self, id: &str, now: Timestamp) -> Result<bool> {
        let filter = Filter::eq("w", id)
            .and(Filter::gt("due", now.as_millis()))
            .and(Filter::eq("st", State::Locked.letter()));
        let scan = Scan {
            filter,
            order: ascending(&["due", "_id"]),
            limit: Some(1),
            without: vec!["b".to_owned()],
            ..Scan::default()
        };
        Ok(!self.scan(&self.collections.deliveries, scan).await?.is_empty())
    }

    /// Whether nobody used a subscription for the time it says, and nobody is at work on a message of it.
    pub(super) async fn is_unused(
        &self,
        subscription: &Subscription,
        cursor: &Cursor,
        now: Timestamp,
    ) -> Result<bool> {
        Ok(is_idle(subscription, cursor, now) && !self.has_lock(&subscription.id, now).await?)
    }

    /// Removes a subscription nobody uses. True if so.
    async fn expire_idle(&self, name: &SubscriptionName, listed: &Listed, now: Timestamp) -> Result<bool> {
        let found = self
            .get_map(&self.collections.topics, vec![subscription_key(&listed.id), cursor_key(&listed.id)])
            .await?;
        let (Some(subscription), Some(cursor)) =
            (found.get(&subscription_key(&listed.id)), found.get(&cursor_key(&listed.id)))
        else {
            // Its removal was broken off.
            return self.remove_subscription(name, Some(&listed.id)).await;
        };
        let subscription = Subscription::read(&listed.id, subscription)?;
        let cursor = Cursor::read(&listed.id, cursor)?;
        if !is_idle(&subscription, &cursor, now) {
            return Ok(false);
        }
        if self.has_lock(&listed.id, now).await? {
            self.touch(&listed.id, now).await?;
            return Ok(false);
        }
        // Whoever begins to use it meanwhile changes its cursor.
        if !self
            .write_one(&self.collections.topics, delete_if(cursor_key(&listed.id), cursor.rev))
            .await?
            .is_applied()
        {
            return Ok(false);
        }
        tracing::info!(subscription = %name, "subscription removed: nobody used it");
        self.remove_subscription(name, Some(&listed.id)).await
    }

    /// Removes subscriptions of a topic that nobody uses. True if there were some.
    pub(super) async fn expire_idle_of(
        &self,
        name: &TopicName,
        topic: &Topic,
        now: Timestamp,
    ) -> Result<bool> {
        let mut removed = false;
        for id in self.idle_of(topic, now).await? {
            if let Some(listed) = topic.listed().find(|listed| listed.id == id)
                && let Ok(subscription) = SubscriptionName::new(name, &listed.name)
            {
                removed |= self.expire_idle(&subscription, listed, now).await?;
            }
        }
        Ok(removed)
    }

    /// The ids of subscriptions of a topic that seem to be used by nobody.
    async fn idle_of(&self, topic: &Topic, now: Timestamp) -> Result<HashSet<String>> {
        let keys = topic
            .listed()
            .flat_map(|listed| [subscription_key(&listed.id), cursor_key(&listed.id)])
            .collect();
        let found = self.get_map(&self.collections.topics, keys).await?;
        let mut idle = HashSet::new();
        for listed in topic.listed() {
            if let (Some(subscription), Some(cursor)) =
                (found.get(&subscription_key(&listed.id)), found.get(&cursor_key(&listed.id)))
                && self
                    .is_unused(
                        &Subscription::read(&listed.id, subscription)?,
                        &Cursor::read(&listed.id, cursor)?,
                        now,
                    )
                    .await?
            {
                idle.insert(listed.id.clone());
            }
        }
        Ok(idle)
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
    async fn remove_subscription(&self, name: &SubscriptionName, id: Option<&str>) -> Result<bool> {
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

    /// Looks everything up that concerns a subscription: one read if its ids are known already. One that
    /// nobody uses is removed.
    pub(super) async fn open(&self, name: &SubscriptionName) -> Result<SubscriptionContext> {
        self.open_and(name, true).await
    }

    /// As [`open`](Self::open), and writes nothing.
    pub(super) async fn open_to_look(&self, name: &SubscriptionName) -> Result<SubscriptionContext> {
        self.open_and(name, false).await
    }

    async fn open_and(&self, name: &SubscriptionName, may_write: bool) -> Result<SubscriptionContext> {
        if may_write {
            self.ready().await?;
        } else {
            self.looking().await?;
        }
        let cache = self.cache(name);
        let key = topic_key(name.topic());
        for _ in 0..4 {
            let ids = locked(&cache.ids).clone();
            let mut wanted = vec![key.clone()];
            if let Some((topic, id)) = &ids {
                wanted.extend([subscription_key(id), cursor_key(id), sequence_key(topic), signal_key(id)]);
            }
            let (found, now) = futures::try_join!(self.get_without_lists(wanted), async {
                Ok(self.documents.now().await?)
            })?;
            let topic =
                found.get(&key).map(Topic::read_without_list).transpose()?.filter(|topic| !topic.gone);
            self.note_topic(name.topic(), topic.as_ref().map(|topic| topic.rev));
            let Some(topic) = topic else {
                self.forget_cache(name);
                return Err(no_topic());
            };
            // A subscription has its cursor as long as it is there, and never the one of another.
            let known = ids.clone().filter(|(of, id)| *of == topic.id && found.contains_key(&cursor_key(id)));
            let Some((_, id)) = known else {
                let Some(topic) = self.find_topic(name.topic()).await? else { continue };
                let Some(listed) = topic.find(name.name()) else {
                    self.forget_cache(name);
                    return Err(no_subscription());
                };
                let current = (topic.id.clone(), listed.id.clone());
                if ids.as_ref() == Some(&current) {
                    // Its removal has begun: it is listed, and its cursor is gone.
                    return Err(no_subscription());
                }
                // Another call may have been faster.
                if locked(&cache.ids).replace(current.clone()) != Some(current) {
                    locked(&cache.in_flight).clear();
                }
                continue;
            };
            let listed = Listed { name: name.name().to_owned(), id, gone: false };
            let (Some(subscription), Some(cursor)) =
                (found.get(&subscription_key(&listed.id)), found.get(&cursor_key(&listed.id)))
            else {
                return Err(no_subscription());
            };
            let subscription = Subscription::read(&listed.id, subscription)?;
            let cursor = Cursor::read(&listed.id, cursor)?;
            if is_idle(&subscription, &cursor, now) {
                match may_write {
                    true if self.expire_idle(name, &listed, now).await? => return Err(no_subscription()),
                    true => continue,
                    false if self.is_unused(&subscription, &cursor, now).await? => {
                        return Err(no_subscription());
                    }
                    false => {}
                }
            }
            let signal = found.get(&signal_key(&listed.id)).map_or(Ok(-1), |signal| int(signal, "value"))?;
            let seen = (last_sequence(found.get(&sequence_key(&topic.id)))?, signal);
            return Ok(SubscriptionContext { topic, subscription, cursor, seen, cache, now });
        }
        Err(too_contended("the subscription"))
    }

    /// Moves the cursor to `to`, if it is not there yet, and returns the ack floor that held when it was
    /// there.
    ///
    /// # Errors
    /// `NOT_FOUND` if the subscription is gone.
    pub(super) async fn move_cursor(&self, cursor: &Cursor, to: i64) -> Result<i64> {
        let mut cursor = cursor.clone();
        for _ in 0..ATTEMPTS {
            let id = cursor.subscription.clone();
            let put = put_if(
                Cursor { at: cursor.at.max(to), ..cursor.clone() }.to_document(self.new_revision()),
                cursor.rev,
            );
            if self.write_one(&self.collections.topics, put).await? == Outcome::Applied {
                return Ok(cursor.ack_floor);
            }
            let stored =
                self.get_one(&self.collections.topics, cursor_key(&id)).await?.ok_or_else(no_subscription)?;
            cursor = Cursor::read(&id, &stored)?;
            if cursor.at >= to {
                return Ok(cursor.ack_floor);
            }
        }
        Err(too_contended("the subscription's cursor"))
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
