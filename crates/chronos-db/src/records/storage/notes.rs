//! Notes about objects, in `<c>_gc`: of what is stored before its commit, of manifests before they are in use,
//! and of erased items that are looked at once more.

use bson::{Bson, Document, doc};

use crate::Timestamp;
use crate::documents::{Guard, Write};
use crate::records::index::scope::TENANT;
use crate::records::model::ItemId;

/// Whether the object of a note is about to go.
pub(crate) const CONDEMNED: &str = "condemned";

/// The field of a note that has an erased item looked at again, from then on.
pub(crate) const DUE: &str = "eraseAgainAt";

/// The field of a note that is about a manifest; it names its key.
pub(crate) const MANIFEST: &str = "manifest";

/// How the `_id` begins of a note of objects that no version named when they were found.
const UNNAMED: &str = "unnamed/";

/// The field of a note that is about a manifest which was removed, and which only a put that comes late brings back.
pub(crate) const REMOVED: &str = "removed";

/// The objects that one write stores before its commit, as they are noted.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Noted {
    /// The `_id` of the note.
    pub(crate) note: String,
    pub(crate) id: ItemId,
    pub(crate) tenant: Option<String>,
    pub(crate) at: Timestamp,
    /// Bucket and key of each.
    pub(crate) objects: Vec<(String, String)>,
}

crate::debug_some!(Noted { id, at });

impl Noted {
    pub(crate) fn document(&self, condemned: bool) -> Document {
        let objects: Vec<Bson> =
            self.objects.iter().map(|(bucket, key)| doc! { "bucket": bucket, "key": key }.into()).collect();
        let mut document = doc! { "_id": &self.note, "itemId": self.id.bson(), "notedAt": self.at, CONDEMNED: condemned, "objects": objects };
        document.extend(self.tenant.clone().map(|tenant| (TENANT.to_owned(), tenant.into())));
        document
    }

    /// The write by which a commit makes sure that its objects are there, and stay.
    pub(crate) fn kept(&self) -> Write {
        Write::put(self.document(false), Guard::Equals { field: CONDEMNED.into(), value: false.into() })
    }

    /// The `_id` of the note of objects in a bucket that no version of the item named when they were found.
    pub(crate) fn of_unnamed(bucket: &str, id: ItemId) -> String {
        format!("{UNNAMED}{bucket}/{id}")
    }

    /// Whether its objects were found without a name, rather than stored by a write.
    pub(crate) fn is_of_unnamed(&self) -> bool {
        self.note.starts_with(UNNAMED)
    }

    pub(crate) fn read(note: &Document) -> Option<Self> {
        let object = |doc: &Document| {
            Some((doc.get_str("bucket").ok()?.to_owned(), doc.get_str("key").ok()?.to_owned()))
        };
        let objects = match note.get_array("objects") {
            Ok(objects) => objects.iter().map(|found| object(found.as_document()?)).collect::<Option<_>>()?,
            // Older versions of this library wrote a note for each object.
            Err(_) => vec![object(note)?],
        };
        Some(Self {
            note: note.get_str("_id").ok()?.to_owned(),
            id: ItemId::new(note.get_object_id("itemId").ok()?),
            tenant: note.get_str(TENANT).ok().map(str::to_owned),
            at: (*note.get_datetime("notedAt").ok()?).into(),
            objects,
        })
    }
}

/// Objects as they are named to the collector.
pub(crate) fn pairs(objects: &[(String, String)]) -> impl Iterator<Item = (&str, &str)> {
    objects.iter().map(|(bucket, key)| (bucket.as_str(), key.as_str()))
}
