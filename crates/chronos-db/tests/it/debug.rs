//! `Debug` shows which thing it is, and never a document, a payload or a secret.

use std::fmt::Debug;
use std::path::{Path, PathBuf};

use chronos_db::config::{Config, Database};
use chronos_db::documents::{Batch, Filter, Guard, Scan, Write, filter};
use chronos_db::messaging::Messaging;
use chronos_db::{Chronos, Route, json};
use regex::Regex;

const DOCUMENT: &str = "MARK-IN-A-DOCUMENT";
const FILTER: &str = "MARK-IN-A-FILTER";

fn shows_no_mark(what: &str, value: &dyn Debug) {
    let shown = format!("{value:?} {value:#?}");
    for mark in [DOCUMENT, FILTER] {
        assert!(!shown.contains(mark), "{what}: {shown}");
    }
    // Bytes are shown as numbers, which is no better.
    let [a, b, c] = [DOCUMENT.as_bytes()[0], DOCUMENT.as_bytes()[1], DOCUMENT.as_bytes()[2]];
    assert!(!shown.contains(&format!("{a}, {b}, {c}")), "{what}: {shown}");
}

#[tokio::test]
async fn no_handle_action_or_view_shows_a_document() {
    let folder = tempfile::tempdir().unwrap();
    let chronos = Chronos::open(Config::embedded(folder.path())).unwrap();
    let users = chronos.with(Route::runtime().tenant("default").collection("users")).unwrap();
    let document = json!({"text": DOCUMENT, "id": DOCUMENT});
    let id = users.create(&document).await.unwrap().id;
    let with = json!({"text": FILTER});
    let update = users.update(&id, &document);
    update.clone().await.unwrap();
    let view = users.get(&id).await.unwrap().unwrap();
    let page = users.list().await.unwrap();
    let lock = users.lock(&id).await.unwrap();
    let typed = users.typed::<chronos_db::Json>();
    let things: [(&str, &dyn Debug); 30] = [
        ("Chronos", &chronos),
        ("Collection", &users),
        ("Create", &users.create(&document)),
        ("Update", &update),
        ("Replace", &users.replace(&id, &document)),
        ("Enrich", &users.enrich(&id, &document)),
        ("SmartInsert", &users.smart_insert(&document, &["id"])),
        ("Delete", &users.delete(&id)),
        ("Erase", &users.erase(&id)),
        ("EraseWhere", &users.erase_where(with.clone())),
        ("ListCertificates", &users.certificates()),
        ("Get", &users.get(&id)),
        ("List", &users.list().filter(with.clone())),
        ("History", &users.history(&id)),
        ("versions", &users.history(&id).await.unwrap()),
        ("Restore", &users.restore(&id)),
        ("RestoreCollection", &users.restore_collection()),
        ("Lock", &users.lock(&id)),
        ("ItemLock", &lock),
        ("Verify", &users.verify()),
        ("RollUp", &users.roll_up()),
        ("Prune", &users.prune()),
        ("ListManifests", &users.manifests()),
        ("Import", &users.import("id")),
        ("Importer", &users.import("id").await.unwrap()),
        ("View", &view),
        ("Page", &page),
        ("TypedCollection", &typed),
        ("TypedView", &typed.get(&id).await.unwrap()),
        ("Page of a typed list", &typed.list().filter(with.clone()).await.unwrap()),
    ];
    for (name, thing) in things {
        shows_no_mark(name, thing);
    }
    assert!(format!("{users:?}").contains("users"), "{users:?}");
    lock.release().await.unwrap();
    chronos.shutdown().await.unwrap();
}

