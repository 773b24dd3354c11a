//! One file of a backup: rows with what belongs to them, as BSON documents one behind the other, packed by gzip.
//!
//! That is what `mongodump --gzip` writes, so `bsondump` reads it.

use std::io::{Read, Write as _};

use bson::raw::{RawBinaryRef, cstr};
use bson::spec::BinarySubtype;
use bson::{RawArrayBuf, RawBsonRef, RawDocument, RawDocumentBuf};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;

use super::format::MemberFile;
use crate::documents::{raw_bson, whole_raw};
use crate::records::{HEAVY_BYTES, Row, checksum, off_thread};
use crate::{Error, Result, Timestamp};

/// From this many bytes on a member is full: it has at most one version beyond that.
const FULL: usize = 1024 * 1024;
/// The most bytes of what belongs to a version: BSON counts a document's by 31 bits, and one request takes a file of that
/// length on every object storage (S3 5 GiB, Azure 5000 MiB).
const LONGEST: usize = 2_000 * 1024 * 1024;
/// Members are made smaller than they could be where that costs more time than it saves bytes.
const LEVEL: Compression = Compression::new(4);

/// An object that belongs to a version beside its item.json.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Blob {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) content_type: String,
    pub(super) bytes: Bytes,
}

crate::debug_some!(Blob { bucket, key });

/// A row, and what it brought with it.
#[derive(Clone, PartialEq)]
pub(super) struct Entry {
    /// As it is stored, without what is only there until it is stored elsewhere.
    pub(super) row: RawDocumentBuf,
    /// The bytes of item.json, if the version has its own.
    pub(super) item: Option<Bytes>,
    pub(super) blobs: Vec<Blob>,
    /// What was wrong with it when it was backed up.
    pub(super) damage: Option<String>,
    /// When the item was created, where the row is its latest state and not one of its versions.
    pub(super) created_at: Option<Timestamp>,
}

crate::debug_some!(Entry { damage });

/// Checks that what belongs to a version has room in a file.
///
/// # Errors
/// `STORAGE_ERROR` if it has not.
pub(super) fn check_length(item: usize, blobs: impl IntoIterator<Item = usize>) -> Result<()> {
    let length = blobs.into_iter().fold(item, usize::saturating_add);
    if length <= LONGEST {
        return Ok(());
    }
    Err(Error::storage(format!(
        "it has {length} bytes with its files; a backup takes {LONGEST} of one version"
    )))
}

impl Entry {
    fn encode(&self) -> RawDocumentBuf {
        let mut doc = RawDocumentBuf::new();
        doc.append(cstr!("row"), RawBsonRef::Document(&self.row));
        if let Some(item) = &self.item {
            doc.append(cstr!("item"), binary(item));
        }
        if !self.blobs.is_empty() {
            let blobs = self.blobs.iter().map(|blob| {
                let mut doc = RawDocumentBuf::new();
                doc.append(cstr!("bucket"), blob.bucket.as_str());
                doc.append(cstr!("key"), blob.key.as_str());
                doc.append(cstr!("contentType"), blob.content_type.as_str());
                doc.append(cstr!("data"), binary(&blob.bytes));
                doc
            });
            doc.append(cstr!("blobs"), blobs.collect::<RawArrayBuf>());
        }
        if let Some(damage) = &self.damage {
            doc.append(cstr!("damage"), damage.as_str());
        }
        if let Some(at) = self.created_at {
            doc.append(cstr!("createdAt"), at);
        }
        doc
    }

    fn decode(stored: &RawDocument) -> Result<Self> {
        let malformed = || Error::storage("it holds something that is not a version");
        let bytes = |value: RawBsonRef<'_>| Some(Bytes::copy_from_slice(value.as_binary()?.bytes));
        let row = raw_bson::get(stored, "row")?.and_then(|row| row.as_document()).ok_or_else(malformed)?;
        let item = match raw_bson::get(stored, "item")? {
            Some(item) => Some(bytes(item).ok_or_else(malformed)?),
            None => None,
        };
        let mut blobs = Vec::new();
        if let Some(stored) = raw_bson::get(stored, "blobs")? {
            for blob in stored.as_array().ok_or_else(malformed)? {
                let blob = blob.ok().and_then(|blob| blob.as_document()).ok_or_else(malformed)?;
                let get = |key: &str| raw_bson::get(blob, key).ok()?;
                let text = |key: &str| get(key)?.as_str().map(str::to_owned);
                let read = || {
                    Some(Blob {
                        bucket: text("bucket")?,
                        key: text("key")?,
                        content_type: text("contentType")?,
                        bytes: bytes(get("data")?)?,
                    })
                };
                blobs.push(read().ok_or_else(malformed)?);
            }
        }
        let damage = raw_bson::get(stored, "damage")?.and_then(|damage| damage.as_str()).map(str::to_owned);
        let created_at =
            raw_bson::get(stored, "createdAt")?.and_then(|at| at.as_datetime()).map(Timestamp::from);
        Ok(Self { row: row.to_owned(), item, blobs, damage, created_at })
    }

