//! Which buckets a database has: those that it names, those that its storage names, or the default ones.

use std::collections::BTreeMap;

use super::Buckets;
use super::identifiers::name;
use crate::Result;

/// Buckets that a storage names for all its databases.
pub(super) type SharedBuckets = BTreeMap<String, BucketNames>;

/// The buckets that a database or a storage names.
#[derive(Clone, Debug, Default)]
pub(super) struct BucketNames {
    pub(super) all: Option<String>,
    pub(super) json: Option<String>,
    pub(super) content: Option<String>,
    pub(super) backups: Option<String>,
}

impl BucketNames {
    pub(super) fn check(&self, path: &str) -> Result<()> {
        let named = [
            ("bucket", &self.all),
            ("recordsBucket", &self.json),
            ("contentBucket", &self.content),
            ("backupsBucket", &self.backups),
        ];
        for (key, bucket) in named {
            if let Some(bucket) = bucket {
                name(&format!("{path}.{key}"), "bucket", bucket)?;
            }
        }
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        let Self { all, json, content, backups } = self;
        [all, json, content, backups].into_iter().all(Option::is_none)
    }

    /// The buckets: its own, else those that the storage names, else these.
    pub(super) fn resolve(&self, shared: &Self, otherwise: &Buckets) -> Buckets {
        let pick = |own: &Option<String>, theirs: &Option<String>, last: &String| {
            let named = own.as_ref().or(self.all.as_ref()).or(theirs.as_ref()).or(shared.all.as_ref());
            named.unwrap_or(last).clone()
        };
        Buckets {
            json: pick(&self.json, &shared.json, &otherwise.json),
            content: pick(&self.content, &shared.content, &otherwise.content),
            backups: pick(&self.backups, &shared.backups, &otherwise.backups),
        }
    }
}

impl Buckets {
    /// The default names of version 1.
    pub(super) fn version_1(prefix: &str) -> Self {
        let named = |name: &str| format!("{prefix}{name}");
        Self { json: named("json"), content: named("content"), backups: named("backups") }
    }
}
