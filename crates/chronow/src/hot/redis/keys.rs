//! The only place where keys and channels are made: `{prefix}{tenant}:{namespace}:{kind}:{name}`, names are
//! checked to hold none of the marks in it.
//!
//! All keys of a topic's shard begin with that of its stream, whose braces make Redis Cluster put them into
//! one slot. The scripts append the rest themselves, but every key that one may touch is given to it, and
//! [`NEVER`] beside them.

use crate::{Scope, TopicName};

/// A key that no one ever writes. While a slot moves, its old and its new node run a script only if they have
/// all the keys that are given to it, but then look again before each command inside it: a script that has
/// just removed the last element of a key, and the key with it, would end there, half done. With a key that
/// is on no node both refuse the call (TRYAGAIN, or ASK to a node that says so) before anything is done,
/// until the whole slot is on one node.
const NEVER: &str = ":never";
/// What a publish that has nothing to look up touches.
const FEW: [&str; 6] = ["", NEVER, ":meta", ":held-order", ":scheduled", ":waiting"];
/// What a script about a shard may touch.
const SHARD: [&str; 14] = [
    "",
    NEVER,
    ":meta",
    ":floors",
    ":idle",
    ":held",
    ":held-order",
    ":held-refs",
    ":scheduled",
    ":scheduled-messages",
    ":scheduled-ids",
    ":dedup",
    ":dedup-at",
    ":waiting",
];
/// What a script about a subscription may touch beside that.
const SUBSCRIPTION: [&str; 11] = [
    "config",
    "messages",
    "order",
    "locks",
    "retry",
    "blocked",
    "deferred",
    "keys",
    "dlq",
    "dlq-order",
    "stats",
];

