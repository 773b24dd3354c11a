//! A document store that is away and lets its callers wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use chronos_db::{Env, Result, Route, json};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt as _, StreamExt as _};
use test_support::documents::Call;
use test_support::{CallKind as _, Layer, MockClock};

use super::pairing::{Pairing, on_every_pairing};

on_every_pairing!(a_store_that_is_away_is_waited_for_once_in_five_seconds);

/// While it is on, each call takes half a minute and fails, as that of a driver without a server does.
#[derive(Debug, Default)]
struct Away {
    clock: Arc<MockClock>,
    is_on: AtomicBool,
    waits: AtomicU64,
}

impl Away {
    fn fails(&self) -> bool {
        let is_on = self.is_on.load(Ordering::SeqCst);
        if is_on {
            self.waits.fetch_add(1, Ordering::SeqCst);
            self.clock.advance(Duration::from_secs(30));
        }
        is_on
    }

    fn waits(&self) -> u64 {
        self.waits.load(Ordering::SeqCst)
    }
}

impl Layer<Call> for Away {
    fn around<'a, T: Send + 'a>(
        &'a self,
        call: Call,
        inner: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        async move {
            if self.fails() {
                Err(call.error("no server answers".to_owned()).retryable())
            } else {
                inner.await
            }
        }
        .boxed()
    }

    fn around_stream<T: Send + 'static>(
        &self,
        call: Call,
        inner: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        if !self.fails() {
            return inner;
        }
        stream::once(async move { Err(call.error("no server answers".to_owned()).retryable()) }).boxed()
    }
}

async fn a_store_that_is_away_is_waited_for_once_in_five_seconds(p: &Pairing) {
    let away = Arc::new(Away::default());
    let env = Env { clock: Arc::clone(&away.clock) as _, ..Env::default() };
    let more = json!({"fallback": {"baseDelayMs": 0, "maxDelayMs": 0, "spoolPath": "./spool"}});
    let store = p.opening().with(&more).documents(&away).env(env).open();
    // Nothing but its writes works on it: it has no objects.
    let people = store.with(Route::identities().tenant("acme").collection("people"));
    people.create(json!({"n": 0})).await.unwrap();

    away.is_on.store(true, Ordering::SeqCst);
    assert!(people.create(json!({"n": 1})).await.unwrap().queued.is_some());
    let waited = away.waits();
    assert!(waited > 0);
    for n in 2..=50 {
        assert!(people.create(json!({ "n": n })).await.unwrap().queued.is_some());
    }
    assert_eq!(away.waits(), waited, "49 writes waited for nothing");
    away.clock.advance(Duration::from_secs(5));
    assert!(people.create(json!({"n": 51})).await.unwrap().queued.is_some());
    assert!(away.waits() > waited, "one looks whether it is back");

    away.is_on.store(false, Ordering::SeqCst);
    assert!(people.create(json!({"n": 52})).await.unwrap().queued.is_some(), "it is not known yet");
    away.clock.advance(Duration::from_secs(5));
    assert_eq!(people.create(json!({"n": 53})).await.unwrap().ov, 0);
    assert_eq!(people.create(json!({"n": 54})).await.unwrap().ov, 0);
    let retried = store.chronos.fallback().unwrap().retry_due().await.unwrap();
    assert_eq!((retried.done, retried.waiting), (52, 0));
    assert_eq!(people.list().limit(100).await.unwrap().items.len(), 55);
}
