//! Erasing items for good, wherever their data is, and certifying it.
//!
//! The records do the most: the ERASE row makes the item absent to every reader, and `records/storage/eraser.rs`
//! takes away what is below it. Here is what lies outside of them (`beside.rs`), items that wait to be created
//! (`queued.rs`), the end (`finish.rs`) and the
//! actions, a file each. Every step may be taken again, by any process: the record of the erasure says what was
//! counted, and while it names the item something is left to do (`resume.rs`, which workers call).

mod beside;
mod certificate;
mod erase;
mod erase_where;
mod finish;
mod hard_delete;
mod list;
mod queued;
mod resume;

pub use self::certificate::Certificate;
pub use self::erase::Erase;
pub use self::erase_where::EraseWhere;
pub use self::hard_delete::{HardDelete, HardDeleted};
pub use self::list::ListCertificates;
pub(crate) use self::resume::resume;
