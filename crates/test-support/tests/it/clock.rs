use std::sync::Arc;
use std::time::Duration;

use chronos_db::{Clock, SystemClock, Timestamp};
use futures::FutureExt;
use parking_lot::Mutex;
use test_support::{MockClock, ShiftedClock};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn time_stands_still_until_the_test_moves_it() {
    let clock = MockClock::starting_at(Timestamp::from_millis(1_000));
    let mut sleep = clock.sleep(SECOND);
    clock.advance(Duration::from_millis(999));
    assert_eq!((&mut sleep).now_or_never(), None);
    assert_eq!(clock.now(), Timestamp::from_millis(1_999));
    clock.advance(Duration::from_micros(1));
    assert_eq!(clock.now(), Timestamp::from_millis(2_000));
    sleep.await;
}

#[tokio::test]
async fn who_sleeps_for_nothing_does_not_wait() {
    MockClock::default().sleep(Duration::ZERO).await;
}

#[tokio::test(flavor = "current_thread")]
async fn sleepers_wake_in_the_order_of_their_times() {
    let clock = Arc::new(MockClock::default());
    let woken = Arc::new(Mutex::new(Vec::new()));
    let tasks = [3, 1, 2].map(|seconds| {
        let (sleep, woken) = (clock.sleep(SECOND * seconds), woken.clone());
        tokio::spawn(async move {
            sleep.await;
            woken.lock().push(seconds);
        })
    });
    // Every task has to be waiting already, or it would find its time come in the order of spawning.
    tokio::task::yield_now().await;
    clock.advance(SECOND * 3);
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(*woken.lock(), [1, 2, 3]);
}

#[tokio::test]
async fn a_test_steps_through_the_sleeps_of_a_task() {
    let clock = Arc::new(MockClock::default());
    let start = clock.now();
    let task = tokio::spawn({
        let clock = clock.clone();
        async move {
            for _ in 0..3 {
                clock.sleep(SECOND).await;
            }
            clock.now()
        }
    });
    for _ in 0..3 {
        clock.sleepers(1).await;
        assert!(clock.advance_to_next());
    }
    assert_eq!(task.await.unwrap(), start.plus_millis(3_000));
    assert!(!clock.advance_to_next());
}

#[tokio::test]
async fn who_gave_up_waiting_is_not_counted() {
    let clock = MockClock::default();
    let first = clock.sleep(SECOND);
    let second = clock.sleep(SECOND * 2);
    assert_eq!(clock.sleeping(), 2);
    drop(first);
    assert_eq!(clock.sleeping(), 1);
    assert_eq!(clock.next_wake(), Some(clock.now().plus_millis(2_000)));
    assert!(clock.advance_to_next());
    second.await;
}

#[test]
fn a_shifted_clock_is_ahead_or_behind_by_what_it_was_given() {
    let (clock, hour) = (ShiftedClock::ahead_by(3_600_000), 3_600_000);
    let now = SystemClock.now().as_millis();
    assert!((now + hour..now + hour + 60_000).contains(&clock.now().as_millis()));
    clock.set(-hour);
    assert!((now - hour..now - hour + 60_000).contains(&clock.now().as_millis()));
}
