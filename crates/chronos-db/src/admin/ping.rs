//! Asking whether something answers, for no longer than a while.

use std::time::{Duration, Instant};

use crate::documents::within;
use crate::{Error, Json, Result};

/// How long an answer may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// A store says by itself, before it is no longer waited for, what it saw of its servers.
const SHARE: f64 = 0.8;

/// Whether a connection or storage answers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Ping {
    /// Its reference in the configuration; `local` for the folder of `localStorage`.
    pub name: String,
    /// What it is: `mongodb`, `embedded`, `s3`, `azure`, `local` or `memory`.
    pub kind: String,
    /// How long the answer took; none if there was none.
    pub took: Option<Duration>,
    /// Why there was none. No secret is in it.
    pub error: Option<Error>,
}

impl Ping {
    /// Asks; `ask` is bounded by `limit`.
    pub(super) async fn of(
        name: &str,
        kind: &str,
        limit: Duration,
        ask: impl Future<Output = Result<()>>,
    ) -> Self {
        let begun = Instant::now();
        let answer = bounded(limit, ask).await;
        let (took, error) = match answer {
            Ok(()) => (Some(begun.elapsed()), None),
            Err(error) => (None, Some(error)),
        };
        Self { name: name.to_owned(), kind: kind.to_owned(), took, error }
    }

    /// Returns whether it answered.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.error.is_none()
    }

    /// Returns `{name, kind, ok, pingMs?, error?}`.
    #[must_use]
    pub fn to_json(&self) -> Json {
        let mut json = crate::json!({ "name": self.name, "kind": self.kind, "ok": self.is_ok() });
        if let Some(took) = self.took {
            json["pingMs"] = millis(took);
        }
        if let Some(error) = &self.error {
            json["error"] = error.to_string().into();
        }
        json
    }
}

/// Milliseconds with two digits.
pub(super) fn millis(took: Duration) -> Json {
    Json::from((took.as_secs_f64() * 100_000.0).round() / 100.0)
}

/// What `ask` answers, within `limit`. A document store is asked so that it has answered by then, so what does not
/// is taken for an object storage.
pub(super) async fn bounded<T>(limit: Duration, ask: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, within(limit.mul_f64(SHARE), ask)).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::storage(format!("no answer within {} s", limit.as_secs_f64())).retryable()),
    }
}
