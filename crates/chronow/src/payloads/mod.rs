//! Payloads that are too large for the hot tier: they lie in object storage, and the message carries a claim
//! on them.
//!
//! The object is stored before the message is published, under a key of its own, so a claim never leads
//! nowhere. A subscription of the library's own gets every message with a claim, and keeps it until nobody
//! else needs it; then the object goes, and only then that message.

mod janitor;

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use chronos_db::config::{Buckets, ObjectSpace};
use chronos_db::objects::{ObjectStorage, PutOptions};
use chronos_db::{Chronos, Random as _, Route, SystemRandom};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::hot::{OutboundMessage, StoredMessage};
use crate::{Error, ErrorKind, Result, Scope, TopicName};

pub(crate) use janitor::{clean_up, subscription};

/// The media type of what stands for a payload. It is not JSON, so that a filter sees no payload there.
pub(crate) const CLAIM: &str = "application/vnd.chronow.claim";
/// The header by which the library's own subscription knows such messages.
const CLAIMED: &str = "cw-claimed";
/// The first part of every key: buckets may be shared.
const FOLDER: &str = "chronow-payloads";
/// The bucket in a local folder, unless the configuration names one.
const BUCKET: &str = "chronow";

/// What stands for a payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Claim {
    /// Of the object.
    key: String,
    /// Of the payload, in bytes.
    pub(crate) size: u64,
    /// Of the payload, in hex.
    sha256: String,
    /// The payload's media type.
    #[serde(rename = "type")]
    content_type: String,
}

impl Claim {
    fn of(topic: &TopicName, payload: &[u8], content_type: String) -> Self {
        let random = SystemRandom;
        let name = format!("{:016x}{:016x}", random.next_u64(), random.next_u64());
        Self { key: prefix(topic) + &name, size: payload.len() as u64, sha256: digest(payload), content_type }
    }

    /// Reads what stands for a payload of this topic; it leads nowhere else.
    pub(crate) fn read(topic: &TopicName, text: &[u8]) -> Result<Self> {
        let claim: Self = serde_json::from_slice(text).map_err(|error| damaged().caused_by(error))?;
        if claim
            .key
            .strip_prefix(&prefix(topic))
            .is_some_and(|name| !name.is_empty() && name.bytes().all(|b| b.is_ascii_hexdigit()))
        {
            return Ok(claim);
        }
        Err(damaged())
    }
}

fn damaged() -> Error {
    Error::new(ErrorKind::NotFound, "the claim on a payload in object storage is damaged")
}

fn digest(payload: &[u8]) -> String {
    Sha256::digest(payload).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a text cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn prefix(topic: &TopicName) -> String {
    let mut prefix = FOLDER.to_owned();
    for part in [topic.scope().tenant(), topic.scope().namespace(), topic.name()] {
        prefix.push('/');
        for byte in part.bytes() {
            // A key takes few signs on every storage.
            let _ = match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => write!(prefix, "{}", byte as char),
                _ => write!(prefix, "%{byte:02X}"),
            };
        }
    }
    prefix + "/"
}

/// The object storage of all tenants.
#[derive(Clone, Debug)]
pub(crate) struct Payloads {
    chronos: Chronos,
}

impl Payloads {
    pub(crate) fn new(chronos: Chronos) -> Self {
        Self { chronos }
    }

    /// The bucket of the tenant's messaging database: the one that is configured for it, else one in the
    /// local folder of the configuration.
    fn objects(&self, scope: &Scope) -> Result<Arc<dyn ObjectStorage>> {
        let route = Route::messaging().tenant(scope.tenant()).collection("messages");
        let resolved = self.chronos.route(&route).map_err(|error| nowhere().caused_by(error))?;
        let space = match (&resolved.entry.objects, &self.chronos.config().local_storage) {
            (Some(space), _) => space.clone(),
            (None, Some(_)) => ObjectSpace::new(None, Buckets::one(BUCKET)),
            (None, None) => return Err(nowhere()),
        };
        self.chronos.objects(&space, &space.buckets.content).map_err(failed)
    }

    /// Whether the tenant has an object storage.
    pub(crate) fn has_place(&self, scope: &Scope) -> bool {
        self.objects(scope).is_ok()
    }

