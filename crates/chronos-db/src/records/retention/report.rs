//! What was rolled up and pruned.

use crate::records::manifests::ManifestEntry;
use crate::{Json, Timestamp};

/// A manifest: version rows that left the index, in one object.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManifestInfo {
    /// The bucket of its object.
    pub bucket: String,
    /// Its key there.
    pub key: String,
    /// Its level; each holds eight times as many rows as the one below.
    pub level: i32,
    /// The period of its roll-up: a day, a week or a month.
    pub period: String,
    /// The lowest and the highest collection version in it.
    pub cv: (i64, i64),
    /// The lowest and the highest item version in it.
    pub ov: (i64, i64),
    /// The earliest and the latest time of a version in it.
    pub at: (Timestamp, Timestamp),
    /// How many versions.
    pub versions: u64,
    /// Of how many items.
    pub items: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The SHA-256 of its bytes, in lower-case hex.
    pub sha256: String,
    /// When it was made.
    pub made_at: Timestamp,
    /// Whether versions of it may still be in the index as well.
    pub pending: bool,
}

impl ManifestInfo {
    pub(crate) fn new(entry: &ManifestEntry, pending: bool) -> Self {
        Self {
            bucket: entry.bucket.clone(),
            key: entry.key.clone(),
            level: entry.level,
            period: entry.period.clone(),
            cv: (entry.cv.from, entry.cv.to),
            ov: (entry.ov.from, entry.ov.to),
            at: (entry.at.from, entry.at.to),
            versions: entry.rows,
            items: entry.item_count,
            bytes: entry.bytes,
            sha256: entry.sha256.clone(),
            made_at: entry.made_at,
            pending,
        }
    }

    /// Returns `{key, bucket, level, period, cv: {from, to}, ov, at, versions, items, bytes, sha256, madeAt,
    /// pending}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        crate::json!({
            "key": self.key,
            "bucket": self.bucket,
            "level": self.level,
            "period": self.period,
            "cv": { "from": self.cv.0, "to": self.cv.1 },
            "ov": { "from": self.ov.0, "to": self.ov.1 },
            "at": { "from": self.at.0.to_string(), "to": self.at.1.to_string() },
            "versions": self.versions,
            "items": self.items,
            "bytes": self.bytes,
            "sha256": self.sha256,
            "madeAt": self.made_at.to_string(),
            "pending": self.pending,
        })
    }
}

/// What a roll-up did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RolledUp {
    /// Versions that were not in a manifest before.
    pub versions: u64,
    /// The manifests that were made; none in a dry run.
    pub manifests: Vec<ManifestInfo>,
    /// Manifests that were merged into these.
    pub merged: u64,
    /// Rows that cannot be read, and stay with all later ones of their items.
    pub damaged: u64,
    /// Whether it only looked.
    pub dry_run: bool,
}

impl RolledUp {
    /// Nothing was to be done.
    pub(crate) fn idle(dry_run: bool) -> Self {
        Self { dry_run, ..Self::default() }
    }

    /// Returns `{rolledUpVersions, prunedVersions: 0, manifestsCreated, manifestsMerged, manifests: [key], damaged,
    /// dryRun}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        crate::json!({
            "rolledUpVersions": self.versions,
            "prunedVersions": 0,
            "manifestsCreated": self.manifests.len(),
            "manifestsMerged": self.merged,
            "manifests": self.manifests.iter().map(|made| made.key.as_str()).collect::<Vec<_>>(),
            "damaged": self.damaged,
            "dryRun": self.dry_run,
        })
    }
}

/// What a prune did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pruned {
    /// Versions that left the index.
    pub versions: u64,
    /// Numbers that no version took, and that nobody needs any more.
    pub voids: u64,
    /// What was rolled up first.
    pub rolled_up: RolledUp,
}

impl Pruned {
    /// Returns what [`RolledUp::to_json`] does, with `prunedVersions`, and `prunedVoids`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = self.rolled_up.to_json();
        out["prunedVersions"] = self.versions.into();
        out["prunedVoids"] = self.voids.into();
        out
    }
}
