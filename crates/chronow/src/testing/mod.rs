//! For tests of a hot tier, and of what stands on it: the conformance suite, plain async functions that any
//! backend calls, and a layer with a hook at every step.

mod hooked;
pub mod hot;

pub use hooked::{Point, hooked};

/// Names a subscription of the library's own, as [`TopicStats::internal`](crate::hot::TopicStats::internal)
/// shows them.
#[must_use]
pub fn internal_subscription(topic: &crate::TopicName, name: &'static str) -> crate::SubscriptionName {
    crate::SubscriptionName::internal(topic, name)
}
