//! Shared memory: values under keys, in the hot tier and, if asked for, in the warm one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use chronos_db::messaging::SharedValue;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bus::codec::{check_size, to_json};
use crate::bus::runs;
use crate::context::Context;
use crate::hot::{Change, Precondition, Value};
use crate::metrics::Operation;
use crate::warm::Keep;
use crate::{Error, ErrorKind, Json, Page, Result, Scope};

/// How long a deleted key is remembered in the hot tier: longer than any operation that could still carry an
/// older value. The warm tier remembers it longer.
const TOMBSTONE: Duration = Duration::from_secs(24 * 3_600);
/// The longest key, in bytes.
const MAX_KEY_BYTES: usize = 1_024;
/// Keys per page of a scan.
const PAGE: u32 = 500;
/// The media type of bytes that have none.
const OCTETS: &str = "application/octet-stream";
/// The name under which the warm tier keeps bytes.
const FROZEN: &str = "cw-bytes";
/// How often a refill is tried against concurrent changes before the warm value is returned as it is.
const ROUNDS: usize = 3;

/// The shared memory of one tenant and namespace.
#[derive(Clone)]
pub struct Shared {
    inner: Arc<Context>,
    scope: Scope,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("scope", &self.scope).finish_non_exhaustive()
    }
}

/// A value with what is known of it.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Grows with every change of the key in the hot tier; for [`Shared::compare_and_set`].
    pub version: u64,
    /// What is left of its time in the hot tier; none is for ever.
    pub ttl: Option<Duration>,
}

