//! What the index costs per version.

use std::time::Duration;

use bson::{Document, doc};

use crate::baseline::mongo::Baseline;
use crate::bench_store::{How, open};
use crate::measure::median;
use crate::report::Line;
use crate::stored::person;
use crate::{Context, Result, targets};

/// Enough versions for the server's blocks to fill.
const ITEMS: usize = 4_000;

pub(crate) async fn bytes(context: &Context) -> Result<Vec<Line>> {
    let (baseline, folder) = (Baseline::connect("metadata").await?, tempfile::tempdir_in(&context.dir)?);
    let db = open(&How { database: baseline.name(), objects: Some(folder.path()), ..How::default() })?;
    let created = (0..ITEMS).map(|number| {
        let people = db.people.clone();
        tokio::spawn(async move {
            let id = people.create(person(number, 50)).await?.id;
            people.update(&id, chronos_db::json!({ "age": number })).await
        })
    });
    for create in created.collect::<Vec<_>>() {
        create.await??;
    }
    let left = db.people.flush(Duration::from_secs(120)).await?.waiting;
    if left > 0 {
        return Err(format!("{left} versions are not stored").into());
    }
    db.chronos.shutdown().await?;
    let rows = baseline.newest(&baseline.rows(), doc! { "op": { "$ne": "VOID" } }, 2 * ITEMS as i64).await?;
    let mut beside = Vec::with_capacity(rows.len());
    let mut indexed = Vec::with_capacity(rows.len());
    let mut fields = Document::new();
    for row in &rows {
        let fields_of = row.get_document("metaIndexed")?.to_vec()?.len();
        beside.push((row.to_vec()?.len() - fields_of) as f64);
        indexed.push(fields_of as f64);
    }
    for (key, value) in rows.first().into_iter().flatten().filter(|(key, _)| *key != "metaIndexed") {
        let name = key.clone();
        fields.insert(name, i32::try_from(doc! { key: value }.to_vec()?.len() - 5)?);
    }
    let stats = storage(&baseline).await?;
    baseline.drop().await?;
    let on_disk = stats / (2 * ITEMS) as f64;
    Ok(vec![
        Line::value("metadata_bytes", "bytes/version", median(&beside), Some(targets::METADATA))
            .note("as", "BSON of the row without metaIndexed, after its payload was stored")
            .note("meta_indexed", median(&indexed))
            .note("by_field", chronos_db::bson_to_json(&bson::Bson::Document(fields))),
        Line::value("metadata_bytes_on_disk", "bytes/version", on_disk, Some(targets::METADATA)).note(
            "as",
            "the whole row with metaIndexed as MongoDB keeps it, compressed, without its indexes",
        ),
    ])
}

/// The bytes the rows take on disk: copied into a fresh collection, since what rows left when they shrank is
/// not given back.
async fn storage(baseline: &Baseline) -> Result<f64> {
    let copy = baseline.collection("copy");
    let rows = baseline.newest(&baseline.rows(), doc! { "op": { "$ne": "VOID" } }, 2 * ITEMS as i64).await?;
    baseline.load(&copy, rows.into_iter().map(Ok)).await?;
    baseline.checkpoint().await?;
    let stats = baseline.database.run_command(doc! { "collStats": copy.name() }).await?;
    let size = stats
        .get_i32("storageSize")
        .map(f64::from)
        .or_else(|_| stats.get_i64("storageSize").map(|size| size as f64));
    Ok(size.or_else(|_| stats.get_f64("storageSize"))?)
}
