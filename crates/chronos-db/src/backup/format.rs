//! What lies in a backup: the names of its files, and its indexes.
//!
//! ```text
//! __backups__/<database>/<collection>/<whose>/<chain>/index/<first cv>.<revision>.ndjson
//! __backups__/<database>/<collection>/<whose>/<chain>/members/<first cv>-<last cv>.<run>.bson.gz
//! ```
//!
//! A chain is the backups of one collection, from its first version on: each index names the files (members) of the
//! versions that follow those of the index before. An index is never changed; another one of the next revision
//! takes its place, and only one can be created under each name. So two that write at once exclude each other, and
//! what an index names is there.
//!
//! Of a collection that keeps no versions each backup is a chain by itself, of the latest state of its items.

use bson::oid::ObjectId;

use crate::objects::keys;
use crate::records::{Scope, checksum};
use crate::{Error, Json, Result, Timestamp, json};

/// The version of the format, in every index.
const FORMAT: i64 = 1;
/// The media types of indexes and members.
pub(super) const INDEX_TYPE: &str = "application/x-ndjson";
pub(super) const MEMBER_TYPE: &str = "application/gzip";

/// The collection whose chain it is, and of whom.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Subject {
    pub(crate) database: String,
    pub(crate) collection: String,
    /// `all`, `untenanted`, or `tenant-` and a tenant: what the handle sees that wrote it.
    pub(crate) whose: String,
}

impl Subject {
    pub(crate) fn new(database: &str, collection: &str, scope: &Scope) -> Self {
        let whose = match scope {
            Scope::All | Scope::Sole { .. } => "all".to_owned(),
            Scope::Untenanted => "untenanted".to_owned(),
            Scope::Tenant(tenant) => format!("tenant-{tenant}"),
        };
        Self { database: database.to_owned(), collection: collection.to_owned(), whose }
    }

    /// What the handle saw that wrote it.
    pub(crate) fn scope(&self) -> Scope {
        match self.whose.strip_prefix("tenant-") {
            Some(tenant) => Scope::tenant(tenant),
            None if self.whose == "untenanted" => Scope::Untenanted,
            None => Scope::All,
        }
    }

    /// Below which its chains lie.
    pub(crate) fn prefix(&self) -> Result<String> {
        keys::backups_prefix(&self.database, &self.collection, &self.whose)
    }

    /// Below which the chains of the collection lie, of every tenant.
    pub(crate) fn prefix_of_all(&self) -> Result<String> {
        let mut prefix = self.prefix()?;
        let end = prefix.trim_end_matches('/').rfind('/').map_or(0, |at| at + 1);
        prefix.truncate(end);
        Ok(prefix)
    }
}

/// What a backup is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BackupKind {
    /// Every version: each backup adds what came since the one before.
    Log,
    /// The latest state of each item, of a collection that keeps no versions: each backup is whole.
    State,
}

impl BackupKind {
    /// Returns the name: `log` or `state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::State => "state",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Log, Self::State].into_iter().find(|kind| kind.as_str() == text)
    }
}

/// One file of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemberFile {
    /// Its name below `members/`.
    pub(crate) name: String,
    /// The numbers of its first and of its last row.
    pub(crate) first_cv: i64,
    pub(crate) last_cv: i64,
    pub(crate) rows: u64,
    /// The earliest and the latest time of a row.
    pub(crate) earliest: Timestamp,
    pub(crate) latest: Timestamp,
    pub(crate) bytes: u64,
    /// Unpacked.
    pub(crate) raw_bytes: u64,
    /// Of the file, lower-case hex.
    pub(crate) sha256: String,
}

/// One index: the members of a run of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) subject: Subject,
    pub(crate) chain: String,
    pub(crate) kind: BackupKind,
    /// Nothing is missing if this is the last index: always so of a log.
    pub(crate) complete: bool,
    pub(crate) first_cv: i64,
    pub(crate) last_cv: i64,
    pub(crate) revision: u64,
    /// The `_id` of the row of `last_cv`, if there is one: by it the collection is known again.
    pub(crate) last_row: Option<String>,
    /// When it was written, by the time of the document store.
    pub(crate) at: Timestamp,
    /// Rows that are versions of an item that is there.
    pub(crate) versions: u64,
    /// Versions whose payload was missing or damaged.
    pub(crate) damaged: u64,
    pub(crate) members: Vec<MemberFile>,
}

