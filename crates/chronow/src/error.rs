//! The error of every public call of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

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
    /// The lock of the message is not this holder's any more; somebody else may have the message.
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
}

/// What failed, on what, and why. `Display` is one line for people; [`std::error::Error::source`] is the
/// chain for programs.
#[derive(Debug)]
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    target: Option<String>,
    retryable: bool,
    forbidden: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind` with a message that says what is wrong and, where it can, what to do.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        let retryable = kind == ErrorKind::Full;
        Self {
            inner: Box::new(Inner {
                kind,
                message: message.into(),
                operation: None,
                target: None,
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

    /// Names the operation, unless one is named already.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.inner.operation.get_or_insert(operation);
        self
    }

    /// Names what it was tried on (a topic, subscription or key), unless something is named already.
    #[must_use]
    pub fn on(mut self, target: impl fmt::Display) -> Self {
        self.inner.target.get_or_insert_with(|| target.to_string());
        self
    }

    /// What the caller can do about it.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The stable code, such as `LOCK_LOST`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.inner.kind.code()
    }

    /// Whether the same call may succeed later without a change of its input.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.inner.retryable
    }

    /// Marks it as a refusal for want of rights.
    #[must_use]
    pub fn forbidden(mut self) -> Self {
        self.inner.forbidden = true;
        self
    }

    /// Whether the user of the connection lacks the right to do this.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.inner.forbidden
    }

    /// The message without operation and target.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, operation, target, .. } = &*self.inner;
        write!(f, "{}", kind.code())?;
        if let Some(operation) = operation {
            write!(f, " in {operation}")?;
        }
        if let Some(target) = target {
            write!(f, " on `{target}`")?;
        }
        write!(f, ": {message}")
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|s| s as &(dyn StdError + 'static))
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