    /// The number of its row.
    pub(super) fn cv(&self) -> Result<i64> {
        let cv = raw_bson::get(&self.row, "cv")?.and_then(whole_raw);
        cv.ok_or_else(|| Error::storage("a version in it has no number"))
    }

    fn at(&self) -> Timestamp {
        let at = raw_bson::get(&self.row, "at").ok().flatten().and_then(|at| at.as_datetime());
        at.map(Timestamp::from).unwrap_or_default()
    }
}

fn binary(bytes: &Bytes) -> RawBinaryRef<'_> {
    RawBinaryRef { subtype: BinarySubtype::Generic, bytes }
}

/// A member while versions are put into it.
#[derive(Default)]
pub(super) struct Filling {
    raw: Vec<u8>,
    rows: u64,
    first_cv: i64,
    last_cv: i64,
    earliest: Timestamp,
    latest: Timestamp,
}

impl Filling {
    pub(super) fn push(&mut self, entry: &Entry) -> Result<()> {
        let (cv, at) = (entry.cv()?, entry.at());
        if self.rows == 0 {
            (self.first_cv, self.earliest, self.latest) = (cv, at, at);
        }
        self.last_cv = cv;
        self.earliest = self.earliest.min(at);
        self.latest = self.latest.max(at);
        self.rows += 1;
        self.raw.extend_from_slice(entry.encode().as_bytes());
        Ok(())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    pub(super) fn is_full(&self) -> bool {
        self.raw.len() >= FULL
    }

    /// The file, and what its index says of it. `run` tells it from files of the same versions that others write.
    pub(super) async fn pack(self, run: &str) -> Result<(MemberFile, Bytes)> {
        let Self { raw, rows, first_cv, last_cv, earliest, latest } = self;
        let raw_bytes = raw.len() as u64;
        let packed = off_thread(raw.len() > HEAVY_BYTES, move || {
            let mut packer = GzEncoder::new(Vec::with_capacity(raw.len() / 3), LEVEL);
            packer.write_all(&raw).and_then(|()| packer.finish())
        });
        let packed =
            packed.await?.map_err(|error| Error::storage("a file cannot be packed").caused_by(error))?;
        let member = MemberFile {
            name: format!("{first_cv}-{last_cv}.{run}.bson.gz"),
            first_cv,
            last_cv,
            rows,
            earliest,
            latest,
            bytes: packed.len() as u64,
            raw_bytes,
            sha256: checksum(&packed),
        };
        Ok((member, packed.into()))
    }
}

/// What a file holds, which is checked against its index.
///
/// # Errors
/// `STORAGE_ERROR` that says what is wrong with it.
pub(super) async fn unpack(file: Bytes, member: &MemberFile) -> Result<Vec<Entry>> {
    if checksum(&file) != member.sha256 {
        let message = format!(
            "it is damaged: its SHA-256 is not the one in the index ({} bytes there, {} here)",
            member.bytes,
            file.len()
        );
        return Err(Error::storage(message));
    }
    let expected = member.raw_bytes;
    let unpacked = off_thread(expected > HEAVY_BYTES as u64, move || {
        let mut raw = Vec::new();
        // No more than it should have.
        GzDecoder::new(&file[..]).take(expected + 1).read_to_end(&mut raw).map(|_| raw)
    });
    let raw = unpacked.await?.map_err(|error| Error::storage("it cannot be unpacked").caused_by(error))?;
    if raw.len() as u64 != expected {
        return Err(Error::storage("it has another length unpacked than its index says"));
    }
    let entries = read_all(&raw)?;
    if entries.len() as u64 != member.rows {
        return Err(Error::storage("it has another number of versions than its index says"));
    }
    let mut last = None;
    for entry in &entries {
        let cv = entry.cv()?;
        if !(member.first_cv..=member.last_cv).contains(&cv) || last.is_some_and(|last| last >= cv) {
            return Err(Error::storage(format!("version {cv} is not where it belongs")));
        }
        last = Some(cv);
    }
    Ok(entries)
}

/// The first row that is wanted in a file that no index names, so that nothing says how long it is. Of what cannot be
/// read nothing is found.
pub(super) async fn search(
    file: Bytes,
    wanted: impl Fn(&Row) -> bool + Send + 'static,
) -> Result<Option<Row>> {
    // Text is packed to a tenth at best, or nearly.
    off_thread(file.len() > HEAVY_BYTES / 8, move || {
        let mut unpacked = GzDecoder::new(&file[..]);
        while let Some(one) = next_document(&mut unpacked) {
            let entry = raw_bson::framed(&one).and_then(Entry::decode);
            let Some(row) = entry.ok().and_then(|entry| Row::read(&entry.row).ok()) else { continue };
            if wanted(&row) {
                return Some(row);
            }
        }
        None
    })
    .await
}

/// The next document; none at the end, and where the file is damaged.
fn next_document(from: &mut impl Read) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length).ok()?;
    let rest = u64::try_from(i32::from_le_bytes(length)).ok()?.checked_sub(4)?;
    let mut one = length.to_vec();
    // It grows as there are bytes: a damaged length takes no memory.
    from.take(rest).read_to_end(&mut one).ok()?;
    Some(one)
}

