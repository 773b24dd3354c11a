//! The error of every public call: a coarse kind a caller can act on, and what was tried on what.
//!
//! [`Error`] is one struct for every crate of the family; what differs is the [`Kind`]. A crate on top of this
//! one defines its own kinds and gets codes, retryability, operation, target and causes from here.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

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
    /// Another holder has the lock of the item; try again after its lease.
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
    /// All of them, in the order in which they are declared.
    pub(crate) const ALL: [Self; 10] = [
        Self::Validation,
        Self::NotFound,
        Self::OptimisticLock,
        Self::Locked,
        Self::Storage,
        Self::Database,
        Self::Externalization,
        Self::RouteMismatch,
        Self::RouteNotFound,
        Self::PresignUnsupported,
    ];

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

/// What a crate's kinds of errors must say about themselves, so that [`Error`] can carry them.
///
/// ```
/// use chronos_db::{Error, error::Kind};
///
/// #[derive(Clone, Copy, Debug, PartialEq, Eq)]
/// enum Busy {
///     Busy,
/// }
///
/// impl Kind for Busy {
///     type Target = String;
///
///     fn code(self) -> &'static str {
///         "BUSY"
///     }
///
///     fn status(self) -> u16 {
///         503
///     }
///
///     fn is_retryable(self) -> bool {
///         true
///     }
///
///     fn write_target(target: &String, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, " on {target}")
///     }
/// }
///
/// let error = Error::new(Busy::Busy, "every worker is taken").during("print").with_target(|t| t.push_str("p1"));
/// assert_eq!(error.to_string(), "BUSY in print on p1: every worker is taken");
/// assert!(error.is_retryable());
/// ```
pub trait Kind: Copy + fmt::Debug + PartialEq + Send + Sync + 'static {
    /// What an operation of the crate is tried on. Its default is "not named yet".
    type Target: Clone + Default + fmt::Debug + Send + Sync;

    /// The stable code programs match on.
    fn code(self) -> &'static str;

    /// The HTTP status a service would answer with.
    fn status(self) -> u16;

    /// Whether the same call may succeed later whenever an error is of this kind.
    fn is_retryable(self) -> bool;

    /// Writes ` on …`, with the space before it; nothing if no target is named.
    ///
    /// # Errors
    /// What the formatter says.
    fn write_target(target: &Self::Target, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Kind for ErrorKind {
    type Target = Target;

    fn code(self) -> &'static str {
        Self::code(self)
    }

    fn status(self) -> u16 {
        Self::status(self)
    }

    fn is_retryable(self) -> bool {
        // Who lost a race with the version it names has to read and decide again.
        self == Self::Locked
    }

    fn write_target(target: &Target, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(collection) = &target.collection {
            write!(f, " of `{collection}`")?;
        }
        if let Some(id) = &target.id {
            write!(f, " on {id}")?;
        }
        Ok(())
    }
}

/// What an operation on records was tried on.
#[derive(Clone, Debug, Default)]
pub struct Target {
    collection: Option<String>,
    id: Option<String>,
    ov: Option<i64>,
}

/// What failed, on what, and why.
///
/// `Display` is one line for people; [`std::error::Error::source`] is the chain for programs. Errors can be
/// cloned: calls that failed together share their cause.
///
/// ```
/// use chronos_db::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::NotFound, "no such item").during("get").in_collection("users").on_item("7");
/// assert_eq!(error.to_string(), "NOT_FOUND in get of `users` on 7: no such item");
/// assert_eq!((error.code(), error.status(), error.is_retryable()), ("NOT_FOUND", 404, false));
/// ```
#[derive(Clone, Debug)]
pub struct Error<K: Kind = ErrorKind> {
    inner: Arc<Inner<K>>,
}

