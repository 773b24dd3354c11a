//! What every [`HotTier`] must do, as plain functions that any implementation calls, or all at once by
//! [`hot_suite!`](crate::hot_suite).
//!
//! A function panics if its promise is broken. Each uses a scope of a new name, so stores may be shared, and
//! old data does no harm. Time is real: waits are for conditions, and only lower bounds of delays are
//! checked, so a busy machine makes the suite slower and not wrong.

#![allow(clippy::unwrap_used, reason = "a suite says that a promise is broken by panicking")]

pub mod chance;
pub mod dead_letters;
pub mod delivering;
pub mod keys;
pub mod limits;
pub mod locks;
pub mod looking;
pub mod options;
pub mod ordering;
pub mod others;
pub mod publishing;
pub mod retrying;
pub mod values;
pub mod vanishing;
pub mod watching;

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::oid::ObjectId;
use bytes::Bytes;

use crate::hot::{
    DeadLetter, Delivery, HotTier, Lock, OutboundMessage, PublishAck, Settle, SettleAndStart, Settled,
    SubscriptionPatch, SubscriptionStats, TopicPatch,
};
use crate::{ErrorKind, Result, Scope, SubscriptionName, TopicName};

macro_rules! promises {
    ($d:tt $($topic:ident { $($name:ident,)+ })+) => {
        /// Checks every promise, one after the other, on a hot tier of its own that `make` gives.
        pub async fn run_all<F: Future<Output = Arc<dyn HotTier>>>(make: impl Fn() -> F) {
            $($($topic::$name(make().await).await;)+)+
        }

        /// Makes a module of tests, one per promise of [`testing::hot`](crate::testing::hot). The second
        /// argument is a future that yields an `Arc<dyn HotTier>`; it is evaluated once per test, and what it
        /// yields may be closed.
        #[macro_export]
        macro_rules! hot_suite {
            ($d module:ident, $d make:expr) => {
                mod $d module {
                    #[allow(unused_imports)]
                    use super::*;
                    $($(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $name() {
                            ::chronow::testing::hot::$topic::$name($d make.await).await;
                        }
                    )+)+
                }
            };
        }
    };
}

