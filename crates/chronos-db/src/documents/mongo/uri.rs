//! Connection strings, and keeping their secrets out of everything people read.

use std::time::Duration;

use mongodb::options::{ConnectionString, HostInfo};
use secrecy::{ExposeSecret as _, SecretString};

use super::options;
use crate::{Error, Result};

/// What is to be known of a connection string before it is used.
#[derive(Debug)]
pub(super) struct Checked {
    /// The string as the driver takes it.
    pub(super) uri: SecretString,
    /// The hosts, without credentials.
    pub(super) place: String,
    /// Whether failed writes may be sent again.
    pub(super) retry_writes: bool,
    /// How long a call may take, if the string says so.
    pub(super) timeout: Option<Duration>,
}

/// Checks a connection string.
pub(super) fn check(uri: &SecretString) -> Result<Checked> {
    let sorted = options::sort(uri.expose_secret());
    let parsed = ConnectionString::parse(&sorted.uri).map_err(|e| {
        // The driver's words may quote the string, so they are passed on only if it holds no secret at all.
        let text = uri.expose_secret();
        let harmless = !text.contains('@') && !text.to_ascii_lowercase().contains("password") && !text.contains("authMechanismProperties");
        match (&*e.kind, harmless) {
            (mongodb::error::ErrorKind::InvalidArgument { message, .. }, true) => {
                Error::validation(format!("the MongoDB connection string is malformed: {message}"))
            }
            _ => Error::validation(
                "the MongoDB connection string is malformed; user and password must be percent-encoded, and the options are those of \
                 mongodb://user:password@host:port/?replicaSet=NAME",
            ),
        }
    })?;
    let place = match parsed.host_info {
        HostInfo::HostIdentifiers(hosts) => {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        }
        HostInfo::DnsRecord(name) => name,
        _ => "an unnamed host".to_owned(),
    };
    for (option, why) in &sorted.without_effect {
        tracing::debug!(at = place, option, why, "an option of the connection string has no effect");
    }
    Ok(Checked {
        uri: sorted.uri.into(),
        place,
        retry_writes: parsed.retry_writes != Some(false),
        timeout: sorted.timeout,
    })
}

/// Puts `***` in place of the secrets of `uri` wherever they occur in `text`.
pub(super) fn redact(uri: &SecretString, text: &str) -> String {
    let clean = text.replace(uri.expose_secret(), "mongodb://***");
    crate::redact::redact(&clean, secrets(uri.expose_secret()).iter().map(String::as_str))
}

/// The secrets of a connection string, as written and as meant.
fn secrets(uri: &str) -> Vec<String> {
    let mut found = Vec::new();
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    let authority = rest.split(['/', '?']).next().unwrap_or(rest);
    if let Some((user_info, _)) = authority.rsplit_once('@') {
        found.push(user_info.to_owned());
        found.extend(user_info.split_once(':').map(|(_, password)| password.to_owned()));
    }
    if let Some((_, query)) = rest.split_once('?') {
        let secret = |key: &str| {
            key.eq_ignore_ascii_case("tlsCertificateKeyFilePassword")
                || key.eq_ignore_ascii_case("authMechanismProperties")
        };
        found.extend(
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .filter(|(key, _)| secret(key))
                .map(|(_, value)| value.to_owned()),
        );
    }
    if let Ok(parsed) = ConnectionString::parse(options::sort(uri).uri) {
        found.extend(parsed.credential.and_then(|c| c.password));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_redacted_as_written_and_as_meant() {
        let uri = SecretString::from("mongodb://ann:p%40ss@db.example:27017/?authSource=admin");
        let text =
            "cannot log in with ann:p%40ss, p@ss or mongodb://ann:p%40ss@db.example:27017/?authSource=admin";
        assert_eq!(redact(&uri, text), "cannot log in with ***, *** or mongodb://***");
    }

    #[test]
    fn a_malformed_connection_string_is_not_quoted_if_it_holds_a_password() {
        let error = check(&SecretString::from("mongodb://ann:hush/hush@db.example")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"), "{error:?}");
    }

    #[test]
    fn the_hosts_of_a_connection_string_are_shown_without_its_user() {
        assert_eq!(
            check(&SecretString::from("mongodb://ann:hush@a:1,b:2/?replicaSet=rs0")).unwrap().place,
            "a:1,b:2"
        );
    }
}
