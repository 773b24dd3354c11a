//! What a version becomes where it is restored: its bytes lie elsewhere, everything else stays what it was.

use bson::oid::ObjectId;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::format::Subject;
use super::member::{Blob, Entry};
use crate::json::Map;
use crate::objects::keys::{self, Rendition};
use crate::records::{
    BlobRef, InlineObject, JSON_TYPE, ObjectBuckets, Row, SYSTEM, Scope, State, checksum, parse_payload,
    reference,
};
use crate::{Error, Json, Result};

/// Where versions go.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) source: Subject,
    pub(super) subject: Subject,
    pub(super) scope: Scope,
    /// None where payloads stay in their rows.
    pub(super) buckets: Option<ObjectBuckets>,
    /// Logs, identities and messaging: documents say their tenant themselves.
    pub(super) says_tenant: bool,
}

/// A version as it is restored.
pub(super) struct Placed {
    pub(super) row: Row,
    pub(super) objects: Vec<InlineObject>,
}

impl Target {
    /// The version in its new place.
    pub(super) fn place(&self, entry: Entry) -> Result<Placed> {
        let Entry { row, item, blobs, .. } = entry;
        let mut row = Row::read(&row)?;
        row.unflushed_since = None;
        row.meta.tenant = self.tenant_of(&row)?;
        if row.op.is_bare() {
            return Ok(Placed { row, objects: Vec::new() });
        }
        let item = match item {
            Some(bytes) => Some(self.item(&mut row, bytes)?),
            None => {
                self.point_elsewhere(&mut row)?;
                None
            }
        };
        let mut objects: Vec<InlineObject> =
            blobs.into_iter().map(|blob| self.blob(&row, blob)).collect::<Result<_>>()?;
        let (bucket, key) = self.item_key(&row)?;
        let payload = &mut row.meta.payload;
        (payload.bucket, payload.key) = (bucket.clone(), key.clone());
        payload.state = if self.buckets.is_some() { State::New } else { State::NewNotSynched };
        if let Some(bytes) = item {
            match bucket.zip(key) {
                Some((bucket, key)) => {
                    objects.push(InlineObject { bucket, key, content_type: JSON_TYPE.to_owned(), bytes });
                }
                None => row.inline = Some(bytes),
            }
        }
        Ok(Placed { row, objects })
    }

    /// Whose the version is.
    fn tenant_of(&self, row: &Row) -> Result<Option<String>> {
        let own = row.meta.tenant.as_deref();
        if self.says_tenant {
            return match own {
                Some(tenant) if !self.scope.sees(Some(tenant)) => Err(Error::validation(format!(
                    "the records say themselves that they are of tenant `{tenant}`: they cannot be restored to another one"
                ))),
                own => Ok(own.map(str::to_owned)),
            };
        }
        // Who has a collection alone keeps what its documents say as long as it sees them.
        Ok(match self.scope.stamp() {
            Some(stamp) => Some(stamp.to_owned()),
            None => own.filter(|own| self.scope.sees(Some(own))).map(str::to_owned),
        })
    }

    /// item.json. Where it names objects that now lie elsewhere, it names them there.
    fn item(&self, row: &mut Row, bytes: Bytes) -> Result<Bytes> {
        let before = row.meta.refs.clone();
        let (document, inherited) = if row.meta.legacy || !before.is_empty() {
            let (document, inherited) = parse_payload(&bytes)?;
            (Some(document), inherited)
        } else {
            (None, None)
        };
        if let Some(inherited) = inherited {
            row.meta.inherit(inherited);
        }
        self.point_elsewhere(row)?;
        let Some(mut document) = document.filter(|_| row.meta.refs != before) else { return Ok(bytes) };
        for (old, new) in before.iter().zip(&row.meta.refs) {
            if let Some(value) = at_path(&mut document, &old.path)
                && *value == reference(old)
            {
                *value = reference(new);
            }
        }
        let whole = Json::parse(&bytes).map_err(|e| Error::storage("item.json is damaged").caused_by(e))?;
        if let Some(system) = whole.get(SYSTEM) {
            document.insert(SYSTEM.to_owned(), system.clone());
        }
        let bytes = Bytes::from(document.to_vec());
        row.meta.payload.size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        row.meta.payload.checksum = checksum(&bytes);
        Ok(bytes)
    }

