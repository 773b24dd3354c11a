//! Payloads too big to ride in their row: stored before the commit, each only once however often a write has
//! to begin anew.

use super::commit::Prepared;
use super::ready::{Ready, Uploading, Uploads};
use super::writer::Writer;
use crate::objects::{PutMode, PutOptions};
use crate::records::document::payload::{self, Body, JSON_TYPE, System};
use crate::records::model::{InlineObject, Payload, State, VersionMeta};
use crate::records::storage::notes::{Noted, pairs};
use crate::{Error, Result};

impl Writer {
    /// Puts what is too big to ride, after noting every key, and makes the change name it.
    pub(crate) async fn upload(&self, ready: &mut Ready, uploads: &mut Uploads) -> Result<Uploading> {
        let Some(place) = ready.place.take() else { return Ok(Uploading::Nothing) };
        let prepared = &mut ready.prepared;
        let Some(body) = prepared.body.take() else { return Ok(Uploading::Nothing) };
        let mut missing = Vec::new();
        for object in objects_of(prepared, &body, uploads) {
            let (place, checksum) =
                ((object.bucket.clone(), object.key.clone()), payload::checksum(&object.bytes));
            match uploads.stored.get(&place) {
                Some(stored) if *stored == checksum => {}
                // An array that another writer has changed since moved its elements.
                Some(_) => return Ok(Uploading::Anew),
                None => missing.push((place, checksum, object)),
            }
        }
        if missing.is_empty() {
            prepared.uploaded = uploads.noted.clone();
            return Ok(Uploading::There);
        }
        let is_first = uploads.noted.is_none();
        let mut noted = match uploads.noted.take() {
            Some(noted) => noted,
            None => Noted {
                note: format!("upload/{}", place.suffix),
                id: prepared.id,
                tenant: prepared.meta.tenant.clone(),
                at: self.index.documents.now().await?,
                objects: Vec::new(),
            },
        };
        noted.objects.extend(missing.iter().map(|(place, ..)| place.clone()));
        // Until all of them are there, one may yet arrive.
        uploads.open = true;
        let is_noted = self.index.env.fail.skips("guard.note")
            || self.payloads.record_gc_candidate(&noted, is_first).await?;
        if !is_noted {
            uploads.open = false;
            return Ok(Uploading::Anew);
        }
        prepared.uploaded = Some(noted.clone());
        uploads.noted = Some(noted);
        uploads.place = Some(place);
        self.index.env.fail.hit("large.after_note")?;
        for (place, checksum, object) in missing {
            self.put_new(&prepared.meta.payload, object).await?;
            uploads.stored.insert(place, checksum);
            self.index.env.fail.hit("large.after_put")?;
        }
        uploads.open = false;
        Ok(Uploading::Done)
    }

    /// Puts an object under a key of its own: a blob, or the item.json that `payload` names.
    async fn put_new(&self, payload: &Payload, object: InlineObject) -> Result<()> {
        let InlineObject { bucket, key, content_type, bytes } = object;
        if payload.bucket.as_ref() == Some(&bucket) && payload.key.as_ref() == Some(&key) {
            return self.payloads.put_json(&bucket, &key, &bytes, PutMode::Create).await;
        }
        let options =
            PutOptions { mode: PutMode::Create, content_type: Some(content_type), ..PutOptions::default() };
        self.payloads.bucket(&bucket)?.put(&key, bytes, options).await.map(|_| ())
    }

    /// Ends a write: what its version does not name goes, and the note. `meta` is that of the version, if
    /// there is one.
    ///
    /// What fails here is left to the clean-up, which finds the version that names an object, or none.
    pub(crate) async fn end_uploads(&self, uploads: Uploads, meta: Option<&VersionMeta>) {
        let Some(noted) = &uploads.noted else { return };
        if uploads.open {
            return;
        }
        let end = async {
            self.payloads.discard(pairs(&uploads.unused(meta))).await?;
            self.payloads.forget(noted).await
        };
        let end: Result<(), Error> = end.await;
        if let Err(error) = end {
            tracing::debug!(item = %noted.id, %error, "a note about stored objects stays for the clean-up");
        }
    }
}

/// The objects of a change that does not ride: its blobs and item.json, which the change names from now on.
fn objects_of(prepared: &mut Prepared, body: &Body, uploads: &mut Uploads) -> Vec<InlineObject> {
    let previous = prepared.previous.as_ref();
    let at = prepared.at.unwrap_or(*uploads.at.get_or_insert(prepared.read_at.at()));
    // The numbers of a version are not known before its commit; readers compose them from the index.
    let system = System {
        ov: prepared.ov(),
        cv: None,
        inserted_at: previous.map_or(at, |head| head.created_at),
        updated_at: at,
        deleted_at: None,
        function_ids: &prepared.meta.function_ids,
        lineage: &prepared.meta.lineage,
        state: None,
    };
    let bytes = body.with_system(&system.to_json());
    let payload = &mut prepared.meta.payload;
    payload.size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
    payload.checksum = payload::checksum(&bytes);
    payload.state = State::New;
    let mut objects = std::mem::take(&mut prepared.inline_objects);
    if let (Some(bucket), Some(key)) = (&payload.bucket, &payload.key) {
        let (bucket, key) = (bucket.clone(), key.clone());
        objects.push(InlineObject { bucket, key, content_type: JSON_TYPE.to_owned(), bytes });
    }
    objects
}
