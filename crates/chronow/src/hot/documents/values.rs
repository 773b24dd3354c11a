//! Shared memory: a document a key, changed by compare-and-swap.
//!
//! A version is at least the time of its change in microseconds, so one that was given out never belongs to
//! another value, whatever became of the key's document in between.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use bytes::Bytes;
use chronos_db::documents::filter::Test;
use chronos_db::documents::{Batch, Filter, Scan, Write};

use super::chunk::binary;
use super::fields::{ascending, damaged, delete_if, int, put_if, text, too_contended};
use super::keys::with_prefix;
use super::store::Engine;
use crate::hot::millis::to_signed_millis;
use crate::hot::{Incremented, Precondition, Value};
use crate::{Error, ErrorKind, Page, Result, Scope, Timestamp};

/// How often a change is tried while others change the same key.
const ATTEMPTS: usize = 500;

/// What has expired or was removed is kept so long, for its version and for watchers.
const KEPT_MS: i64 = 60_000;

/// Time between two sweeps of this process, and documents in one.
const SWEEP_MS: i64 = 5_000;
const SWEEP: u64 = 200;

/// A key as stored. Whether there is a value is a matter of time.
struct Stored {
    version: i64,
    rev: ObjectId,
    content_type: String,
    /// None: a tombstone.
    bytes: Option<Bytes>,
    /// Removed altogether: only the version is remembered.
    gone: bool,
    until: Option<Timestamp>,
}

/// What a change makes of a key.
struct New {
    bytes: Option<Bytes>,
    content_type: String,
    until: Option<Timestamp>,
    gone: bool,
    /// Whether it is a change that watchers hear of and that makes a new version.
    counts: bool,
    /// The version it gets, if it was given out for this value before.
    version: Option<i64>,
    /// The change is that its time is over.
    ended: bool,
}

impl New {
    /// A change to a value, or to a tombstone if there are no bytes.
    fn to(bytes: Option<Bytes>, content_type: String, until: Option<Timestamp>) -> Self {
        Self { bytes, content_type, until, gone: false, counts: true, version: None, ended: false }
    }

    /// A change to nothing but the memory of a version.
    fn gone(now: Timestamp, counts: bool) -> Self {
        Self { gone: true, counts, ..Self::to(None, String::new(), Some(now.plus_millis(KEPT_MS))) }
    }
}

pub(super) fn scope_prefix(scope: &Scope) -> String {
    format!("{}:{}:", scope.tenant(), scope.namespace())
}

impl Stored {
    fn read(mut stored: Document) -> Result<Self> {
        let bytes = match stored.remove("p") {
            Some(Bson::Binary(binary)) => Some(Bytes::from(binary.bytes)),
            _ => None,
        };
        Ok(Self {
            version: int(&stored, "v")?,
            rev: stored.get_object_id("rev").map_err(|_| damaged("value", "rev"))?,
            content_type: stored.get_str("t").unwrap_or_default().to_owned(),
            bytes,
            gone: stored.get_bool("gone").unwrap_or(false),
            until: int(&stored, "until").ok().map(Timestamp::from_millis),
        })
    }

    fn is_known(&self, now: Timestamp) -> bool {
        !self.gone && self.until.is_none_or(|until| until > now)
    }

    fn value(self, now: Timestamp) -> Option<Value> {
        self.is_known(now).then(|| Value {
            bytes: self.bytes,
            content_type: self.content_type,
            version: u64::try_from(self.version).unwrap_or(0),
            ttl: self.until.map(|until| {
                Duration::from_millis(u64::try_from(until.as_millis() - now.as_millis()).unwrap_or(0))
            }),
        })
    }
}

fn after(now: Timestamp, ttl: Option<Duration>) -> Option<Timestamp> {
    ttl.map(|ttl| now.plus_millis(to_signed_millis(ttl)))
}

fn value_document(id: &str, version: i64, rev: ObjectId, new: &New) -> Document {
    let mut document = doc! { "_id": id, "v": version, "rev": rev };
    // Listings leave the bytes behind.
    match &new.bytes {
        Some(bytes) => document.insert("p", binary(bytes)),
        None => document.insert("d", true),
    };
    if !new.content_type.is_empty() {
        document.insert("t", &new.content_type);
    }
    if let Some(until) = new.until {
        document.insert("until", until.as_millis());
    }
    if new.gone {
        document.insert("gone", true);
    }
    document
}

impl Engine {
    pub(super) async fn values(&self, scope: &Scope, keys: &[String]) -> Result<Vec<Option<Value>>> {
        self.looking().await?;
        let prefix = scope_prefix(scope);
        let mut ids: Vec<String> = keys.iter().map(|key| format!("{prefix}{key}")).collect();
        let (now, mut found) = futures::try_join!(async { Ok(self.documents.now().await?) }, {
            ids.sort();
            ids.dedup();
            self.get_map(&self.collections.values, ids)
        })?;
        let mut known = std::collections::HashMap::new();
        for key in keys {
            if let Some(stored) = found.remove(&format!("{prefix}{key}")) {
                known.insert(key, Stored::read(stored)?.value(now));
            }
        }
        Ok(keys.iter().map(|key| known.get(key).cloned().flatten()).collect())
    }

