//! One item, while its rows pass by.

use crate::documents::raw_bson;
use crate::records::model::{Head, Op, Row};
use bson::RawDocument;

/// The kind and the words.
pub(super) type Damage = (&'static str, String);

/// One item, while its rows pass by.
#[derive(Default)]
pub(super) struct Item {
    pub(super) newest: Option<Row>,
    pub(super) erasure: Option<Row>,
    /// The first version that has content.
    pub(super) contents: Option<i64>,
    /// The problem with an object that is there although the item was erased.
    pub(super) objects: Option<String>,
    /// By version.
    pub(super) damages: Vec<(i64, Damage)>,
}

impl Item {
    /// What is wrong with a version that is in the index and in a manifest.
    pub(super) fn compare(&mut self, row: &Row, copy: &Row) {
        if row.op.is_bare() {
            // Erased, and the manifest still has it.
            self.contents = self.contents.or(Some(row.ov));
        } else if !is_copy(row, copy) {
            let message = format!("a manifest says otherwise of version {} than its row", row.ov);
            self.damages.push((row.ov, ("different-copy", message)));
        }
    }

    /// Every version has to come, from the second on if `from_first` is not set.
    pub(super) fn step(&mut self, row: Row, damage: Option<Damage>, versioning: bool, from_first: bool) {
        let mut report = |kind, message| self.damages.push((row.ov, (kind, message)));
        match &self.newest {
            None if row.ov != 0 && from_first => {
                report("hole-in-ov", format!("the oldest version is {} instead of 0", row.ov));
            }
            None => {}
            Some(previous) => {
                if row.ov == previous.ov {
                    report("duplicate-ov", format!("two rows have version {}", row.ov));
                } else if row.ov != previous.ov + 1 && versioning {
                    report("hole-in-ov", format!("version {} follows version {}", row.ov, previous.ov));
                }
                if row.cv <= previous.cv {
                    report(
                        "cv-not-growing",
                        format!("collection version {} follows {}", row.cv, previous.cv),
                    );
                }
                if row.at <= previous.at {
                    report("at-not-growing", format!("{} follows {}", row.at, previous.at));
                }
            }
        }
        if row.op == Op::Erase {
            self.objects = damage.map(|(_, message)| message);
            self.erasure = Some(row.clone());
        } else if !row.op.is_bare() {
            self.contents = self.contents.or(Some(row.ov));
            self.damages.extend(damage.map(|damage| (row.ov, damage)));
        }
        self.newest = Some(row);
    }
}

pub(super) fn follows(head: &Head, row: &Row) -> bool {
    let (a, b) = (&head.meta.payload, &row.meta.payload);
    head.ov == row.ov
        && head.row.is_none_or(|id| id == row.row_id)
        && (row.op.is_bare()
            || (a.ov == b.ov
                && a.key == b.key
                && a.checksum == b.checksum
                && same_entry(&head.meta.indexed, &row.meta.indexed)))
        && head.deleted_at.is_some() == (row.op == Op::Delete || row.op.is_bare())
}

/// Whether a manifest says of a version what its row does. States may have moved on.
fn is_copy(row: &Row, copy: &Row) -> bool {
    let (a, b) = (&row.meta, &copy.meta);
    (row.row_id, row.cv, row.op, row.at) == (copy.row_id, copy.cv, copy.op, copy.at)
        && (&row.actor, &row.reason, &row.request_id) == (&copy.actor, &copy.reason, &copy.request_id)
        && (a.payload.ov, &a.payload.key, &a.payload.checksum)
            == (b.payload.ov, &b.payload.key, &b.payload.checksum)
        && same_entry(&a.indexed, &b.indexed)
}

/// Whether two index entries say the same; the legacy library may have written them in different orders.
fn same_entry(a: &RawDocument, b: &RawDocument) -> bool {
    a == b || matches!((raw_bson::decode(a), raw_bson::decode(b)), (Ok(a), Ok(b)) if a == b)
}
