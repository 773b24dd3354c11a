//! Which store stands behind a client.

use std::collections::BTreeSet;

/// What tells one deployment from another, whatever it is called: the members of a replica set, the process
/// of a server, a file. Clients of one deployment have a mark in common, others have none.
///
/// ```
/// use chronos_db::documents::Deployment;
/// let [one, other] = ["member rs0/a:1", "process 64f0"].map(|mark| Deployment::of([mark.to_owned()]));
/// let alias = Deployment::of(["member rs0/a:1".to_owned(), "member rs0/b:1".to_owned()]);
/// assert!(one.is_same(&alias) && !one.is_same(&other));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    marks: BTreeSet<String>,
}

impl Deployment {
    /// Makes a deployment with these marks.
    #[must_use]
    pub fn of(marks: impl IntoIterator<Item = String>) -> Self {
        Self { marks: marks.into_iter().collect() }
    }

    /// Returns whether both are the same deployment.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        !self.marks.is_disjoint(&other.marks)
    }
}
