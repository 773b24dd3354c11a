//! One object storage: its provider, endpoint and credentials.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::SecretString;

use super::section::Section;
use super::uri::{check_endpoint, needs_path_style, provider_of, resolve_path};
use super::{Provider, SpaceConnection, Warning};
use crate::Result;

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
    let region = section.text("region")?.unwrap_or("us-east-1").to_owned();
    let path_style = section.flag("forcePathStyle")?;
    let (access, secret) = (section.text("accessKey")?, section.text("secretKey")?);
    let mut connection = SpaceConnection {
        provider,
        endpoint: endpoint.unwrap_or_default().to_owned(),
        region,
        access_key: SecretString::from(access.unwrap_or_default()),
        secret_key: SecretString::from(secret.unwrap_or_default()),
        force_path_style: path_style.unwrap_or(false),
    };
    match provider {
        Provider::Memory => connection.endpoint = "memory".to_owned(),
        Provider::Local => {
            let path = section.required_text("endpoint")?;
            let path = path.strip_prefix("file://").or(path.strip_prefix("file:")).unwrap_or(path);
            let folder = resolve_path(path, base).map_err(|message| section.wrong("endpoint", message))?;
            let text = folder.to_str().ok_or_else(|| {
                section.wrong("endpoint", "the configuration's folder has a name that is not UTF-8")
            })?;
            connection.endpoint = text.to_owned();
        }
        Provider::S3 | Provider::Azure => {
            let url = check_endpoint(section.required_text("endpoint")?, provider)
                .map_err(|message| section.wrong("endpoint", message))?;
            section.required_text("accessKey")?;
            let secret = section.required_text("secretKey")?;
            connection.force_path_style = path_style.unwrap_or_else(|| needs_path_style(&url));
            if provider == Provider::Azure && BASE64_STANDARD.decode(secret).is_err() {
                warnings.push(section.warning("secretKey", "is no base64, as Azure's account keys are"));
            }
        }
    }
    Ok(connection)
}
