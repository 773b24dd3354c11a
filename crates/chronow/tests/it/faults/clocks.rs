//! Clocks that are hours wrong: locks, delays and lifetimes go by the store's.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chronos_db::config::Database;
use chronos_db::documents::embedded::EmbeddedDocuments;
use chronos_db::{Chronos, Env, Json as Value, json};
use chronow::hot::documents::DocumentsHot;
use chronow::{Chronow, Config};
use test_support::ShiftedClock;

use super::crew::{self, Crew};
use super::ledger::{Ledger, audit};
use crate::tiers::{World, connect_with, number, on_mongo, on_redis, take};

on_mongo! {
    a_client_whose_clock_is_wrong_keeps_locks_delays_and_lifetimes,
    clocks_that_jump_lose_and_double_nothing,
}

on_redis! {
    a_client_whose_clock_is_wrong_keeps_locks_delays_and_lifetimes,
}

const HOURS: i64 = 5 * 3_600_000;

async fn a_client_whose_clock_is_wrong_keeps_locks_delays_and_lifetimes(world: World) {
    let (topic, subscription) = world.ready().await;
    for shift in [HOURS, -HOURS] {
        let env = Env { clock: Arc::new(ShiftedClock::ahead_by(shift)), ..Env::default() };
        let wrong = connect_with(&world.config, env, |hot| hot).await;
        let theirs = wrong.bus().topic("orders").unwrap();
        let mine = theirs.subscription("s").unwrap();
        // Another's lock is not over because one's own clock says so, nor is one's own.
        topic.publish(&json!({ "n": 1 })).ttl(Duration::from_secs(600)).await.unwrap();
        let held = take(&subscription, 1).await.remove(0);
        assert!(mine.receive::<Value>(5).await.unwrap().is_empty());
        held.nack().delay(Duration::from_secs(600)).await.unwrap();
        assert!(mine.receive::<Value>(5).await.unwrap().is_empty(), "nor is a retry due");
        topic.purge().await.unwrap();
        // A delay lasts as long as it should, for every caller.
        theirs.publish(&json!({ "n": 3 })).ttl(Duration::from_secs(600)).await.unwrap();
        assert_eq!(number(&take(&mine, 1).await.remove(0)), 3, "it is not expired");
        let begun = Instant::now();
        theirs.publish(&json!({ "n": 2 })).delay(Duration::from_millis(500)).await.unwrap();
        let late = take(&subscription, 1).await.remove(0);
        assert_eq!(number(&late), 2);
        assert!(begun.elapsed() >= Duration::from_millis(490) && begun.elapsed() < Duration::from_secs(60));
        topic.purge().await.unwrap();
        wrong.shared().set("k", &1).ttl(Duration::from_secs(600)).await.unwrap();
        assert_eq!(world.chronow.shared().get::<i32>("k").await.unwrap(), Some(1));
        assert_eq!(wrong.shared().get::<i32>("k").await.unwrap(), Some(1));
    }
}

/// Values and tombstones get their times from one clock: that of the hot tier.
#[tokio::test]
async fn deleted_stays_deleted_whatever_the_clock_of_the_warm_tier_says() {
    for shift in [HOURS, 0, -HOURS] {
        let warm = chronos_db::config::Config::builder()
            .connection("warm", "embedded::memory:")
            .database(Database::messaging("warm", "warm"));
        let env = Env { clock: Arc::new(ShiftedClock::ahead_by(shift)), ..Env::default() };
        let warm = Chronos::builder(warm.build().unwrap()).env(env).open().unwrap();
        let documents = Arc::new(EmbeddedDocuments::open(Path::new(":memory:"), Env::default()).unwrap());
        let hot = Arc::new(DocumentsHot::new(documents, "hot", Env::default()));
        let chronow = Chronow::with_hot(hot, &Config::default(), Some(&warm)).unwrap();
        let scope = chronow::Scope::new("default", "default").unwrap();
        for n in 0..20 {
            chronow.shared().set("k", &n).persist().await.unwrap();
            chronow.hot().remove(&scope, "k").await.unwrap();
            assert_eq!(
                chronow.shared().get::<i32>("k").await.unwrap(),
                Some(n),
                "a value behind a deletion is kept, {shift}"
            );
            chronow.shared().del("k").await.unwrap();
            chronow.hot().remove(&scope, "k").await.unwrap();
            assert_eq!(chronow.shared().get::<i32>("k").await.unwrap(), None, "{shift}");
        }
    }
}

async fn clocks_that_jump_lose_and_double_nothing(world: World) {
    let ledger = Ledger::append(&world.file("ledger"));
    crew::prepare(&world.chronow, Duration::from_millis(1_500), 1).await;
    let clocks = [0, 0].map(|shift| Arc::new(ShiftedClock::ahead_by(shift)));
    let mut consumers = Vec::new();
    let mut wrong = Vec::new();
    for clock in &clocks {
        let env = Env { clock: Arc::<ShiftedClock>::clone(clock), ..Env::default() };
        let chronow = connect_with(&world.config, env, |hot| hot).await;
        consumers.push(Crew::consume(&chronow, &ledger));
        wrong.push(chronow);
    }
    for (part, shift) in [HOURS, -HOURS, 0, 7 * 24 * HOURS].into_iter().enumerate() {
        clocks[part % 2].set(shift);
        crew::publish(&wrong[part % 2], &ledger, part * 20..part * 20 + 20).await;
    }
    for consumers in consumers {
        consumers.stop().await;
    }
    audit(&world.chronow, &ledger, "clocks that jump").await;
}
