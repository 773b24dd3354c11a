//! How far a log with a name was carried out.

use crate::records::workers::Workers;
use std::sync::Arc;

use bson::{Document, doc};

use crate::documents::{Batch, Guard, Write};
use crate::records::model::{int, number};
use crate::{Error, Result};

/// The longest name of a log, in bytes.
const LONGEST_NAME: usize = 200;

/// Lines of a log, from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Up to here every line was carried out.
    pub(crate) done: u64,
    /// Behind here no line was ever begun.
    pub(crate) begun: u64,
    /// A line failed, so that `done` stays before it.
    held: bool,
}

impl Progress {
    /// Lines up to `last` are about to be carried out; returns what must be kept before that. Only lines that
    /// are recognised by their place need it.
    pub(crate) fn begin(&mut self, last: u64, by_line: bool) -> Option<Self> {
        if !by_line || last <= self.begun {
            return None;
        }
        Some(Self { begun: last, ..*self })
    }

    /// Lines up to `last` are carried out.
    pub(crate) fn end(&mut self, last: u64, all: bool) -> Option<Self> {
        let before = *self;
        self.begun = self.begun.max(last);
        self.held |= !all;
        if !self.held {
            self.done = self.done.max(last);
        }
        (*self != before).then_some(*self)
    }
}

/// The name of a log, of one tenant where several share the database.
#[derive(Clone, Debug)]
pub(crate) struct LogName {
    name: String,
    tenant: Option<String>,
}

impl LogName {
    pub(crate) fn new(name: &str, tenant: Option<&str>) -> Result<Self> {
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(Error::validation(format!(
                "the name of a log is a text of 1 to {LONGEST_NAME} bytes without control characters"
            )));
        }
        Ok(Self { name: name.to_owned(), tenant: tenant.map(str::to_owned) })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> Document {
        doc! { "import": &self.name, "tenantId": self.tenant.clone() }
    }

    pub(crate) async fn read(&self, workers: &Arc<Workers>) -> Result<Progress> {
        let found = workers.index.documents.get(&workers.index.names.counter, vec![self.id().into()]).await?;
        let line = |field: &str| {
            found
                .first()
                .and_then(|doc| number(doc, field))
                .and_then(|line| u64::try_from(line).ok())
                .unwrap_or(0)
        };
        Ok(Progress { done: line("done"), begun: line("begun"), held: false })
    }

    pub(crate) async fn write(&self, workers: &Arc<Workers>, progress: Progress) -> Result<()> {
        let line = |line: u64| int(i64::try_from(line).unwrap_or(i64::MAX));
        let mut document =
            doc! { "_id": self.id(), "done": line(progress.done), "begun": line(progress.begun) };
        if let Some(tenant) = &self.tenant {
            document.insert("tenantId", tenant);
        }
        let mut batch = Batch::new();
        batch.push(&workers.index.names.counter, Write::put(document, Guard::Any));
        workers.index.documents.apply(batch).await.map(drop)
    }
}
