//! The actions of backups: one file each.

pub(super) mod back_up;
pub(super) mod list;
pub(super) mod restore;
