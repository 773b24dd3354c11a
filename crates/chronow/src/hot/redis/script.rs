//! The scripts, and how they are called.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::LazyLock;

use redis::{Cmd, cmd};

/// A script that is sent once per server and then called by its hash.
pub(super) struct Script {
    hash: String,
    source: &'static str,
}

impl Script {
    fn new(source: &'static str) -> Self {
        Self { hash: redis::Script::new(source).get_hash().to_owned(), source }
    }

    pub(super) fn by_hash(&self, keys: &[String], args: &Args) -> Cmd {
        let mut cmd = cmd("EVALSHA");
        cmd.arg(&self.hash);
        args.append(keys, &mut cmd);
        cmd
    }

    pub(super) fn by_source(&self, keys: &[String], args: &Args) -> Cmd {
        let mut cmd = cmd("EVAL");
        cmd.arg(self.source);
        args.append(keys, &mut cmd);
        cmd
    }
}

/// Arguments in one buffer: a batch has thousands.
#[derive(Clone, Default, PartialEq)]
pub(super) struct Args {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

chronos_db::debug_some!(Args { ends });

impl Args {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn bytes(mut self, value: &[u8]) -> Self {
        self.push_bytes(value);
        self
    }

    pub(super) fn arg(mut self, value: impl Display) -> Self {
        self.push(value);
        self
    }

    /// An absent one is empty.
    pub(super) fn maybe(self, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.arg(value),
            None => self.bytes(b""),
        }
    }

    pub(super) fn push_bytes(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn push(&mut self, value: impl Display) {
        // Writing to a vector cannot fail.
        drop(write!(self.bytes, "{value}"));
        self.ends.push(self.bytes.len());
    }

    /// Adds all of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    fn append(&self, keys: &[String], cmd: &mut Cmd) {
        cmd.arg(keys.len()).arg(keys);
        let mut start = 0;
        for &end in &self.ends {
            cmd.arg(&self.bytes[start..end]);
            start = end;
        }
    }
}

macro_rules! scripts {
    (with library: $($topic:ident)*; with core: $($small:ident)*; alone: $($value:ident)*) => {
        $(pub(in super::super) static $topic: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(
            include_str!("scripts/core.lua"), include_str!("scripts/lib.lua"), include_str!(concat!("scripts/", stringify!($topic), ".lua"))
        )));)*
        $(pub(in super::super) static $small: LazyLock<Script> = LazyLock::new(|| Script::new(concat!(
            include_str!("scripts/core.lua"), include_str!(concat!("scripts/", stringify!($small), ".lua"))
        )));)*
        $(pub(in super::super) static $value: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!(concat!("scripts/", stringify!($value), ".lua"))));)*
    };
}

// Named as their files.
#[allow(non_upper_case_globals)]
pub(super) mod scripts {
    use super::{LazyLock, Script};

    scripts! {
        with library:
            settle_and_start arm cancel dead_get dead_ids dead_list dead_take fetch_deferred needed peek placed publish pull purge renew replay stats sub_count sub_delete sub_get
            sub_put sub_touch sub_whole gc topic_delete topic_put topic_whole upgrade;
        with core: publish_plain;
        alone: kv_expire kv_increment kv_remove kv_set
    }
}
