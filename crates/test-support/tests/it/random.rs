use std::collections::HashSet;

use chronos_db::Random;
use test_support::SeededRandom;

#[test]
fn the_same_seed_gives_the_same_numbers_and_identifiers() {
    let draw = |seed| {
        let random = SeededRandom::new(seed);
        (0..100).map(|_| (random.next_u64(), random.object_id())).collect::<Vec<_>>()
    };
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
}

#[test]
fn identifiers_grow_and_never_repeat_across_seeds() {
    let mut seen = HashSet::new();
    for seed in 0..20 {
        let random = SeededRandom::new(seed);
        let ids: Vec<_> = (0..1_000).map(|_| random.object_id()).collect();
        assert!(ids.is_sorted());
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 20_000);
}

#[test]
fn numbers_spread_over_the_whole_range() {
    let random = SeededRandom::new(0);
    let mut buckets = [0_u32; 16];
    for _ in 0..16_000 {
        buckets[usize::try_from(random.next_u64() >> 60).unwrap()] += 1;
    }
    assert!(buckets.iter().all(|count| (800..1_200).contains(count)), "{buckets:?}");
}
