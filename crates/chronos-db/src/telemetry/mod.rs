//! Metrics, and log events of operations.
//!
//! Measurements go to the facade of the crate [`metrics`], events to [`tracing`]; neither goes anywhere unless
//! the program installs a recorder and a subscriber. Handles of the recorder are taken once, when a
//! [`Chronos`](crate::Chronos) is opened, so install it before. Every name is in [`METRICS`].
//!
//! Operations are measured where all of them pass: an action when it is awaited (`action.rs`), a call to a store
//! in the decorators [`documents/observed.rs`](crate::documents) and `objects/observed.rs`. Labels are bounded:
//! no ids, and of collections and tenants at most 200 names, the others together as `_other` (gauges of logs as the sum
//! of theirs). Documents, keys,
//! filters and secrets stand in no label and no event.
//!
//! | target of events | level | fields |
//! |---|---|---|
//! | `chronos-operation` | info, error; debug where a worker's look found nothing to do | `operation`, `collection`, `dbName`, `tenantId`, `duration` (milliseconds); a failure its `error` |
//! | `chronos-routing` | debug | `method`, `ctx.dbName`, `ctx.collection`, `ctx.key`, `index`, `backend`, `routingKey`, `resolvedDbName` |
//! | `chronos-performance` | info | `operation`, `collection`, `dbName`, `tenantId`, `itemsCount`, `duration`, `avgPerItem` |
//! | `chronos-error` | error | `operation`, `error`, `message`, `collection`, `itemId` |
//!
//! All of them have their target as the field `category`, too. What a caller got wrong is reported to the caller alone:
//! messages of `VALIDATION_ERROR` and `EXTERNALIZATION_ERROR` may quote the input, so events leave them out.

mod backend;
mod bounded;
mod events;
mod meters;
mod metric;
mod operation;
mod subject;
mod worker;

pub(crate) use backend::{BackendMeters, StoreKind};
pub(crate) use events::{Routed, routed};
pub(crate) use meters::LogPlace;
pub use meters::Telemetry;
pub use metric::{METRICS, Metric, MetricKind};
pub(crate) use operation::Operation;
pub(crate) use subject::{Observed, Subject};
pub(crate) use worker::{RoundNumbers, WorkerMeters};
