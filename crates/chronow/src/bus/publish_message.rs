//! Messages to be published.

use std::time::Duration;

use bytes::Bytes;
use chronos_db::{Clock as _, SystemClock};
use serde::Serialize;

use super::codec::{check_size, to_json};
use super::trace::{TRACEPARENT, TRACESTATE};
use crate::headers::OWN_HEADERS;
use crate::hot::millis::to_signed_millis;
use crate::hot::{MAX_DELAY, OutboundMessage};
use crate::payloads::CLAIM;
use crate::{Error, Result, Timestamp};

/// A message for [`Topic::publish_batch`](super::Topic::publish_batch).
#[derive(Debug)]
#[must_use = "a message is not published by itself"]
pub struct PublishMessage {
    /// A payload that could not be encoded fails when it is published.
    message: Result<OutboundMessage>,
    delay: Option<Duration>,
}

macro_rules! message_options {
    ($($field:ident)?) => {
        /// Adds a header, for handlers and filters.
        pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
            self$(.$field)?.change(|message| {
                message.headers.insert(name.into(), value.into());
            });
            self
        }

        /// Carries the trace the publisher is in, as the W3C's header says.
        pub fn traceparent(self, value: impl Into<String>) -> Self {
            self.header(crate::bus::trace::TRACEPARENT, value)
        }

        /// Adds what tracing systems add to the trace, as the W3C's header says.
        pub fn tracestate(self, value: impl Into<String>) -> Self {
            self.header(crate::bus::trace::TRACESTATE, value)
        }

        /// Carries the trace the publisher is in.
        pub fn trace(mut self, context: &crate::TraceContext) -> Self {
            self$(.$field)?.change(|message| context.inject(&mut message.headers));
            self
        }

        /// Messages of one ordering key are delivered to a subscription in order, one at a time.
        pub fn key(mut self, key: impl Into<String>) -> Self {
            self$(.$field)?.change(|message| message.key = Some(key.into()));
            self
        }

        /// Delivers it no earlier than this long from now; at most ten years.
        pub fn delay(mut self, delay: std::time::Duration) -> Self {
            self$(.$field)?.set_delay(delay);
            self
        }

        /// Delivers it not before this time, by the store's clock.
        pub fn at(mut self, time: crate::Timestamp) -> Self {
            self$(.$field)?.change(|message| message.not_before = Some(time));
            self
        }

        /// Puts it into the dead letters of every subscription that has not started it after this long.
        pub fn ttl(mut self, ttl: std::time::Duration) -> Self {
            self$(.$field)?.change(|message| message.ttl = Some(ttl));
            self
        }

        /// Messages with the same id within the topic's dedup window are accepted once.
        pub fn dedup_id(mut self, id: impl Into<String>) -> Self {
            self$(.$field)?.change(|message| message.dedup_id = Some(id.into()));
            self
        }
    };
}
pub(super) use message_options;

/// Refuses delays that can only be a mistake.
pub(super) fn check_delay(delay: Duration) -> Result<()> {
    if delay <= MAX_DELAY {
        return Ok(());
    }
    let (days, most) = (delay.as_secs() / 86_400, MAX_DELAY.as_secs() / 86_400);
    Err(Error::validation(format!(
        "a delay of {days} days is more than the {most} (about ten years) that are allowed; is it in milliseconds?"
    )))
}

impl PublishMessage {
    /// Makes a message of a payload as JSON.
    pub fn json<T: Serialize + ?Sized>(payload: &T) -> Self {
        let message = to_json("payload", payload)
            .map(|payload| OutboundMessage { payload, ..OutboundMessage::default() });
        Self { message, delay: None }
    }

    /// Makes a message of bytes as they are.
    pub fn bytes(payload: impl Into<Bytes>, content_type: impl Into<String>) -> Self {
        let message = Ok(OutboundMessage {
            payload: payload.into(),
            content_type: content_type.into(),
            ..OutboundMessage::default()
        });
        Self { message, delay: None }
    }

    message_options!();

    pub(super) fn change(&mut self, change: impl FnOnce(&mut OutboundMessage)) {
        if let Ok(message) = &mut self.message {
            change(message);
        }
    }

    pub(super) fn set_delay(&mut self, delay: Duration) {
        self.delay = Some(delay);
    }

    /// The bytes of its payload, if it has one.
    pub(super) fn size(&self) -> usize {
        self.message.as_ref().map_or(0, |message| message.payload.len())
    }

    /// Whether the store's time is needed to finish it: for a delay, and to tell a time that is too late.
    pub(super) fn needs_time(&self) -> bool {
        let doubtful = SystemClock.now().plus_millis(to_signed_millis(MAX_DELAY / 2));
        self.delay.is_some()
            || self.message.as_ref().is_ok_and(|message| message.not_before.is_some_and(|at| at > doubtful))
    }

    /// The message, checked. `now` is the store's time, if it is needed.
    pub(super) fn finish(self, now: Option<Timestamp>, max_bytes: usize) -> Result<OutboundMessage> {
        let mut message = self.message?;
        check_size("payload", message.payload.len(), max_bytes)?;
        if message.content_type == CLAIM {
            return Err(Error::validation(format!("the content type `{CLAIM}` is reserved")));
        }
        if let Some(name) = message.headers.keys().find(|name| name.starts_with(OWN_HEADERS)) {
            return Err(Error::validation(format!(
                "the header `{name}` is reserved: it starts with `{OWN_HEADERS}`"
            )));
        }
        if let Some(delay) = self.delay {
            check_delay(delay)?;
        }
        if let (Some(delay), Some(now)) = (self.delay, now) {
            let due = now.plus_millis(to_signed_millis(delay));
            message.not_before = Some(message.not_before.map_or(due, |at| at.max(due)));
        }
        if let (Some(at), Some(now)) = (message.not_before, now) {
            check_delay(Duration::from_millis(u64::try_from(at.as_millis() - now.as_millis()).unwrap_or(0)))?;
        }
        if message.ttl == Some(Duration::ZERO) {
            return Err(Error::validation(
                "the time to live of a message must be more than zero; leave it out for no limit",
            ));
        }
        message.check()?;
        for name in [TRACEPARENT, TRACESTATE] {
            if message.headers.get(name).is_some_and(String::is_empty) {
                message.headers.remove(name);
            }
        }
        Ok(message)
    }
}