/// Without the value.
impl<T> fmt::Debug for Entry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("version", &self.version)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn new(inner: Arc<Context>, scope: Scope) -> Self {
        Self { inner, scope }
    }

    /// Returns the same of another tenant.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn tenant(&self, tenant: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(tenant, self.scope.namespace())?, inner: Arc::clone(&self.inner) })
    }

    /// Returns the same of another namespace.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a bad name.
    pub fn namespace(&self, namespace: &str) -> Result<Self> {
        Ok(Self { scope: Scope::new(self.scope.tenant(), namespace)?, inner: Arc::clone(&self.inner) })
    }

    /// Sets a value. Returns its version.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Set {
        Set::new(self.clone(), key, to_json("value", value), Precondition::Always)
    }

    /// Sets bytes as they are, with their media type (`application/octet-stream` if it is empty). Returns the
    /// version.
    pub fn set_bytes(&self, key: &str, bytes: impl Into<Bytes>, content_type: &str) -> Set {
        let content_type = if content_type.is_empty() { OCTETS } else { content_type };
        Set {
            content_type: content_type.to_owned(),
            ..Set::new(self.clone(), key, Ok(bytes.into()), Precondition::Always)
        }
    }

    /// Sets a value if there is none. Fails with `CONFLICT` if there is one.
    pub fn set_if_absent<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Set {
        Set::new(self.clone(), key, to_json("value", value), Precondition::Absent)
    }

    /// Sets a value if the key is still at this version. Fails with `CONFLICT` if it is not.
    pub fn compare_and_set<T: Serialize + ?Sized>(&self, key: &str, version: u64, value: &T) -> Set {
        Set::new(self.clone(), key, to_json("value", value), Precondition::Version(version))
    }

    /// Sets several values, each by itself.
    ///
    /// # Errors
    /// The first failure; others may have been set.
    pub async fn set_many<'k, T: Serialize>(
        &self,
        values: impl IntoIterator<Item = (&'k str, T)>,
    ) -> Result<()> {
        let sets: Vec<_> = values.into_iter().map(|(key, value)| self.set(key, &value).run()).collect();
        stream::iter(sets).buffer_unordered(16).try_for_each(|_| async { Ok(()) }).await
    }

    /// Reads the value of a key, from the hot tier, else from the warm one.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the value is not of the expected type.
    pub async fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>> {
        Ok(self.entry(key).await?.map(|entry| entry.value))
    }

    /// Reads the bytes of a key, whatever they are, and their media type; of a JSON value its text, and no
    /// media type.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` or `WARM_TIER_ERROR` if a store fails.
    pub async fn get_bytes(&self, key: &str) -> Result<Option<(Bytes, String)>> {
        check_key(key)?;
        let found = self.find(&[key.to_owned()]).await.map_err(|error| error.during("get").on(key))?;
        let value = found.into_iter().next().flatten();
        Ok(value.map(|value| (value.bytes.unwrap_or_default(), value.content_type)))
    }

    /// Reads the value of a key with its version and what is left of its time.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn entry<T: DeserializeOwned>(&self, key: &str) -> Result<Option<Entry<T>>> {
        check_key(key)?;
        let found = self.find(&[key.to_owned()]).await.map_err(|error| error.during("get").on(key))?;
        found.into_iter().next().flatten().map(|value| decode(key, value)).transpose()
    }

    /// Reads the values of keys, in their order.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<Option<T>>> {
        keys.iter().try_for_each(|key| check_key(key))?;
        let names: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let found = self.find(&names).await.map_err(|error| error.during("get_many"))?;
        let decoded = keys
            .iter()
            .zip(found)
            .map(|(key, value)| value.map(|value| decode(key, value).map(|entry| entry.value)).transpose());
        decoded.collect()
    }

    /// Returns whether the key has a value.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` or `WARM_TIER_ERROR` if a store fails.
    pub async fn exists(&self, key: &str) -> Result<bool> {
        check_key(key)?;
        let found = self.find(&[key.to_owned()]).await.map_err(|error| error.during("exists").on(key))?;
        Ok(found.into_iter().flatten().next().is_some())
    }

    /// Deletes a key in both tiers. An older value does not come back, whichever process still carries it.
    /// False if there was no value.
    ///
    /// # Errors
    /// `WARM_TIER_ERROR` if the warm tier fails: then the key is gone from the hot tier, and should be
    /// deleted again.
    pub async fn del(&self, key: &str) -> Result<bool> {
        check_key(key)?;
        let in_context = |error: Error| error.during("del").on(key);
        let hot = &self.inner.hot;
        let known =
            hot.get(&self.scope, &[key.to_owned()]).await.map_err(in_context)?.into_iter().next().flatten();
        let had = match (known, self.inner.warm()) {
            (Some(known), _) => known.bytes.is_some(),
            (None, None) => false,
            (None, Some(warm)) => warm.load(&self.scope, key, None).await.map_err(in_context)?.is_some(),
        };
        hot.set(&self.scope, key, None, "", Some(TOMBSTONE), Precondition::Always)
            .await
            .map_err(in_context)?;
        let Some(warm) = self.inner.warm() else { return Ok(had) };
        // By the clock that values get their time from, and the clocks of two stores may differ by anything.
        let at = hot.now().await.map_err(in_context)?;
        warm.tombstone(&self.scope, key, at).await.map_err(in_context)?;
        // A tombstone wins over a value of the same millisecond; one that is set from now on is later.
        while hot.now().await.map_err(in_context)? <= at {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(had)
    }

    /// Changes what is left of a value's time in the hot tier. False if there is no value.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn expire(&self, key: &str, ttl: Duration) -> Result<bool> {
        // So that what only the warm tier has gets its time, too.
        if !self.exists(key).await? {
            return Ok(false);
        }
        self.inner.hot.expire(&self.scope, key, ttl).await.map_err(|error| error.during("expire").on(key))
    }

    /// Adds to a whole number (absent is 0) and returns it. What is left of its time stays; a new one stays
    /// for the default time.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the value is not a 64-bit whole number, or would overflow.
    pub async fn increment(&self, key: &str, by: i64) -> Result<i64> {
        let in_context = |error: Error| error.during("increment").on(key);
        if !self.exists(key).await? {
            // So that only a new number gets the default time, whichever process comes first.
            let zero = Some(Bytes::from_static(b"0"));
            self.inner
                .hot
                .set(&self.scope, key, zero, "", self.inner.defaults.hot_ttl, Precondition::Absent)
                .await
                .map_err(in_context)?;
        }
        self.inner.hot.increment(&self.scope, key, by, None).await.map(|done| done.number).map_err(in_context)
    }

    /// Reads a version of a key whose versions are kept in the warm tier.
    ///
    /// # Errors
    /// `UNSUPPORTED` without a warm tier.
    pub async fn get_version<T: DeserializeOwned>(&self, key: &str, version: i64) -> Result<Option<T>> {
        check_key(key)?;
        let in_context = |error: Error| error.during("get_version").on(key);
        let warm = self.inner.warm_tier().map_err(in_context)?;
        let kept = warm.load(&self.scope, key, Some(version)).await.map_err(in_context)?;
        kept.map(|kept| from_json(key, kept.value)).transpose()
    }

    /// Reads the versions of a key that are kept in the warm tier, newest first.
    ///
    /// # Errors
    /// `UNSUPPORTED` without a warm tier.
    pub fn versions(&self, key: &str) -> Result<BoxStream<'static, Result<SharedValue>>> {
        check_key(key)?;
        self.inner.warm_tier()?.versions(&self.scope, key)
    }

    /// Streams the keys with a prefix that have a value in the hot tier. One that is there all the time is
    /// met at least once.
    #[must_use]
    pub fn scan(&self, prefix: &str) -> BoxStream<'static, Result<String>> {
        let (this, prefix) = (self.clone(), prefix.to_owned());
        let pages = stream::try_unfold(Some(None::<String>), move |after| {
            let (this, prefix) = (this.clone(), prefix.clone());
            async move {
                let Some(after) = after else { return Ok(None) };
                let Page { items: keys, next, .. } =
                    this.inner.hot.keys(&this.scope, &prefix, after.as_deref(), PAGE).await?;
                Ok::<_, Error>(Some((stream::iter(keys.into_iter().map(Ok)), next.map(Some))))
            }
        });
        pages.try_flatten().map_err(|error: Error| error.during("scan")).boxed()
    }

    /// Streams changes of keys with a prefix in the hot tier, from now on; that the time of a value is over
    /// there is one.
    ///
    /// An item that is a retryable error tells of an interruption, such as a server that starts anew; the
    /// changes after it follow. Another error is the last item.
    ///
    /// # Errors
    /// `HOT_TIER_ERROR` if the store fails.
    pub async fn watch(&self, prefix: &str) -> Result<BoxStream<'static, Result<Change>>> {
        self.inner.hot.watch(&self.scope, prefix).await.map_err(|error| error.during("watch").on(prefix))
    }

    /// Values from the hot tier, and where it knows nothing, from the warm one.
    async fn find(&self, keys: &[String]) -> Result<Vec<Option<Value>>> {
        self.inner.counters.watch(Operation::Get, self.look_up(keys)).await
    }

    async fn look_up(&self, keys: &[String]) -> Result<Vec<Option<Value>>> {
        let mut found = self.inner.hot.get(&self.scope, keys).await?;
        if self.inner.warm().is_some() {
            for (key, value) in keys.iter().zip(&mut found).filter(|(_, value)| value.is_none()) {
                *value = self.refill(key).await?;
            }
        }
        Ok(found.into_iter().map(|value| value.filter(|value| value.bytes.is_some())).collect())
    }

    /// Brings a value from the warm tier, if it has one, unless the hot tier has learnt of the key meanwhile:
    /// then that holds.
    async fn refill(&self, key: &str) -> Result<Option<Value>> {
        let Some(warm) = self.inner.warm() else { return Ok(None) };
        for _ in 0..ROUNDS {
            let Some(kept) = warm.load(&self.scope, key, None).await? else { return Ok(None) };
            let (bytes, content_type) = thaw(&kept.value)?;
            let ttl = match kept.expires_at {
                None => self.inner.defaults.hot_ttl,
                Some(end) => {
                    let left = end.as_millis() - self.inner.hot.now().await?.as_millis();
                    let Some(left) = u64::try_from(left).ok().filter(|left| *left > 0) else {
                        return Ok(None);
                    };
                    let left = Duration::from_millis(left);
                    Some(self.inner.defaults.hot_ttl.map_or(left, |ttl| ttl.min(left)))
                }
            };
            // It is the same value: a caller that knows its version may go on to change it.
            let when = kept.hot_version.map_or(Precondition::Unknown, Precondition::UnknownSince);
            match self.inner.hot.set(&self.scope, key, Some(bytes.clone()), &content_type, ttl, when).await {
                Ok(Some(version)) => {
                    return Ok(Some(Value { bytes: Some(bytes), content_type, version, ttl }));
                }
                Ok(None) => {}
                // Who may only read has no use for a version.
                Err(error) if error.is_forbidden() => {
                    let version = kept.hot_version.unwrap_or(0);
                    return Ok(Some(Value { bytes: Some(bytes), content_type, version, ttl }));
                }
                Err(error) => return Err(error),
            }
            let found =
                self.inner.hot.get(&self.scope, &[key.to_owned()]).await?.into_iter().next().flatten();
            if found.is_some() {
                return Ok(found);
            }
        }
        Err(Error::new(ErrorKind::HotTier, "the key comes and goes; try again").retryable())
    }
}

