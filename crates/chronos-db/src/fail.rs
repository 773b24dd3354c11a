//! Named points between the steps of the write pipeline at which a test can make it fail.
//!
//! A point costs one pointer check while none is armed.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Error, ErrorKind, Result};

/// What an armed point does when the pipeline reaches it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FailAction {
    /// The step fails with this kind of error.
    Error(ErrorKind),
    /// The process ends at once, without unwinding or flushing anything, as if it had been killed.
    Abort,
    /// The guard of this name is left out, so that a proof can show that something notices: see
    /// [`FailPoints::skips`].
    Skip,
}

#[derive(Debug)]
struct Armed {
    action: FailAction,
    /// Passes that are let through before the action.
    after: u64,
    /// How often the action happens; then the point is quiet again.
    times: u64,
}

/// The fail points of one [`Env`](crate::Env).
#[derive(Clone, Debug, Default)]
pub struct FailPoints(Option<Arc<Mutex<HashMap<String, Armed>>>>);

impl FailPoints {
    /// Makes fail points that can be armed; the default ones cannot.
    #[must_use]
    pub fn armable() -> Self {
        Self(Some(Arc::default()))
    }

    /// Reads `point=abort:N` or `point=error:N` (comma separated; N passes are let through, default 0).
    ///
    /// # Errors
    /// `VALIDATION_ERROR` if the text has another shape.
    pub fn parse(text: &str) -> Result<Self> {
        let points = Self::armable();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let wrong = || {
                Error::validation(format!(
                    "`{part}` is not a fail point of the form point=abort:N or point=error:N"
                ))
            };
            let (point, what) = part.split_once('=').ok_or_else(wrong)?;
            let (action, after) = what.split_once(':').unwrap_or((what, "0"));
            let action = match action {
                "abort" => FailAction::Abort,
                "error" => FailAction::Error(ErrorKind::Database),
                _ => return Err(wrong()),
            };
            points.arm(point, action, after.parse().map_err(|_| wrong())?, 1);
        }
        Ok(points)
    }

    /// Makes `point` do `action` `times` times, after letting `after` passes through.
    pub fn arm(&self, point: &str, action: FailAction, after: u64, times: u64) {
        if let Some(points) = &self.0 {
            points.lock().insert(point.to_owned(), Armed { action, after, times });
        }
    }

    /// Makes `point` quiet again.
    pub fn disarm(&self, point: &str) {
        if let Some(points) = &self.0 {
            points.lock().remove(point);
        }
    }

    /// Passes a point.
    ///
    /// # Errors
    /// The armed error, if there is one.
    pub fn hit(&self, point: &'static str) -> Result<()> {
        match self.pass(point) {
            Some(FailAction::Error(kind)) => {
                Err(Error::new(kind, format!("the fail point {point} is armed")))
            }
            Some(FailAction::Abort) => std::process::abort(),
            Some(FailAction::Skip) | None => Ok(()),
        }
    }

    /// Whether the guard of this name is to be left out: never, but where a proof takes it away.
    #[must_use]
    pub fn skips(&self, guard: &'static str) -> bool {
        matches!(self.pass(guard), Some(FailAction::Skip))
    }

    /// What happens at this pass.
    fn pass(&self, point: &'static str) -> Option<FailAction> {
        let mut points = self.0.as_ref()?.lock();
        let armed = points.get_mut(point)?;
        if armed.after > 0 {
            armed.after -= 1;
            return None;
        }
        if armed.times == 0 {
            return None;
        }
        armed.times -= 1;
        Some(armed.action)
    }
}
