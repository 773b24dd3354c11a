//! Whether object storages are configured as DigitalOcean Spaces wants it.

use std::time::Duration;

use futures::future::join_all;
use secrecy::ExposeSecret as _;

use super::Admin;
use super::ping::TIMEOUT;
use super::places::{StoragePlace, storages};
use super::storage_check::check;
use crate::action::Action;
use crate::config::{Config, Provider, SpaceConnection};
use crate::telemetry::{Observed, Operation};
use crate::{Chronos, Json, Result, json};

const DOMAIN: &str = "digitaloceanspaces.com";
/// Lengths of the names of buckets there.
const NAME: std::ops::RangeInclusive<usize> = 3..=63;
/// With what the access keys of Spaces begin.
const KEY: &str = "DO";

impl Admin {
    /// Holds every object storage that databases lead to against the rules of DigitalOcean Spaces, and asks it for
    /// its buckets. Storages of others are not valid as such.
    pub fn check_spaces(&self) -> CheckSpaces {
        CheckSpaces { chronos: self.chronos.clone(), timeout: TIMEOUT }
    }
}

/// Checks the configuration of object storages; see [`Admin::check_spaces`].
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct CheckSpaces {
    chronos: Chronos,
    timeout: Duration,
}

impl CheckSpaces {
    /// Waits this long for each storage (default 5 s).
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// What is wrong with the configuration of one object storage, for DigitalOcean Spaces.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SpaceCheck {
    /// Its reference in the configuration; `local` for the folder of `localStorage`.
    pub storage: String,
    /// The provider: `s3`, `azure`, `local` or `memory`.
    pub provider: &'static str,
    /// Where it is, without credentials.
    pub endpoint: String,
    /// What has to be changed. No secret is in it.
    pub issues: Vec<String>,
    /// What should be.
    pub recommendations: Vec<String>,
}

impl SpaceCheck {
    /// Returns whether nothing has to be changed.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.issues.is_empty()
    }

    /// Returns `{storage, provider, endpoint, valid, issues, recommendations}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        json!({
            "storage": self.storage,
            "provider": self.provider,
            "endpoint": self.endpoint,
            "valid": self.is_valid(),
            "issues": self.issues,
            "recommendations": self.recommendations,
        })
    }
}

impl Action for CheckSpaces {
    type Output = Vec<SpaceCheck>;

    fn observed(&self) -> Option<Observed> {
        Some(self.chronos.observed(Operation::CheckSpaces))
    }

    async fn run(self) -> Result<Vec<SpaceCheck>> {
        let places = storages(self.chronos.config());
        Ok(join_all(places.iter().map(|place| check_space(&self.chronos, place, self.timeout))).await)
    }
}

awaitable!(CheckSpaces);

async fn check_space(chronos: &Chronos, place: &StoragePlace, limit: Duration) -> SpaceCheck {
    let config = chronos.config();
    let (mut issues, mut recommendations) = rules(config, place);
    let found = check(chronos, place, limit).await;
    match &found.error {
        Some(error) => issues.push(format!("the storage cannot be reached: {error}")),
        None => recommendations.extend(found.missing.iter().map(|bucket| {
            format!("the bucket `{bucket}` is not there yet; `ensure_buckets` or the first object creates it")
        })),
    }
    SpaceCheck {
        storage: place.name.clone(),
        provider: place.kind(config),
        endpoint: place.endpoint(config),
        issues,
        recommendations,
    }
}

/// What the configuration alone tells: issues and recommendations.
fn rules(config: &Config, place: &StoragePlace) -> (Vec<String>, Vec<String>) {
    let (mut issues, mut recommendations) = (Vec::new(), Vec::new());
    match place.connection(config) {
        Some(connection) if connection.provider == Provider::S3 => {
            of_connection(connection, &place.endpoint(config), &mut issues, &mut recommendations);
        }
        _ => issues
            .push(format!("a storage of the provider `{}` is not DigitalOcean Spaces", place.kind(config))),
    }
    issues.extend(place.buckets.iter().filter_map(|bucket| of_bucket(bucket)));
    (issues, recommendations)
}

