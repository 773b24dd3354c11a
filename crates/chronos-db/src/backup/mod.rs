//! Backups: every version of a collection with all that belongs to it, in a bucket or a folder of its own, and
//! collections built anew from there.
//!
//! `format.rs` says what lies in a backup, `member.rs` packs and reads its files, `catalog.rs` finds them in a
//! `location.rs`, `notes.rs` notes which locations there are, `numbers.rs` knows the numbers of a collection again.
//! `source.rs` reads versions with their payloads, `pending_segment.rs` writes some files and their index, `writer.rs` what came since the last backup.
//! `target.rs`, `restore.rs` and `restore_state.rs` build a collection, `copies.rs` marks where it is a copy beside its original, `check.rs` lists and verifies. `erase.rs` takes erased items out of a chain, `unnamed.rs`
//! out of files that no index names, `take_out.rs` out of all chains.
//! `actions/` is what callers see.

mod actions;
mod catalog;
mod check;
mod copies;
mod erase;
mod format;
mod location;
mod member;
mod notes;
mod numbers;
mod pending_segment;
mod restore;
mod restore_state;
mod source;
mod take_out;
mod target;
mod unnamed;
mod writer;

pub use self::actions::back_up::{BackUp, BackedUp};
pub use self::actions::list::{ListBackups, VerifyBackups};
pub use self::actions::restore::{RestoreBackup, RestoredBackup};
pub use self::catalog::BackupProblem;
pub use self::check::BackupInfo;
pub use self::format::BackupKind;
pub(crate) use self::take_out::take_out;
