//! The keys of a namespace.

use bson::{Bson, Document};
use futures::stream::BoxStream;

use super::{Strategy, created_at, is_tombstone, through, updated_at};
use crate::documents::filter::{Pattern, Test};
use crate::documents::{Direction, Filter, Scan};
use crate::messaging::listing::{Listing, pages};
use crate::messaging::runs;
use crate::messaging::schema::check_text;
use crate::messaging::table::Table;
use crate::messaging::value::{required_text, system_date, text, whole};
use crate::records::{Order, cursor};
use crate::{Error, Page, Result, Timestamp};

/// Documents read at once. A key with many versions is left after its newest one.
const ROUND: usize = 256;

/// A key that has a value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SharedKey {
    /// The key.
    pub key: String,
    /// How its value was saved.
    pub strategy: Strategy,
    /// Its newest version, if its values are appended.
    pub version: Option<i64>,
    /// When the value, or its newest version, was first written.
    pub created_at: Option<Timestamp>,
    /// When it was last written.
    pub updated_at: Option<Timestamp>,
}

/// Lists keys; see [`Shared::list`](super::Shared::list).
#[derive(Clone, Debug)]
#[must_use = "an action runs when it is awaited"]
pub struct ListKeys {
    table: Table,
    namespace: String,
    prefix: String,
    after: Option<String>,
    limit: Option<u32>,
}

/// The documents of one key, as far as they have been read.
struct Seen {
    key: String,
    through: i64,
    live: Option<SharedKey>,
}

impl ListKeys {
    pub(super) fn new(table: Table, namespace: String) -> Self {
        Self { table, namespace, prefix: String::new(), after: None, limit: None }
    }

    /// Lists only keys that start with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Goes on behind a page: its [`next`](Page::next).
    pub fn after(mut self, cursor: impl Into<String>) -> Self {
        self.after = Some(cursor.into());
        self
    }

    /// Limits a page to this many (default 100, at most 1,000).
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Streams all of them, page by page.
    #[must_use]
    pub fn stream(self) -> BoxStream<'static, Result<SharedKey>> {
        pages(self.after.clone(), move |after| Self { after, ..self.clone() }.run())
    }

    fn filter(&self) -> Result<Filter> {
        let filter = Filter::eq("namespace", check_text("namespace", &self.namespace)?);
        if self.prefix.is_empty() {
            return Ok(filter);
        }
        let pattern = Pattern::new(&format!("^{}", regex::escape(&self.prefix)), "");
        let pattern = pattern
            .map_err(|error| Error::validation(format!("the prefix cannot be looked for: {error}")))?;
        Ok(filter.and(Filter::Field("key".to_owned(), Test::Regex(pattern))))
    }

    async fn run(self) -> Result<Page<SharedKey>> {
        let filter = self.filter().map_err(|error| error.during("shared.list"))?;
        let by_key: Order = vec![("key".to_owned(), Direction::Ascending)];
        let paging = Listing {
            filter: Filter::All,
            namespace: String::new(),
            order: by_key.clone(),
            after: self.after.clone(),
            limit: self.limit,
            without: Vec::new(),
        };
        let (limit, position, now) = (paging.limit()?, paging.position()?, self.table.now().await?);
        let mut behind = position.and_then(|values| values.into_iter().next());
        let mut items: Vec<SharedKey> = Vec::new();
        // One more than asked for tells whether there is a next page.
        while items.len() <= limit {
            let (found, last) = self.round(&filter, behind.as_ref(), now).await?;
            items.extend(found);
            match last {
                Some(last) => behind = Some(last),
                None => break,
            }
        }
        let next = match items.get(limit.saturating_sub(1)) {
            Some(last) if items.len() > limit => Some(cursor(&by_key, &bson::doc! { "key": &last.key })?),
            _ => None,
        };
        items.truncate(limit);
        Ok(Page::new(items, next))
    }

    /// The next keys behind one, and the last key that was looked at; none at the end.
    async fn round(
        &self,
        filter: &Filter,
        behind: Option<&Bson>,
        now: Timestamp,
    ) -> Result<(Vec<SharedKey>, Option<Bson>)> {
        let filter = match behind {
            Some(key) => filter.clone().and(Filter::gt("key", key.clone())),
            None => filter.clone(),
        };
        // In a key, the marks and the latest value come first, then the newest version.
        let order = [
            ("key", Direction::Ascending),
            ("strategy", Direction::Descending),
            ("version", Direction::Descending),
        ];
        let order = order.map(|(path, direction)| (path.to_owned(), direction)).to_vec();
        let scan = Scan {
            filter,
            order,
            limit: Some(ROUND as u64),
            without: vec!["val".to_owned()],
            ..Scan::default()
        };
        let found = self.table.all(scan).await?;
        let is_full = found.len() == ROUND;
        let mut keys: Vec<Seen> = Vec::new();
        for document in &found {
            look(&mut keys, document, now)?;
        }
        // The last key is only decided if one of its versions was among what was read.
        let cut = is_full && found.last().is_some_and(|last| whole(last, "version").is_none());
        if cut && keys.len() > 1 {
            keys.pop();
        }
        let last = keys.last().map(|last| Bson::from(last.key.as_str())).filter(|_| is_full);
        Ok((keys.into_iter().filter_map(|seen| seen.live).collect(), last))
    }
}

runs!(ListKeys => Page<SharedKey>);

fn look(keys: &mut Vec<Seen>, document: &Document, now: Timestamp) -> Result<()> {
    let key = required_text(document, "key")?;
    if keys.last().is_none_or(|last| last.key != key) {
        keys.push(Seen { key: key.clone(), through: -1, live: None });
    }
    let Some(seen) = keys.last_mut() else { return Ok(()) };
    let strategy = if text(document, "strategy").as_deref() == Some("append") {
        Strategy::Append
    } else {
        Strategy::Latest
    };
    let version = whole(document, "version").filter(|_| strategy == Strategy::Append);
    if strategy == Strategy::Latest {
        seen.through = through(Some(document));
    }
    let gone = is_tombstone(document)
        || version.is_some_and(|version| version <= seen.through)
        || system_date(document, "expiresAt").is_some_and(|end| end <= now);
    if seen.live.is_none() && !gone {
        let (created_at, updated_at) = (created_at(document), updated_at(document));
        seen.live = Some(SharedKey { key, strategy, version, created_at, updated_at });
    }
    Ok(())
}
