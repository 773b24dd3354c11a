//! Records that carry copies of other records, their entities, which have collections of their own.

mod inserter;
mod mapping;
mod outcome;

pub(crate) use self::inserter::{Insertion, insert};
pub use self::mapping::EntityMapping;
pub use self::outcome::{
    EntityOperation, InsertedWithEntities, RecordWithEntities, SkippedEntity, WrittenEntity,
};
