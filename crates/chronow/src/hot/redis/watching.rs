//! Watching values: the scripts tell changes on a channel, and how long values live. When the time of one is
//! over, every watcher looks for itself whether it is gone: servers tell that only if they are set to.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, pending};
use futures::stream::{self, BoxStream, StreamExt as _};
use redis::cmd;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::RedisHot;
use super::listen::Heard;
use super::values::Reader;
use crate::hot::Change;
use crate::{Error, ErrorKind, Page, Result, Scope};

/// Keys looked at in one step for values that were there before.
const PAGE: u32 = 200;
/// The server's clock may be a little behind when a time is over.
const SPARE: Duration = Duration::from_millis(2);
/// The wait after a failure.
const TROUBLE: Duration = Duration::from_secs(1);

/// What a message on the channel says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Notice {
    key: String,
    version: u64,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// There is a value, for this long if not for ever.
    Set(Option<Duration>),
    /// There is one, and nobody said for how long.
    SetForSome,
    /// Its time has changed.
    Time(Duration),
    Deleted,
}

impl Notice {
    /// Reads `{version}:{what}:{key}`.
    fn read(message: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(message).ok()?.splitn(3, ':');
        let version = parts.next()?.parse().ok()?;
        let millis = |text: &str| text.parse().ok().map(Duration::from_millis);
        let kind = parts.next()?;
        let what = match kind.split_once('@') {
            Some(("0", "")) => What::Set(None),
            Some(("0", left)) => What::Set(Some(millis(left)?)),
            Some(("t", left)) => What::Time(millis(left)?),
            Some(_) => return None,
            None if kind == "1" => What::Deleted,
            None => What::SetForSome,
        };
        Some(Self { version, what, key: parts.next()?.to_owned() })
    }
}

/// A key that is there, with its version and what is left of its time.
struct Present {
    key: String,
    version: u64,
    ttl: Option<Duration>,
}

/// A page that is being read.
type Reading = BoxFuture<'static, Result<Page<Present>>>;

/// Reads a page of the values that are there, after a while.
fn page(reader: Reader, scope: Scope, prefix: String, after: Option<String>, wait: Duration) -> Reading {
    async move {
        tokio::time::sleep(wait).await;
        let Page { items: keys, next, .. } =
            reader.list_keys(&scope, &prefix, after.as_deref(), PAGE).await?;
        let values = reader.read_values(&scope, &keys).await?;
        let found = keys.into_iter().zip(values);
        let found = found.filter_map(|(key, value)| {
            value.filter(|value| value.bytes.is_some()).map(|value| Present {
                key,
                version: value.version,
                ttl: value.ttl,
            })
        });
        Ok(Page::new(found.collect(), next))
    }
    .boxed()
}

struct Watch {
    reader: Reader,
    scope: Scope,
    prefix: String,
    receiver: Receiver<Heard>,
    /// Keys by when their time is over.
    ends: BTreeSet<(Instant, String)>,
    /// The same keys, and while others are looked for, all that were heard of: the last version, and the end.
    known: HashMap<String, (u64, Option<Instant>)>,
    /// A look for values that were there before, and where it began.
    looking: Option<(Option<String>, Reading)>,
}

impl Watch {
    fn look(&mut self, after: Option<String>, wait: Duration) {
        let page = page(self.reader.clone(), self.scope.clone(), self.prefix.clone(), after.clone(), wait);
        self.looking = Some((after, page));
    }

    fn know(&mut self, key: &str, version: u64, left: Option<Duration>) {
        if let Some((_, Some(end))) = self.known.remove(key) {
            self.ends.remove(&(end, key.to_owned()));
        }
        // A time that no clock can tell does not end.
        let end = left.and_then(|left| Instant::now().checked_add(left.saturating_add(SPARE)));
        if let Some(end) = end {
            self.ends.insert((end, key.to_owned()));
        }
        if end.is_some() || self.looking.is_some() {
            self.known.insert(key.to_owned(), (version, end));
        }
    }

    /// What a message means for a watcher.
    async fn note(&mut self, notice: Notice) -> Option<Change> {
        let Notice { key, version, what } = notice;
        if !key.starts_with(&self.prefix) {
            return None;
        }
        let left = match what {
            What::Set(left) => left,
            What::Time(left) => {
                self.know(&key, version, Some(left));
                return None;
            }
            What::Deleted => None,
            // A process of an older version has set it. What cannot be read now is seen by the next look for
            // what is there.
            What::SetForSome => {
                match self.reader.read_values(&self.scope, std::slice::from_ref(&key)).await {
                    Ok(found) => found.into_iter().flatten().next().and_then(|value| value.ttl),
                    Err(_) => {
                        self.look(None, TROUBLE);
                        None
                    }
                }
            }
        };
        self.know(&key, version, left);
        Some(Change { key, version, deleted: what == What::Deleted, expired: false })
    }

    /// The time of a value is over: if it is gone, that is a change.
    async fn end(&mut self) -> Option<Change> {
        let (_, key) = self.ends.pop_first()?;
        let (version, _) = self.known.remove(&key)?;
        match self.reader.read_values(&self.scope, std::slice::from_ref(&key)).await {
            Ok(found) => match found.into_iter().flatten().next() {
                // The next value's version is greater: it is no less than its time.
                None => Some(Change { key, version: version + 1, deleted: true, expired: true }),
                Some(value) if value.bytes.is_some() => {
                    self.know(&key, value.version, value.ttl);
                    None
                }
                Some(_) => None,
            },
            Err(error) => {
                tracing::debug!(key, %error, "whether a value is gone is asked again");
                self.know(&key, version, Some(TROUBLE));
                None
            }
        }
    }

