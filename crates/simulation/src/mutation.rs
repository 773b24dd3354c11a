//! Faults of the past, put back, and others that might be: guards of the engine that are left out.

use crate::world::Profile;

/// A fault and the guards that keep it away.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// Its number in the second list of docs/faults.md; S where the simulation found it, G for a guard that was
    /// there from the beginning.
    pub name: &'static str,
    /// What is wrong then.
    pub what: &'static str,
    /// The guards that are left out.
    pub without: &'static [&'static str],
    /// What clients do where it shows.
    pub profile: Profile,
    /// The first seed that finds it; none if none has yet.
    pub seed: Option<u64>,
}

const fn records(
    name: &'static str,
    what: &'static str,
    without: &'static [&'static str],
    seed: Option<u64>,
) -> Mutation {
    Mutation { name, what, without, profile: Profile::Records, seed }
}

const fn bus(
    name: &'static str,
    what: &'static str,
    without: &'static [&'static str],
    seed: Option<u64>,
) -> Mutation {
    Mutation { name, what, without, profile: Profile::Bus, seed }
}

/// All there are.
pub const ALL: &[Mutation] = &[
    records(
        "R1",
        "erased versions give their numbers up, so that a writer that knows an older head takes one",
        &["guard.stubs"],
        Some(0),
    ),
    records(
        "R2",
        "an object that is put while its item is erased stays",
        &["guard.take_back", "guard.second_look"],
        Some(12),
    ),
    records("R4", "a commit does not look whether its object was collected", &["guard.condemned"], None),
    records("R16", "a reader is shown the items of other tenants", &["guard.tenant"], Some(9)),
    records(
        "R20",
        "an acknowledged item whose head is missing is not found",
        &["guard.missing_head", "guard.lagging_head"],
        Some(19),
    ),
    records("R21", "the past is shown before it is settled", &["guard.settled"], None),
    records(
        "S1",
        "a flusher that waits for a gathering looks for the rows of others again and again, and stores nothing",
        &["guard.gathers"],
        Some(1),
    ),
    records(
        "S2",
        "a version whose head could not be put is acknowledged, and readers see the one before",
        &["guard.lagging_head"],
        Some(45),
    ),
    records(
        "G1",
        "numbers of a commit without an answer stay open, so that it takes place after it was refused",
        &["guard.void"],
        None,
    ),
    records("G2", "a head that comes late takes the place of a newer one", &["guard.newer_head"], None),
    records(
        "G3",
        "a writer takes a number though its head is old, and rows may have left since",
        &["guard.old_heads"],
        None,
    ),
    records("G4", "rows leave while writers that know an older head are under way", &["guard.fence"], None),
    records("G5", "manifests keep what was erased", &["guard.rewrite"], Some(95)),
    records("G6", "a follower of the counters puts totals over those of another", &["guard.totals"], None),
    records("G7", "a write goes before those of its item that wait", &["guard.lane"], Some(2)),
    records(
        "G8",
        "a queued write does not look whether an attempt of its own has landed",
        &["guard.landed"],
        None,
    ),
    records("G9", "an object is put before it is noted", &["guard.note", "guard.condemned"], Some(2)),
    records("G10", "a version counts as stored though its put failed", &["guard.put"], Some(0)),
    records(
        "G11",
        "a write does not look whether the expected version is the newest",
        &["guard.expected"],
        Some(5),
    ),
    records("G12", "an import does not recognise what it did before", &["guard.import_marks"], None),
    records(
        "G13",
        "a row that may have left the index is taken for one that never was",
        &["guard.may_have_left"],
        None,
    ),
    records(
        "G14",
        "objects are collected before the commits under way have come",
        &["guard.settled_gc", "guard.condemned"],
        None,
    ),
    bus("B12", "messages of a key do not line up behind those before them", &["guard.line_up"], Some(6)),
    bus("G20", "a consumer settles with a lock that is no longer its own", &["guard.token"], Some(4)),
    bus("G21", "a message is started more often than it may be", &["guard.used_up"], Some(0)),
    bus("G22", "a consumer passes numbers whose messages are still being written", &["guard.gap"], None),
    bus(
        "G23",
        "a consumer that stood still hands out what was settled meanwhile",
        &["guard.ack_floor"],
        None,
    ),
    bus("G24", "messages go though a consumer is at work with them", &["guard.open"], Some(1)),
];

/// The mutation of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Mutation> {
    ALL.iter().find(|mutation| mutation.name == name)
}
