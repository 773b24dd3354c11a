//! How documents are named. Numbers are padded, so that the order of names is that of numbers.

use chronos_db::documents::Filter;
use chronos_db::documents::filter::Test;

use crate::{Scope, TopicName};

/// The id of the message at a sequence number.
pub(super) fn message_id(sequence: i64) -> String {
    format!("{sequence:016}")
}

/// The sequence number of an id that is one of ours.
pub(super) fn sequence_of(id: &str) -> Option<i64> {
    (id.len() == 16 && id.bytes().all(|b| b.is_ascii_digit())).then(|| id.parse().ok()).flatten()
}

pub(super) fn chunk_id(topic: &str, last: i64) -> String {
    format!("{topic}/{last:016}")
}

pub(super) fn topic_key(topic: &TopicName) -> String {
    format!("t/{}:{}:{}", topic.scope().tenant(), topic.scope().namespace(), topic.name())
}

pub(super) fn topic_prefix(scope: &Scope) -> String {
    format!("t/{}:{}:", scope.tenant(), scope.namespace())
}

pub(super) fn subscription_key(subscription: &str) -> String {
    format!("s/{subscription}")
}

pub(super) fn cursor_key(subscription: &str) -> String {
    format!("c/{subscription}")
}

/// The counts of a subscription or of a topic.
pub(super) fn counters_key(owner: &str) -> String {
    format!("y/{owner}")
}

/// The topic's sequence.
pub(super) fn sequence_key(topic: &str) -> String {
    format!("n/{topic}")
}

/// The sequence that moves when something other than a publish makes messages of a subscription due.
pub(super) fn signal_key(subscription: &str) -> String {
    format!("g/{subscription}")
}

/// `_id`s that begin with `prefix`, and are more than it.
pub(super) fn with_prefix(prefix: &str) -> Filter {
    Filter::Field("_id".to_owned(), Test::Gte(prefix.into())).and(match after_prefix(prefix) {
        Some(end) => Filter::Field("_id".to_owned(), Test::Lt(end.into())),
        None => Filter::All,
    })
}

/// The smallest text above all that begin with `prefix`, if there is one.
pub(super) fn after_prefix(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // Surrogates are not characters; the next one behind them is U+E000.
        let next = if last == '\u{D7FF}' { Some('\u{E000}') } else { char::from_u32(u32::from(last) + 1) };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// Chunks of a topic behind a sequence number, up to another.
pub(super) fn chunks_between(topic: &str, after: i64, to: i64) -> Filter {
    Filter::gt("_id", chunk_id(topic, after)).and(Filter::lte("_id", chunk_id(topic, to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_as_their_sequences_do() {
        assert!(message_id(9) < message_id(10));
        assert_eq!(sequence_of(&message_id(123)), Some(123));
        assert_eq!(sequence_of("1700000000000-0"), None);
    }

    #[test]
    fn a_prefix_ends_before_the_next_text() {
        assert_eq!(after_prefix("ab").as_deref(), Some("ac"));
        assert_eq!(after_prefix("a\u{D7FF}").as_deref(), Some("a\u{E000}"));
        assert_eq!(after_prefix("a\u{10FFFF}").as_deref(), Some("b"));
        assert_eq!(after_prefix("\u{10FFFF}"), None);
    }
}
