//! Operations under watch.

use std::sync::Arc;
use std::time::Instant;

use metrics::Counter;

use super::events::{self, OperationTarget};
use super::meters::Telemetry;
use super::operation::Operation;
use crate::Result;

/// What operations are for: a collection as one handle sees it, or a configuration as a whole.
pub(crate) struct Subject {
    telemetry: Telemetry,
    collection: Option<String>,
    database: Option<String>,
    tenant: Option<String>,
    operations: Counter,
}

impl Subject {
    /// A collection.
    pub(crate) fn collection(
        telemetry: &Telemetry,
        database: &str,
        collection: &str,
        tenant: Option<&str>,
    ) -> Arc<Self> {
        Arc::new(Self {
            telemetry: telemetry.clone(),
            operations: telemetry.collection(collection),
            collection: Some(collection.to_owned()),
            database: Some(database.to_owned()),
            tenant: tenant.map(str::to_owned),
        })
    }

    /// Everything that was opened.
    pub(crate) fn everything(telemetry: &Telemetry) -> Arc<Self> {
        Arc::new(Self {
            telemetry: telemetry.clone(),
            operations: Counter::noop(),
            collection: None,
            database: None,
            tenant: None,
        })
    }

    fn place(&self) -> OperationTarget<'_> {
        OperationTarget {
            collection: self.collection.as_deref(),
            database: self.database.as_deref(),
            tenant: self.tenant.as_deref(),
        }
    }
}

/// An operation that is to be measured and logged. (Public as [`Action`](crate::action::Action) is, and not to be named
/// from outside.)
pub struct Observed {
    operation: Operation,
    subject: Arc<Subject>,
    began: Instant,
}

impl Observed {
    /// Begins with the operation.
    pub(crate) fn new(operation: Operation, subject: &Arc<Subject>) -> Self {
        Self { operation, subject: Arc::clone(subject), began: Instant::now() }
    }

    /// Measures the operation and tells how it ended; `items` says how many of them it was for, if it is one
    /// that is for many.
    pub(crate) async fn watch<T>(
        self,
        work: impl Future<Output = Result<T>>,
        items: impl FnOnce(&T) -> Option<u64>,
    ) -> Result<T> {
        self.watch_action(work, items, |_| false).await
    }

    /// The same for an action that may have nothing to do, which `is_idle` says.
    pub(crate) async fn watch_action<T>(
        self,
        work: impl Future<Output = Result<T>>,
        items: impl FnOnce(&T) -> Option<u64>,
        is_idle: impl FnOnce(&T) -> bool,
    ) -> Result<T> {
        let ended = work.await;
        self.ended(&ended, items, is_idle);
        ended
    }

    /// Tells how an operation ended that needed no waiting.
    pub(crate) fn ended<T>(
        self,
        ended: &Result<T>,
        items: impl FnOnce(&T) -> Option<u64>,
        is_idle: impl FnOnce(&T) -> bool,
    ) {
        let Self { operation, subject, began } = self;
        let took = began.elapsed();
        let place = subject.place();
        subject.operations.increment(1);
        subject.telemetry.ended(operation, took, ended.as_ref().err().map(crate::Error::kind));
        match ended {
            Ok(done) => {
                // Contexts have a category of their own.
                if operation != Operation::Route {
                    events::succeeded(operation, place, took, is_idle(done));
                }
                if let Some(items) = items(done) {
                    events::performed(operation, place, items, took);
                }
            }
            Err(error) => events::failed(operation, place, error, took),
        }
    }
}