promises! { $
    options {
        a_new_topic_has_the_defaults_but_what_was_given,
        ensuring_a_topic_again_changes_only_what_is_given,
        ensuring_a_subscription_again_changes_only_what_is_given,
        a_filter_can_be_taken_away_again,
        options_out_of_bounds_are_refused,
        a_subscription_needs_its_topic,
        what_does_not_exist_is_said_to_be_missing,
        topics_and_subscriptions_are_listed_by_name,
        internal_subscriptions_are_hidden_but_work,
        scopes_do_not_mix,
        names_of_all_scripts_with_dots_and_dashes_do_not_mix,
        concurrent_ensures_agree,
        a_deleted_topic_leaves_nothing,
        a_deleted_subscription_leaves_nothing,
        an_unused_subscription_deletes_itself,
        a_subscription_in_use_does_not_delete_itself,
        a_subscription_at_work_does_not_delete_itself,
        settlements_count_as_use,
        a_change_of_a_topic_is_noticed_on_the_way,
        the_stores_time_is_about_now,
        a_closed_hot_tier_refuses_everything,
    }
    publishing {
        a_message_arrives_as_it_was_published,
        any_bytes_survive,
        a_payload_of_a_megabyte_survives,
        messages_arrive_in_the_order_of_their_acceptance,
        ids_are_unique,
        an_empty_batch_is_nothing,
        every_subscription_gets_every_message,
        a_dedup_id_is_accepted_once_within_its_window,
        a_dedup_id_is_accepted_again_after_its_window,
        a_dedup_id_counts_within_one_batch,
        of_concurrent_publishes_of_one_dedup_id_one_is_accepted,
        dedup_ids_of_topics_do_not_mix,
        a_scheduled_message_does_not_come_early,
        a_time_that_has_passed_is_now,
        a_scheduled_message_can_be_cancelled,
        the_id_of_a_cancelled_message_is_free_again,
        headers_keys_and_ids_are_limited,
        what_is_not_scheduled_cannot_be_cancelled,
        what_is_due_cannot_be_cancelled_although_nobody_pulled_it,
        a_sharded_topic_delivers_everything_once,
        concurrent_publishers_lose_nothing,
    }
    delivering {
        a_new_subscription_begins_with_what_comes_next,
        a_subscription_can_begin_with_the_oldest_message,
        a_subscription_can_begin_at_a_time,
        a_subscription_can_begin_behind_a_message,
        a_start_matters_at_creation_alone,
        a_pull_brings_no_more_than_asked_for,
        a_message_in_flight_is_not_handed_out_again,
        concurrent_pullers_never_share_a_message,
        a_filter_sees_payload_and_headers,
        what_a_filter_leaves_out_is_settled,
        what_a_filter_leaves_out_does_not_expire,
        a_filter_sees_past_numbers_that_nothing_else_can_hold,
        a_filter_sees_no_payload_that_is_not_json,
        a_paused_subscription_hands_out_nothing,
        an_expired_message_becomes_a_dead_letter,
        a_topics_lifetime_holds_for_messages_without_their_own,
        a_started_message_does_not_expire,
        a_wait_ends_when_something_is_published,
        a_wait_ends_in_time,
        a_pull_says_when_to_come_again,
        a_replay_reaches_one_subscription_only,
    }
    locks {
        every_delivery_has_a_fresh_token,
        an_acknowledged_message_never_comes_again,
        a_message_is_settled_once,
        a_wrong_token_settles_and_starts_nothing,
        a_stale_token_settles_nothing_after_the_next_delivery,
        a_lost_lock_does_not_hinder_its_neighbours,
        a_lock_that_expires_brings_the_message_again,
        a_start_counts_and_survives_the_holder,
        a_prefetched_message_is_not_counted,
        a_released_message_is_at_once_available_and_not_counted,
        a_renewed_lock_holds,
        a_renewal_says_which_locks_are_lost,
        settling_one_and_starting_the_next_is_one_step,
        a_message_whose_deliveries_are_used_up_is_not_started,
        a_deferred_message_waits_to_be_fetched,
        only_deferred_messages_can_be_fetched,
        a_deferred_message_keeps_its_count,
        a_lock_of_one_subscription_is_none_of_another,
    }
    retrying {
        a_retry_waits_for_the_backoff,
        a_retry_waits_for_its_own_delay,
        a_retry_without_delay_is_due_at_once,
        retries_are_counted,
        a_message_is_delivered_no_more_than_the_limit,
        a_crashing_handler_uses_deliveries_up,
        without_dead_letters_what_is_used_up_is_dropped,
        retries_of_one_subscription_are_not_seen_by_another,
        a_retry_keeps_the_message_as_it_was,
    }
    ordering {
        messages_of_one_key_are_in_flight_one_at_a_time,
        messages_of_different_keys_are_in_flight_together,
        a_retry_holds_its_key_back,
        a_released_message_stays_first_of_its_key,
        an_expired_lock_keeps_the_order_of_its_key,
        a_dead_letter_does_not_hold_its_key_up,
        a_deferred_message_does_not_hold_its_key_up,
        keys_stay_in_order_across_concurrent_consumers_and_retries,
        keys_stay_in_order_on_a_sharded_topic,
        keys_of_subscriptions_are_their_own,
        a_long_queue_behind_a_key_delays_nothing_else,
    }
    dead_letters {
        a_dead_letter_tells_what_happened,
        a_dead_letter_is_of_one_subscription,
        dead_letters_are_paged_oldest_first,
        a_redrive_starts_the_count_anew,
        a_redrive_reaches_its_subscription_only,
        a_redrive_may_take_the_oldest,
        a_redrive_may_take_some_by_id,
        a_redriven_message_can_fail_again,
        a_redriven_message_does_not_expire_again,
        dead_letters_can_be_purged,
        dead_letters_are_listed_without_being_read,
        an_unsettled_message_cannot_be_redriven,
    }
    limits {
        a_full_topic_rejects,
        a_batch_that_does_not_fit_is_refused_whole,
        a_refused_publish_leaves_no_dedup_id,
        room_comes_back_when_everybody_has_settled,
        messages_that_nobody_needs_take_no_room,
        a_full_topic_may_drop_its_oldest_and_counts_them,
        what_everybody_has_settled_is_not_held,
        a_purge_removes_messages_and_nothing_else,
        a_purged_message_is_not_accepted_again_under_its_dedup_id,
    }
    looking {
        a_peek_shows_where_messages_are,
        a_peek_takes_nothing,
        a_peek_is_limited,
        counts_are_exact_at_rest,
        counts_miss_no_message_that_moves,
        counts_of_an_empty_topic_are_zero,
    }
    others {
        a_message_is_needed_until_every_other_subscription_is_done,
        what_a_subscription_does_not_have_may_be_needed,
        a_scheduled_message_is_needed_when_its_time_has_come,
        what_a_sharded_topic_has_is_needed_by_others_too,
        a_publish_may_ask_for_replicas,
    }
    values {
        a_value_is_read_back_as_it_was,
        values_come_in_the_order_of_their_keys,
        versions_grow_with_every_change,
        a_value_is_set_only_if_absent,
        a_value_is_swapped_only_at_its_version,
        of_concurrent_swaps_one_wins,
        a_tombstone_is_no_value_but_known,
        removing_forgets_tombstones_too,
        a_value_expires,
        a_version_never_comes_again,
        a_value_brought_back_has_its_version_again,
        a_value_set_again_without_time_stays,
        the_time_of_a_value_can_be_changed,
        numbers_are_incremented,
        concurrent_increments_lose_nothing,
        what_is_no_number_is_not_incremented,
        numbers_do_not_overflow,
        an_increment_keeps_the_time_unless_it_gets_another,
        a_value_of_a_megabyte_survives,
    }
    keys {
        keys_are_found_by_prefix,
        keys_are_paged,
        signs_in_keys_and_prefixes_mean_themselves,
        keys_without_value_are_not_listed,
        values_of_scopes_do_not_mix,
    }
    watching {
        a_watch_tells_changes_and_deletions,
        a_watch_sees_its_prefix_and_scope_only,
        a_watch_begins_now,
        a_watch_tells_the_end_of_a_value,
    }
    chance {
        a_random_history_matches_the_model,
        a_random_history_of_a_sharded_topic_matches_the_model,
    }
    vanishing {
        consumers_that_vanish_lose_and_repeat_nothing_beyond_the_limit,
    }
}