    /// Stores the payload, and puts a claim on it in its place.
    pub(crate) async fn put(&self, topic: &TopicName, message: OutboundMessage) -> Result<OutboundMessage> {
        let OutboundMessage { payload, content_type, mut headers, .. } = message.clone();
        let claim = Claim::of(topic, &payload, content_type);
        let text = serde_json::to_vec(&claim)
            .map_err(|error| Error::validation("a claim cannot be written").caused_by(error))?;
        let options = PutOptions {
            content_type: Some(claim.content_type).filter(|kind| !kind.is_empty()),
            ..PutOptions::default()
        };
        self.objects(topic.scope())?.put(&claim.key, payload, options).await.map_err(failed)?;
        headers.insert(CLAIMED.to_owned(), "1".to_owned());
        Ok(OutboundMessage { payload: text.into(), content_type: CLAIM.to_owned(), headers, ..message })
    }

    /// The payload that a claim is on, and its media type.
    ///
    /// # Errors
    /// `NOT_FOUND` if it is not there (any more), or not what it was. Anything else may pass.
    pub(crate) async fn get(&self, topic: &TopicName, claim: &[u8]) -> Result<(Bytes, String)> {
        let claim = Claim::read(topic, claim)?;
        let found = self.objects(topic.scope())?.get(&claim.key).await.map_err(failed)?;
        let payload = found.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the payload is not in object storage any more")
        })?;
        if payload.len() as u64 != claim.size || digest(&payload) != claim.sha256 {
            return Err(Error::new(
                ErrorKind::NotFound,
                "the payload in object storage is not what was published",
            ));
        }
        Ok((payload, claim.content_type))
    }

    /// Removes the payload that a claim is on.
    pub(crate) async fn remove(&self, topic: &TopicName, claim: &[u8]) -> Result<()> {
        let claim = Claim::read(topic, claim)?;
        self.objects(topic.scope())?.delete(&claim.key).await.map_err(failed)
    }
}

fn nowhere() -> Error {
    let message = "there is no object storage for payloads beyond `maxPayloadBytes`: give the messaging database a `bucket` (and `spaceConnRef`) in the configuration of chronos-db";
    Error::new(ErrorKind::Unsupported, message)
}

fn failed(error: chronos_db::Error) -> Error {
    Error::new(ErrorKind::WarmTier, format!("the object storage: {}", error.message()))
        .retryable()
        .caused_by(error)
}

/// Puts the payload into the place of the claim on it, if there is one.
pub(crate) async fn resolve(
    payloads: Option<&Payloads>,
    topic: &TopicName,
    message: &mut StoredMessage,
) -> Result<()> {
    if message.content_type == CLAIM {
        let payloads = payloads.ok_or_else(nowhere)?;
        (message.payload, message.content_type) = payloads.get(topic, &message.payload).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(namespace: &str, name: &str) -> TopicName {
        TopicName::new(&Scope::new("t", namespace).unwrap(), name).unwrap()
    }

    #[test]
    fn a_claim_leads_to_objects_of_its_own_topic_only() {
        let claim = Claim::of(&topic("a", "x.y"), b"payload", "text/plain".to_owned());
        let text = serde_json::to_vec(&claim).unwrap();
        assert_eq!(Claim::read(&topic("a", "x.y"), &text).unwrap(), claim);
        for other in [topic("b", "x.y"), topic("a", "x-y"), topic("a", "x")] {
            assert!(Claim::read(&other, &text).is_err(), "{other}");
        }
        let forged = Claim { key: format!("{}../../etc", prefix(&topic("a", "x"))), ..claim };
        assert!(Claim::read(&topic("a", "x"), &serde_json::to_vec(&forged).unwrap()).is_err());
        assert!(Claim::read(&topic("a", "x"), b"{}").is_err());
    }

    #[test]
    fn names_do_not_meet_in_a_key() {
        assert_eq!(prefix(&topic("n", "a b")), "chronow-payloads/t/n/a%20b/");
        assert_ne!(prefix(&topic("n", "a%20b")), prefix(&topic("n", "a b")));
    }
}