impl Segment {
    pub(crate) fn rows(&self) -> u64 {
        self.members.iter().map(|member| member.rows).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.members.iter().map(|member| member.bytes).sum()
    }

    /// Its name below `index/`.
    pub(crate) fn name(&self) -> String {
        format!("{}.{}.ndjson", self.first_cv, self.revision)
    }

    /// The file: the index, and a line with its SHA-256.
    pub(crate) fn file(&self) -> Vec<u8> {
        let members = self.members.iter().map(MemberFile::to_json);
        let index = json!({
            "format": FORMAT,
            "database": self.subject.database,
            "collection": self.subject.collection,
            "whose": self.subject.whose,
            "chain": self.chain,
            "kind": self.kind.as_str(),
            "complete": self.complete,
            "firstCv": self.first_cv,
            "lastCv": self.last_cv,
            "revision": self.revision,
            "lastRow": self.last_row,
            "at": self.at.to_string(),
            "versions": self.versions,
            "damaged": self.damaged,
            "members": Json::Array(members.collect()),
        });
        let mut file = index.to_vec();
        let sum = json!({ "sha256": checksum(&file) });
        file.push(b'\n');
        file.extend(sum.to_vec());
        file.push(b'\n');
        file
    }

    /// Reads a file.
    ///
    /// # Errors
    /// `STORAGE_ERROR` that says what is wrong with it.
    pub(crate) fn read(file: &[u8]) -> Result<Self> {
        let mut lines = file.split(|byte| *byte == b'\n');
        let (index, sum) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
        let stated = Json::parse(sum).ok().and_then(|sum| Some(sum.get("sha256")?.as_str()?.to_owned()));
        if stated.as_deref() != Some(&*checksum(index)) {
            return Err(Error::storage("its SHA-256 is not the one it says"));
        }
        let index = Json::parse(index).map_err(|error| Error::storage("it is not JSON").caused_by(error))?;
        if index.get("format").and_then(Json::as_i64).is_none_or(|format| format > FORMAT) {
            return Err(Error::storage("it is of a newer format than this version reads"));
        }
        Self::parse(&index).ok_or_else(|| Error::storage("a field is missing, or of another type"))
    }

    fn parse(index: &Json) -> Option<Self> {
        let text = |key: &str| Some(index.get(key)?.as_str()?.to_owned());
        Some(Self {
            subject: Subject {
                database: text("database")?,
                collection: text("collection")?,
                whose: text("whose")?,
            },
            chain: text("chain")?,
            kind: BackupKind::parse(index.get("kind")?.as_str()?)?,
            complete: index.get("complete")?.as_bool()?,
            first_cv: index.get("firstCv")?.as_i64()?,
            last_cv: index.get("lastCv")?.as_i64()?,
            revision: index.get("revision")?.as_u64()?,
            last_row: text("lastRow"),
            at: Timestamp::parse(index.get("at")?.as_str()?).ok()?,
            versions: index.get("versions")?.as_u64()?,
            damaged: index.get("damaged")?.as_u64()?,
            members: index
                .get("members")?
                .as_array()?
                .iter()
                .map(MemberFile::parse)
                .collect::<Option<_>>()?,
        })
    }
}

impl MemberFile {
    fn to_json(&self) -> Json {
        json!({
            "name": self.name,
            "firstCv": self.first_cv,
            "lastCv": self.last_cv,
            "rows": self.rows,
            "earliest": self.earliest.to_string(),
            "latest": self.latest.to_string(),
            "bytes": self.bytes,
            "rawBytes": self.raw_bytes,
            "sha256": self.sha256,
        })
    }

    fn parse(member: &Json) -> Option<Self> {
        let time = |key: &str| Timestamp::parse(member.get(key)?.as_str()?).ok();
        Some(Self {
            name: member.get("name")?.as_str()?.to_owned(),
            first_cv: member.get("firstCv")?.as_i64()?,
            last_cv: member.get("lastCv")?.as_i64()?,
            rows: member.get("rows")?.as_u64()?,
            earliest: time("earliest")?,
            latest: time("latest")?,
            bytes: member.get("bytes")?.as_u64()?,
            raw_bytes: member.get("rawBytes")?.as_u64()?,
            sha256: member.get("sha256")?.as_str()?.to_owned(),
        })
    }
}

