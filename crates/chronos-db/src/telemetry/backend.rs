//! What is measured of one store.

use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::meters::Telemetry;
use super::metric;
use crate::{Error, ErrorKind};

/// The kinds of stores, as labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreKind {
    Documents,
    Objects,
}

impl StoreKind {
    const fn label(self) -> &'static str {
        match self {
            Self::Documents => "documents",
            Self::Objects => "objects",
        }
    }
}

/// The handles of one store.
pub(crate) struct BackendMeters {
    kind: StoreKind,
    connection: String,
    is_on: bool,
    durations: Vec<Histogram>,
    errors: Counter,
    written: Counter,
    read: Counter,
    /// Is there only once it is known.
    up: OnceLock<Gauge>,
}

impl BackendMeters {
    /// `calls` are the names of what is asked of such a store.
    pub(crate) fn new(
        telemetry: &Telemetry,
        kind: StoreKind,
        connection: &str,
        calls: &[&'static str],
    ) -> Self {
        let connection = connection.to_owned();
        let mut this = Self {
            kind,
            connection,
            is_on: telemetry.is_on(),
            durations: calls.iter().map(|_| Histogram::noop()).collect(),
            errors: Counter::noop(),
            written: Counter::noop(),
            read: Counter::noop(),
            up: OnceLock::new(),
        };
        if this.is_on {
            let (kind, connection) = (kind.label(), &this.connection);
            let duration = |call: &&'static str| histogram!(metric::BACKEND_DURATION, "kind" => kind, "connection" => connection.clone(), "call" => *call);
            this.durations = calls.iter().map(duration).collect();
            this.errors =
                counter!(metric::BACKEND_ERRORS, "kind" => kind, "connection" => connection.clone());
            if this.kind == StoreKind::Objects {
                let bytes = |direction: &'static str| counter!(metric::STORAGE_BYTES, "connection" => connection.clone(), "direction" => direction);
                (this.written, this.read) = (bytes("written"), bytes("read"));
            }
        }
        this
    }

    /// A call, by its position among those that were named, was answered.
    pub(crate) fn answered<T>(&self, call: usize, took: Duration, answer: &Result<T, Error>) {
        if let Some(duration) = self.durations.get(call) {
            duration.record(took);
        }
        self.heard(answer.as_ref().err());
    }

    /// The store said something, or failed.
    pub(crate) fn heard(&self, failed: Option<&Error>) {
        if !self.is_on {
            return;
        }
        if failed.is_some() {
            self.errors.increment(1);
        }
        // What it refuses it has heard.
        let is_down = failed.is_some_and(|error| {
            matches!(error.kind(), ErrorKind::Database | ErrorKind::Storage)
                && (error.is_retryable() || error.is_undecided())
        });
        let make = || gauge!(metric::BACKEND_UP, "kind" => self.kind.label(), "connection" => self.connection.clone());
        self.up.get_or_init(make).set(if is_down { 0.0 } else { 1.0 });
    }

    /// This many bytes of an object were written.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.written.increment(bytes as u64);
    }

    /// This many bytes of an object were read.
    pub(crate) fn read(&self, bytes: usize) {
        self.read.increment(bytes as u64);
    }
}
