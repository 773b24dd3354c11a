//! Pages of lists: of records and of what a messaging database holds.

/// One page of a list.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> chronos_db::Result<()> {
/// use chronos_db::{Chronos, Route, config::Config, json};
/// # let dir = tempfile::tempdir().unwrap();
/// # let chronos = Chronos::open(Config::embedded(dir.path()))?;
/// # let users = chronos.with(Route::runtime().tenant("default").collection("users"))?;
/// for n in 0..3 {
///     users.create(json!({"n": n})).await?;
/// }
/// let list = users.list().limit(2);
/// let mut page = list.clone().await?;
/// let mut seen = page.items.len();
/// while let Some(token) = page.next {
///     page = list.clone().after(token).await?;
///     seen += page.items.len();
/// }
/// assert_eq!(seen, 3);
/// # chronos.shutdown().await
/// # }
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The entries, in order.
    pub items: Vec<T>,
    /// A token for `after`, which leads to the next page; none on the last one.
    pub next: Option<String>,
    /// Properties in filter or sort that no document of the collection has, though the list asks for them:
    /// they may be misspelt. Looked for by a first page of records that has no items, or none with the
    /// property it is sorted by; empty in lists that take no properties.
    pub unknown: Vec<String>,
}

impl<T> Page<T> {
    /// A page of a list that takes no properties.
    #[must_use]
    pub fn new(items: Vec<T>, next: Option<String>) -> Self {
        Self { items, next, unknown: Vec::new() }
    }

    /// The same page with its entries read as something else.
    ///
    /// # Errors
    /// The first error of `read`.
    pub(crate) fn try_map<U>(self, read: impl FnMut(T) -> crate::Result<U>) -> crate::Result<Page<U>> {
        let Self { items, next, unknown } = self;
        Ok(Page { items: items.into_iter().map(read).collect::<crate::Result<_>>()?, next, unknown })
    }
}
