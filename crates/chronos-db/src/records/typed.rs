//! A collection whose documents are of one type.

use std::fmt;
use std::future::IntoFuture;
use std::marker::PhantomData;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::documents::Direction;
use crate::records::actions::{Create, Delete, Get, List, Replace, SmartInsert, Update};
use crate::records::collection::Collection;
use crate::records::model::ItemId;
use crate::records::view::View;
use crate::{Error, Json, Page, Result, Timestamp};

/// A collection whose documents are `T`: reads give `T`, writes take `&T`. See [`Collection::typed`].
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> chronos_db::Result<()> {
/// use chronos_db::{Chronos, Route, config::Config};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Debug, PartialEq, Serialize, Deserialize)]
/// struct User {
///     email: String,
///     score: f64,
/// }
///
/// # let dir = tempfile::tempdir().unwrap();
/// let chronos = Chronos::open(Config::embedded(dir.path()))?;
/// let users = chronos.with(Route::runtime().tenant("default").collection("users"))?.typed::<User>();
///
/// let ada = User { email: "ada@example.org".to_owned(), score: 1.5 };
/// let made = users.create(&ada).await?;
/// let read = users.get(&made.id).await?.unwrap();
/// assert_eq!((read.ov, read.document), (0, ada));
/// # chronos.shutdown().await
/// # }
/// ```
pub struct TypedCollection<T> {
    collection: Collection,
    of: PhantomData<fn() -> T>,
}

impl<T> Clone for TypedCollection<T> {
    fn clone(&self) -> Self {
        Self { collection: self.collection.clone(), of: PhantomData }
    }
}

impl<T> fmt::Debug for TypedCollection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TypedCollection").field(&self.collection).finish()
    }
}

impl Collection {
    /// Returns this collection with documents of one type: reads give `T`, writes take `&T`.
    #[must_use]
    pub fn typed<T>(&self) -> TypedCollection<T> {
        TypedCollection::new(self.clone())
    }
}

impl<T> TypedCollection<T> {
    pub(crate) fn new(collection: Collection) -> Self {
        Self { collection, of: PhantomData }
    }

    /// Returns the same collection, with documents of any shape and with every other action.
    #[must_use]
    pub fn untyped(&self) -> &Collection {
        &self.collection
    }

    /// Merges fields into a document, of any type that is `Serialize`; see [`Collection::update`].
    pub fn update(&self, id: &ItemId, fields: impl Serialize) -> Update {
        self.collection.update(id, fields)
    }

    /// Deletes an item; see [`Collection::delete`].
    pub fn delete(&self, id: &ItemId) -> Delete {
        self.collection.delete(id)
    }

    /// Reads one item; see [`Collection::get`].
    pub fn get(&self, id: &ItemId) -> TypedGet<T> {
        Typed { action: self.collection.get(id), of: PhantomData }
    }

    /// Lists items; see [`Collection::list`].
    pub fn list(&self) -> TypedList<T> {
        Typed { action: self.collection.list(), of: PhantomData }
    }
}

impl<T: Serialize> TypedCollection<T> {
    /// Creates an item; see [`Collection::create`].
    pub fn create(&self, document: &T) -> Create {
        self.collection.create(document)
    }

    /// Replaces a whole document; see [`Collection::replace`].
    pub fn replace(&self, id: &ItemId, document: &T) -> Replace {
        self.collection.replace(id, document)
    }

    /// Enriches the item with the same unique properties, or creates one; see [`Collection::smart_insert`].
    pub fn smart_insert(&self, document: &T, unique_keys: &[&str]) -> SmartInsert {
        self.collection.smart_insert(document, unique_keys)
    }
}

/// A read whose documents are `T`.
#[must_use = "an action runs when it is awaited"]
pub struct Typed<A, T> {
    action: A,
    of: PhantomData<fn() -> T>,
}

/// Reads one item; see [`TypedCollection::get`].
pub type TypedGet<T> = Typed<Get, T>;

/// Lists items; see [`TypedCollection::list`].
pub type TypedList<T> = Typed<List, T>;

impl<A: Clone, T> Clone for Typed<A, T> {
    fn clone(&self) -> Self {
        Self { action: self.action.clone(), of: PhantomData }
    }
}

impl<A: fmt::Debug, T> fmt::Debug for Typed<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Typed").field(&self.action).finish()
    }
}

impl<A, T> Typed<A, T> {
    fn map(self, change: impl FnOnce(A) -> A) -> Self {
        Self { action: change(self.action), of: PhantomData }
    }
}

