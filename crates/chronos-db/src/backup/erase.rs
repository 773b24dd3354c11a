//! Taking erased items out of backups.
//!
//! The files that hold an item are written anew without its content, under new names; an index of the next revision
//! names them, and then the old files go, and last the old index: while that is there, something is left to do.

use std::collections::{BTreeSet, HashSet};

use futures::TryStreamExt as _;

use super::catalog::{self, BackupProblem, Chain};
use super::format::{MEMBER_TYPE, MemberFile, Segment, parse_index_key};
use super::location::BackupLocation;
use super::member::{Entry, Filling};
use super::numbers::numbers_of;
use super::source::Source;
use super::unnamed::{self, Taken};
use crate::records::{ItemId, Row};
use crate::{Error, Result};

/// So often is begun anew because others rewrite the same index.
const ATTEMPTS: usize = 64;

/// Takes erased items out of one chain. Returns how many files were written anew or removed.
pub(super) async fn from_chain(
    source: &Source,
    location: &BackupLocation,
    chain_prefix: &str,
    ids: &HashSet<ItemId>,
) -> Result<u64> {
    let (mut ids, mut taken) = (ids.clone(), 0);
    if ids.is_empty() {
        return Ok(0);
    }
    for _ in 0..ATTEMPTS {
        // First of all: what is there by now can be named only by an index that is created before ours, or not at all.
        let files = unnamed::list(location, chain_prefix).await?;
        taken += from_indexed(source, location, chain_prefix, &ids).await?;
        match unnamed::take_out(source, location, chain_prefix, files, &ids).await? {
            Taken::All(removed) => return Ok(taken + removed),
            Taken::Again(more) => ids.extend(more),
        }
    }
    Err(rewritten_by_others(chain_prefix))
}

fn rewritten_by_others(chain_prefix: &str) -> Error {
    Error::storage(format!("the backup `{chain_prefix}` is rewritten by others all the time")).retryable()
}

/// Takes them out of the files that indexes name.
async fn from_indexed(
    source: &Source,
    location: &BackupLocation,
    chain_prefix: &str,
    ids: &HashSet<ItemId>,
) -> Result<u64> {
    finish_others(location, chain_prefix).await?;
    let mut chain = catalog::sound(location, chain_prefix).await?;
    let cvs = numbers_of(source, &chain, ids).await?;
    let mut rewritten = 0;
    for at in 0..chain.segments.len() {
        let mut attempts = 0;
        loop {
            let segment = chain.segments[at].clone();
            let Some(newer) = without(source, location, &chain, &segment, ids, cvs.as_ref()).await? else {
                break;
            };
            if replace(source, location, &chain, &segment, &newer).await? {
                rewritten += changed(&segment, &newer).count() as u64;
                chain.segments[at] = newer;
                break;
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(rewritten_by_others(chain_prefix));
            }
            chain = catalog::sound(location, chain_prefix).await?;
        }
    }
    Ok(rewritten)
}

/// The index without the content of the items, whose new files are stored; none if there is none in it.
async fn without(
    source: &Source,
    location: &BackupLocation,
    chain: &Chain,
    segment: &Segment,
    ids: &HashSet<ItemId>,
    cvs: Option<&BTreeSet<i64>>,
) -> Result<Option<Segment>> {
    let run = source.index.env.random.object_id().to_hex();
    let mut newer = Segment { revision: segment.revision + 1, ..segment.clone() };
    let mut any = false;
    for member in &mut newer.members {
        if cvs.is_some_and(|cvs| cvs.range(member.first_cv..=member.last_cv).next().is_none()) {
            continue;
        }
        let mut entries = catalog::entries(location, chain, segment, member).await?;
        let mut stripped = 0;
        for entry in &mut entries {
            stripped += u64::from(strip(source, entry, ids)?);
        }
        if stripped == 0 {
            continue;
        }
        any = true;
        newer.versions = newer.versions.saturating_sub(stripped);
        *member = pack(source, location, chain, &entries, &run).await?;
    }
    Ok(any.then_some(newer))
}

/// Leaves of a version of the items its numbers alone; whether there was more.
fn strip(source: &Source, entry: &mut Entry, ids: &HashSet<ItemId>) -> Result<bool> {
    let Ok(row) = Row::read(&entry.row) else { return Ok(false) };
    if !ids.contains(&row.id) || row.op.is_bare() {
        return Ok(false);
    }
    let rules = source.index.settings.rules.of_version(&row.meta)?;
    *entry = Entry {
        row: row.erased(rules).stored(),
        item: None,
        blobs: Vec::new(),
        damage: None,
        created_at: None,
    };
    Ok(true)
}

async fn pack(
    source: &Source,
    location: &BackupLocation,
    chain: &Chain,
    entries: &[Entry],
    run: &str,
) -> Result<MemberFile> {
    let mut filling = Filling::default();
    for entry in entries {
        filling.push(entry)?;
    }
    let (member, file) = filling.pack(run).await?;
    let key = chain.member_key(&member);
    if !location.create(&key, file.clone(), MEMBER_TYPE).await?
        && location.get(&key).await?.is_none_or(|there| there != file)
    {
        return Err(BackupProblem::new(key, "it is there already").error());
    }
    source.index.env.fail.hit("backup.after_rewrite")?;
    Ok(member)
}

/// The members that are others in the newer index.
fn changed<'s>(old: &'s Segment, newer: &'s Segment) -> impl Iterator<Item = &'s MemberFile> {
    old.members.iter().filter(|member| !newer.members.iter().any(|other| other.name == member.name))
}

/// Puts the newer index in place of the old one; whether it did. Otherwise another one has, and its files go.
async fn replace(
    source: &Source,
    location: &BackupLocation,
    chain: &Chain,
    old: &Segment,
    newer: &Segment,
) -> Result<bool> {
    if !catalog::create(location, chain, newer).await? {
        for member in changed(newer, old) {
            location.delete(&chain.member_key(member)).await?;
        }
        return Ok(false);
    }
    source.index.env.fail.hit("backup.after_new_index")?;
    for member in changed(old, newer) {
        location.delete(&chain.member_key(member)).await?;
    }
    source.index.env.fail.hit("backup.before_old_index")?;
    location.delete(&chain.index_key(old)).await?;
    Ok(true)
}

/// Removes what processes left that died while they put a newer index in place of an old one.
async fn finish_others(location: &BackupLocation, chain_prefix: &str) -> Result<()> {
    let mut keys = Vec::new();
    let mut listed = location.list(&format!("{chain_prefix}index/"));
    while let Some(object) = listed.try_next().await? {
        keys.extend(parse_index_key(&object.key).map(|read| (read, object.key)));
    }
    for (read, key) in &keys {
        if !keys.iter().any(|(other, _)| other.first_cv == read.first_cv && other.revision > read.revision) {
            continue;
        }
        let chain = catalog::sound(location, chain_prefix).await?;
        let Some(newer) = chain.segments.iter().find(|newer| newer.first_cv == read.first_cv) else {
            continue;
        };
        // One that cannot be read any more names nothing; its files are removed as abandoned ones.
        if let Some(old) = location.get(key).await?.and_then(|file| Segment::read(&file).ok()) {
            for member in changed(&old, newer) {
                location.delete(&chain.member_key(member)).await?;
            }
        }
        location.delete(key).await?;
    }
    Ok(())
}
