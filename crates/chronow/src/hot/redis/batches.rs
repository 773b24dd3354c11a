//! Many messages in the arguments of one script: those alike share what is alike.

use std::time::Duration;

use super::keys::split_id;
use super::reply::headers_json;
use super::script::Args;
use crate::Result;
use crate::hot::{Lock, OutboundMessage};

/// What one shard's part of a step (settlements and starts) is.
#[derive(Default)]
pub(super) struct Part<'a> {
    pub(super) acks: Groups<'a>,
    pub(super) others: Args,
    pub(super) other_at: Vec<usize>,
    pub(super) starts: Groups<'a>,
}

impl Part<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.acks.0.is_empty() && self.other_at.is_empty() && self.starts.0.is_empty()
    }
}

/// Locks by the pull that brought them: one of its tokens stands for many.
#[derive(Default)]
pub(super) struct Groups<'a>(Vec<Group<'a>>);

pub(super) struct Group<'a> {
    token: &'a str,
    ids: Args,
    /// Where their outcomes belong.
    at: Vec<usize>,
}

impl<'a> Groups<'a> {
    pub(super) fn push(&mut self, token: &'a str, id: &str, index: usize) {
        // There are as many as pulls whose messages are at work, and the next is mostly of the last one.
        let known = self.0.iter().rposition(|group| group.token == token).unwrap_or_else(|| {
            self.0.push(Group { token, ids: Args::new(), at: Vec::new() });
            self.0.len() - 1
        });
        let group = &mut self.0[known];
        group.ids.push_bytes(id.as_bytes());
        group.at.push(index);
    }

    pub(super) fn write(&self, args: &mut Args) {
        args.push(self.0.len());
        for group in &self.0 {
            args.push_bytes(group.token.as_bytes());
            args.push(group.at.len());
            args.extend(&group.ids);
        }
    }

    pub(super) fn at(&self) -> impl Iterator<Item = &usize> {
        self.0.iter().flat_map(|group| &group.at)
    }
}

/// Messages for one shard, in runs of those that have the same names.
pub(super) struct Batch {
    runs: Args,
    run: Args,
    shape: Shape,
    count: usize,
    /// Nothing has a time, an age, or a dedup id.
    pub(super) is_plain: bool,
    /// Where their ids belong.
    pub(super) at: Vec<usize>,
}

/// What a message has beside its payload.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Shape {
    /// A time, an age, or a dedup id.
    special: bool,
    content_type: bool,
    headers: bool,
    key: bool,
}

impl Shape {
    pub(super) fn of(message: &OutboundMessage) -> Self {
        Self {
            special: message.not_before.is_some()
                || message.ttl.is_some()
                || message.dedup_id.as_ref().is_some_and(|id| !id.is_empty()),
            content_type: !message.content_type.is_empty(),
            headers: !message.headers.is_empty(),
            key: key_of(message).is_some(),
        }
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        let has = [("type", self.content_type), ("headers", self.headers), ("key", self.key)];
        std::iter::once("payload").chain(has.into_iter().filter(|(_, has)| *has).map(|(name, _)| name))
    }
}

/// An empty key is none.
pub(super) fn key_of(message: &OutboundMessage) -> Option<&str> {
    message.key.as_deref().filter(|key| !key.is_empty())
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            runs: Args::new(),
            run: Args::new(),
            shape: Shape::default(),
            count: 0,
            is_plain: true,
            at: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, message: &OutboundMessage, index: usize) -> Result<()> {
        let shape = Shape::of(message);
        if shape != self.shape {
            self.end_run();
            self.shape = shape;
        }
        self.is_plain &= !shape.special;
        if shape.special {
            match message.not_before {
                Some(time) => self.run.push(time.as_millis()),
                None => self.run.push_bytes(b""),
            }
            match message.ttl {
                Some(ttl) => self.run.push(millis(ttl)),
                None => self.run.push_bytes(b""),
            }
            self.run.push_bytes(message.dedup_id.as_deref().unwrap_or("").as_bytes());
        }
        self.run.push_bytes(&message.payload);
        if shape.content_type {
            self.run.push_bytes(message.content_type.as_bytes());
        }
        if shape.headers {
            self.run.push_bytes(&headers_json(&message.headers)?);
        }
        if let Some(key) = key_of(message) {
            self.run.push_bytes(key.as_bytes());
        }
        self.count += 1;
        self.at.push(index);
        Ok(())
    }

    /// The arguments, for the topic of this stamp; the script that looks up more also gets whether it is
    /// the last try.
    pub(super) fn args(&self, stamp: &str, last: Option<bool>) -> Args {
        let mut args = Args::new().arg(stamp);
        if let Some(last) = last {
            args.push(u8::from(last));
        }
        args.extend(&self.runs);
        args
    }

    pub(super) fn end_run(&mut self) {
        if self.count > 0 {
            self.runs.push(self.count);
            self.runs.push(u8::from(self.shape.special));
            self.runs.push(self.shape.names().count());
            for name in self.shape.names() {
                self.runs.push_bytes(name.as_bytes());
            }
            self.runs.extend(&self.run);
            (self.run, self.count) = (Args::new(), 0);
        }
    }
}

/// The token of the pull (of this subscription and shard) that handed a message out; nothing if it cannot be
/// of this message. A lock's token is that and the message's id, so that each is worth something for its own
/// message alone.
pub(super) fn pull_of(lock: &Lock) -> Option<&str> {
    lock.token.split_once('.').filter(|(_, id)| *id == split_id(&lock.id).1).map(|(pull, _)| pull)
}

/// Rounded up, and no more than Lua counts with.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).min(1 << 50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_worth_something_for_its_own_message_alone() {
        let lock = |id: &str, token: &str| Lock { id: id.to_owned(), token: token.to_owned() };
        assert_eq!(pull_of(&lock("17-0", "abc.17-0")), Some("abc"));
        assert_eq!(pull_of(&lock("3.17-0", "abc.17-0")), Some("abc"));
        for (id, token) in [("17-1", "abc.17-0"), ("17-0", "abc"), ("17-0", ""), ("17-0", "stale")] {
            assert_eq!(pull_of(&lock(id, token)), None, "{token} for {id}");
        }
    }

    #[test]
    fn messages_that_are_alike_share_their_names() {
        let message = |key: Option<&str>| OutboundMessage {
            payload: "p".into(),
            key: key.map(str::to_owned),
            ..OutboundMessage::default()
        };
        let mut batch = Batch::new();
        for (index, key) in [None, None, Some("k"), Some("")].into_iter().enumerate() {
            batch.push(&message(key), index).unwrap();
        }
        batch.end_run();
        let expected = [
            "s", "2", "0", "1", "payload", "p", "p", "1", "0", "2", "payload", "key", "p", "k", "1", "0",
            "1", "payload", "p",
        ];
        assert_eq!(batch.args("s", None), expected.into_iter().fold(Args::new(), Args::arg));
        assert!(batch.is_plain);
        batch.push(&OutboundMessage { dedup_id: Some("d".to_owned()), ..message(None) }, 4).unwrap();
        assert!(!batch.is_plain);
    }
}
