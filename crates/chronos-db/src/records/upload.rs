//! Payloads too big to ride in their row: stored before the commit, each only once however often a write has
//! to begin anew.

use std::collections::HashMap;

use super::engine::Engine;
use super::gc::{Noted, pairs};
use super::model::{Rider, State};
use super::payload::{self, System};
use super::write::{JSON_TYPE, Ready};
use crate::objects::{PutMode, PutOptions};
use crate::{Error, Result, Timestamp};

/// What makes the keys of a write's objects its own. It stays when the write begins anew, so that what is
/// stored already is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UploadPlace {
    pub(super) suffix: String,
    /// The version that the first attempt would have made.
    pub(super) ov: i64,
}

/// What one write has stored before its commit, in all its attempts.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    place: Option<UploadPlace>,
    noted: Option<Noted>,
    /// SHA-256 of what is stored, by bucket and key.
    stored: HashMap<(String, String), String>,
    /// The time that item.json says, of every attempt the same.
    at: Option<Timestamp>,
    /// Whether one of them may yet arrive, or a commit that names them.
    pub(super) open: bool,
}

impl Uploads {
    pub(super) fn place(&self) -> Option<&UploadPlace> {
        self.place.as_ref()
    }

    /// Of what was stored or noted, what a version does not name.
    fn unused(&self, content: Option<&super::model::Content>) -> Vec<(String, String)> {
        let objects = self.noted.iter().flat_map(|noted| noted.objects.iter());
        objects.filter(|object| content.is_none_or(|content| !content.names(object))).cloned().collect()
    }
}

/// What became of storing what is too big to ride.
pub(super) enum Uploading {
    /// It rides; nothing had to be stored.
    Nothing,
    /// Everything is stored, something of it just now.
    Done,
    /// Everything has been there.
    There,
    /// It has to be stored anew, under other keys.
    Anew,
}

impl Engine {
    /// Puts what is too big to ride, after noting every key, and makes the change name it.
    pub(super) async fn upload(&self, ready: &mut Ready, uploads: &mut Uploads) -> Result<Uploading> {
        let Some(place) = ready.place.take() else { return Ok(Uploading::Nothing) };
        let prepared = &mut ready.prepared;
        let Some(body) = prepared.body.take() else { return Ok(Uploading::Nothing) };
        let previous = prepared.previous.as_ref();
        let at = prepared.at.unwrap_or(*uploads.at.get_or_insert(prepared.read_at));
        // The numbers of a version are not known before its commit; readers compose them from the index.
        let system = System {
            ov: prepared.ov(),
            cv: None,
            inserted_at: previous.map_or(at, |head| head.created_at),
            updated_at: at,
            deleted_at: None,
            function_ids: &prepared.content.function_ids,
            lineage: &prepared.content.lineage,
            state: None,
        };
        let bytes = body.with_system(&system.to_json());
        let payload = &mut prepared.content.payload;
        payload.size = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        payload.checksum = payload::checksum(&bytes);
        payload.state = State::New;
        let mut objects: Vec<Rider> = std::mem::take(&mut prepared.riders);
        if let (Some(bucket), Some(key)) = (&payload.bucket, &payload.key) {
            objects.push(Rider {
                bucket: bucket.clone(),
                key: key.clone(),
                content_type: JSON_TYPE.to_owned(),
                bytes,
            });
        }
        let mut missing = Vec::new();
        for object in objects {
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
                tenant: prepared.content.tenant.clone(),
                at: self.documents.now().await?,
                objects: Vec::new(),
            },
        };
        noted.objects.extend(missing.iter().map(|(place, ..)| place.clone()));
        // Until all of them are there, one may yet arrive.
        uploads.open = true;
        if !self.note(&noted, is_first).await? {
            uploads.open = false;
            return Ok(Uploading::Anew);
        }
        prepared.uploaded = Some(noted.clone());
        uploads.noted = Some(noted);
        uploads.place = Some(place);
        self.env.fail.hit("large.after_note")?;
        for (place, checksum, object) in missing {
            let options = PutOptions {
                mode: PutMode::Create,
                content_type: Some(object.content_type),
                ..PutOptions::default()
            };
            self.bucket(&object.bucket)?.put(&object.key, object.bytes, options).await?;
            uploads.stored.insert(place, checksum);
            self.env.fail.hit("large.after_put")?;
        }
        uploads.open = false;
        Ok(Uploading::Done)
    }

    /// Ends a write: what its version does not name goes, and the note. `content` is that of the version, if
    /// there is one.
    ///
    /// What fails here is left to the clean-up, which finds the version that names an object, or none.
    pub(super) async fn end_uploads(&self, uploads: Uploads, content: Option<&super::model::Content>) {
        let Some(noted) = &uploads.noted else { return };
        if uploads.open {
            return;
        }
        let end = async {
            self.discard(pairs(&uploads.unused(content))).await?;
            self.forget(noted).await
        };
        let end: Result<(), Error> = end.await;
        if let Err(error) = end {
            tracing::debug!(item = %noted.id, %error, "a note about stored objects stays for the clean-up");
        }
    }
}
