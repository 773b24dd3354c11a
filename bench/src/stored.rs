//! The documents of the scenarios, and heads and rows in the shape the library stores, for loading large
//! collections without it.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Document, doc};
use chronos_db::{Json, json, json_to_bson};
use sha2::{Digest, Sha256};

use crate::Result;

/// The collection every scenario uses, and the properties it declares as indexed.
pub(crate) const COLLECTION: &str = "people";
pub(crate) const INDEXED: [&str; 3] = ["email", "status", "city"];

/// When the first loaded version was written; each following one is a millisecond younger.
pub(crate) const EPOCH: i64 = 1_600_000_000_000;
pub(crate) const CITIES: [&str; 10] =
    ["Aachen", "Bergen", "Cork", "Dijon", "Espoo", "Faro", "Ghent", "Haifa", "Izmir", "Jena"];

/// A person of about 600 bytes. `status` has this many values that `n` persons share each.
pub(crate) fn person(number: usize, sharing: usize) -> Json {
    json!({
        "email": format!("person{number}@example.org"),
        "status": format!("group{:06}", number / sharing.max(1)),
        "city": CITIES[number % CITIES.len()],
        "name": { "first": "Ada", "last": format!("Lovelace {number}") },
        "age": 18 + number % 70,
        "address": { "street": "1 Analytical Row", "zip": format!("{:05}", number % 100_000), "country": "GB" },
        "tags": ["mathematics", "engines", "poetry"],
        "score": number as f64 / 7.0,
        "about": "Wrote the first program for a machine that was never built, and saw that it would work on more than numbers. ".repeat(2),
    })
}

/// One version of an item, to be stored as the library would have.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: ObjectId,
    pub(crate) ov: i64,
    pub(crate) cv: i64,
    pub(crate) created_at: i64,
    indexed: Document,
    bytes: Vec<u8>,
    checksum: String,
}

fn int(value: i64) -> Bson {
    i32::try_from(value).map_or(Bson::Int64(value), Bson::Int32)
}

fn at(cv: i64) -> DateTime {
    DateTime::from_millis(EPOCH + cv)
}

fn binary(bytes: &[u8]) -> Bson {
    Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: bytes.to_vec() })
}

impl Stored {
    pub(crate) fn new(id: ObjectId, ov: i64, cv: i64, created_cv: i64, mut document: Json) -> Result<Self> {
        let mut indexed = Document::new();
        for path in INDEXED {
            if let Some(value) = document.get(path) {
                indexed.insert(path, json_to_bson(value)?);
            }
        }
        let created_at = EPOCH + created_cv;
        let time = |millis| chronos_db::Timestamp::from_millis(millis).to_string();
        document["_system"] = json!({
            "ov": ov, "cv": cv, "insertedAt": time(created_at), "updatedAt": time(EPOCH + cv), "deletedAt": null, "deleted": false, "functionIds": [],
        });
        let bytes = serde_json::to_vec(&document)?;
        let checksum = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { id, ov, cv, created_at, indexed, bytes, checksum })
    }

    fn content(&self, doc: &mut Document) {
        doc.insert("metaIndexed", self.indexed.clone());
        doc.insert("size", int(self.bytes.len() as i64));
        doc.insert("checksum", self.checksum.clone());
        doc.insert("state", "new-not-synched");
    }

    /// The row with its payload inline, as it stays where there is no object storage.
    pub(crate) fn row(&self) -> Document {
        let op = if self.ov == 0 { "CREATE" } else { "UPDATE" };
        let mut doc = doc! { "_id": ObjectId::new(), "itemId": self.id, "ov": int(self.ov), "cv": int(self.cv), "op": op, "at": at(self.cv) };
        self.content(&mut doc);
        if self.ov > 0 {
            doc.insert("prevOv", int(self.ov - 1));
        }
        doc.insert("inline", binary(&self.bytes));
        doc
    }

    /// The row of a payload that is stored in a bucket.
    pub(crate) fn stored_row(&self, bucket: &str) -> Document {
        let mut doc = self.row();
        doc.remove("inline");
        doc.insert("jsonBucket", bucket);
        doc.insert("jsonKey", format!("{COLLECTION}/{}/v{}/item.json", self.id, self.ov));
        doc.insert("state", "new");
        doc
    }

    /// The head, with or without the latest payload.
    pub(crate) fn head(&self, shadow: bool) -> Document {
        let mut doc = doc! { "_id": self.id, "itemId": self.id, "ov": int(self.ov), "cv": int(self.cv) };
        self.content(&mut doc);
        doc.insert("createdAt", DateTime::from_millis(self.created_at));
        doc.insert("updatedAt", at(self.cv));
        if shadow {
            let size = int(self.bytes.len() as i64);
            doc.insert(
                "fullShadow",
                doc! { "ov": int(self.ov), "at": at(self.cv), "data": binary(&self.bytes), "bytes": size },
            );
        }
        doc
    }
}
