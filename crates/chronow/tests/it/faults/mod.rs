//! Faults, and a ledger that is audited behind each of them: nothing lost, nothing leaked, no limit exceeded, dead letters right.
//!
//! Publishers and consumers write into the ledger what they were told; an audit lets healthy consumers finish the rest, and compares all of it with
//! what the store holds. What comes by chance comes from a seed that a failing test prints; `CHRONOW_FAULT_SEED` runs it again.

mod clocks;
mod crew;
mod errors;
mod hooked;
mod kills;
mod ledger;
mod mongo;
#[cfg(feature = "redis")]
mod redis;

use std::time::Duration;

use chronos_db::Random;
use test_support::SeededRandom;

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

/// Cuts connections in every way, again and again, until the work is done.
async fn cutting(proxy: &test_support::Proxy, random: &SeededRandom, work: impl Future<Output = ()>) {
    let pause = |most| tokio::time::sleep(Duration::from_micros(below(random, most)));
    let cuts = async {
        loop {
            pause(150_000).await;
            match below(random, 3) {
                0 => proxy.drop_connections(),
                1 => {
                    proxy.cut();
                    pause(50_000).await;
                }
                _ => {
                    // What is asked for takes place, and nobody is told.
                    proxy.mute();
                    pause(30_000).await;
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