#[derive(Clone, Debug)]
struct Inner<K: Kind> {
    kind: K,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    target: K::Target,
    retryable: bool,
    forbidden: bool,
    undecided: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl<K: Kind> Error<K> {
    /// Makes an error of `kind` with a message that says what is wrong and, where it can, what to do.
    pub fn new(kind: K, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            inner: Arc::new(Inner {
                kind,
                message: message.into(),
                operation: None,
                target: K::Target::default(),
                retryable: kind.is_retryable(),
                forbidden: false,
                undecided: false,
                source: None,
            }),
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.with(|inner| inner.source = Some(Arc::from(source.into())))
    }

    /// The same error with another message; what it was is its cause.
    ///
    /// ```
    /// use chronos_db::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Locked, "held by another").on_item("7");
    /// let failed = error.saying("the order was not moved");
    /// assert_eq!(failed.to_string(), "LOCKED on 7: the order was not moved");
    /// assert_eq!(std::error::Error::source(&failed).unwrap().to_string(), "LOCKED on 7: held by another");
    /// ```
    #[must_use]
    pub fn saying(self, message: impl Into<Cow<'static, str>>) -> Self
    where
        Self: StdError + Send + Sync + 'static,
    {
        self.clone().with(|inner| inner.message = message.into()).caused_by(self)
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(self) -> Self {
        self.with(|inner| inner.retryable = true)
    }

    /// Says that the store did not let this user do it.
    #[must_use]
    pub fn forbidden(self) -> Self {
        self.with(|inner| inner.forbidden = true)
    }

    /// Says that whether the call took place is not known.
    #[must_use]
    pub fn undecided(self) -> Self {
        self.with(|inner| inner.undecided = true)
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn during(self, operation: &'static str) -> Self {
        self.with(|inner| {
            inner.operation.get_or_insert(operation);
        })
    }

    /// Says more about what it was tried on.
    #[must_use]
    pub fn with_target(self, name: impl FnOnce(&mut K::Target)) -> Self {
        self.with(|inner| name(&mut inner.target))
    }

    fn with(mut self, change: impl FnOnce(&mut Inner<K>)) -> Self {
        change(Arc::make_mut(&mut self.inner));
        self
    }

    /// Returns what the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> K {
        self.inner.kind
    }

    /// Returns the stable code, such as `OPTIMISTIC_LOCK`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    /// Returns the HTTP status a service would answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.inner.kind.status()
    }

    /// Says whether the same call may succeed later without a change of its input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }

    /// Says whether the store did not let this user do it: what only looks then does without.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.inner.forbidden
    }

    /// Says whether it is not known if the call took place. Then the same call again may take place twice.
    #[must_use]
    pub fn is_undecided(&self) -> bool {
        self.inner.undecided
    }

    /// Returns the operation that failed, such as `update`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.inner.operation
    }

    /// Returns what it was tried on.
    #[must_use]
    pub fn target(&self) -> &K::Target {
        &self.inner.target
    }

    /// Returns the message without operation and target.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }
}

impl Error {
    /// Makes an error for wrong input.
    pub fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// Makes an error for something that does not exist.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::NotFound, message)
    }

    /// Makes an error for a failure of the object storage.
    pub fn storage(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Storage, message)
    }

    /// Makes an error for a failure of the document store.
    pub fn database(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Database, message)
    }

    /// Names the collection, unless one is named already.
    #[must_use]
    pub fn in_collection(self, collection: &str) -> Self {
        self.with_target(|target| {
            target.collection.get_or_insert_with(|| collection.to_owned());
        })
    }

    /// Names the item, unless one is named already.
    #[must_use]
    pub fn on_item(self, id: impl fmt::Display) -> Self {
        self.with_target(|target| {
            target.id.get_or_insert_with(|| id.to_string());
        })
    }

    /// Names the version: for `OPTIMISTIC_LOCK` the one the item really has.
    #[must_use]
    pub fn at_version(self, ov: i64) -> Self {
        self.with_target(|target| {
            target.ov.get_or_insert(ov);
        })
    }

    /// Returns the collection it was tried on.
    #[must_use]
    pub fn collection(&self) -> Option<&str> {
        self.target().collection.as_deref()
    }

    /// Returns the item it was tried on.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.target().id.as_deref()
    }

    /// Returns the version concerned; for `OPTIMISTIC_LOCK` the one the item really has.
    #[must_use]
    pub fn ov(&self) -> Option<i64> {
        self.target().ov
    }
}

impl<K: Kind> fmt::Display for Error<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, operation, target, .. } = &*self.inner;
        write!(f, "{}", kind.code())?;
        if let Some(operation) = operation {
            write!(f, " in {operation}")?;
        }
        K::write_target(target, f)?;
        write!(f, ": {message}")
    }
}

impl<K: Kind> StdError for Error<K> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|s| s as &(dyn StdError + 'static))
    }
}
