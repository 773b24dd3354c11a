//! What says that an erasure took place.

use bson::oid::ObjectId;
use sha2::{Digest as _, Sha256};

use crate::records::{Certified, ErasureCounts, ErasureRecord, ItemId};
use crate::{Error, Json, Result, Timestamp, json};

/// Says that an item was erased, and how much of it there was. It names neither the item nor anything that was in
/// it, and is kept for good.
///
/// Who knows the item can tell whether a certificate is of it: see [`is_of`](Self::is_of).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Certificate {
    /// Its own identifier, 24 hex digits.
    pub id: String,
    /// The collection of the item.
    pub collection: String,
    /// When everything was gone.
    pub erased_at: Timestamp,
    /// What went.
    pub counts: ErasureCounts,
    /// Folders, and buckets of other storage connections (`storage/bucket`), with backups that may hold the item and were
    /// not in reach: the next backup to each takes it out.
    pub backups_due: Vec<String>,
    /// The SHA-256, in lower-case hex, of what is certified: this certificate, the database and the item's id.
    /// docs/format.md says over which text.
    pub sha256: String,
}

impl Certificate {
    /// The certificate of a record whose erasure is over; none for another.
    pub(super) fn of(record: &ErasureRecord) -> Option<Self> {
        let Certified { at, sha256 } = record.certified.clone()?;
        Some(Self {
            id: record.certificate.to_hex(),
            collection: record.collection.clone(),
            erased_at: at,
            counts: record.counts,
            backups_due: record.backups_due.clone(),
            sha256,
        })
    }

    /// What a record certifies from `at` on.
    pub(super) fn certify(record: &ErasureRecord, database: &str, id: ItemId, at: Timestamp) -> Certified {
        let blank = Certified { at, sha256: String::new() };
        let text = text(record.certificate, &record.collection, &blank, &record.counts, database, id);
        Certified { at, sha256: digest(&text) }
    }

    /// Returns whether it certifies the erasure of this very item, of the collection in the database of that
    /// name.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if its own identifier is not 24 hex digits.
    pub fn is_of(&self, database: &str, id: &ItemId) -> Result<bool> {
        let own = ObjectId::parse_str(&self.id)
            .map_err(|_| Error::validation("the id of a certificate has 24 hex digits"))?;
        let certified = Certified { at: self.erased_at, sha256: String::new() };
        Ok(digest(&text(own, &self.collection, &certified, &self.counts, database, *id)) == self.sha256)
    }

    /// Returns `{id, collection, erasedAt, versions, objects, blobs, manifests, messages, operations,
    /// backupsDue?, sha256}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut out =
            json!({ "id": self.id, "collection": self.collection, "erasedAt": self.erased_at.to_string() });
        if let Json::Object(counts) = self.counts.to_json() {
            for (key, count) in counts {
                out[key.as_str()] = count;
            }
        }
        if !self.backups_due.is_empty() {
            out["backupsDue"] = self.backups_due.clone().into();
        }
        out["sha256"] = self.sha256.clone().into();
        out
    }
}

/// What is hashed: a line for each of what is certified.
fn text(
    certificate: ObjectId,
    collection: &str,
    certified: &Certified,
    counts: &ErasureCounts,
    database: &str,
    id: ItemId,
) -> String {
    let ErasureCounts { versions, objects, blobs, manifests, messages, operations } = counts;
    format!(
        "{}\n{database}\n{collection}\n{id}\n{}\n{versions}\n{objects}\n{blobs}\n{manifests}\n{messages}\n{operations}\n",
        certificate.to_hex(),
        certified.at,
    )
}

fn digest(text: &str) -> String {
    let digest: [u8; 32] = Sha256::digest(text).into();
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_of_its_item_alone() {
        let item = |text: &str| text.parse::<ItemId>().unwrap();
        let id = item("64f0c0ffee64f0c0ffee64f0");
        let mut record = ErasureRecord {
            certificate: ObjectId::parse_str("65f0c0ffee64f0c0ffee64f0").unwrap(),
            tenant: None,
            collection: "users".to_owned(),
            item: Some(id),
            counts: ErasureCounts::default(),
            is_counted: true,
            backups_due: Vec::new(),
            certified: None,
            again_at: None,
        };
        assert_eq!(Certificate::of(&record), None, "not before its end");
        let at = Timestamp::from_millis(1_714_521_600_000);
        record.certified = Some(Certificate::certify(&record, "acme", id, at));
        let certificate = Certificate::of(&record).unwrap();
        assert!(certificate.is_of("acme", &id).unwrap());
        assert!(!certificate.is_of("globex", &id).unwrap());
        assert!(!certificate.is_of("acme", &item("64f0c0ffee64f0c0ffee64f1")).unwrap());
        let mut other = certificate.clone();
        other.counts.versions += 1;
        assert!(!other.is_of("acme", &id).unwrap());
        assert!(!certificate.to_json().to_string().contains(&id.to_string()));
    }
}