/// How long a condition may take on a very busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A topic of a new scope.
#[derive(Clone, Debug)]
pub(crate) struct Bus {
    pub(crate) hot: Arc<dyn HotTier>,
    pub(crate) scope: Scope,
    pub(crate) topic: TopicName,
}

/// Options for tests: a long lock, so that a busy machine doesn't lose one, and retries that are due at once.
pub(crate) fn calm() -> SubscriptionPatch {
    SubscriptionPatch::default()
        .visibility(Duration::from_millis(120_000))
        .backoff([Duration::ZERO])
        .jitter_percent(0)
}

/// Options for tests of locks that expire.
pub(crate) fn hasty() -> SubscriptionPatch {
    calm().visibility(Duration::from_millis(200))
}

/// A JSON message.
pub(crate) fn message(text: &str) -> OutboundMessage {
    OutboundMessage {
        payload: Bytes::from(chronos_db::json!({ "text": text }).to_string()),
        ..OutboundMessage::default()
    }
}

/// A JSON message with an ordering key.
pub(crate) fn keyed(key: &str, text: &str) -> OutboundMessage {
    OutboundMessage { key: Some(key.to_owned()), ..message(text) }
}

/// The text of a [`message`].
pub(crate) fn text(payload: &[u8]) -> String {
    let json = chronos_db::Json::parse(payload).unwrap();
    json["text"].as_str().unwrap().to_owned()
}

/// The texts of deliveries.
pub(crate) fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(&delivery.message.payload)).collect()
}

/// A retry with a reason.
pub(crate) fn retry(reason: &str) -> Settle {
    Settle::Retry { delay: None, reason: reason.to_owned() }
}

/// A retry after a wait.
pub(crate) fn retry_after(delay: Duration) -> Settle {
    Settle::Retry { delay: Some(delay), reason: "later".to_owned() }
}

/// The kind of an error that must be one.
pub(crate) fn kind<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