fn read_all(raw: &[u8]) -> Result<Vec<Entry>> {
    let cut = || Error::storage("it ends in the middle of a version");
    let (mut entries, mut rest) = (Vec::new(), raw);
    while !rest.is_empty() {
        let length = rest.first_chunk::<4>().map(|length| i32::from_le_bytes(*length)).ok_or_else(cut)?;
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len()).ok_or_else(cut)?;
        let (one, others) = rest.split_at(length);
        entries.push(Entry::decode(raw_bson::framed(one)?)?);
        rest = others;
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use bson::rawdoc;

    use super::*;

    fn entry(cv: i64) -> Entry {
        let blob = Blob {
            bucket: "b".into(),
            key: "k".into(),
            content_type: "text/plain".into(),
            bytes: Bytes::from_static(b"\0\xff"),
        };
        Entry {
            row: rawdoc! { "cv": cv, "at": bson::DateTime::from_millis(cv) },
            item: Some(Bytes::from_static(b"{}")),
            blobs: vec![blob],
            damage: None,
            created_at: Some(Timestamp::from_millis(cv)),
        }
    }

    #[tokio::test]
    async fn a_file_has_what_was_put_into_it_and_every_other_byte_is_noticed() {
        let entries: Vec<Entry> = [3, 4, 9].map(entry).into();
        let mut filling = Filling::default();
        for entry in &entries {
            filling.push(entry).unwrap();
        }
        let (member, file) = filling.pack("run").await.unwrap();
        assert_eq!((member.first_cv, member.last_cv, member.rows), (3, 9, 3));
        assert_eq!((member.earliest.as_millis(), member.latest.as_millis()), (3, 9));
        assert_eq!(unpack(file.clone(), &member).await.unwrap(), entries);
        for at in 0..file.len() {
            let mut wrong = file.to_vec();
            wrong[at] ^= 1;
            assert!(unpack(wrong.into(), &member).await.is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_version_that_is_longer_than_a_document_can_be_is_refused() {
        assert!(check_length(LONGEST - 2, [1, 1]).is_ok());
        assert!(check_length(LONGEST - 2, [1, 2]).is_err());
    }

    #[tokio::test]
    async fn a_file_that_unpacks_to_more_than_its_index_says_is_refused() {
        let mut filling = Filling::default();
        filling.push(&entry(0)).unwrap();
        let (member, file) = filling.pack("run").await.unwrap();
        let wrong = MemberFile { raw_bytes: member.raw_bytes - 1, ..member };
        assert!(unpack(file, &wrong).await.is_err());
    }
}
