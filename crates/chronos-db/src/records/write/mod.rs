//! The one write path: from a change to its committed version.
//!
//! `change` is what a caller wants, `writer` reads the head and begins anew where another was faster,
//! `check` tells what is wrong without a store, `prepare` makes the change ready, `upload` stores what is too big to ride, `commit` inserts the row.
//! `watermark`, `past` and `settle` know up to where the numbers are settled; `schema` is what has to be
//! there before.

mod call;
pub(crate) mod change;
mod check;
pub(crate) mod commit;
pub(crate) mod identity;
mod keyed_mutex;
pub(crate) mod lock;
mod outcome;
mod past;
mod prepare;
mod ready;
pub(crate) mod schema;
mod settle;
mod smart_insert;
mod unique;
mod upload;
pub(crate) mod watermark;
mod writer;

pub(crate) use self::call::WriteCall;
pub(crate) use self::change::{Change, Request, WriteOptions};
pub(crate) use self::identity::Identity;
pub(crate) use self::keyed_mutex::KeyedMutex;
pub(crate) use self::outcome::WriteOutcome;
pub(crate) use self::prepare::not_kept;
pub(crate) use self::writer::Writer;