/// What the key of an index says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IndexKey {
    /// Up to and with the chain's `/`.
    pub(super) chain_prefix: String,
    pub(super) chain: String,
    pub(super) first_cv: i64,
    pub(super) revision: u64,
}

/// Reads the key of an index; none if it is another key.
pub(super) fn parse_index_key(key: &str) -> Option<IndexKey> {
    let (folder, name) = key.rsplit_once('/')?;
    let chain_prefix = folder.strip_suffix("index")?;
    let chain = chain_prefix.strip_suffix('/')?.rsplit('/').next()?;
    ObjectId::parse_str(chain).ok()?;
    let (first_cv, revision) = name.strip_suffix(".ndjson")?.split_once('.')?;
    Some(IndexKey {
        chain_prefix: chain_prefix.to_owned(),
        chain: chain.to_owned(),
        first_cv: first_cv.parse().ok()?,
        revision: revision.parse().ok()?,
    })
}

/// What the key of a member says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MemberKey {
    /// Up to and with the chain's `/`.
    pub(super) chain_prefix: String,
    pub(super) first_cv: i64,
    pub(super) last_cv: i64,
}

/// Reads the key of a member; none if it is another key.
pub(super) fn parse_member_key(key: &str) -> Option<MemberKey> {
    let (folder, name) = key.rsplit_once('/')?;
    let chain_prefix = folder.strip_suffix("members")?;
    ObjectId::parse_str(chain_prefix.strip_suffix('/')?.rsplit('/').next()?).ok()?;
    let (first_cv, last_cv) = name.strip_suffix(".bson.gz")?.split_once('.')?.0.split_once('-')?;
    Some(MemberKey {
        chain_prefix: chain_prefix.to_owned(),
        first_cv: first_cv.parse().ok()?,
        last_cv: last_cv.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment() -> Segment {
        let time = Timestamp::from_millis(1_700_000_000_123);
        let member = MemberFile {
            name: "0-1.65f0a1b2c3d4e5f60718293a.bson.gz".into(),
            first_cv: 0,
            last_cv: 1,
            rows: 2,
            earliest: time,
            latest: time,
            bytes: 10,
            raw_bytes: 20,
            sha256: "ab".into(),
        };
        Segment {
            subject: Subject::new("shop", "Users", &Scope::tenant("acme")),
            chain: "65f0a1b2c3d4e5f60718293a".into(),
            kind: BackupKind::Log,
            complete: true,
            first_cv: 0,
            last_cv: 1,
            revision: 0,
            last_row: None,
            at: time,
            versions: 2,
            damaged: 0,
            members: vec![member],
        }
    }

    #[test]
    fn an_index_is_read_as_it_was_written_and_every_other_bit_is_noticed() {
        let segment = segment();
        let file = segment.file();
        assert_eq!(Segment::read(&file).unwrap(), segment);
        for at in 0..file.len() - 1 {
            let mut wrong = file.clone();
            wrong[at] ^= 1;
            assert!(Segment::read(&wrong).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_key_of_an_index_says_what_it_is_of() {
        let segment = segment();
        let prefix = segment.subject.prefix().unwrap() + &segment.chain + "/";
        assert_eq!(prefix, "__backups__/shop/users/tenant-acme/65f0a1b2c3d4e5f60718293a/");
        let read = parse_index_key(&format!("{prefix}index/{}", segment.name())).unwrap();
        assert_eq!(
            read,
            IndexKey { chain_prefix: prefix.clone(), chain: segment.chain, first_cv: 0, revision: 0 }
        );
        let member = format!("{prefix}members/0-1.x.bson.gz");
        assert_eq!(parse_index_key(&member), None);
        assert_eq!(
            parse_member_key(&member),
            Some(MemberKey { chain_prefix: prefix.clone(), first_cv: 0, last_cv: 1 })
        );
        assert_eq!(parse_member_key(&format!("{prefix}index/0.0.ndjson")), None);
    }
}
