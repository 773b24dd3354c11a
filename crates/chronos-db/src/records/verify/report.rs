//! What a verification found.

use crate::Json;
use crate::records::model::ItemId;

/// Problems reported in full; beyond it they are only counted.
pub(super) const REPORTED: usize = 1_000;

/// What a verification found.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Verification {
    /// Versions, those that have left the index too.
    pub versions: u64,
    /// Items, deleted ones too.
    pub items: u64,
    /// Items that are not deleted.
    pub live: u64,
    /// Numbers of the collection that no version took. Not counted for one of several tenants: they are
    /// nobody's.
    pub voids: u64,
    /// The end of the gapless prefix of the collection's versions, which tenants that share a database have
    /// in common.
    pub stable_cv: i64,
    /// Versions whose payload was read back and compared with its SHA-256.
    pub checked: u64,
    /// Versions that still wait to be stored as objects: no damage.
    pub unflushed: u64,
    /// Noted objects whose commit has not come: no damage.
    pub noted: u64,
    /// Heads that lagged and were rolled forward, orphans that were removed, what was left of erased items.
    pub repaired: u64,
    /// What is wrong, the first thousand of them.
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub problem_count: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Problem {
    /// A stable word for the kind, such as `missing-object`.
    pub kind: &'static str,
    /// The item, if it concerns one.
    pub id: Option<String>,
    /// The version, if it concerns one.
    pub ov: Option<i64>,
    /// What is wrong.
    pub message: String,
}

impl Verification {
    /// Returns whether nothing is damaged.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.problem_count == 0
    }

    /// Returns `{versions, items, …, problems: [{kind, id?, ov?, message}]}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let problems: Vec<Json> = self
            .problems
            .iter()
            .map(|p| {
                let mut out = crate::json!({ "kind": p.kind });
                if let Some(id) = &p.id {
                    out["id"] = id.clone().into();
                }
                if let Some(ov) = p.ov {
                    out["ov"] = ov.into();
                }
                out["message"] = p.message.clone().into();
                out
            })
            .collect();
        crate::json!({
            "versions": self.versions, "items": self.items, "live": self.live, "voids": self.voids, "stableCv": self.stable_cv,
            "checked": self.checked, "unflushed": self.unflushed, "noted": self.noted, "repaired": self.repaired,
            "problemCount": self.problem_count, "problems": problems,
        })
    }

    pub(super) fn report(
        &mut self,
        kind: &'static str,
        id: Option<ItemId>,
        ov: Option<i64>,
        message: String,
    ) {
        self.problem_count += 1;
        if self.problems.len() < REPORTED {
            self.problems.push(Problem { kind, id: id.map(|id| id.to_string()), ov, message });
        }
    }
}
