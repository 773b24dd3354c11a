//! What there is in a place: chains, their indexes, and the files that these name.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::TryStreamExt as _;

use super::format::{
    BackupKind, INDEX_TYPE, MemberFile, Segment, Subject, parse_index_key, parse_member_key,
};
use super::location::BackupLocation;
use super::member::{Entry, unpack};
use crate::{Error, Result};

/// So often is looked again at what was taken away because something newer took its place.
const LOOKS: usize = 8;

/// Of each index of a chain the newest revision: by the first number of the versions.
type Revisions = BTreeMap<i64, u64>;

/// The backups of one collection, from its first version on.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    /// Where it is, with a `/` at its end.
    pub(super) prefix: String,
    pub(super) segments: Vec<Segment>,
}

/// A file that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BackupProblem {
    /// Its key in the location of the backups.
    pub file: String,
    /// What is wrong with it.
    pub message: String,
}

impl BackupProblem {
    pub(super) fn new(file: String, message: impl Into<String>) -> Self {
        Self { file, message: message.into() }
    }

    pub(super) fn error(self) -> Error {
        Error::storage(format!("`{}` of the backup: {}", self.file, self.message))
    }
}

impl Chain {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, segments: Vec::new() }
    }

    /// The last number that is backed up; −1 if none is.
    pub(super) fn last_cv(&self) -> i64 {
        self.segments.last().map_or(-1, |last| last.last_cv)
    }

    pub(super) fn index_key(&self, segment: &Segment) -> String {
        format!("{}index/{}", self.prefix, segment.name())
    }

    pub(super) fn member_key(&self, member: &MemberFile) -> String {
        format!("{}members/{}", self.prefix, member.name)
    }

    /// What it is made of.
    pub(super) fn kind(&self) -> BackupKind {
        self.segments.first().map_or(BackupKind::Log, |first| first.kind)
    }

    /// Whether there is something in it, and nothing missing.
    pub(super) fn is_complete(&self) -> bool {
        self.segments.last().is_some_and(|last| last.complete)
    }

    /// The identity of the collection's numbers.
    pub(super) fn id(&self) -> &str {
        self.prefix.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
    }
}

/// The chains below a prefix, with their indexes; of a backup that wrote none yet, or has died, there is none.
async fn find(location: &BackupLocation, prefix: &str) -> Result<BTreeMap<String, Revisions>> {
    let mut found = BTreeMap::<String, Revisions>::new();
    let mut listed = location.list(prefix);
    while let Some(object) = listed.try_next().await? {
        if let Some(key) = parse_index_key(&object.key) {
            let newest = found.entry(key.chain_prefix).or_default().entry(key.first_cv).or_default();
            *newest = key.revision.max(*newest);
        } else if let Some(key) = parse_member_key(&object.key) {
            found.entry(key.chain_prefix).or_default();
        }
    }
    Ok(found)
}

/// Every chain below a prefix, and what is wrong with the indexes of each.
pub(super) async fn chains(
    location: &BackupLocation,
    prefix: &str,
) -> Result<Vec<(Chain, Vec<BackupProblem>)>> {
    let mut chains = Vec::new();
    for chain_prefix in find(location, prefix).await?.into_keys() {
        chains.push(load(location, &chain_prefix).await?);
    }
    Ok(chains)
}

/// One chain, and what is wrong with its indexes: behind the first that is damaged there is nothing.
pub(super) async fn load(
    location: &BackupLocation,
    chain_prefix: &str,
) -> Result<(Chain, Vec<BackupProblem>)> {
    for _ in 0..LOOKS {
        let indexes = format!("{chain_prefix}index/");
        let revisions = find(location, &indexes).await?.remove(chain_prefix).unwrap_or_default();
        if let Some(loaded) = read(location, chain_prefix, &revisions).await? {
            return Ok(loaded);
        }
    }
    Err(Error::storage(format!("the indexes of the backup `{chain_prefix}` change all the time")).retryable())
}