impl<T> Typed<Get, T> {
    /// Reads the version with this number; see [`Get::version`].
    pub fn version(self, ov: i64) -> Self {
        self.map(|get| get.version(ov))
    }

    /// Reads the newest version at this time; see [`Get::as_of`].
    pub fn as_of(self, at: Timestamp) -> Self {
        self.map(|get| get.as_of(at))
    }

    /// Reads the newest version at this version of the collection; see [`Get::as_of_cv`].
    pub fn as_of_cv(self, cv: i64) -> Self {
        self.map(|get| get.as_of_cv(cv))
    }

    /// Shows a deleted item too; see [`Get::include_deleted`].
    pub fn include_deleted(self) -> Self {
        self.map(Get::include_deleted)
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for Typed<Get, T> {
    type Output = Result<Option<TypedView<T>>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { self.action.await?.map(TypedView::of).transpose() }.boxed()
    }
}

impl<T> Typed<List, T> {
    /// Lists only items that match; see [`List::filter`].
    pub fn filter(self, filter: impl Into<Json>) -> Self {
        self.map(|list| list.filter(filter))
    }

    /// Sorts by a property; see [`List::sort`].
    pub fn sort(self, property: impl Into<String>, direction: Direction) -> Self {
        self.map(|list| list.sort(property, direction))
    }

    /// Limits a page; see [`List::limit`].
    pub fn limit(self, limit: u32) -> Self {
        self.map(|list| list.limit(limit))
    }

    /// Goes on after a page; see [`List::after`].
    pub fn after(self, token: impl Into<String>) -> Self {
        self.map(|list| list.after(token))
    }

    /// Lists what was there at this time; see [`List::as_of`].
    pub fn as_of(self, at: Timestamp) -> Self {
        self.map(|list| list.as_of(at))
    }

    /// Lists what was there at this version of the collection; see [`List::as_of_cv`].
    pub fn as_of_cv(self, cv: i64) -> Self {
        self.map(|list| list.as_of_cv(cv))
    }

    /// Shows deleted items too; see [`List::include_deleted`].
    pub fn include_deleted(self) -> Self {
        self.map(List::include_deleted)
    }

    /// Streams the whole list; see [`List::stream`].
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for a wrong filter, sort or token, and in the stream for a document that is not a
    /// `T`.
    pub async fn stream(self) -> Result<BoxStream<'static, Result<TypedView<T>>>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        Ok(self.action.stream().await?.map(|view| view.and_then(TypedView::of)).boxed())
    }
}

impl<T: DeserializeOwned + Send + 'static> IntoFuture for Typed<List, T> {
    type Output = Result<Page<TypedView<T>>>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        async move { self.action.await?.try_map(TypedView::of) }.boxed()
    }
}

/// A version of an item as it was, with its document as a `T`. Its `Debug` does not show the document.
#[derive(Clone, PartialEq)]
#[non_exhaustive]
pub struct TypedView<T> {
    /// The item.
    pub id: ItemId,
    /// The item's version, from 0 without holes.
    pub ov: i64,
    /// The collection's version at this write, from 0.
    pub cv: i64,
    /// When this version was written.
    pub at: Timestamp,
    /// When the item was deleted, if this version is a deletion.
    pub deleted_at: Option<Timestamp>,
    /// The document.
    pub document: T,
}

impl<T: DeserializeOwned> TypedView<T> {
    fn of(view: View) -> Result<Self> {
        let document = view.document_as()?;
        Ok(Self { id: view.id, ov: view.ov, cv: view.cv, at: view.at, deleted_at: view.deleted_at, document })
    }
}

impl<T> fmt::Debug for TypedView<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, ov, cv, at, deleted_at, document: _ } = self;
        let mut shown = f.debug_struct("TypedView");
        shown
            .field("id", id)
            .field("ov", ov)
            .field("cv", cv)
            .field("at", at)
            .field("deleted_at", deleted_at)
            .finish_non_exhaustive()
    }
}

impl View {
    /// Returns the document, without `_system`, as a type of yours. A [`Json`] inside keeps its digits.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the document is of another shape.
    pub fn document_as<T: DeserializeOwned>(&self) -> Result<T> {
        self.document().to().map_err(|error| {
            Error::validation(format!("the document is not of the type that it is read as: {error}"))
                .caused_by(error)
                .on_item(self.id)
                .at_version(self.ov)
        })
    }
}
