//! Names of tenants, namespaces, topics and subscriptions, checked once.

use std::fmt;
use std::sync::Arc;

use crate::{Error, Result};

fn checked(what: &str, name: &str) -> Result<Arc<str>> {
    chronos_db::validate_name(what, name)?;
    // These delimit keys and hash tags.
    if name.contains([':', '{', '}', '#']) {
        return Err(Error::validation(format!("the {what} `{name}` may not hold `:`, `{{`, `}}` or `#`")));
    }
    Ok(name.into())
}

/// The tenant and namespace that everything else lies in.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Scope {
    tenant: Arc<str>,
    namespace: Arc<str>,
}

impl Scope {
    /// Names a namespace of a tenant.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for names that would break keys.
    pub fn new(tenant: &str, namespace: &str) -> Result<Self> {
        Ok(Self { tenant: checked("tenant", tenant)?, namespace: checked("namespace", namespace)? })
    }

    /// Returns the tenant.
    #[must_use]
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// Returns the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName {
    scope: Scope,
    name: Arc<str>,
}

impl TopicName {
    /// Names the topic `name` of a scope.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for names that would break keys.
    pub fn new(scope: &Scope, name: &str) -> Result<Self> {
        Ok(Self { scope: scope.clone(), name: checked("topic", name)? })
    }

    /// Returns the tenant and namespace it belongs to.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A subscription of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SubscriptionName {
    topic: TopicName,
    name: Arc<str>,
}

impl SubscriptionName {
    /// Names the subscription `name` of a topic.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for names that would break keys, or that are reserved (a leading `__`).
    pub fn new(topic: &TopicName, name: &str) -> Result<Self> {
        if name.starts_with("__") {
            return Err(Error::validation(format!(
                "the subscription `{name}` has a reserved name: it starts with `__`"
            )));
        }
        Ok(Self { topic: topic.clone(), name: checked("subscription", name)? })
    }

    /// The library's own subscription of a topic, hidden from listings and stats.
    pub(crate) fn internal(topic: &TopicName, name: &'static str) -> Self {
        Self { topic: topic.clone(), name: name.into() }
    }

    /// One that the store has, so that its name was checked when it was made.
    #[cfg(feature = "redis")]
    pub(crate) fn stored(topic: &TopicName, name: &str) -> Self {
        Self { topic: topic.clone(), name: name.into() }
    }

    /// Returns whether it is the library's own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.name.starts_with("__")
    }

    /// Returns the topic.
    #[must_use]
    pub fn topic(&self) -> &TopicName {
        &self.topic
    }

    /// Returns the name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for SubscriptionName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.name)
    }
}
