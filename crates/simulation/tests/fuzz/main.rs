//! What others wrote is read without a panic, without end, and in bounded memory: bytes that a few mutations of
//! valid ones make. 20,000 for each reader, or as many as `CHRONOS_FUZZ_INPUTS` says.
#![allow(missing_docs, reason = "tests")]

mod mutate;
mod stored;
mod texts;

use std::time::Duration;

use parking_lot::Mutex;
use simulation::Chance;

/// One test at a time: memory is the process's.
static TURN: Mutex<()> = Mutex::new(());
/// Inputs after which memory is looked at.
const ROUND: u64 = 250;
/// What reading an input may take of a processor.
const LIMIT: Duration = Duration::from_secs(1);
/// What reading one may take of memory, in KiB.
const MOST_KIB: u64 = 64 * 1024;

/// How many inputs a reader is given, each of which is read by so many operations as it costs.
fn inputs(costs: u64) -> u64 {
    let wanted: Option<u64> = std::env::var("CHRONOS_FUZZ_INPUTS").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or(20_000) / costs
}

/// What this thread has had of a processor.
fn spent() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn memory_kib(field: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Reads inputs, each with its own chance, and looks what that takes.
fn bounded(name: &str, inputs: u64, mut read: impl FnMut(&Chance)) {
    let _turn = TURN.lock();
    for round in (0..inputs).step_by(usize::try_from(ROUND).unwrap_or(1)) {
        // The peak is counted from here.
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        let before = memory_kib("VmRSS:");
        for seed in round..inputs.min(round + ROUND) {
            let began = spent();
            read(&Chance::new(seed));
            let took = spent() - began;
            assert!(took < LIMIT, "{name}: input {seed} took {took:?}");
        }
        let more = memory_kib("VmHWM:").saturating_sub(before);
        assert!(more < MOST_KIB, "{name}: one of the inputs from {round} on took {more} KiB");
    }
}
