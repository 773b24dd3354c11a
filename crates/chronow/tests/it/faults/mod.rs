//! Faults, and a ledger that is audited behind each of them: nothing lost, nothing leaked, no limit exceeded,
//! dead letters right.
//!
//! Publishers and consumers write the answers they got into the ledger; an audit lets healthy consumers finish
//! the rest, and compares all of it with what the store holds. What comes by chance comes from a seed that a
//! failing test prints; `CHRONOW_FAULT_SEED` runs it again.

mod clocks;
mod crew;
mod errors;
mod kills;
mod ledger;
mod mongo;
mod notices;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

use chronos_db::Random;
use test_support::SeededRandom;

use self::ledger::Ledger;

/// The source of everything that happens by chance in one test.
fn chance() -> SeededRandom {
    let given = std::env::var("CHRONOW_FAULT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| chronos_db::SystemRandom.next_u64() % 1_000_000);
    eprintln!("CHRONOW_FAULT_SEED={seed}");
    SeededRandom::new(seed)
}

fn below(random: &SeededRandom, n: u64) -> u64 {
    random.next_u64() % n
}

/// Cuts connections in every way, about so often, until the work is done. As long as no publish succeeds in
/// between, more and more seldom: on a slow machine connecting alone may take longer.
async fn cutting(
    proxy: &test_support::Proxy,
    random: &SeededRandom,
    every: Duration,
    ledger: &Ledger,
    work: impl Future<Output = ()>,
) {
    let pause = |most: Duration| {
        tokio::time::sleep(Duration::from_micros(below(random, u64::try_from(most.as_micros()).unwrap())))
    };
    let cuts = async {
        let mut most = every;
        loop {
            let before = ledger.answers();
            pause(most).await;
            most = if ledger.answers() > before { every } else { most + every / 2 };
            match below(random, 3) {
                0 => proxy.drop_connections(),
                1 => {
                    proxy.cut();
                    pause(Duration::from_millis(50)).await;
                }
                _ => {
                    // The request takes place, and its answer is lost.
                    proxy.mute();
                    pause(Duration::from_millis(30)).await;
                    proxy.drop_connections();
                }
            }
            proxy.restore();
        }
    };
    tokio::select! {
        () = work => {}
        () = cuts => {}
    }
    proxy.restore();
}
