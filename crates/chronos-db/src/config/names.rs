//! The names of the model's choices, as configurations and people write them.

use std::fmt;
use std::str::FromStr;

use super::section::closest;
use super::{DatabaseType, HashAlgorithm, Provider, Selector, UpdateMode, Warning};
use crate::{Error, Result};

impl DatabaseType {
    /// Every type.
    pub const ALL: [Self; 6] =
        [Self::Metadata, Self::Knowledge, Self::Runtime, Self::Logs, Self::Messaging, Self::Identities];

    /// The name in configurations, such as `runtime`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Metadata => "metadata",
            Self::Knowledge => "knowledge",
            Self::Runtime => "runtime",
            Self::Logs => "logs",
            Self::Messaging => "messaging",
            Self::Identities => "identities",
        }
    }
}

impl fmt::Display for DatabaseType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DatabaseType {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let names = Self::ALL.map(Self::name);
        Self::ALL.into_iter().find(|known| known.name() == text).ok_or_else(|| {
            let hint =
                closest(text, &names).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default();
            Error::validation(format!(
                "`{}` is not a database type; there are {}{hint}",
                text.escape_debug(),
                names.join(", ")
            ))
        })
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generic => f.write_str("generic"),
            Self::Domain(domain) => write!(f, "domain {domain}"),
            Self::Tenant(tenant) => write!(f, "tenant {tenant}"),
            Self::Single => f.write_str("all"),
            Self::Hashed(index) => write!(f, "backend {index}"),
        }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl Provider {
    /// The name in configurations, such as `s3`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Local => "local",
            Self::Memory => "memory",
        }
    }
}

impl HashAlgorithm {
    /// The name in configurations, such as `rendezvous`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rendezvous => "rendezvous",
            Self::Jump => "jump",
        }
    }
}

impl UpdateMode {
    /// The name in configurations, such as `merge`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Merge => "merge",
            Self::Replace => "replace",
        }
    }
}
