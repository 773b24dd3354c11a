//! Addresses: connection strings and endpoints, checked without ever showing them.

use std::path::{Path, PathBuf};

use url::Url;

use super::{Provider, Warning};

const MEMORY: &str = "embedded::memory:";

/// What a connection string leads to, without its credentials.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Engine {
    MongoDb { hosts: Vec<String> },
    Embedded { path: Option<String> },
}

/// Checks a connection string and resolves an embedded path against `base`. The error says what is wrong but
/// never the string.
pub(super) fn resolve_document_uri(uri: &str, base: &Path) -> Result<String, String> {
    match parse(uri)? {
        Engine::MongoDb { .. } => Ok(uri.to_owned()),
        Engine::Embedded { path: None } => Ok(MEMORY.to_owned()),
        Engine::Embedded { path: Some(path) } => {
            let resolved = resolve_path(&path, base)?;
            let text = resolved.to_str().ok_or("the configuration's folder has a name that is not UTF-8")?;
            Ok(format!("embedded:{text}"))
        }
    }
}

/// What a connection string says that has no effect.
pub(super) fn option_warnings(uri: &str, path: &str) -> Vec<Warning> {
    #[cfg(feature = "mongodb")]
    if uri.starts_with("mongodb") {
        let ignored = crate::documents::mongo::options::sort(uri).without_effect;
        let warning = |(option, why): (String, _)| Warning {
            path: path.to_owned(),
            message: format!("`{option}` has no effect: {why}"),
        };
        return ignored.into_iter().map(warning).collect();
    }
    let _ = (uri, path);
    Vec::new()
}

/// A path made absolute, relative ones against `base`.
pub(super) fn resolve_path(path: impl AsRef<Path>, base: &Path) -> Result<PathBuf, String> {
    std::path::absolute(base.join(path)).map_err(|error| format!("is not a usable path: {error}"))
}

/// Takes a connection string apart.
pub(super) fn parse(uri: &str) -> Result<Engine, String> {
    if let Some(rest) = uri.strip_prefix("embedded:") {
        return embedded(rest);
    }
    let (rest, srv) = match (uri.strip_prefix("mongodb://"), uri.strip_prefix("mongodb+srv://")) {
        (Some(rest), _) => (rest, false),
        (_, Some(rest)) => (rest, true),
        _ => {
            let hint = if uri.starts_with("ENV.") {
                "; `ENV.NAME` is replaced by the chronos program only, the library reads no environment"
            } else {
                ""
            };
            return Err(invalid(&format!("expected mongodb://…, mongodb+srv://… or embedded:PATH{hint}")));
        }
    };
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, options) = rest.split_at(end);
    // An unescaped character in a password would move the border between credentials and hosts, and a
    // password could be shown as a host.
    if options.contains('@') {
        return Err(invalid("`@`, `/` and `?` in user name and password must be percent-encoded"));
    }
    let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
    let hosts: Vec<String> = hosts.split(',').map(str::to_owned).collect();
    if hosts.iter().any(|host| !is_host(host)) {
        return Err(invalid("a host is empty or malformed, or its port is not a number from 1 to 65535"));
    }
    if srv && (hosts.len() != 1 || hosts[0].contains(':')) {
        return Err(invalid("mongodb+srv takes one host name and no port"));
    }
    Ok(Engine::MongoDb { hosts })
}

/// The replica set that a MongoDB connection string names.
pub(super) fn replica_set(uri: &str) -> Option<&str> {
    let (_, options) = uri.split_once('?')?;
    let named = options
        .split('&')
        .filter_map(|option| option.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case("replicaSet"))?;
    Some(named.1)
}

fn embedded(rest: &str) -> Result<Engine, String> {
    if rest == ":memory:" {
        return Ok(Engine::Embedded { path: None });
    }
    let path = rest.strip_prefix("//").unwrap_or(rest);
    if path.is_empty() || path.starts_with(':') || path.contains('\0') {
        return Err("embedded: needs a path behind it, or is embedded::memory:".to_owned());
    }
    Ok(Engine::Embedded { path: Some(path.to_owned()) })
}

fn invalid(detail: &str) -> String {
    format!("Invalid MongoDB URI format: {detail}")
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(v6) => match v6.split_once(']') {
            Some((address, rest)) if address.parse::<std::net::Ipv6Addr>().is_ok() => {
                (address, rest.strip_prefix(':').or((!rest.is_empty()).then_some("")))
            }
            _ => return false,
        },
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let named = !name.is_empty()
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '%' | ':'));
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

