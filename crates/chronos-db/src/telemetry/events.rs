//! The events, with the categories and fields that `telemetry/mod.rs` lists.

use std::time::Duration;

use super::operation::Operation;
use crate::{Error, ErrorKind};

/// Milliseconds, to the microsecond.
fn millis(took: Duration) -> f64 {
    took.as_micros() as f64 / 1_000.0
}

/// Where an operation took place.
#[derive(Clone, Copy)]
pub(super) struct OperationTarget<'p> {
    pub(super) collection: Option<&'p str>,
    pub(super) database: Option<&'p str>,
    pub(super) tenant: Option<&'p str>,
}

/// An event of an operation at a place, with what else is known of it.
macro_rules! of_operation {
    ($level:ident, $category:literal, $operation:expr, $place:expr, $($fields:tt)+) => {
        tracing::$level!(
            target: $category,
            category = $category,
            operation = $operation.event_name(),
            collection = $place.collection,
            dbName = $place.database,
            tenantId = $place.tenant,
            $($fields)+
        )
    };
}

/// At the level `debug` if there was nothing to do.
pub(super) fn succeeded(operation: Operation, place: OperationTarget<'_>, took: Duration, is_idle: bool) {
    let duration = millis(took);
    if is_idle {
        of_operation!(debug, "chronos-operation", operation, place, duration);
    } else {
        of_operation!(info, "chronos-operation", operation, place, duration);
    }
}

/// What was done to many items at once.
pub(super) fn performed(operation: Operation, place: OperationTarget<'_>, items: u64, took: Duration) {
    let duration = millis(took);
    // Counts are far below where floats have holes.
    let per_item = duration / items.max(1) as f64;
    of_operation!(
        info,
        "chronos-performance",
        operation,
        place,
        itemsCount = items,
        duration,
        avgPerItem = per_item,
    );
}

pub(super) fn failed(operation: Operation, place: OperationTarget<'_>, error: &Error, took: Duration) {
    of_operation!(
        error,
        "chronos-operation",
        operation,
        place,
        duration = millis(took),
        error = error.code(),
    );
    tracing::error!(
        target: "chronos-error",
        category = "chronos-error",
        operation = operation.event_name(),
        error = error.code(),
        message = message(error),
        collection = place.collection.or(error.collection()),
        itemId = error.id(),
    );
}

/// What may stand in a log: what a caller got wrong may quote what the caller gave.
fn message(error: &Error) -> &str {
    match error.kind() {
        ErrorKind::Validation | ErrorKind::Externalization => {
            "the input is wrong; the error returned to the caller says how"
        }
        _ => error.message(),
    }
}

/// A context, and what it led to.
#[derive(Clone, Copy)]
pub(crate) struct Routed<'r> {
    pub(crate) asked_database: Option<&'r str>,
    pub(crate) collection: &'r str,
    pub(crate) key: Option<&'r str>,
    pub(crate) index: Option<usize>,
    pub(crate) connection: &'r str,
    pub(crate) database: &'r str,
}

/// `routing_key` is asked for only if someone listens.
pub(crate) fn routed(route: Routed<'_>, routing_key: impl Fn() -> String) {
    tracing::debug!(
        target: "chronos-routing",
        category = "chronos-routing",
        method = "getRouteInfo",
        ctx.dbName = route.asked_database,
        ctx.collection = route.collection,
        ctx.key = route.key,
        index = route.index,
        backend = route.connection,
        routingKey = routing_key(),
        resolvedDbName = route.database,
    );
}