/// What the warm tier keeps of a value: JSON as it is, bytes in an object with one name that says so.
fn freeze(key: &str, bytes: &Bytes, content_type: &str) -> Result<Json> {
    if content_type.is_empty() {
        return Json::parse(bytes).map_err(|error| unexpected(key, error));
    }
    Ok(chronos_db::json!({ FROZEN: { "type": content_type, "base64": BASE64_STANDARD.encode(bytes) } }))
}

/// The opposite of [`freeze`].
fn thaw(value: &Json) -> Result<(Bytes, String)> {
    let frozen = value.as_object().filter(|object| object.len() == 1).and_then(|object| object.get(FROZEN));
    let parts =
        frozen.and_then(|frozen| Some((frozen.get("type")?.as_str()?, frozen.get("base64")?.as_str()?)));
    let Some((content_type, text)) = parts else { return Ok((to_json("value", value)?, String::new())) };
    let bytes = BASE64_STANDARD.decode(text).map_err(|error| {
        Error::new(ErrorKind::WarmTier, "the bytes of a value in the warm tier are damaged").caused_by(error)
    })?;
    Ok((bytes.into(), content_type.to_owned()))
}

fn check_key(key: &str) -> Result<()> {
    if key.is_empty() || key.len() > MAX_KEY_BYTES || key.contains('\0') {
        return Err(Error::validation(format!("a key has 1 to {MAX_KEY_BYTES} bytes and no NUL")).on(key));
    }
    Ok(())
}

