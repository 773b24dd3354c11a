//! Faults of the past, put back: guards of the engine that are left out.

/// A fault and the guards that keep it away.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// Its number in the second list of docs/faults.md; S where the simulation found it.
    pub name: &'static str,
    /// What is wrong then.
    pub what: &'static str,
    /// The guards that are left out.
    pub without: &'static [&'static str],
    /// A seed that finds it.
    pub seed: u64,
}

/// All there are.
pub const ALL: &[Mutation] = &[
    Mutation {
        name: "R1",
        what: "erased versions give their numbers up, so that a writer that knows an older head takes one",
        without: &["guard.stubs"],
        seed: 0,
    },
    Mutation {
        name: "R2",
        what: "an object that is put while its item is erased stays",
        without: &["guard.take_back", "guard.second_look"],
        seed: 6,
    },
    Mutation {
        name: "R20",
        what: "an acknowledged item whose head is missing is not found",
        without: &["guard.missing_head", "guard.lagging_head"],
        seed: 42,
    },
    Mutation {
        name: "S2",
        what: "a version whose head could not be put is acknowledged, and readers see the one before",
        without: &["guard.lagging_head"],
        seed: 6,
    },
    Mutation {
        name: "S1",
        what: "a flusher that waits for a gathering looks for the rows of others again and again, and stores nothing",
        without: &["guard.gathers"],
        seed: 5,
    },
];

/// The mutation of this name.
#[must_use]
pub fn named(name: &str) -> Option<&'static Mutation> {
    ALL.iter().find(|mutation| mutation.name == name)
}