    /// Reads, decides, and swaps, until nobody came in between. Returns the version, if `decide` wanted a
    /// change.
    async fn change_value(
        &self,
        scope: &Scope,
        key: &str,
        mut decide: impl FnMut(Option<&Stored>, Timestamp) -> Result<Option<New>> + Send,
    ) -> Result<Option<u64>> {
        self.ready().await?;
        let prefix = scope_prefix(scope);
        let id = format!("{prefix}{key}");
        // Calls of one process would only get in each other's way.
        let turn = id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)))
            % self.value_turns.len();
        let _turn = self.value_turns[turn]
            .acquire()
            .await
            .map_err(|e| Error::new(ErrorKind::Closed, "closed").caused_by(e))?;
        for attempt in 0..ATTEMPTS {
            let (stored, now) =
                futures::try_join!(self.get_one(&self.collections.values, id.clone()), async {
                    Ok(self.documents.now().await?)
                })?;
            let stored = stored.map(Stored::read).transpose()?;
            let Some(new) = decide(stored.as_ref(), now)? else { return Ok(None) };
            let rev = self.new_revision();
            let last = stored.as_ref().map_or(0, |stored| stored.version);
            let version = match new.version {
                // Another process had a later one in between, which then must not come again.
                Some(version) if version >= last => version,
                _ if new.counts => (last + 1).max(self.version_of(now)),
                _ => last,
            };
            let document = value_document(&id, version, rev, &new);
            let mut batch = Batch::new();
            batch.push(
                &self.collections.values,
                match &stored {
                    Some(stored) => put_if(document, stored.rev),
                    None => Write::insert(document),
                },
            );
            if new.counts {
                let mut change = doc! {
                    "_id": format!("{prefix}{:015}:{}", now.as_millis(), rev.to_hex()),
                    "k": key, "v": version, "d": new.bytes.is_none(), "at": now.as_millis(),
                };
                if new.ended {
                    change.insert("x", true);
                }
                batch.push_after(0, &self.collections.changes, Write::insert(change));
            }
            if self.documents.apply(batch).await?.first().is_some_and(|outcome| outcome.is_applied()) {
                self.tell_watchers();
                self.sweep_values(now).await;
                return Ok(Some(u64::try_from(version).unwrap_or(0)));
            }
            if attempt > 2 {
                let pause = self.env.random.next_u64() % (attempt as u64).min(20);
                self.env.clock.sleep(Duration::from_millis(pause)).await;
            }
        }
        Err(too_contended("the key"))
    }

    pub(super) async fn set(
        &self,
        scope: &Scope,
        key: &str,
        bytes: Option<Bytes>,
        content_type: &str,
        ttl: Option<Duration>,
        when: Precondition,
    ) -> Result<Option<u64>> {
        self.change_value(scope, key, |stored, now| {
            let known = stored.filter(|stored| stored.is_known(now));
            let holds = match when {
                Precondition::Always => true,
                Precondition::Absent => known.is_none_or(|known| known.bytes.is_none()),
                Precondition::Unknown | Precondition::UnknownSince(_) => known.is_none(),
                Precondition::Version(version) => {
                    known.is_some_and(|known| u64::try_from(known.version) == Ok(version))
                }
            };
            let version = if let Precondition::UnknownSince(version) = when {
                i64::try_from(version).ok()
            } else {
                None
            };
            Ok(holds
                .then(|| New { version, ..New::to(bytes.clone(), content_type.to_owned(), after(now, ttl)) }))
        })
        .await
    }

    pub(super) async fn remove(&self, scope: &Scope, key: &str) -> Result<bool> {
        let mut had = false;
        self.change_value(scope, key, |stored, now| {
            let known = stored.filter(|stored| stored.is_known(now));
            had = known.is_some_and(|known| known.bytes.is_some());
            Ok(known.map(|_| New::gone(now, had)))
        })
        .await?;
        Ok(had)
    }

    pub(super) async fn expire(&self, scope: &Scope, key: &str, ttl: Duration) -> Result<bool> {
        let changed = self.change_value(scope, key, |stored, now| {
            let value = stored.filter(|stored| stored.is_known(now) && stored.bytes.is_some());
            let until = after(now, Some(ttl));
            Ok(value.map(|value| New {
                counts: false,
                ..New::to(value.bytes.clone(), value.content_type.clone(), until)
            }))
        });
        Ok(changed.await?.is_some())
    }

    /// Makes a change of it that the time of a value is over, unless that was done, or another process
    /// changed the key.
    pub(super) async fn end_value(&self, scope: &Scope, key: &str) -> Result<()> {
        let ended = self.change_value(scope, key, |stored, now| {
            let over =
                stored.filter(|stored| !stored.gone && stored.bytes.is_some() && !stored.is_known(now));
            Ok(over.map(|_| New { ended: true, ..New::gone(now, true) }))
        });
        ended.await.map(drop)
    }

    /// The least version of a change made now; the store's time is in milliseconds, chance does the rest.
    fn version_of(&self, now: Timestamp) -> i64 {
        // Below 1,000.
        let chance = i64::try_from(self.env.random.next_u64() % 1_000).unwrap_or(0);
        now.as_millis().saturating_mul(1_000).saturating_add(chance)
    }

    pub(super) async fn increment(
        &self,
        scope: &Scope,
        key: &str,
        by: i64,
        ttl: Option<Duration>,
    ) -> Result<Incremented> {
        let mut sum = 0;
        let version = self.change_value(scope, key, |stored, now| {
            let value = stored.filter(|stored| stored.is_known(now));
            let number = match value.and_then(|value| value.bytes.as_ref()) {
                None => 0,
                Some(bytes) => {
                    let number =
                        std::str::from_utf8(bytes).ok().and_then(|text| text.trim().parse::<i64>().ok());
                    number.ok_or_else(|| Error::validation("the value is not a 64-bit whole number"))?
                }
            };
            sum = number.checked_add(by).ok_or_else(|| Error::validation("the sum does not fit 64 bits"))?;
            let until =
                after(now, ttl).or(value.filter(|value| value.bytes.is_some()).and_then(|value| value.until));
            let content_type = value.map(|value| value.content_type.clone()).unwrap_or_default();
            Ok(Some(New::to(Some(sum.to_string().into()), content_type, until)))
        });
        let version =
            version.await?.ok_or_else(|| Error::new(ErrorKind::HotTier, "the number was not changed"))?;
        Ok(Incremented { number: sum, version })
    }

    pub(super) async fn keys(
        &self,
        scope: &Scope,
        prefix: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<String>> {
        self.looking().await?;
        let (scope, limit) = (scope_prefix(scope), u64::from(limit.max(1)));
        let mut filter = with_prefix(&format!("{scope}{prefix}"));
        if let Some(after) = after {
            filter = filter.and(Filter::gt("_id", format!("{scope}{after}")));
        }
        let without = vec!["p".to_owned()];
        let scan =
            Scan { filter, order: ascending(&["_id"]), limit: Some(limit), without, ..Scan::default() };
        let now = self.documents.now().await?;
        let found = self.scan(&self.collections.values, scan).await?;
        let full = found.len() as u64 == limit;
        let (mut keys, mut last) = (Vec::new(), None);
        for stored in found {
            let key = text(&stored, "_id")?[scope.len()..].to_owned();
            last = Some(key.clone());
            let is_value = !stored.get_bool("d").unwrap_or(false);
            if is_value && Stored::read(stored)?.is_known(now) {
                keys.push(key);
            }
        }
        Ok(Page::new(keys, last.filter(|_| full)))
    }

    /// Removes what expired a while ago, and old changes. That it fails is not a failure of the change that
    /// led here.
    async fn sweep_values(&self, now: Timestamp) {
        let now = now.as_millis();
        let last = self.changes_purged_at.load(std::sync::atomic::Ordering::Relaxed);
        if now - last < SWEEP_MS
            || self.changes_purged_at.swap(now, std::sync::atomic::Ordering::Relaxed) != last
        {
            return;
        }
        if let Err(error) = self.sweep_values_before(now - KEPT_MS).await {
            tracing::warn!(%error, "removing expired values failed; it is tried again");
        }
    }

    async fn sweep_values_before(&self, before: i64) -> Result<()> {
        let old = |field: &str| Scan {
            filter: Filter::Field(field.to_owned(), Test::Lte(before.into()))
                .and(Filter::exists(field, true)),
            limit: Some(SWEEP),
            without: vec!["p".to_owned()],
            ..Scan::default()
        };
        let mut deletes = Vec::new();
        for value in self.scan(&self.collections.values, old("until")).await? {
            let rev = value.get_object_id("rev").map_err(|_| damaged("value", "rev"))?;
            deletes.push(delete_if(text(&value, "_id")?, rev));
        }
        self.write(&self.collections.values, deletes).await?;
        for _ in 0..8 {
            let changes = self.scan(&self.collections.changes, old("at")).await?;
            let full = changes.len() as u64 == SWEEP;
            self.write(
                &self.collections.changes,
                changes.into_iter().filter_map(|mut change| change.remove("_id")).map(super::fields::delete),
            )
            .await?;
            if !full {
                break;
            }
        }
        Ok(())
    }
}
