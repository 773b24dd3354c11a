//! The one write path: from a change to its committed version.
//!
//! `change` is what a caller wants, `writer` reads the head and begins anew where another was faster,
//! `check` tells what is wrong without a store, `prepare` makes the change ready (`own_tenant` has documents
//! say whose they are), `upload` stores what is too big to ride, `commit` inserts the row.
//! `piece` is one of several changes that belong together: `together` commits them in one transaction,
//! `one_by_one` one after the other, and restores what was changed before a failure.
//! `watermark`, `past` and `close_past` know up to where the numbers are settled; `schema` is what has to be
//! there before.

mod call;
pub(crate) mod change;
mod check;
mod close_past;
pub(crate) mod commit;
pub(crate) mod identity;
mod keyed_mutex;
pub(crate) mod lock;
mod one_by_one;
mod outcome;
mod own_tenant;
mod past;
mod piece;
mod prepare;
mod ready;
pub(crate) mod schema;
mod smart_insert;
mod together;
mod unique;
mod upload;
pub(crate) mod watermark;
mod writer;

pub(crate) use self::call::WriteCall;
pub(crate) use self::change::{Change, Request, WriteOptions};
pub(crate) use self::identity::Identity;
pub(crate) use self::keyed_mutex::KeyedMutex;
pub(crate) use self::one_by_one::write_one_by_one;
pub(crate) use self::outcome::WriteOutcome;
pub(crate) use self::piece::Piece;
pub(crate) use self::prepare::{no_past, not_kept};
pub(crate) use self::together::write_together;
pub(crate) use self::unique::json_at;
pub(crate) use self::writer::Writer;
