//! What environment variables say.

use std::time::Duration;

use super::builder::ConfigBuilder;
use super::model::{Given, Redis, Space, wrong};
use super::read::unused_retry;
use crate::{Error, Result};

/// The variables as the program gives them.
struct Variables<'l>(&'l dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    }

    fn flag(&self, name: &str) -> Result<Option<bool>> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Ok(Some(true)),
            "false" | "0" | "no" | "off" => Ok(Some(false)),
            _ => Err(wrong(name, "expected `true` or `false`")),
        }
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        let parse = |text: String| {
            text.parse().map_err(|_| wrong(name, format!("expected a whole number, not `{text}`")))
        };
        self.text(name).map(parse).transpose()
    }
}

/// Reads the variables into a builder, which checks the values.
pub(super) fn environment(lookup: &dyn Fn(&str) -> Option<String>) -> Result<ConfigBuilder> {
    let variables = Variables(lookup);
    let mut builder = ConfigBuilder {
        mongo_only: variables.flag("CHRONOW_MONGO_ONLY")?,
        mongo_uri: variables.text("MONGO_URI").map(Into::into),
        space: space(&variables)?,
        defaults: Given {
            visibility: variables.number("REDIS_VISIBILITY_TIMEOUT_MS")?.map(Duration::from_millis),
            max_len: variables.number("REDIS_MAX_STREAM_LEN")?,
            max_payload_bytes: fitting(&variables, "REDIS_MAX_PAYLOAD_BYTES")?,
            ..Given::default()
        },
        ..ConfigBuilder::default()
    };
    let redis = redis(&variables)?;
    let retry = variables.number("REDIS_RETRY_MS")?;
    // Settings without a server do not configure one.
    if redis.url.is_some() || variables.text("REDIS_CLUSTER_NODES").is_some() {
        builder.redis = Some(redis);
        builder.warnings.extend(retry.map(|_| unused_retry()));
    }
    Ok(builder)
}

fn redis(variables: &Variables<'_>) -> Result<Redis> {
    let mut redis = Redis::nowhere();
    redis.url = variables.text("REDIS_URL").map(Into::into);
    let nodes = variables.text("REDIS_CLUSTER_NODES").map(|text| nodes(&text)).transpose()?;
    redis.cluster_nodes = nodes.unwrap_or_default().into_iter().map(Into::into).collect();
    redis.tls = variables.flag("REDIS_TLS")?;
    redis.username = variables.text("REDIS_USERNAME");
    redis.password = variables.text("REDIS_PASSWORD").map(Into::into);
    redis.db = fitting(variables, "REDIS_DB")?;
    redis.key_prefix = variables.text("REDIS_KEY_PREFIX");
    redis.ca_cert = variables.text("REDIS_CA_CERT").map(Into::into);
    Ok(redis)
}

/// A whole number of a smaller kind.
fn fitting<T: TryFrom<u64>>(variables: &Variables<'_>, name: &str) -> Result<Option<T>> {
    let fit = |number| T::try_from(number).map_err(|_| wrong(name, "is too large"));
    variables.number(name)?.map(fit).transpose()
}

/// The storage for large payloads, if there is one.
fn space(variables: &Variables<'_>) -> Result<Option<Space>> {
    // Credentials without a storage do not configure one.
    let Some(endpoint) = variables.text("SPACE_ENDPOINT") else { return Ok(None) };
    let required = |name| variables.text(name).ok_or_else(|| wrong(name, "is missing beside SPACE_ENDPOINT"));
    Ok(Some(Space::new(endpoint, required("SPACE_ACCESS_KEY")?, required("SPACE_SECRET_KEY")?)))
}

/// A list of nodes: a JSON array, or separated by commas.
fn nodes(text: &str) -> Result<Vec<String>> {
    if text.starts_with('[') {
        return serde_json::from_str(text).map_err(|_| {
            Error::validation(
                "REDIS_CLUSTER_NODES: expected a JSON array of texts, or nodes separated by commas",
            )
        });
    }
    Ok(text.split(',').map(|node| node.trim().to_owned()).collect())
}