    fn looked(&mut self, after: Option<String>, page: Result<Page<Present>>) {
        self.looking = None;
        match page {
            Ok(Page { items, next, .. }) => {
                for Present { key, version, ttl } in items {
                    // What was heard of is newer, or the same.
                    if ttl.is_some() && !self.known.contains_key(&key) {
                        self.know(&key, version, ttl);
                    }
                }
                if next.is_some() {
                    self.look(next, Duration::ZERO);
                } else {
                    self.known.retain(|_, (_, end)| end.is_some());
                }
            }
            Err(error) => {
                tracing::debug!(%error, "values whose time may end are looked for again");
                self.look(after, TROUBLE);
            }
        }
    }

    async fn next(&mut self) -> Option<Result<Change>> {
        let missed = |reason: &str| {
            Error::new(
                ErrorKind::HotTier,
                format!("changes may have been missed here ({reason}); watching goes on"),
            )
            .retryable()
        };
        loop {
            let due = self.ends.first().map(|(at, _)| *at);
            let looked = tokio::select! {
                biased;
                heard = self.receiver.recv() => match heard {
                    Ok(Heard::Message(message)) => {
                        if let Some(notice) = Notice::read(&message)
                            && let Some(change) = self.note(notice).await
                        {
                            return Some(Ok(change));
                        }
                        continue;
                    }
                    Ok(Heard::Interrupted(reason)) => {
                        self.look(None, Duration::ZERO);
                        return Some(Err(missed(&reason)));
                    }
                    Err(RecvError::Lagged(n)) => {
                        self.look(None, Duration::ZERO);
                        return Some(Err(missed(&format!("{n} of them came faster than they were read"))));
                    }
                    Err(RecvError::Closed) => return None,
                },
                () = at(due) => None,
                looked = looked(&mut self.looking) => Some(looked),
            };
            match looked {
                Some((after, page)) => self.looked(after, page),
                None => {
                    if let Some(change) = self.end().await {
                        return Some(Ok(change));
                    }
                }
            }
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => pending().await,
    }
}

async fn looked(looking: &mut Option<(Option<String>, Reading)>) -> (Option<String>, Result<Page<Present>>) {
    match looking {
        Some((after, page)) => {
            let page = page.await;
            (after.clone(), page)
        }
        None => pending().await,
    }
}

impl RedisHot {
    /// Nodes of a cluster pass messages on in their own time. What a master sent before a mark of ours is
    /// heard before that mark, so behind the marks of all of them there is nothing old.
    async fn catch_up(&self, scope: &Scope, receiver: &mut Receiver<Heard>) -> Result<()> {
        let mark = format!("mark:{}", self.token());
        let masters = self.reader().masters().await?;
        for master in &masters {
            let mut publish = cmd("PUBLISH");
            publish.arg(self.keys.changes(scope)).arg(&mark);
            self.connection.run_at(publish, Some(master)).await?;
        }
        let mut marks = 0;
        let all = async {
            while marks < masters.len() {
                match receiver.recv().await {
                    Ok(Heard::Message(message)) if message == mark => marks += 1,
                    Ok(Heard::Message(_)) | Err(RecvError::Lagged(_)) => {}
                    Ok(Heard::Interrupted(_)) | Err(RecvError::Closed) => break,
                }
            }
            marks == masters.len()
        };
        match tokio::time::timeout(self.connection.response_timeout(), all).await {
            Ok(true) => Ok(()),
            _ => Err(Error::new(
                ErrorKind::HotTier,
                "the nodes of the Redis cluster don't pass messages on to each other",
            )
            .retryable()),
        }
    }

    pub(super) async fn follow(
        &self,
        scope: &Scope,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<Change>>> {
        let mut receiver = self.listener.listen(self.keys.changes(scope)).await?;
        if self.connection.is_cluster() {
            self.catch_up(scope, &mut receiver).await?;
        }
        let mut watch = Watch {
            reader: self.reader(),
            scope: scope.clone(),
            prefix: prefix.to_owned(),
            receiver,
            ends: BTreeSet::new(),
            known: HashMap::new(),
            looking: None,
        };
        // Values that are there already end, too.
        watch.look(None, Duration::ZERO);
        Ok(stream::unfold(watch, |mut watch| async move {
            let next = watch.next().await?;
            Some((next, watch))
        })
        .boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_this_and_of_older_versions_are_read() {
        let notice = |text: &str| {
            Notice::read(text.as_bytes()).map(|notice| (notice.version, notice.what, notice.key))
        };
        let key = || "a:b@c".to_owned();
        let left = Duration::from_millis(1_500);
        assert_eq!(notice("7:0@1500:a:b@c"), Some((7, What::Set(Some(left)), key())));
        assert_eq!(notice("7:0@:a:b@c"), Some((7, What::Set(None), key())));
        assert_eq!(notice("7:t@1500:a:b@c"), Some((7, What::Time(left), key())));
        assert_eq!(notice("7:1:a:b@c"), Some((7, What::Deleted, key())));
        assert_eq!(notice("7:0:a:b@c"), Some((7, What::SetForSome, key())));
        for other in ["mark:abc", "", "7", "7:0@x:k"] {
            assert_eq!(notice(other), None, "{other}");
        }
    }
}
