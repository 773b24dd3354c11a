//! The error of every public call: a coarse kind a caller can act on, and what was tried on what.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`]. A kind exists only where the caller would act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is wrong; sending it again changes nothing.
    Validation,
    /// There is no such item, version or collection.
    NotFound,
    /// The item moved on since the version the caller expected; read it and decide again.
    OptimisticLock,
    /// Somebody holds the lock of the item; try again after its lease.
    Locked,
    /// The object storage failed or holds something other than what was written.
    Storage,
    /// The document store failed; whether the write happened is said in the message.
    Database,
    /// A base64 property could not be taken out of the document.
    Externalization,
    /// The stored data and the route contradict each other.
    RouteMismatch,
    /// No configured database answers this route.
    RouteNotFound,
    /// This storage cannot sign URLs.
    PresignUnsupported,
}

impl ErrorKind {
    /// The stable code programs match on.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Validation => "VALIDATION_ERROR",
            Self::NotFound => "NOT_FOUND",
            Self::OptimisticLock => "OPTIMISTIC_LOCK",
            Self::Locked => "LOCKED",
            Self::Storage => "STORAGE_ERROR",
            Self::Database => "TXN_ERROR",
            Self::Externalization => "EXTERNALIZATION_ERROR",
            Self::RouteMismatch => "ROUTE_MISMATCH",
            Self::RouteNotFound => "ROUTE_NOT_FOUND",
            Self::PresignUnsupported => "PRESIGN_UNSUPPORTED",
        }
    }

    /// The HTTP status a service would answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Validation | Self::Externalization => 400,
            Self::NotFound | Self::RouteNotFound => 404,
            Self::OptimisticLock => 409,
            Self::Locked => 423,
            Self::RouteMismatch => 500,
            Self::PresignUnsupported => 501,
            Self::Storage => 502,
            Self::Database => 503,
        }
    }
}

/// What failed, on what, and why.
///
/// `Display` is one line for people; [`std::error::Error::source`] is the chain for programs.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    collection: Option<String>,
    id: Option<String>,
    ov: Option<i64>,
    retryable: bool,
    forbidden: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message that says what is wrong and, where it can, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        // Whether the same call may succeed later; who lost a race with the version it names has to read and
        // decide again.
        let retryable = kind == ErrorKind::Locked;
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                operation: None,
                collection: None,
                id: None,
                ov: None,
                retryable,
                forbidden: false,
                source: None,
            }),
        }
    }

    /// Wrong input.
    pub fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// Something that isn't there.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// A failure of the object storage, with its cause.
    pub fn storage(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Storage, message)
    }

    /// A failure of the document store.
    pub fn database(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Database, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner.source = Some(source.into());
        self
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.inner.retryable = true;
        self
    }

    /// Says that the store did not let this user do it.
    #[must_use]
    pub fn forbidden(mut self) -> Self {
        self.inner.forbidden = true;
        self
    }

    /// Whether the store did not let this user do it: what only looks then does without.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.inner.forbidden
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.inner.operation.get_or_insert(operation);
        self
    }

    /// Names the collection, unless one is named already.
    #[must_use]
    pub fn in_collection(mut self, collection: &str) -> Self {
        self.inner.collection.get_or_insert_with(|| collection.to_owned());
        self
    }

    /// Names the item, unless one is named already.
    #[must_use]
    pub fn on_item(mut self, id: impl fmt::Display) -> Self {
        self.inner.id.get_or_insert_with(|| id.to_string());
        self
    }

    /// Names the version: for `OPTIMISTIC_LOCK` the one the item really has.
    #[must_use]
    pub fn at_version(mut self, ov: i64) -> Self {
        self.inner.ov.get_or_insert(ov);
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The stable code, such as `OPTIMISTIC_LOCK`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    /// The HTTP status a service would answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.inner.kind.status()
    }

    /// Whether the same call may succeed later without a change of its input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }

    /// The operation that failed, such as `update`.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.inner.operation
    }

    /// The collection it was tried on.
    #[must_use]
    pub fn collection(&self) -> Option<&str> {
        self.inner.collection.as_deref()
    }

    /// The item it was tried on.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.inner.id.as_deref()
    }

    /// The version concerned; for `OPTIMISTIC_LOCK` the one the item really has.
    #[must_use]
    pub fn ov(&self) -> Option<i64> {
        self.inner.ov
    }

    /// The message without operation, collection and id.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, operation, collection, id, .. } = &*self.inner;
        write!(f, "{}", kind.code())?;
        if let Some(operation) = operation {
            write!(f, " in {operation}")?;
        }
        if let Some(collection) = collection {
            write!(f, " of `{collection}`")?;
        }
        if let Some(id) = id {
            write!(f, " on {id}")?;
        }
        write!(f, ": {message}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}
