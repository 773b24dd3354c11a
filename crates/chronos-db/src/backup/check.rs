//! What there is in a place, and whether it is sound.

use super::catalog::{self, BackupProblem, Chain};
use super::format::{BackupKind, Segment, Subject};
use super::location::BackupLocation;
use super::member::Entry;
use crate::records::{Row, check_payload};
use crate::{Json, Result, Timestamp, json};

/// The backups of one collection, from its first version on; see [`Chronos::backups`](crate::Chronos::backups).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupInfo {
    /// The database of the collection that was backed up.
    pub database: String,
    /// The collection.
    pub collection: String,
    /// The tenant whose part of the collection it is, where tenants share one.
    pub tenant: Option<String>,
    /// Which backup of the collection: another one begins when a collection of the name begins anew.
    pub backup: String,
    /// What it is made of.
    pub kind: BackupKind,
    /// The last version of the collection that is in it; −1 if none is.
    pub cv: i64,
    /// Versions of items.
    pub versions: u64,
    /// Rows: versions, erasures and numbers that no version took.
    pub rows: u64,
    /// Files with versions.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Versions whose payload was missing or damaged when they were backed up.
    pub damaged: u64,
    /// When the first and the last part were written, by the time of the document store.
    pub first_at: Option<Timestamp>,
    /// See [`first_at`](Self::first_at).
    pub last_at: Option<Timestamp>,
    /// What is wrong with it: with its indexes when it is listed, with every file when it is verified.
    pub problems: Vec<BackupProblem>,
}

impl BackupInfo {
    /// Returns `{database, collection, tenant?, backup, kind, cv, versions, rows, files, bytes, damaged, firstAt, lastAt,
    /// problems}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out = json!({ "database": self.database, "collection": self.collection });
        if let Some(tenant) = &self.tenant {
            out["tenant"] = tenant.clone().into();
        }
        out["backup"] = self.backup.clone().into();
        out["kind"] = self.kind.as_str().into();
        out["cv"] = self.cv.into();
        for (name, count) in [
            ("versions", self.versions),
            ("rows", self.rows),
            ("files", self.files),
            ("bytes", self.bytes),
            ("damaged", self.damaged),
        ] {
            out[name] = count.into();
        }
        out["firstAt"] = self.first_at.map(|at| at.to_string()).into();
        out["lastAt"] = self.last_at.map(|at| at.to_string()).into();
        let problems =
            self.problems.iter().map(|problem| json!({ "file": problem.file, "message": problem.message }));
        out["problems"] = Json::Array(problems.collect());
        out
    }

    fn new(chain: &Chain, subject: Subject, problems: Vec<BackupProblem>) -> Self {
        let sum = |of: fn(&Segment) -> u64| -> u64 { chain.segments.iter().map(of).sum() };
        Self {
            tenant: subject.whose.strip_prefix("tenant-").map(str::to_owned),
            database: subject.database,
            collection: subject.collection,
            backup: chain.id().to_owned(),
            kind: chain.kind(),
            cv: chain.last_cv(),
            versions: sum(|segment| segment.versions),
            rows: sum(|segment| segment.rows()),
            files: sum(|segment| segment.members.len() as u64),
            bytes: sum(|segment| segment.bytes()),
            damaged: sum(|segment| segment.damaged),
            first_at: chain.segments.first().map(|segment| segment.at),
            last_at: chain.segments.last().map(|segment| segment.at),
            problems,
        }
    }
}

/// Every chain below a prefix that is `wanted`; with `whole` every file is read.
pub(super) async fn look(
    location: &BackupLocation,
    prefix: &str,
    wanted: impl Fn(&Subject) -> bool,
    whole: bool,
) -> Result<Vec<BackupInfo>> {
    let mut found = Vec::new();
    for (chain, mut problems) in catalog::chains(location, prefix).await? {
        // Of a chain whose first index cannot be read, its place has to tell.
        let subject = match chain.segments.first() {
            Some(first) => first.subject.clone(),
            None => match of_prefix(&chain.prefix) {
                Some(subject) => subject,
                None => continue,
            },
        };
        if !wanted(&subject) {
            continue;
        }
        if !chain.is_complete() && problems.is_empty() {
            // A state that is being written, or whose backup has died.
            continue;
        }
        if whole {
            problems.extend(read_all(location, &chain).await?);
        }
        found.push(BackupInfo::new(&chain, subject, problems));
    }
    found.sort_by(|a, b| {
        (&a.database, &a.collection, &a.tenant, a.last_at).cmp(&(
            &b.database,
            &b.collection,
            &b.tenant,
            b.last_at,
        ))
    });
    Ok(found)
}

fn of_prefix(prefix: &str) -> Option<Subject> {
    let mut segments = prefix.split('/').skip(1);
    let mut next = || segments.next().map(str::to_owned);
    Some(Subject { database: next()?, collection: next()?, whose: next()? })
}

/// Reads every file of a chain. What does not answer is an error, what is damaged a problem.
async fn read_all(location: &BackupLocation, chain: &Chain) -> Result<Vec<BackupProblem>> {
    let mut problems = Vec::new();
    for segment in &chain.segments {
        for member in &segment.members {
            let wrong = |message: String| BackupProblem::new(chain.member_key(member), message);
            match catalog::entries(location, chain, segment, member).await {
                Ok(entries) => problems.extend(entries.iter().filter_map(problem_of).map(wrong)),
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => problems.push(wrong(error.message().to_owned())),
            }
        }
    }
    Ok(problems)
}

/// What is wrong with a version, that was not known when it was backed up.
fn problem_of(entry: &Entry) -> Option<String> {
    if entry.damage.is_some() {
        return None;
    }
    let row = match Row::read(&entry.row) {
        Ok(row) => row,
        Err(error) => return Some(error.message().to_owned()),
    };
    if row.op.is_bare() || (row.meta.payload.ov != row.ov && entry.created_at.is_none()) {
        return None;
    }
    match &entry.item {
        None => Some(format!("version {} of {} has no payload", row.ov, row.id)),
        Some(item) => check_payload(item, &row.meta.payload).err().map(|error| error.message().to_owned()),
    }
}