/// One chain, all of whose indexes are sound.
///
/// # Errors
/// `STORAGE_ERROR` that names the one that is not.
pub(super) async fn sound(location: &BackupLocation, chain_prefix: &str) -> Result<Chain> {
    match load(location, chain_prefix).await? {
        (chain, problems) if problems.is_empty() => Ok(chain),
        (_, problems) => Err(problems.into_iter().next().map_or_else(
            || Error::storage(format!("the backup `{chain_prefix}` cannot be read")),
            BackupProblem::error,
        )),
    }
}

/// None if an index was taken away since it was listed.
async fn read(
    location: &BackupLocation,
    chain_prefix: &str,
    revisions: &Revisions,
) -> Result<Option<(Chain, Vec<BackupProblem>)>> {
    let mut chain = Chain::new(chain_prefix.to_owned());
    let mut problems = Vec::new();
    for (first_cv, revision) in revisions {
        let key = format!("{chain_prefix}index/{first_cv}.{revision}.ndjson");
        let Some(file) = location.get(&key).await? else { return Ok(None) };
        let problem = match Segment::read(&file) {
            Ok(segment) if segment.first_cv != *first_cv || segment.revision != *revision => {
                "it says that it is another one".to_owned()
            }
            Ok(segment) if segment.first_cv != chain.last_cv() + 1 => {
                format!("the index of the versions from {} on is missing before it", chain.last_cv() + 1)
            }
            Ok(segment) => {
                chain.segments.push(segment);
                continue;
            }
            Err(error) => error.message().to_owned(),
        };
        problems.push(BackupProblem::new(key, problem));
        break;
    }
    Ok(Some((chain, problems)))
}

/// Creates an index; whether it did. Otherwise another one has its place.
pub(super) async fn create(location: &BackupLocation, chain: &Chain, segment: &Segment) -> Result<bool> {
    let file = Bytes::from(segment.file());
    let key = chain.index_key(segment);
    if !location.create(&key, file.clone(), INDEX_TYPE).await?
        && location.get(&key).await?.is_none_or(|there| there != file)
    {
        return Ok(false);
    }
    // Another one had it, and has given it up for an index of a later revision.
    let indexes = find(location, &format!("{}index/", chain.prefix)).await?;
    let newest = indexes.get(&chain.prefix).and_then(|revisions| revisions.get(&segment.first_cv));
    if newest.is_some_and(|newest| *newest > segment.revision) {
        location.delete(&key).await?;
        return Ok(false);
    }
    Ok(true)
}

/// The newest chain of a collection; none if there is none.
pub(super) async fn newest(location: &BackupLocation, subject: &Subject) -> Result<Option<Chain>> {
    let mut newest: Option<Chain> = None;
    for chain_prefix in find(location, &subject.prefix()?).await?.into_keys() {
        let chain = sound(location, &chain_prefix).await?;
        // `Users` and `users` share a prefix; and of a backup that is not whole there may be an older one that is.
        let own = chain.segments.last().filter(|last| last.subject == *subject && last.complete);
        let Some(last) = own else { continue };
        if newest.as_ref().and_then(|chain| chain.segments.last()).is_none_or(|other| other.at <= last.at) {
            newest = Some(chain);
        }
    }
    Ok(newest)
}

/// What a file holds. One that was rewritten meanwhile is read under its new name.
///
/// # Errors
/// `STORAGE_ERROR` that names the file, if it is missing or damaged.
pub(super) async fn entries(
    location: &BackupLocation,
    chain: &Chain,
    segment: &Segment,
    member: &MemberFile,
) -> Result<Vec<Entry>> {
    let (mut revision, mut member) = (segment.revision, member.clone());
    loop {
        let key = chain.member_key(&member);
        if let Some(file) = location.get(&key).await? {
            let read = unpack(file, &member).await;
            return read.map_err(|error| BackupProblem::new(key, error.message().to_owned()).error());
        }
        let missing = || BackupProblem::new(key.clone(), "it is missing").error();
        let now = sound(location, &chain.prefix).await?;
        let newer = now.segments.into_iter().find(|newer| newer.first_cv == segment.first_cv);
        let newer = newer.filter(|newer| newer.revision > revision).ok_or_else(missing)?;
        revision = newer.revision;
        let first_cv = member.first_cv;
        member = newer.members.into_iter().find(|newer| newer.first_cv == first_cv).ok_or_else(missing)?;
    }
}
