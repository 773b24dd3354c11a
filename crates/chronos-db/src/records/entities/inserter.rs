//! Inserting a record with its entities: what belongs together, and how it is held together.

use std::sync::Arc;

use super::mapping::EntityMapping;
use super::outcome::{EntityOperation, InsertedWithEntities, SkippedEntity, WrittenEntity};
use crate::records::Collection;
use crate::records::document::merge::merge;
use crate::records::model::Lineage;
use crate::records::view::Written;
use crate::records::write::{Piece, WriteOptions, write_one_by_one, write_together};
use crate::{Error, Json, Result};

/// A record that is to be inserted with its entities.
pub(crate) struct Insertion {
    pub(crate) collection: Collection,
    pub(crate) document: Json,
    pub(crate) mappings: Vec<EntityMapping>,
    pub(crate) lineage: Lineage,
    pub(crate) options: WriteOptions,
}

/// What a record comes with.
struct Parts {
    /// The entities, each once.
    pieces: Vec<Piece>,
    /// The properties, and which of the entities each is.
    properties: Vec<(String, usize)>,
    skipped: Vec<SkippedEntity>,
    /// The collections of the entities, which stay open as long as they are written.
    kept_in: Vec<Collection>,
}

/// Writes the entities and the record.
pub(crate) async fn insert(insertion: Insertion) -> Result<InsertedWithEntities> {
    let Parts { mut pieces, properties, skipped, kept_in: _open } = parts(&insertion).await?;
    let Insertion { collection, document, lineage, options, .. } = insertion;
    let (workers, scope) = (&collection.workers, collection.scope().await?);
    pieces.push(Piece::new_item(&workers.writer, scope, document, lineage, options));
    let atomic = in_transaction(&collection, &pieces).await?;
    // One piece needs no transaction, which not every store has.
    let mut written: Vec<Written> = if atomic && pieces.len() > 1 {
        write_together(pieces).await?.into_iter().map(Written::from).collect()
    } else {
        write_one_by_one(pieces).await?
    };
    let record = written.pop().ok_or_else(|| Error::database("the record was not written"))?;
    let entities = properties.into_iter().map(|(property, piece)| {
        let written = &written[piece];
        WrittenEntity { property, id: written.id, operation: EntityOperation::of(written) }
    });
    Ok(InsertedWithEntities { record, entities: entities.collect(), skipped, atomic })
}

/// The entities of a record.
async fn parts(insertion: &Insertion) -> Result<Parts> {
    let Insertion { collection, document, mappings, options, .. } = insertion;
    let record = document.as_object().ok_or_else(|| Error::validation("a document is a JSON object"))?;
    let mut parts =
        Parts { pieces: Vec::new(), properties: Vec::new(), skipped: Vec::new(), kept_in: Vec::new() };
    for mapping in mappings {
        let property = mapping.property.clone();
        let entity = match mapping.entity_in(record) {
            Ok(entity) => Json::Object(entity.clone()),
            Err(reason) => {
                parts.skipped.push(SkippedEntity { property, reason });
                continue;
            }
        };
        let kept_in = collection.related(mapping)?;
        let writer = &kept_in.workers.writer;
        let (scope, key) = (kept_in.scope().await?, &mapping.key_property);
        let piece = Piece::with_key(writer, scope, entity, key, record, options)?;
        // Two properties may be one entity, which then gets one version of both.
        let same = parts.pieces.iter().position(|other| {
            let claim = |piece: &Piece| piece.unique.as_ref().map(|unique| unique.claim.clone());
            Arc::ptr_eq(&other.writer, writer) && claim(other) == claim(&piece)
        });
        let at = match same {
            Some(at) => {
                merge(&mut parts.pieces[at].document, &piece.document);
                at
            }
            None => {
                parts.pieces.push(piece);
                parts.pieces.len() - 1
            }
        };
        parts.pieces[at].properties.push(property.clone());
        parts.properties.push((property, at));
        parts.kept_in.push(kept_in);
    }
    Ok(parts)
}

/// Whether one transaction holds the pieces together.
///
/// # Errors
/// `VALIDATION_ERROR` if the configuration says that one must, and none can.
async fn in_transaction(collection: &Collection, pieces: &[Piece]) -> Result<bool> {
    let index = &collection.workers.index;
    let wanted = index.settings.transactions;
    if pieces.len() == 1 {
        // One item is written at once, whatever the store can do.
        return Ok(true);
    }
    if !wanted.enabled {
        return Ok(false);
    }
    let in_one_store = pieces
        .iter()
        .all(|piece| std::ptr::addr_eq(Arc::as_ptr(piece.store()), Arc::as_ptr(&index.documents)));
    let possible = in_one_store && index.documents.capabilities().await?.transactions;
    if possible || wanted.auto_detect {
        return Ok(possible);
    }
    let why = if in_one_store {
        "the server has no transactions, as a standalone one hasn't"
    } else {
        "its entities are on other connections than the record"
    };
    Err(Error::validation(format!(
        "`transactions.autoDetect` is off, so the record and its entities must be written in one transaction, but {why}"
    )))
}
