//! The shapes of manifests.

use std::time::Duration;

use chronos_db::config::Retention;
use chronos_db::{Json as Value, json};

use super::extended::to_extended;
use super::{Stage, check, config};

/// Rows that left the index: which manifests there are, what is said of each, and the lines of one. How small they
/// are packed is not pinned.
#[tokio::test]
async fn the_shapes_of_a_manifest_are_those_of_the_golden_file() {
    let dir = tempfile::tempdir().unwrap();
    let bounds = Retention::default().max_per_item(1);
    let stage = Stage::new(config(dir.path()).retention(bounds), 1);
    let file = "VGhlIHF1aWNrIGJyb3duIGZveA==";
    let item =
        stage.things.create(json!({ "email": "a@example.org", "ratio": 1.50, "file": file })).await.unwrap();
    stage.flush_and_tick().await;
    stage.things.update(&item.id, json!({ "status": "active" })).actor("ann").reason("why").await.unwrap();
    stage.flush_and_tick().await;
    stage.things.delete(&item.id).await.unwrap();
    stage.flush_and_tick().await;
    stage.clock.advance(Duration::from_secs(3_600));
    stage.things.roll_up().await.unwrap();
    let mut manifests = stage.rows("manifests").await;
    for document in &mut manifests {
        for packed in ["bytes", "sha256"] {
            if document.contains_key(packed) {
                document.insert(packed, "");
            }
        }
        if let Ok((key, _)) = document.get_str("_id").map(|id| id.rsplit_once('#').unwrap_or((id, ""))) {
            let key = key.to_owned();
            document.insert("_id", key);
        }
        if let Ok(in_use) = document.get_array_mut("manifests") {
            let in_use = in_use.iter_mut().filter_map(bson::Bson::as_document_mut);
            in_use.for_each(|one| drop(one.insert("id", "")));
        }
    }
    let key = stage.things.manifests().await.unwrap()[0].key.clone();
    let mut lines = String::new();
    let bytes = stage.bucket.get(&key).await.unwrap().unwrap();
    std::io::Read::read_to_string(&mut flate2::read::MultiGzDecoder::new(&bytes[..]), &mut lines).unwrap();
    let lines: Value = lines.lines().map(|line| Value::parse(line).unwrap()).collect();
    let manifests: Value = manifests.into_iter().map(|document| to_extended(&document.into())).collect();
    check("manifest", &json!({ "documents": { "things_manifests": manifests }, "objects": { key: lines } }));
    stage.chronos.shutdown().await.unwrap();
}
