//! A change that is ready, but for what must be stored before its commit.

use std::collections::HashMap;

use super::commit::Prepared;
use crate::Timestamp;
use crate::clock::Moment;
use crate::records::model::{Head, VersionMeta};
use crate::records::storage::notes::Noted;

/// What an attempt of a write begins with.
#[derive(Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub(super) head: Option<&'a Head>,
    /// When the head was read.
    pub(super) read_at: Moment,
    /// Where an earlier attempt has stored what is too big to ride.
    pub(super) place: Option<&'a UploadPlace>,
}

/// A change that is ready but for what must be stored before its commit.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) prepared: Prepared,
    /// Where that is stored; none if everything rides in the row.
    pub(crate) place: Option<UploadPlace>,
}

impl Ready {
    pub(crate) fn at_once(prepared: Prepared) -> Self {
        Self { prepared, place: None }
    }
}

/// What makes the keys of a write's objects its own. It stays when the write begins anew, so that what is
/// stored already is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UploadPlace {
    pub(crate) suffix: String,
    /// The version that the first attempt would have made.
    pub(crate) ov: i64,
}

/// What one write has stored before its commit, in all its attempts.
#[derive(Debug, Default)]
pub(crate) struct Uploads {
    pub(crate) place: Option<UploadPlace>,
    pub(crate) noted: Option<Noted>,
    /// SHA-256 of what is stored, by bucket and key.
    pub(crate) stored: HashMap<(String, String), String>,
    /// The time that item.json says, of every attempt the same.
    pub(crate) at: Option<Timestamp>,
    /// Whether one of them may yet arrive, or a commit that names them.
    pub(crate) open: bool,
}

impl Uploads {
    pub(crate) fn place(&self) -> Option<&UploadPlace> {
        self.place.as_ref()
    }

    /// Of what was stored or noted, what a version does not name.
    pub(crate) fn unused(&self, meta: Option<&VersionMeta>) -> Vec<(String, String)> {
        let objects = self.noted.iter().flat_map(|noted| noted.objects.iter());
        objects.filter(|object| meta.is_none_or(|meta| !meta.names(object))).cloned().collect()
    }
}

/// What became of storing what is too big to ride.
pub(crate) enum Uploading {
    /// It rides; nothing had to be stored.
    Nothing,
    /// Everything is stored, something of it just now.
    Done,
    /// Everything has been there.
    There,
    /// It has to be stored anew, under other keys.
    Anew,
}