fn of_connection(
    connection: &SpaceConnection,
    host: &str,
    issues: &mut Vec<String>,
    recommendations: &mut Vec<String>,
) {
    if !connection.endpoint.trim().starts_with("https://") {
        issues.push("the endpoint does not begin with https://".to_owned());
    }
    match host.strip_suffix(DOMAIN).and_then(|before| before.strip_suffix('.')) {
        Some(region) if !region.is_empty() && !region.contains('.') => {
            if connection.region != region {
                issues.push(format!(
                    "the region is `{}`, and the endpoint's is `{region}`: they have to be the same",
                    connection.region
                ));
            }
        }
        Some(before) if before.contains('.') => {
            let region = before.rsplit('.').next().unwrap_or_default();
            issues.push(format!(
                "the endpoint `{host}` names a bucket or more: it is `https://{region}.{DOMAIN}`, and the bucket has an option of its own"
            ));
        }
        _ => issues.push(format!("the endpoint `{host}` is not of the form `https://REGION.{DOMAIN}`")),
    }
    if connection.force_path_style {
        recommendations.push(
            "`forcePathStyle` is on: Spaces wants the bucket in the host name, so leave it out".to_owned(),
        );
    }
    if !connection.access_key.expose_secret().starts_with(KEY) {
        recommendations.push(format!(
            "the access key does not begin with `{KEY}`, as those of Spaces do: take one from API > Spaces Keys"
        ));
    }
}

fn of_bucket(bucket: &str) -> Option<String> {
    let is_plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fine = NAME.contains(&bucket.len())
        && bucket.bytes().all(|c| is_plain(c) || c == b'-')
        && bucket.bytes().next().is_some_and(is_plain);
    (!fine).then(|| {
        format!(
            "the bucket name `{bucket}` must be {} to {} lower-case letters, digits or dashes, the first a letter or digit",
            NAME.start(),
            NAME.end()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issues(connection: SpaceConnection, bucket: &str) -> String {
        let (mut issues, mut recommendations) = (Vec::new(), Vec::new());
        let host = connection.shown_endpoint();
        of_connection(&connection, &host, &mut issues, &mut recommendations);
        issues.extend(of_bucket(bucket));
        assert!(!format!("{issues:?} {recommendations:?}").contains("SECRET"));
        issues.join("; ")
    }

    fn at(endpoint: &str, region: &str) -> SpaceConnection {
        SpaceConnection::s3(endpoint, "DO00SECRETKEY", "SECRET").region(region)
    }

    #[test]
    fn a_space_of_digital_ocean_is_valid() {
        assert_eq!(issues(at("https://nyc3.digitaloceanspaces.com", "nyc3"), "records"), "");
        assert_eq!(issues(at("https://nyc3.digitaloceanspaces.com/", "nyc3"), "a-1"), "");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let of = |endpoint: &str, region: &str| issues(at(endpoint, region), "records");
        assert!(of("https://nyc3.digitaloceanspaces.com", "ams3").contains("the endpoint's is `nyc3`"));
        assert!(of("http://nyc3.digitaloceanspaces.com", "nyc3").contains("https://"));
        assert!(of("https://records.nyc3.digitaloceanspaces.com", "nyc3").contains("names a bucket"));
        for other in [
            "https://s3.amazonaws.com",
            "https://digitaloceanspaces.com",
            "https://evil-digitaloceanspaces.com",
        ] {
            assert!(of(other, "nyc3").contains("not of the form"), "{other}: {}", of(other, "nyc3"));
        }
        for name in ["ab", "Records", "a_b", "a.b", "-ab"] {
            assert!(issues(at("https://nyc3.digitaloceanspaces.com", "nyc3"), name).contains(name), "{name}");
        }
    }
}
