//! The error of every public call of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

use chronos_db::error::Kind;

/// The result of every fallible call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The input is wrong; sending it again changes nothing.
    Validation,
    /// There is no such topic, subscription or key.
    NotFound,
    /// The condition of a conditional change did not hold; read again and decide.
    Conflict,
    /// The lock of the message is not this holder's any more; another consumer may have the message.
    LockLost,
    /// The topic holds as many undelivered messages as it may; publish again later.
    Full,
    /// The messages are accepted, but not confirmed by as many replicas as asked for. Publishing them again
    /// is safe with the same dedup ids.
    NotReplicated,
    /// The hot tier failed; whether the change took place is said in the message.
    HotTier,
    /// The warm tier failed.
    WarmTier,
    /// This build or server lacks what was asked for.
    Unsupported,
    /// The connection is closed.
    Closed,
}

impl ErrorKind {
    /// All of them, in the order in which they are declared.
    pub(crate) const ALL: [Self; 10] = [
        Self::Validation,
        Self::NotFound,
        Self::Conflict,
        Self::LockLost,
        Self::Full,
        Self::NotReplicated,
        Self::HotTier,
        Self::WarmTier,
        Self::Unsupported,
        Self::Closed,
    ];

    /// The stable code programs match on.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Validation => "VALIDATION_ERROR",
            Self::NotFound => "NOT_FOUND",
            Self::Conflict => "CONFLICT",
            Self::LockLost => "LOCK_LOST",
            Self::Full => "TOPIC_FULL",
            Self::NotReplicated => "NOT_REPLICATED",
            Self::HotTier => "HOT_TIER_ERROR",
            Self::WarmTier => "WARM_TIER_ERROR",
            Self::Unsupported => "UNSUPPORTED",
            Self::Closed => "CLOSED",
        }
    }

    /// The HTTP status a service would answer with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Validation => 400,
            Self::NotFound => 404,
            Self::Conflict | Self::LockLost => 409,
            Self::Full => 429,
            Self::Unsupported => 501,
            Self::NotReplicated | Self::HotTier | Self::WarmTier | Self::Closed => 503,
        }
    }
}

impl Kind for ErrorKind {
    type Target = Option<String>;

    fn code(self) -> &'static str {
        Self::code(self)
    }

    fn status(self) -> u16 {
        Self::status(self)
    }

    fn is_retryable(self) -> bool {
        self == Self::Full
    }

    fn write_target(target: &Option<String>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        target.as_deref().map_or(Ok(()), |target| write!(f, " on `{target}`"))
    }
}

/// What failed, on what, and why.
///
/// `Display` is one line for people; [`std::error::Error::source`] is the chain for programs. Errors can be
/// cloned: calls that failed together share their cause. It is the [`Error`](chronos_db::Error) of the records
/// with the kinds of this crate.
///
/// ```
/// use chronow::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::Full, "the topic holds 1000 messages").during("publish").on("orders");
/// assert_eq!(error.to_string(), "TOPIC_FULL in publish on `orders`: the topic holds 1000 messages");
/// assert!(error.is_retryable());
/// ```
#[derive(Clone, Debug)]
pub struct Error(chronos_db::Error<ErrorKind>);

impl Error {
    /// Makes an error of `kind` with a message that says what is wrong and, where it can, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(chronos_db::Error::new(kind, message))
    }

    /// Makes an error for wrong input.
    pub fn validation(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Validation, message)
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(self.0.caused_by(source))
    }

    /// Returns the same error with another message; what it was is its cause.
    #[must_use]
    pub fn saying(self, message: impl Into<Cow<'static, str>>) -> Self {
        Self(self.0.saying(message))
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(self) -> Self {
        Self(self.0.retryable())
    }

    /// Says that the server did not let this user do it.
    #[must_use]
    pub fn forbidden(self) -> Self {
        Self(self.0.forbidden())
    }

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn during(self, operation: &'static str) -> Self {
        Self(self.0.during(operation))
    }

    /// Names what it was tried on (a topic, subscription or key), unless something is named already.
    #[must_use]
    pub fn on(self, target: impl fmt::Display) -> Self {
        Self(self.0.with_target(|named| {
            named.get_or_insert_with(|| target.to_string());
        }))
    }

    /// Returns what the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind()
    }

    /// Returns the stable code, such as `LOCK_LOST`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.0.code()
    }

    /// Returns the HTTP status a service would answer with.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.0.status()
    }

    /// Says whether the same call may succeed later without a change of its input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.0.is_retryable()
    }

    /// Says whether the server did not let this user do it.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.0.is_forbidden()
    }

    /// Returns the operation that failed, such as `publish`.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation()
    }

    /// Returns the topic, subscription or key it was tried on.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        self.0.target().as_deref()
    }

    /// Returns the message without operation and target.
    #[must_use]
    pub fn message(&self) -> &str {
        self.0.message()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

impl From<chronos_db::Error> for Error {
    fn from(error: chronos_db::Error) -> Self {
        let kind = match error.kind() {
            chronos_db::ErrorKind::Validation => ErrorKind::Validation,
            chronos_db::ErrorKind::NotFound | chronos_db::ErrorKind::RouteNotFound => ErrorKind::NotFound,
            chronos_db::ErrorKind::OptimisticLock => ErrorKind::Conflict,
            _ => ErrorKind::HotTier,
        };
        let own = Self::new(kind, error.message().to_owned());
        let own = if error.is_retryable() { own.retryable() } else { own };
        let own = if error.is_forbidden() { own.forbidden() } else { own };
        own.caused_by(error)
    }
}