/// Tries until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < TIMEOUT, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Bus {
    pub(crate) async fn new(hot: Arc<dyn HotTier>) -> Self {
        Self::with(hot, TopicPatch::default()).await
    }

    pub(crate) async fn with(hot: Arc<dyn HotTier>, patch: TopicPatch) -> Self {
        let scope = Scope::new("suite", &ObjectId::new().to_hex()).unwrap();
        let topic = TopicName::new(&scope, "orders").unwrap();
        hot.ensure_topic(&topic, &patch).await.unwrap();
        Self { hot, scope, topic }
    }

    /// Another topic of the same scope.
    pub(crate) async fn other(&self, name: &str) -> Self {
        let topic = TopicName::new(&self.scope, name).unwrap();
        self.hot.ensure_topic(&topic, &TopicPatch::default()).await.unwrap();
        Self { topic, ..self.clone() }
    }

    pub(crate) fn named(&self, name: &str) -> SubscriptionName {
        SubscriptionName::new(&self.topic, name).unwrap()
    }

    /// A subscription with [`calm`] options.
    pub(crate) async fn subscribe(&self, name: &str) -> SubscriptionName {
        self.subscribe_with(name, calm()).await
    }

    pub(crate) async fn subscribe_with(&self, name: &str, patch: SubscriptionPatch) -> SubscriptionName {
        let subscription = self.named(name);
        self.hot.ensure_subscription(&subscription, &patch).await.unwrap();
        subscription
    }

    pub(crate) async fn send(&self, message: OutboundMessage) -> PublishAck {
        self.hot.publish(&self.topic, vec![message]).await.unwrap().remove(0)
    }

    /// Publishes JSON messages together, and returns their ids.
    pub(crate) async fn publish(&self, texts: &[&str]) -> Vec<String> {
        self.publish_all(texts.iter().map(|text| message(text)).collect()).await
    }

    pub(crate) async fn publish_all(&self, messages: Vec<OutboundMessage>) -> Vec<String> {
        let count = messages.len();
        let published = self.hot.publish(&self.topic, messages).await.unwrap();
        assert_eq!(published.len(), count);
        published.into_iter().map(|published| published.id).collect()
    }

    /// Pulls until this many messages came.
    pub(crate) async fn take(&self, subscription: &SubscriptionName, count: usize) -> Vec<Delivery> {
        let begun = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < count {
            let wanted = u32::try_from(count - taken.len()).unwrap();
            let pulled = self.hot.pull(subscription, wanted).await.unwrap();
            assert!(pulled.deliveries.len() <= wanted as usize, "a pull brought more than asked for");
            if pulled.deliveries.is_empty() {
                assert!(
                    begun.elapsed() < TIMEOUT,
                    "{count} messages expected of {subscription}, {} came",
                    taken.len()
                );
                let due = pulled.next_due.unwrap_or(Duration::MAX);
                self.hot
                    .wait(subscription, due.clamp(Duration::from_millis(5), Duration::from_millis(100)))
                    .await
                    .unwrap();
            }
            taken.extend(pulled.deliveries);
        }
        taken
    }

    pub(crate) async fn one(&self, subscription: &SubscriptionName) -> Delivery {
        self.take(subscription, 1).await.remove(0)
    }

    /// Nothing is due now.
    pub(crate) async fn nothing(&self, subscription: &SubscriptionName) {
        let pulled = self.hot.pull(subscription, 10).await.unwrap();
        assert!(
            pulled.deliveries.is_empty(),
            "nothing was expected of {subscription}, {:?} came",
            pulled.deliveries
        );
    }

    pub(crate) async fn start(&self, subscription: &SubscriptionName, lock: &Lock) -> bool {
        let step = SettleAndStart { settle: Vec::new(), start: vec![lock.clone()] };
        let outcome = self.hot.settle_and_start(subscription, step).await.unwrap();
        assert_eq!((outcome.settled.len(), outcome.started.len()), (0, 1));
        outcome.started[0]
    }

    pub(crate) async fn settle(
        &self,
        subscription: &SubscriptionName,
        lock: &Lock,
        settle: Settle,
    ) -> Settled {
        let step = SettleAndStart { settle: vec![(lock.clone(), settle)], start: Vec::new() };
        let outcome = self.hot.settle_and_start(subscription, step).await.unwrap();
        assert_eq!((outcome.settled.len(), outcome.started.len()), (1, 0));
        outcome.settled[0]
    }

    /// Takes one, starts it, and settles it.
    pub(crate) async fn handle(
        &self,
        subscription: &SubscriptionName,
        settle: Settle,
    ) -> (Delivery, Settled) {
        let delivery = self.one(subscription).await;
        assert!(self.start(subscription, &delivery.lock).await, "a fresh delivery can be started");
        let settled = self.settle(subscription, &delivery.lock, settle).await;
        (delivery, settled)
    }

    pub(crate) async fn ack(&self, subscription: &SubscriptionName, deliveries: &[Delivery]) {
        let settle = deliveries.iter().map(|delivery| (delivery.lock.clone(), Settle::Ack)).collect();
        let outcome = self
            .hot
            .settle_and_start(subscription, SettleAndStart { settle, start: Vec::new() })
            .await
            .unwrap();
        assert!(outcome.settled.iter().all(|settled| *settled == Settled::Done), "{:?}", outcome.settled);
        assert_eq!(outcome.settled.len(), deliveries.len());
    }

    /// Takes one and makes it a dead letter.
    pub(crate) async fn dead_letter(&self, subscription: &SubscriptionName, reason: &str) -> Delivery {
        let (delivery, settled) =
            self.handle(subscription, Settle::DeadLetter { reason: reason.to_owned() }).await;
        assert_ne!(settled, Settled::Lost);
        delivery
    }

    pub(crate) async fn dead(&self, subscription: &SubscriptionName) -> Vec<DeadLetter> {
        self.hot.dead_letters(subscription, None, 1_000).await.unwrap().items
    }

    pub(crate) async fn stats(&self, subscription: &SubscriptionName) -> SubscriptionStats {
        let stats = self.hot.stats(&self.topic).await.unwrap();
        stats.subscriptions.into_iter().find(|stats| stats.subscription == subscription.name()).unwrap()
    }

    /// Everything a subscription has to do is done.
    pub(crate) async fn at_rest(&self, subscription: &SubscriptionName) {
        let stats = self.stats(subscription).await;
        let left = (stats.backlog, stats.pending, stats.scheduled, stats.deferred);
        assert_eq!(left, (0, 0, 0, 0), "{stats:?}");
        assert_eq!(stats.oldest_age, None);
    }
}
