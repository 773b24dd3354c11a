//! What this connection remembers of topics and subscriptions.

use std::sync::Arc;

use super::RedisHot;
use super::filters::Compiled;
use super::script_result::Known;
use super::state::Revisions;
use crate::{SubscriptionName, TopicName};

impl RedisHot {
    pub(super) fn remembered(&self, topic: &TopicName) -> Option<Known> {
        self.topics.lock().get(topic).cloned()
    }

    pub(super) fn remember(&self, topic: &TopicName, known: Known) {
        self.topics.lock().insert(topic.clone(), known);
    }

    pub(super) fn forget(&self, topic: &TopicName) {
        self.topics.lock().remove(topic);
        self.filters.lock().retain(|subscription, _| subscription.topic() != topic);
        self.left.lock().retain(|subscription, _| subscription.topic() != topic);
        self.note_revision(topic, 0, None);
    }

    /// Forgets what is remembered of a subscription that is gone, whichever process removed it.
    pub(super) fn forget_subscription(&self, subscription: &SubscriptionName) {
        self.filters.lock().remove(subscription);
        self.left.lock().remove(subscription);
    }

    /// Notes what a shard said about the state of the topic's options; none if there is no topic.
    pub(super) fn note_revision(&self, topic: &TopicName, shard: u16, revision: Option<String>) {
        let mut all = self.revisions.lock();
        if !all.contains_key(topic) {
            all.insert(topic.clone(), Revisions::default());
        }
        let Some(revisions) = all.get_mut(topic) else { return };
        let Some(revision) = revision else {
            revisions.changes += u64::from(!revisions.of_shards.is_empty());
            revisions.of_shards.clear();
            return;
        };
        match revisions.of_shards.get_mut(&shard) {
            Some(known) if *known == revision => {}
            Some(known) => {
                *known = revision;
                revisions.changes += 1;
            }
            None => drop(revisions.of_shards.insert(shard, revision)),
        }
    }

    pub(super) fn compiled(&self, subscription: &SubscriptionName) -> Option<Arc<Compiled>> {
        self.filters.lock().get(subscription).cloned()
    }

    pub(super) fn know_compiled(&self, subscription: &SubscriptionName, compiled: Compiled) -> Arc<Compiled> {
        let compiled = Arc::new(compiled);
        self.filters.lock().insert(subscription.clone(), Arc::clone(&compiled));
        compiled
    }
}