fn decode<T: DeserializeOwned>(key: &str, value: Value) -> Result<Entry<T>> {
    let bytes = value.bytes.unwrap_or_default();
    let decoded = chronos_db::json::from_slice(&bytes).map_err(|error| unexpected(key, error))?;
    Ok(Entry { value: decoded, version: value.version, ttl: value.ttl })
}

fn from_json<T: DeserializeOwned>(key: &str, value: Json) -> Result<T> {
    value.to().map_err(|error| unexpected(key, error))
}

fn unexpected(key: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::validation(format!("the value is not what is expected: {error}")).caused_by(error).on(key)
}

/// Sets a value; see [`Shared::set`]. Answers its version.
#[must_use = "an action runs when it is awaited"]
pub struct Set {
    shared: Shared,
    key: String,
    value: Result<Bytes>,
    /// None for JSON.
    content_type: String,
    when: Precondition,
    ttl: Option<Duration>,
    warm: Option<Keep>,
}

chronos_db::debug_some!(Set { shared, content_type, when, ttl, warm });

impl Set {
    fn new(shared: Shared, key: &str, value: Result<Bytes>, when: Precondition) -> Self {
        let ttl = shared.inner.defaults.hot_ttl;
        Self { shared, key: key.to_owned(), value, content_type: String::new(), when, ttl, warm: None }
    }

    /// Sets how long it stays in the hot tier (default: as configured, one hour).
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Keeps it in the hot tier until it is deleted.
    pub fn forever(mut self) -> Self {
        self.ttl = None;
        self
    }

    /// Keeps the value in the warm tier, too: it outlives its time in the hot one.
    pub fn persist(mut self) -> Self {
        self.keep();
        self
    }

    /// Keeps this and earlier values in the warm tier, as versions.
    pub fn append(mut self) -> Self {
        self.keep().append = true;
        self
    }

    /// Sets how long it stays in the warm tier, in days.
    pub fn retention_days(mut self, days: u32) -> Self {
        self.keep().retention_days = Some(days);
        self
    }

    /// Sets how many versions stay in the warm tier.
    pub fn max_versions(mut self, versions: u32) -> Self {
        let keep = self.keep();
        (keep.append, keep.max_versions) = (true, Some(versions));
        self
    }

    fn keep(&mut self) -> &mut Keep {
        self.warm.get_or_insert_default()
    }

    async fn run(self) -> Result<u64> {
        let key = self.key.clone();
        self.set().await.map_err(|error| error.during("set").on(key))
    }

    async fn set(self) -> Result<u64> {
        let Self { shared, key, value, content_type, when, ttl, warm } = self;
        check_key(&key)?;
        let bytes = value?;
        check_size("value", bytes.len(), shared.inner.defaults.max_value_bytes)?;
        if ttl == Some(Duration::ZERO) {
            return Err(Error::validation(
                "the time to live of a value must be more than zero; `forever` has no end",
            ));
        }
        let warm = warm
            .map(|keep| Ok::<_, Error>((shared.inner.warm_tier()?, keep, shared.scope.clone())))
            .transpose()?;
        if when != Precondition::Always {
            // What only the warm tier has is there, too.
            shared.find(std::slice::from_ref(&key)).await?;
        }
        // Asked for before the change: a deletion that comes after the change is later than this, and wins in
        // the warm tier.
        let at = if warm.is_some() { Some(shared.inner.hot.now().await?) } else { None };
        let version =
            shared.inner.hot.set(&shared.scope, &key, Some(bytes.clone()), &content_type, ttl, when).await?;
        let Some(version) = version else {
            let message = match when {
                Precondition::Version(version) => format!("the key is not at version {version} (any more)"),
                _ => "the key has a value".to_owned(),
            };
            return Err(Error::new(ErrorKind::Conflict, message));
        };
        if let (Some((warm, keep, scope)), Some(at)) = (warm, at) {
            let value = freeze(&key, &bytes, &content_type)?;
            warm.save(&scope, &key, value, at, version, keep).await?;
        }
        Ok(version)
    }
}

runs!(Set => u64, Set by shared.inner);
