//! The numbers of a collection against its rows.

use futures::TryStreamExt as _;

use super::numbers::Numbers;
use super::report::Verification;
use super::verifier::Verifier;
use crate::Result;
use crate::documents::{Direction, Filter, Scan};
use crate::records::index::scope::{Scope, TENANT};
use crate::records::index::{VOIDS, without_content};
use crate::records::model::{Op, number};

impl Verifier {
    /// Looks at every number that a row of the index has.
    pub(super) async fn verify_numbers(&self, found: &mut Verification, scope: &Scope) -> Result<Numbers> {
        let scan = Scan {
            order: vec![("cv".into(), Direction::Ascending)],
            without: without_content(),
            ..Scan::default()
        };
        let mut rows = self.index.documents.scan(&self.index.names.ver, scan);
        let mut numbers = Numbers::up_to(found.stable_cv);
        let mut previous = -1;
        while let Some(doc) = rows.try_next().await? {
            let Some(cv) = number(&doc, "cv") else {
                found.report(
                    "malformed-row",
                    None,
                    None,
                    format!("a version row has no cv: {:?}", doc.get("_id")),
                );
                continue;
            };
            if cv == previous {
                found.report(
                    "duplicate-cv",
                    None,
                    None,
                    format!("two rows have the collection version {cv}"),
                );
            }
            numbers.add(cv);
            previous = cv;
            match doc.get_str("op") {
                // A VOID is nobody's.
                Ok("VOID") => found.voids += u64::from(!scope.is_one_of_several()),
                Ok("ERASE" | "ERASED") => {}
                _ => found.versions += u64::from(scope.sees(doc.get_str(TENANT).ok())),
            }
        }
        Ok(numbers)
    }

    /// Every number up to the mark has a row, in the index or in a manifest, but those that a missing history
    /// or erasures explain.
    pub(super) async fn verify_gaps(
        &self,
        mut numbers: Numbers,
        found: &mut Verification,
        scope: &Scope,
    ) -> Result<()> {
        // Of a collection whose rows go, or that others began, only what lies above the mark is gapless.
        if numbers.missing() == 0 || !self.index.settings.versioning || !numbers.has(0) {
            return Ok(());
        }
        // Numbers are those of all tenants; what the manifests of others hold is not seen here.
        if scope.is_one_of_several()
            && !self.versions.manifests.entries(&Scope::All).await?.entries.is_empty()
        {
            return Ok(());
        }
        // Numbers that no version took leave no trace where rows have left. (That of an item's versions none is
        // missing, the items tell.)
        numbers.pass(self.index.number_of(VOIDS).await?.unwrap_or(-1));
        let missing = numbers.missing();
        let erased = if missing > 0 { self.numbers_of_erased().await? } else { 0 };
        if missing > erased {
            for (first, last) in numbers.gaps() {
                let message = format!(
                    "no row has the collection versions {first} to {last}; erasures explain {erased} of {missing} such numbers"
                );
                found.report("gap-in-cv", None, None, message);
            }
        }
        Ok(())
    }

    /// How many numbers erasures took along: those of versions in manifests, and those of older versions of
    /// this library, which left no rows of what they removed.
    async fn numbers_of_erased(&self) -> Result<i64> {
        let scan = Scan {
            filter: Filter::eq("op", Op::Erase.as_str()),
            without: without_content(),
            ..Scan::default()
        };
        let mut erasures = self.index.scan_rows(scan);
        let mut numbers = 0;
        while let Some(erasure) = erasures.try_next().await? {
            let rows = self
                .index
                .documents
                .count(&self.index.names.ver, Filter::eq("itemId", erasure.id.bson()), u64::MAX)
                .await?;
            let below = i64::try_from(rows).unwrap_or(i64::MAX) - 1;
            numbers += (erasure.ov - below).max(0);
        }
        Ok(numbers)
    }
}