    /// Makes the row's references name the objects where they are put.
    fn point_elsewhere(&self, row: &mut Row) -> Result<()> {
        let mut refs = std::mem::take(&mut row.meta.refs);
        for blob in &mut refs {
            *blob = self.moved(row, blob)?;
        }
        row.meta.refs = refs;
        Ok(())
    }

    fn moved(&self, row: &Row, blob: &BlobRef) -> Result<BlobRef> {
        let (bucket, blob_key) = self.blob_place(row, &blob.bucket, &blob.blob_key)?;
        let text_key = match &blob.text_key {
            Some(key) => Some(self.blob_place(row, &blob.bucket, key)?.1),
            None => None,
        };
        Ok(BlobRef { path: blob.path.clone(), bucket, blob_key, text_key })
    }

    fn blob(&self, row: &Row, blob: Blob) -> Result<InlineObject> {
        let Blob { bucket, key, content_type, bytes } = blob;
        let (bucket, key) = self.blob_place(row, &bucket, &key)?;
        Ok(InlineObject { bucket, key, content_type, bytes })
    }

    /// Bucket and key of item.json.
    fn item_key(&self, row: &Row) -> Result<(Option<String>, Option<String>)> {
        let Some(buckets) = &self.buckets else { return Ok((None, None)) };
        let old = row.meta.payload.key.as_deref().unwrap_or_default();
        let suffix = match keys::parse_item(old) {
            Some(parsed) if self.keeps_names() => parsed.suffix,
            _ if self.keeps_names() => None,
            _ => Some(self.suffix(old)),
        };
        let id = row.id.to_string();
        let key = keys::item(&self.subject.collection, &id, row.meta.payload.ov, suffix.as_deref())?;
        Ok((Some(buckets.json.clone()), Some(key)))
    }

    /// Bucket and key of an object of a property.
    fn blob_place(&self, row: &Row, bucket: &str, key: &str) -> Result<(String, String)> {
        let Some(buckets) = &self.buckets else {
            let message = format!(
                "version {} of the item has properties that are stored as objects (`{key}` in bucket `{bucket}`), and there is no object storage to restore them to",
                row.ov
            );
            return Err(Error::validation(message).on_item(row.id));
        };
        let parsed = keys::parse_property(key);
        let suffix = match &parsed {
            Some(parsed) if self.keeps_names() => parsed.suffix.clone(),
            _ => Some(self.suffix(key)),
        };
        let (ov, property, rendition) = match parsed {
            Some(parsed) => (parsed.ov, parsed.property, parsed.rendition),
            // The legacy library put it elsewhere; the suffix tells it apart.
            None => {
                let is_text = key.ends_with("text.txt");
                (0, "legacy".to_owned(), if is_text { Rendition::Text } else { Rendition::Blob })
            }
        };
        let id = row.id.to_string();
        let key = keys::property(&self.subject.collection, &id, ov, &property, rendition, suffix.as_deref())?;
        Ok((buckets.content.clone(), key))
    }

    /// Whether names of objects cannot be those of the source, so that they can stay as they are: a collection of
    /// the same name in the same database is not there any more, and another name is another prefix.
    fn keeps_names(&self) -> bool {
        self.source.database == self.subject.database
    }

    /// What tells an object apart from the one that it is a copy of, which may lie in the same bucket; always the
    /// same of one object.
    fn suffix(&self, key: &str) -> String {
        let mut digest = Sha256::new();
        for part in [&*self.subject.database, &self.subject.collection, &self.subject.whose, key] {
            digest.update(part);
            digest.update([0]);
        }
        digest.finalize().iter().take(12).map(|byte| format!("{byte:02x}")).collect()
    }
}

fn at_path<'d>(document: &'d mut Map, path: &str) -> Option<&'d mut Json> {
    let mut segments = path.split('.');
    let first = document.get_mut(segments.next()?)?;
    segments.try_fold(first, |value, segment| match value {
        Json::Array(items) => items.get_mut(segment.parse::<usize>().ok()?),
        Json::Object(map) => map.get_mut(segment),
        _ => None,
    })
}

/// The identifier of the row of a number that no version took: the same in every restore.
pub(super) fn id_of_void(chain: &str, cv: i64) -> ObjectId {
    let mut digest = Sha256::new();
    digest.update(chain);
    digest.update(cv.to_be_bytes());
    let mut id = [0; 12];
    id.copy_from_slice(&digest.finalize()[..12]);
    ObjectId::from_bytes(id)
}
