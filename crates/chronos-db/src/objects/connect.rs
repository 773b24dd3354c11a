//! From a configuration to the buckets it names.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;
#[cfg(any(feature = "s3", feature = "azure"))]
use std::sync::OnceLock;

use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use super::{ObjectStorage, StoreObjects};
use crate::config::{Config, ObjectSpace, Provider, SpaceConnection};
use crate::{Error, Result};

/// Which storage, seen with whose credentials. Two connections are the same only if everything about them is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SpaceId {
    text: Arc<str>,
    /// Where the digest of the credentials begins; it isn't shown.
    shown: usize,
}

impl SpaceId {
    /// Returns the identity of the storage `space` names.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the configuration has no such connection.
    pub fn of(config: &Config, space: &ObjectSpace) -> Result<Self> {
        Ok(match resolve(config, space)? {
            Target::Folder(folder) => {
                Self::new("local", [b"folder".as_slice(), folder.as_os_str().as_encoded_bytes()])
            }
            Target::Connection(name, c) => Self::new(
                name,
                [
                    provider_name(c.provider).as_bytes(),
                    c.endpoint.as_bytes(),
                    c.region.as_bytes(),
                    &[u8::from(c.force_path_style)],
                    c.access_key.expose_secret().as_bytes(),
                    c.secret_key.expose_secret().as_bytes(),
                ],
            ),
        })
    }

    fn new<const N: usize>(name: &str, parts: [&[u8]; N]) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            // With its length, so that no two lists of parts read alike.
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        let mut text = name.replace('\0', "");
        let shown = text.len();
        for byte in digest.finalize() {
            // Writing to a String cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        Self { text: text.into(), shown }
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SpaceId").field(&&self.text[..self.shown]).finish()
    }
}

/// The object storages of one open database engine. Clients are made on first use and shared by all who name
/// the same connection, with the same credentials, and the same bucket; the network connections below them
/// are shared by all.
#[derive(Default)]
pub struct ObjectsPool {
    open: Mutex<HashMap<(SpaceId, String), Arc<dyn ObjectStorage>>>,
    #[cfg(any(feature = "s3", feature = "azure"))]
    http: OnceLock<object_store::client::HttpClient>,
}

impl ObjectsPool {
    /// Makes a pool without clients.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[cfg(all(test, feature = "s3", feature = "azure"))]
    pub(super) fn with_http(http: object_store::client::HttpClient) -> Self {
        Self { http: OnceLock::from(http), ..Self::default() }
    }

    /// Returns the objects of `bucket` in the storage that `space` names. Does no I/O.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if there is no such connection, if it cannot work as written, or if this build
    /// lacks its provider.
    pub fn objects(
        &self,
        config: &Config,
        space: &ObjectSpace,
        bucket: &str,
    ) -> Result<Arc<dyn ObjectStorage>> {
        let name = (SpaceId::of(config, space)?, bucket.to_owned());
        let mut open = self.open.lock();
        if let Some(objects) = open.get(&name) {
            return Ok(Arc::clone(objects));
        }
        let objects: Arc<dyn ObjectStorage> = Arc::new(match resolve(config, space)? {
            Target::Folder(folder) => StoreObjects::local(folder, bucket)?,
            Target::Connection(_, connection) => self.connect(connection, bucket)?,
        });
        open.insert(name, Arc::clone(&objects));
        Ok(objects)
    }

    /// Forgets all clients; those still in use live on with their users.
    pub fn clear(&self) {
        self.open.lock().clear();
    }

    fn connect(&self, connection: &SpaceConnection, bucket: &str) -> Result<StoreObjects> {
        match connection.provider {
            Provider::Memory => StoreObjects::memory(bucket),
            Provider::Local => StoreObjects::local(connection.endpoint.as_ref(), bucket),
            #[cfg(feature = "s3")]
            Provider::S3 => StoreObjects::s3_over(connection, bucket, self.http()?),
            #[cfg(feature = "azure")]
            Provider::Azure => StoreObjects::azure_over(connection, bucket, self.http()?),
            #[cfg(not(all(feature = "s3", feature = "azure")))]
            provider => {
                let name = provider_name(provider);
                Err(Error::validation(format!(
                    "this build has no `{name}` storage; build it with the feature `{name}`"
                )))
            }
        }
    }

    #[cfg(any(feature = "s3", feature = "azure"))]
    fn http(&self) -> Result<object_store::client::HttpClient> {
        if let Some(http) = self.http.get() {
            return Ok(http.clone());
        }
        let http = super::cloud::http_client()?;
        Ok(self.http.get_or_init(|| http).clone())
    }
}

impl fmt::Debug for ObjectsPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.open.lock();
        f.debug_struct("ObjectsPool").field("open", &open.keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

enum Target<'a> {
    Folder(&'a std::path::Path),
    Connection(&'a str, &'a SpaceConnection),
}

fn resolve<'a>(config: &'a Config, space: &'a ObjectSpace) -> Result<Target<'a>> {
    match (&space.connection, &config.local_storage) {
        (Some(name), _) => match config.spaces.get(name) {
            Some(connection) => Ok(Target::Connection(name, connection)),
            None => Err(Error::validation(format!("there is no spaces connection `{name}`"))),
        },
        (None, Some(folder)) => Ok(Target::Folder(folder)),
        (None, None) => Err(Error::validation("objects have neither a spaces connection nor a local folder")),
    }
}

const fn provider_name(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => "s3",
        Provider::Azure => "azure",
        Provider::Local => "local",
        Provider::Memory => "memory",
    }
}
