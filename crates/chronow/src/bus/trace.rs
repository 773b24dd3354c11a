//! The trace a message belongs to, in the headers that the W3C's Trace Context names.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::{Error, Result};

/// The header of the trace and the span.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The header of what tracing systems add.
pub(crate) const TRACESTATE: &str = "tracestate";

/// Which trace a message belongs to, and which span published it: `traceparent` and `tracestate` of the W3C.
///
/// A publisher injects its own ([`PublishMessage::trace`](super::PublishMessage::trace)), a handler extracts
/// it ([`Message::trace`](super::Message::trace)) and begins a span below it.
///
/// ```
/// use chronow::TraceContext;
/// let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse()?;
/// assert_eq!((trace.trace_id(), trace.span_id(), trace.is_sampled()), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", true));
/// let mut headers = std::collections::BTreeMap::new();
/// trace.with_span("00f067aa0ba902b7")?.inject(&mut headers);
/// assert_eq!(TraceContext::extract(&headers).unwrap().span_id(), "00f067aa0ba902b7");
/// # Ok::<(), chronow::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_id(text: &str, digits: usize) -> bool {
    is_hex(text, digits) && text.bytes().any(|b| b != b'0')
}

/// Where the parts of a `traceparent` are.
const TRACE: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;
const FLAGS: std::ops::Range<usize> = 53..55;

impl FromStr for TraceContext {
    type Err = Error;

    /// Reads a `traceparent`. Of later versions of the format only what this one has is looked at.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::validation("a traceparent looks like 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
        };
        let mut parts = text.split('-');
        let mut part = || parts.next().unwrap_or("");
        let (version, trace, span, flags) = (part(), part(), part(), part());
        let complete = version != "00" || parts.next().is_none();
        let right =
            is_hex(version, 2) && version != "ff" && is_id(trace, 32) && is_id(span, 16) && is_hex(flags, 2);
        if right && complete { Ok(Self { parent: text.to_owned(), state: None }) } else { Err(wrong()) }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.parent)
    }
}

impl TraceContext {
    /// Names a span of a trace: 32 and 16 lower-case hex digits, none of them all zero.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for anything else.
    pub fn new(trace_id: &str, span_id: &str, sampled: bool) -> Result<Self> {
        format!("00-{trace_id}-{span_id}-0{}", u8::from(sampled)).parse()
    }

    /// Adds what tracing systems want to carry, as `tracestate` has it.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<String>) -> Self {
        self.state = Some(state.into()).filter(|state| !state.is_empty());
        self
    }

    /// Names another span of the same trace.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for an id that is not 16 lower-case hex digits.
    pub fn with_span(&self, span_id: &str) -> Result<Self> {
        let state = self.state.clone();
        Self::new(self.trace_id(), span_id, self.is_sampled()).map(|context| Self { state, ..context })
    }

    /// Returns the trace, 32 hex digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.parent[TRACE]
    }

    /// Returns the span that published, 16 hex digits.
    #[must_use]
    pub fn span_id(&self) -> &str {
        &self.parent[SPAN]
    }

    /// Returns whether the publisher recorded the trace.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        u8::from_str_radix(&self.parent[FLAGS], 16).is_ok_and(|flags| flags & 1 == 1)
    }

    /// Returns what tracing systems carry along.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Writes the headers of a message.
    pub fn inject(&self, headers: &mut BTreeMap<String, String>) {
        headers.insert(TRACEPARENT.to_owned(), self.parent.clone());
        match &self.state {
            Some(state) => headers.insert(TRACESTATE.to_owned(), state.clone()),
            None => headers.remove(TRACESTATE),
        };
    }

    /// Reads the headers of a message; nothing if they name no trace, or a broken one.
    #[must_use]
    pub fn extract(headers: &BTreeMap<String, String>) -> Option<Self> {
        let context: Self = headers.get(TRACEPARENT)?.parse().ok()?;
        Some(match headers.get(TRACESTATE) {
            Some(state) => context.with_state(state),
            None => context,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

    #[test]
    fn what_is_injected_is_extracted() {
        let context = PARENT.parse::<TraceContext>().unwrap().with_state("a=1,b=2");
        let mut headers = BTreeMap::from([("other".to_owned(), "x".to_owned())]);
        context.inject(&mut headers);
        assert_eq!((headers["traceparent"].as_str(), headers["tracestate"].as_str()), (PARENT, "a=1,b=2"));
        assert_eq!(TraceContext::extract(&headers), Some(context.clone()));
        assert!(!context.is_sampled());
        let next = context.with_span("00f067aa0ba902b7").unwrap();
        assert_eq!((next.trace_id(), next.state()), (context.trace_id(), Some("a=1,b=2")));
    }

    #[test]
    fn broken_parents_are_no_trace() {
        let zero = "00-00000000000000000000000000000000-b7ad6b7169203331-01";
        let upper = PARENT.to_uppercase();
        for wrong in [
            "",
            "00",
            zero,
            &upper,
            &PARENT[1..],
            &format!("{PARENT}-x"),
            &PARENT.replace("00-", "ff-"),
            "00-ü-b-01",
        ] {
            assert!(wrong.parse::<TraceContext>().is_err(), "{wrong}");
            assert_eq!(
                TraceContext::extract(&BTreeMap::from([("traceparent".to_owned(), (*wrong).to_owned())])),
                None
            );
        }
        assert!(
            format!("cc{}-more", &PARENT[2..]).parse::<TraceContext>().is_ok(),
            "a later version may have more"
        );
    }
}