#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The stream of a topic's shard.
    pub(super) fn stream(&self, topic: &TopicName, shard: u16) -> String {
        let (tenant, namespace) = (topic.scope().tenant(), topic.scope().namespace());
        let shard = if shard == 0 { String::new() } else { format!("#{shard}") };
        format!("{}{{{tenant}:{namespace}:topic:{}{shard}}}", self.prefix, topic.name())
    }

    /// The options of a topic's shard.
    pub(super) fn meta(&self, topic: &TopicName, shard: u16) -> String {
        self.stream(topic, shard) + ":meta"
    }

    /// What a publish may touch that has nothing to look up.
    pub(super) fn few(&self, topic: &TopicName, shard: u16) -> Vec<String> {
        let stream = self.stream(topic, shard);
        FEW.iter().map(|rest| [&stream, *rest].concat()).collect()
    }

    /// What a script about a topic's shard and some of its subscriptions may touch.
    pub(super) fn shard<T: AsRef<str>>(
        &self,
        topic: &TopicName,
        shard: u16,
        subscriptions: &[T],
    ) -> Vec<String> {
        let stream = self.stream(topic, shard);
        let mut keys = Vec::with_capacity(SHARD.len() + subscriptions.len() * SUBSCRIPTION.len());
        keys.extend(SHARD.iter().map(|rest| [&stream, *rest].concat()));
        for name in subscriptions {
            keys.extend(
                SUBSCRIPTION.iter().map(|rest| [&stream, ":sub:", name.as_ref(), ":", rest].concat()),
            );
        }
        keys
    }

    /// The subscriptions of a shard, with the positions up to which they need nothing.
    pub(super) fn floors(&self, topic: &TopicName, shard: u16) -> String {
        self.stream(topic, shard) + ":floors"
    }

    /// The messages held beside a shard's stream.
    pub(super) fn held(&self, topic: &TopicName, shard: u16) -> String {
        self.stream(topic, shard) + ":held-order"
    }

    /// The subscriptions of a shard that has the shape of earlier versions.
    pub(super) fn old_subscriptions(&self, topic: &TopicName, shard: u16) -> String {
        self.stream(topic, shard) + ":subs"
    }

    /// The channel on which a process hears that one of its consumers has something to pull. In a cluster it
    /// says so: there nobody knows who hears it.
    pub(super) fn wake(&self, process: &str, cluster: bool) -> String {
        format!("{}wake:{}{process}", self.prefix, if cluster { "*" } else { "" })
    }

    /// The names of a scope's topics.
    pub(super) fn topics(&self, scope: &Scope) -> String {
        format!("{}{}:{}:topics", self.prefix, scope.tenant(), scope.namespace())
    }

    /// A value of shared memory.
    pub(super) fn value(&self, scope: &Scope, key: &str) -> String {
        format!("{}{}:{}:sm:{key}", self.prefix, scope.tenant(), scope.namespace())
    }

    /// The channel of changes of a scope's shared memory.
    pub(super) fn changes(&self, scope: &Scope) -> String {
        format!("{}{}:{}:sm-changes", self.prefix, scope.tenant(), scope.namespace())
    }

    /// A pattern for the values whose keys begin with `prefix`, which is taken literally.
    pub(super) fn pattern(&self, scope: &Scope, prefix: &str) -> String {
        let mut pattern = String::new();
        for c in self.value(scope, prefix).chars() {
            if matches!(c, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('*');
        pattern
    }
}

/// The shard in an id as users see it, and the id inside the shard.
pub(super) fn split_id(id: &str) -> (u16, &str) {
    match id.split_once('.') {
        Some((shard, inner)) => shard.parse().map_or((0, id), |shard| (shard, inner)),
        None => (0, id),
    }
}

/// Of ids as users see them those of one shard, as they are inside it.
pub(super) fn ids_of_shard(ids: &[String], shard: u16) -> Vec<&str> {
    ids.iter().map(|id| split_id(id)).filter(|(own, _)| *own == shard).map(|(_, id)| id).collect()
}

/// An id as users see it.
pub(super) fn join_id(shard: u16, id: &str) -> String {
    if shard == 0 { id.to_owned() } else { format!("{shard}.{id}") }
}

/// The shard of an ordering key or dedup id: the same in every process and version, because order depends on
/// it (FNV-1a).
pub(super) fn shard_of(text: &str, shards: u16) -> u16 {
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The remainder of a 16-bit divisor fits.
    u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_shares_a_slot_and_shards_do_not() {
        let scope = Scope::new("t", "ns").unwrap();
        let topic = TopicName::new(&scope, "orders").unwrap();
        let keys = Keys::new("cw:");
        assert_eq!(keys.stream(&topic, 0), "cw:{t:ns:topic:orders}");
        assert_eq!(keys.stream(&topic, 2), "cw:{t:ns:topic:orders#2}");
        assert_eq!(keys.value(&scope, "a:b"), "cw:t:ns:sm:a:b");
    }

    #[test]
    fn every_script_of_a_shard_is_given_the_key_that_no_one_writes() {
        let scope = Scope::new("t", "ns").unwrap();
        let topic = TopicName::new(&scope, "orders").unwrap();
        let keys = Keys::new("cw:");
        for given in
            [keys.few(&topic, 2), keys.shard::<&str>(&topic, 2, &[]), keys.shard(&topic, 2, &["a", "b"])]
        {
            assert!(given.contains(&"cw:{t:ns:topic:orders#2}:never".to_owned()), "{given:?}");
        }
    }

    #[test]
    fn a_prefix_with_wildcards_is_taken_literally() {
        let scope = Scope::new("t", "ns").unwrap();
        assert_eq!(Keys::new("cw:").pattern(&scope, "a*[b]?\\"), "cw:t:ns:sm:a\\*\\[b\\]\\?\\\\*");
    }

    #[test]
    fn ids_carry_the_shard_unless_it_is_the_first() {
        for (shard, inner, id) in [(0, "17-0", "17-0"), (3, "17-0", "3.17-0")] {
            assert_eq!(join_id(shard, inner), id);
            assert_eq!(split_id(id), (shard, inner));
        }
        assert_eq!(split_id("abc.def"), (0, "abc.def"));
    }

    #[test]
    fn the_shard_of_a_key_never_changes() {
        assert_eq!(shard_of("customer-17", 4), shard_of("customer-17", 4));
        assert_eq!(shard_of("", 1), 0);
        assert_eq!(
            (0..1000).map(|i| shard_of(&format!("k{i}"), 8)).collect::<std::collections::BTreeSet<_>>().len(),
            8
        );
    }
}
