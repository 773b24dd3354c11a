//! One object storage: its provider, endpoint and credentials.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::{ExposeSecret, SecretString};

use super::section::{Section, wrong};
use super::uri::{check_endpoint, needs_path_style, provider_of, resolve_path};
use super::{Provider, SpaceConnection, Warning};
use crate::Result;

const REGION: &str = "us-east-1";

impl SpaceConnection {
    /// S3 or compatible: the endpoint as `https://HOST` or `http://HOST:PORT`, access key and secret key. The
    /// region is `us-east-1`; the bucket stands in the host name where the endpoint has a domain.
    ///
    /// ```
    /// use chronos_db::config::SpaceConnection;
    ///
    /// let space = SpaceConnection::s3("https://s3.eu-central-1.amazonaws.com", "AKIA…", "hunter2").region("eu-central-1");
    /// assert!(!space.force_path_style && !format!("{space:?}").contains("hunter2"));
    /// assert!(SpaceConnection::s3("http://127.0.0.1:9000", "AKIA…", "hunter2").force_path_style);
    /// ```
    #[must_use]
    pub fn s3(
        endpoint: impl Into<String>,
        access_key: impl Into<SecretString>,
        secret_key: impl Into<SecretString>,
    ) -> Self {
        Self::new(Provider::S3, endpoint.into(), access_key.into(), secret_key.into())
    }

    /// Azure Blob, also Azurite: the endpoint, the account's name and its key in base64.
    ///
    /// ```
    /// use chronos_db::config::{Provider, SpaceConnection};
    ///
    /// let space = SpaceConnection::azure("https://acme.blob.core.windows.net", "acme", "c2VjcmV0");
    /// assert_eq!(space.provider, Provider::Azure);
    /// ```
    #[must_use]
    pub fn azure(
        endpoint: impl Into<String>,
        account: impl Into<SecretString>,
        key: impl Into<SecretString>,
    ) -> Self {
        Self::new(Provider::Azure, endpoint.into(), account.into(), key.into())
    }

    /// Azure Blob where the endpoint is one of Azure's or Azurite's, else S3: the endpoint, access key or the
    /// account's name, and secret key or the account's key.
    ///
    /// ```
    /// use chronos_db::config::{Provider, SpaceConnection};
    ///
    /// let space = SpaceConnection::at("https://acme.blob.core.windows.net", "acme", "c2VjcmV0");
    /// assert_eq!(space.provider, Provider::Azure);
    /// ```
    #[must_use]
    pub fn at(
        endpoint: impl Into<String>,
        access_key: impl Into<SecretString>,
        secret_key: impl Into<SecretString>,
    ) -> Self {
        let endpoint = endpoint.into();
        match provider_of(&endpoint) {
            Provider::Azure => Self::azure(endpoint, access_key, secret_key),
            Provider::S3 | Provider::Local | Provider::Memory => Self::s3(endpoint, access_key, secret_key),
        }
    }

    /// Memory of this process; for tests.
    ///
    /// ```
    /// use chronos_db::config::{Provider, SpaceConnection};
    ///
    /// assert_eq!(SpaceConnection::memory().provider, Provider::Memory);
    /// ```
    #[must_use]
    pub fn memory() -> Self {
        Self::new(Provider::Memory, "memory".to_owned(), SecretString::default(), SecretString::default())
    }

    /// A folder; relative ones are resolved by [`checked`](Self::checked).
    pub(super) fn local(folder: impl Into<String>) -> Self {
        Self::new(Provider::Local, folder.into(), SecretString::default(), SecretString::default())
    }

    fn new(provider: Provider, endpoint: String, access_key: SecretString, secret_key: SecretString) -> Self {
        let force_path_style =
            matches!(provider, Provider::S3 | Provider::Azure) && needs_path_style(&endpoint);
        Self { provider, endpoint, region: REGION.to_owned(), access_key, secret_key, force_path_style }
    }

    /// The region, with which S3 signs. Default `us-east-1`.
    #[must_use]
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.region = region.into();
        self
    }

    /// Whether the bucket stands in the path rather than in the host name. Default: where the endpoint is an
    /// address or a name without a dot.
    #[must_use]
    pub const fn force_path_style(mut self, force: bool) -> Self {
        self.force_path_style = force;
        self
    }

    /// The connection that stands at `path`, with its folder resolved against `base`.
    pub(super) fn checked(mut self, path: &str, base: &Path, warnings: &mut Vec<Warning>) -> Result<Self> {
        let at = |key: &str| format!("{path}.{key}");
        let given = |key: &str, text: &str| {
            if text.is_empty() { Err(wrong(&at(key), "is missing or empty")) } else { Ok(()) }
        };
        match self.provider {
            Provider::Memory => {}
            Provider::Local => {
                given("endpoint", &self.endpoint)?;
                let folder =
                    resolve_path(&self.endpoint, base).map_err(|message| wrong(&at("endpoint"), message))?;
                let text = folder.to_str().ok_or_else(|| {
                    wrong(&at("endpoint"), "the configuration's folder has a name that is not UTF-8")
                })?;
                self.endpoint = text.to_owned();
            }
            Provider::S3 | Provider::Azure => {
                given("endpoint", &self.endpoint)?;
                check_endpoint(&self.endpoint, self.provider)
                    .map_err(|message| wrong(&at("endpoint"), message))?;
                given("accessKey", self.access_key.expose_secret())?;
                let secret = self.secret_key.expose_secret();
                given("secretKey", secret)?;
                if self.provider == Provider::Azure && BASE64_STANDARD.decode(secret).is_err() {
                    let message = "is not base64, as Azure's account keys are".to_owned();
                    warnings.push(Warning { path: at("secretKey"), message });
                }
            }
        }
        Ok(self)
    }
}

/// Reads one object storage; keys of buckets are left to the shape.
pub(super) fn read(
    section: &mut Section<'_>,
    base: &Path,
    warnings: &mut Vec<Warning>,
) -> Result<SpaceConnection> {
    let endpoint = section.text("endpoint")?;
    let provider = match section.text("provider")? {
        Some("s3") => Provider::S3,
        Some("azure") => Provider::Azure,
        Some("local") => Provider::Local,
        Some("memory") => Provider::Memory,
        Some(other) => {
            return Err(
                section.wrong("provider", format!("`{other}` is none of `s3`, `azure`, `local`, `memory`"))
            );
        }
        None => endpoint.map_or(Provider::S3, provider_of),
    };
    let endpoint = endpoint.unwrap_or_default();
    let region = section.text("region")?.unwrap_or(REGION);
    let path_style = section.flag("forcePathStyle")?;
    let access_key = section.text("accessKey")?.unwrap_or_default();
    let secret_key = section.text("secretKey")?.unwrap_or_default();
    let connection = match provider {
        Provider::S3 => SpaceConnection::s3(endpoint, access_key, secret_key),
        Provider::Azure => SpaceConnection::azure(endpoint, access_key, secret_key),
        Provider::Memory => SpaceConnection::memory(),
        Provider::Local => {
            let folder = endpoint.strip_prefix("file://").or(endpoint.strip_prefix("file:"));
            // Nothing behind it is the folder of the configuration.
            SpaceConnection::local(
                folder.map_or(endpoint, |folder| if folder.is_empty() { "." } else { folder }),
            )
        }
    };
    let mut connection = connection.region(region);
    if let Some(path_style) = path_style {
        connection = connection.force_path_style(path_style);
    }
    connection.checked(section.path(), base, warnings)
}
