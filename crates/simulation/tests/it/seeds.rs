use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use simulation::{Options, Verdict, mutation, own_this_thread, run};

/// What fits into about two minutes of a build without optimisation; `SIMULATION_SEEDS` asks for more, or fewer.
const SEEDS: u64 = 100;
/// Of how many one is run twice.
const TWICE: u64 = 5;
/// Runs at once.
const JOBS: usize = 2;

fn order_of_a_map(seed: u64) -> Vec<u32> {
    let order = move || {
        own_this_thread(seed);
        let map: HashMap<u32, ()> = (0..100).map(|n| (n, ())).collect();
        map.into_keys().collect()
    };
    std::thread::spawn(order).join().expect("it does not panic")
}

#[test]
fn the_order_of_hash_maps_follows_from_the_seed() {
    assert_eq!(order_of_a_map(1), order_of_a_map(1));
    assert_ne!(order_of_a_map(1), order_of_a_map(2));
}

#[test]
fn a_seed_gives_the_same_history_twice_and_nothing_is_wrong_in_it() {
    let wanted = std::env::var("SIMULATION_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    let (seeds, next) = (wanted.unwrap_or(SEEDS), AtomicU64::new(0));
    let each = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return;
            }
            let first = run(seed, &Options::default());
            assert!(first.violations.is_empty(), "seed {seed}: {:#?}\n{}", first.violations, first.history);
            if seed % TWICE == 0 {
                let second = run(seed, &Options::default());
                assert!(first == second, "seed {seed}: {}", first_difference(&first, &second));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..JOBS {
            scope.spawn(each);
        }
    });
}

fn first_difference(first: &Verdict, second: &Verdict) -> String {
    let lines = first.history.lines().zip(second.history.lines());
    let differs = lines.into_iter().find(|(one, other)| one != other);
    differs.map_or_else(|| "one is longer".to_owned(), |(one, other)| format!("`{one}` and `{other}`"))
}

#[test]
fn every_fault_that_is_put_back_is_found_by_its_seed() {
    for mutation in mutation::ALL {
        let Some(seed) = mutation.seed else { continue };
        let options =
            Options { profile: mutation.profile, without: mutation.without.to_vec(), ..Options::default() };
        let verdict = run(seed, &options);
        assert!(!verdict.violations.is_empty(), "{} is not found by seed {seed}", mutation.name);
    }
}