/// Which storage an endpoint is, if the configuration doesn't say.
pub(super) fn provider_of(endpoint: &str) -> Provider {
    let azure = ["blob.core.windows.net", "blob.storage.azure.net", "devstoreaccount1"];
    if azure.iter().any(|mark| endpoint.contains(mark)) {
        Provider::Azure
    } else if ["file:", "/", "./", "../"].iter().any(|mark| endpoint.starts_with(mark)) {
        Provider::Local
    } else {
        Provider::S3
    }
}

/// Checks the URL of an object storage. The error never shows it: a mistake may have put credentials there.
pub(super) fn check_endpoint(endpoint: &str, provider: Provider) -> Result<(), String> {
    let name = if provider == Provider::Azure { "Azure" } else { "S3" };
    let invalid = |detail: &str| format!("Invalid {name} endpoint URL: {detail}");
    let url = Url::parse(endpoint).map_err(|error| invalid(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(invalid("expected https://HOST or http://HOST"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(invalid("credentials, `?` and `#` don't belong into it; use accessKey and secretKey"));
    }
    Ok(())
}

/// Whether a bucket can only stand in the path of an endpoint: `bucket.127.0.0.1` and `bucket.localhost` are no
/// names.
pub(super) fn needs_path_style(endpoint: &str) -> bool {
    let Ok(url) = Url::parse(endpoint) else { return false };
    match url.host() {
        Some(url::Host::Domain(name)) => !name.contains('.'),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(uri: &str) -> Vec<String> {
        match parse(uri) {
            Ok(Engine::MongoDb { hosts }) => hosts,
            other => panic!("{uri}: {other:?}"),
        }
    }

    #[test]
    fn hosts_are_read_without_credentials_and_options() {
        assert_eq!(hosts("mongodb://a:1,b:2,[::1]:3/db?replicaSet=rs0"), ["a:1", "b:2", "[::1]:3"]);
        assert_eq!(hosts("mongodb://user:p%40ss@a?retryWrites=true"), ["a"]);
        assert_eq!(hosts("mongodb+srv://u:p@c.mongodb.net"), ["c.mongodb.net"]);
        assert_eq!(hosts("mongodb://%2Ftmp%2Fmongodb-27017.sock"), ["%2Ftmp%2Fmongodb-27017.sock"]);
    }

    #[test]
    fn malformed_connection_strings_are_refused_without_being_shown() {
        let bad = [
            "",
            "localhost:27017",
            "http://hidden",
            "mongodb://",
            "mongodb://a,,hidden",
            "mongodb://hidden:99999",
            "mongodb://a:hidden",
            "mongodb://user:12/hidden@host",
            "mongodb://user:12?hidden@host",
            "mongodb+srv://hidden:1",
            "mongodb+srv://a,hidden",
            "mongodb://[hidden]",
            "ENV.hidden",
        ];
        for uri in bad {
            let message = parse(uri).unwrap_err();
            assert!(
                message.starts_with("Invalid MongoDB URI format") && !message.contains("hidden"),
                "{uri}: {message}"
            );
        }
    }

    #[test]
    fn embedded_paths_are_resolved_against_the_base() {
        let base = Path::new("/etc/app");
        assert_eq!(resolve_document_uri("embedded:./data", base).unwrap(), "embedded:/etc/app/data");
        assert_eq!(resolve_document_uri("embedded:/data/x.db", base).unwrap(), "embedded:/data/x.db");
        assert_eq!(resolve_document_uri("embedded:///data", base).unwrap(), "embedded:/data");
        assert_eq!(resolve_document_uri("embedded::memory:", base).unwrap(), "embedded::memory:");
        assert!(resolve_document_uri("embedded:", base).is_err());
        assert!(resolve_document_uri("embedded::mem:", base).is_err());
    }

    #[test]
    fn an_endpoint_tells_its_provider() {
        let known = [
            ("https://acc.blob.core.windows.net", Provider::Azure),
            ("https://acc.blob.storage.azure.net", Provider::Azure),
            ("http://127.0.0.1:10000/devstoreaccount1", Provider::Azure),
            ("https://s3.amazonaws.com", Provider::S3),
            ("file:///var/objects", Provider::Local),
            ("./objects", Provider::Local),
        ];
        for (endpoint, provider) in known {
            assert_eq!(provider_of(endpoint), provider, "{endpoint}");
        }
    }
}
