//! The object storage fails for a while.

use std::sync::Arc;
use std::time::Duration;

use chronos_db::config::Config;
use chronos_db::{Chronos, Clock as _, Env, Route, json};
use test_support::objects::{Call, decorate};
use test_support::{Failing, Fault, MockClock};

/// Returns when the flusher pauses after its `tries`th try, and says until when it does.
async fn paused(clock: &MockClock, failing: &Failing<Call>, tries: u64) -> Duration {
    while failing.injected() < tries || clock.sleeping() == 0 {
        assert!(failing.injected() <= tries, "the storage was tried again without a pause");
        tokio::task::yield_now().await;
    }
    let left = clock.next_wake().unwrap().as_millis() - clock.now().as_millis();
    Duration::from_millis(left.unsigned_abs())
}

#[tokio::test]
async fn a_storage_that_fails_is_tried_again_after_pauses_that_grow() {
    let folder = tempfile::tempdir().unwrap();
    let (clock, failing) = (Arc::new(MockClock::default()), Failing::new());
    let (env, layer) = (Env { clock: clock.clone(), ..Env::default() }, Arc::clone(&failing));
    let builder = Chronos::builder(Config::embedded(folder.path())).env(env);
    let chronos = builder.wrap_objects(move |objects| decorate(objects, Arc::clone(&layer))).open().unwrap();
    let users = chronos.with(Route::runtime().tenant("default").collection("users")).unwrap();

    failing.switch_on(Call::Put, Fault::Before);
    users.create(json!({"name": "ann"})).await.unwrap();
    let first = paused(&clock, &failing, 1).await;
    clock.advance(first);
    let second = paused(&clock, &failing, 2).await;
    assert!(second > first);

    failing.switch_off();
    clock.advance(second);
    assert_eq!(users.flush(Duration::from_secs(60)).await.unwrap(), 0);
    chronos.shutdown().await.unwrap();
}