#[test]
fn no_write_guard_or_filter_of_a_store_shows_a_value() {
    let document = bson::doc! { "_id": DOCUMENT, "text": DOCUMENT };
    let guard = Guard::Equals { field: "text".to_owned(), value: DOCUMENT.into() };
    let mut batch = Batch::new();
    for write in [
        Write::insert(document.clone()),
        Write::put(document, guard.clone()),
        Write::Delete { id: DOCUMENT.into(), guard: guard.clone() },
    ] {
        shows_no_mark("Write", &write);
        batch.push(&chronos_db::documents::Namespace::new("d", "c"), write);
    }
    let given = json!({"a": FILTER, "b": {"$regex": FILTER}, "c": {"$in": [FILTER]}, "$or": [{"d": {"$elemMatch": {"e": FILTER}}}]});
    let filter: Filter = filter::parse(&given, &mut |path| Ok(path.to_owned())).unwrap();
    let things: [(&str, &dyn Debug); 4] = [
        ("Guard", &guard),
        ("Batch", &batch),
        ("Filter", &filter),
        ("Scan", &Scan { filter: filter.clone(), ..Scan::default() }),
    ];
    for (name, thing) in things {
        shows_no_mark(name, thing);
    }
}

#[tokio::test]
async fn no_message_or_shared_value_shows_its_content() {
    let config = Config::builder()
        .connection("here", "embedded::memory:")
        .database(Database::messaging("here", "chronos_messaging"));
    let chronos = Chronos::open(config.build().unwrap()).unwrap();
    let messaging: Messaging = chronos.messaging("default").unwrap();
    let value = json!({"text": DOCUMENT});
    messaging.messages().save("t", "1", value.clone()).headers(value.clone()).await.unwrap();
    messaging.dead_letters().save("t", "1", value.clone()).await.unwrap();
    messaging.shared().save("n", "k", value.clone()).await.unwrap();
    let things: [(&str, &dyn Debug); 7] = [
        ("Messaging", &messaging),
        ("SaveMessage", &messaging.messages().save("t", "2", value.clone())),
        ("Message", &messaging.messages().get("t", "1").await.unwrap()),
        ("messages", &messaging.messages().list("t").await.unwrap()),
        ("SaveDeadLetter", &messaging.dead_letters().save("t", "2", value.clone())),
        ("DeadLetter", &messaging.dead_letters().get("t", "1").await.unwrap()),
        ("SharedValue", &messaging.shared().load("n", "k").await.unwrap()),
    ];
    for (name, thing) in things {
        shows_no_mark(name, thing);
    }
    chronos.shutdown().await.unwrap();
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The body of a type that begins at the bracket at `from`.
fn body(text: &str, from: usize) -> &str {
    let mut open = 0;
    for (at, byte) in text.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' => open += 1,
            b'}' | b')' => open -= 1,
            _ => continue,
        }
        if open == 0 {
            return &text[from..at];
        }
    }
    &text[from..]
}

/// A new type that holds documents, payloads, stored values or caches has to say by `debug_some!` what its
/// `Debug` shows.
#[test]
fn no_type_that_holds_documents_or_bytes_derives_debug() {
    let derived =
        Regex::new(r"#\[derive\(([^)]*)\)\]\s*(?:#\[[^\]]*\]\s*|///[^\n]*\s*)*(?:pub(?:\([a-z]+\))? )?(?:struct|enum) (\w+)[^{;(]*[{(]")
            .unwrap();
    let holds =
        Regex::new(r"\b(Json|Map|Bytes|Document|Bson|RawDocument|RawDocumentBuf|Cache)\b|Vec<u8>").unwrap();
    let comment = Regex::new(r"//[^\n]*").unwrap();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    sources(&crates.join("chronos-db/src"), &mut files);
    sources(&crates.join("chronow/src"), &mut files);
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "testing")) {
        let text = std::fs::read_to_string(file).unwrap();
        for found in derived.captures_iter(&text) {
            if found[1].contains("Debug") {
                seen += 1;
                let body = comment.replace_all(body(&text, found.get(0).unwrap().end() - 1), "").into_owned();
                if let Some(held) = holds.find(&body) {
                    wrong.push(format!("{}: {} holds a {}", file.display(), &found[2], held.as_str()));
                }
            }
        }
    }
    assert!(seen > 100, "{seen} types");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
