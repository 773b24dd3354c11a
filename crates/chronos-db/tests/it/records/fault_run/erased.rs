//! People of whom nothing is to be left.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bson::Document;
use chronos_db::{Collection, ItemId, Json, json};
use futures::TryStreamExt as _;
use test_support::SeededRandom;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::may_pass;
use super::weather::below;
use super::writers::filler;
use crate::records::pairing::{Pairing, Store};

/// Begins the words that only an erased item holds.
const MARK: &str = "word-of-the-erased-";

/// Creates items, writes them a few times, and erases most of them.
pub(super) async fn erase(
    people: Collection,
    ledger: Arc<Ledger>,
    random: SeededRandom,
    over: CancellationToken,
) {
    let who = below(&random, u64::MAX);
    for n in 0.. {
        tokio::time::sleep(Duration::from_millis(below(&random, 100))).await;
        if over.is_cancelled() {
            return;
        }
        let is_kept = n % 4 == 0;
        let words = if is_kept { "kept".to_owned() } else { format!("{MARK}{who:x}-{n}") };
        let document = |length| json!({ "body": filler(&words, length), "s": "open", "n": 1 });
        let created = people.create(document(500)).await;
        let Some(id) = noted(&ledger, created.map(|written| written.id)) else { continue };
        if is_kept {
            continue;
        }
        ledger.to_be_erased(id, &words);
        for length in [300, 4_000, 200, 600, 100, 250] {
            if noted(&ledger, people.update(&id, document(length)).await).is_none() {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(below(&random, 400))).await;
        try_to_erase(&people, &ledger, &id).await;
    }
}

fn noted<T>(ledger: &Ledger, result: chronos_db::Result<T>) -> Option<T> {
    if let Err(error) = &result {
        assert!(may_pass(error), "{error} ({error:?})");
        ledger.failed("people", error);
    }
    result.ok()
}

/// Who waits to be created is not there yet.
async fn try_to_erase(people: &Collection, ledger: &Ledger, id: &ItemId) {
    match people.erase(id).reason("law").await {
        Ok(_) => ledger.is_certified(id),
        Err(error) => {
            let is_unknown = error.kind() == chronos_db::ErrorKind::NotFound;
            assert!(is_unknown || may_pass(&error), "{error} ({error:?})");
            ledger.failed("erase", &error);
        }
    }
}

/// Erases who could not be erased during the day, also who was created unseen.
pub(super) async fn erase_the_rest(people: &Collection, ledger: &Ledger) {
    let listed: Vec<_> = people.list().include_deleted().stream().await.unwrap().try_collect().await.unwrap();
    let erased = ledger.erased();
    for view in listed {
        let is_certified = erased.get(&view.id).is_some_and(|(_, certified)| *certified);
        assert!(!is_certified, "{} is erased, and is listed", view.id);
        if view.item["body"].as_str().unwrap().starts_with(MARK) {
            people.erase(&view.id).reason("law").await.unwrap();
        }
    }
}

/// The bytes, or what they are when they are unpacked.
fn holds_the_mark(bytes: &[u8]) -> Option<String> {
    let mut plain = Vec::new();
    let unpacked = flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut plain).is_ok();
    let bytes = if unpacked { &plain } else { bytes };
    let at = bytes.windows(MARK.len()).position(|window| window == MARK.as_bytes())?;
    Some(String::from_utf8_lossy(&bytes[at..bytes.len().min(at + 50)]).into_owned())
}

/// No file, object or document holds a word of any of them.
pub(super) async fn are_nowhere(p: &Pairing, store: &Store, people: &Collection, config: &Json) {
    let mut found = Vec::new();
    in_files(p.folder(), &mut found);
    let bucket = store.bucket();
    let listed: Vec<_> = bucket.list("").try_collect().await.unwrap();
    for object in listed {
        let bytes = bucket.get(&object.key).await.unwrap().unwrap_or_default();
        found.extend(holds_the_mark(&bytes).map(|words| format!("object {}: {words}", object.key)));
    }
    if p.kind.is_mongo() {
        let uri = config["dbConnections"]["main"]["mongoUri"].as_str().unwrap();
        let database = mongodb::Client::with_uri_str(uri).await.unwrap().database(people.database());
        for name in database.list_collection_names().await.unwrap() {
            let documents = database.collection::<Document>(&name).find(bson::doc! {}).await.unwrap();
            let documents: Vec<Document> = documents.try_collect().await.unwrap();
            for document in documents {
                let bytes = bson::serialize_to_vec(&document).unwrap();
                found.extend(holds_the_mark(&bytes).map(|words| format!("{name}: {words}: {document}")));
            }
        }
    }
    assert_eq!(found, Vec::<String>::new(), "of people who were erased");
}

fn in_files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            in_files(&path, found);
        } else {
            let bytes = std::fs::read(&path).unwrap();
            found.extend(holds_the_mark(&bytes).map(|words| format!("{}: {words}", path.display())));
        }
    }
}
