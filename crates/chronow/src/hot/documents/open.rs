//! Looking up what a call on a subscription needs to know, and moving its cursor.

use chronos_db::documents::Outcome;

use super::cache::SubscriptionContext;
use super::entities::{Cursor, Listed, Subscription, Topic, is_idle, last_sequence};
use super::fields::{int, put_if, too_contended};
use super::keys::{cursor_key, sequence_key, signal_key, subscription_key, topic_key};
use super::store::Engine;
use super::subscriptions::no_subscription;
use super::topics::{ATTEMPTS, no_topic};
use crate::{Result, SubscriptionName};

impl Engine {
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
            let ids = cache.ids.lock().clone();
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
                if cache.ids.lock().replace(current.clone()) != Some(current) {
                    cache.in_flight.lock().clear();
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
}
