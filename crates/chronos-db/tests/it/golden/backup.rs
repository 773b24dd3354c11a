//! A backup that an earlier version made is restored by this one.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chronos_db::config::{Base64Property, CollectionMap, Config};
use chronos_db::{Chronos, Collection, Op, Route, json};

fn open(folder: &Path) -> (Chronos, Collection) {
    let file = Base64Property::new("text/plain");
    let things = CollectionMap::default().indexed(["n"]).base64("file", file);
    let config = Config::embedded_builder(folder).collection("things", things).build().unwrap();
    let chronos = Chronos::open(config).unwrap();
    let things = chronos.with(Route::runtime().tenant("default").collection("things")).unwrap();
    (chronos, things)
}

#[tokio::test]
async fn a_backup_of_the_golden_files_is_restored_today() {
    let golden = super::folder().join("backup");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = std::fs::remove_dir_all(&golden);
        let dir = tempfile::tempdir().unwrap();
        let (chronos, things) = open(dir.path());
        let create = things.create(json!({"n": 1.5, "file": STANDARD.encode("a file")}));
        let id = create.actor("ann").reason("first").request_id("r").await.unwrap().id;
        things.enrich(&id, json!({"score": 7})).function_id("f@v1").await.unwrap();
        things.delete(&id).await.unwrap();
        things.backup().to_folder(&golden).await.unwrap();
        things.restore(&id).to_version(1).await.unwrap();
        things.create(json!({"n": "two"})).parent(&id, "things").await.unwrap();
        things.backup().to_folder(&golden).await.unwrap();
        chronos.shutdown().await.unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let (chronos, things) = open(dir.path());
    let restored = things.restore_backup().from_folder(&golden).await.unwrap();
    assert_eq!((restored.cv, restored.versions), (4, 5));
    let items = things.list().await.unwrap().items;
    let [first, second] = &items[..] else { panic!("{items:?}") };
    let history = things.history(&first.id).await.unwrap();
    let ops: Vec<Op> = history.iter().map(|version| version.op).collect();
    assert_eq!(ops, [Op::Create, Op::Update, Op::Delete, Op::Restore]);
    assert_eq!((history[0].actor.as_deref(), history[0].reason.as_deref()), (Some("ann"), Some("first")));
    assert_eq!(first.item["n"].to_string(), "1.5");
    assert_eq!(first.item["_system"]["functionIds"], json!(["f@v1"]));
    assert_eq!(second.item["_system"]["parentId"], first.id.to_string());
    assert!(things.verify().await.unwrap().is_clean());
    chronos.shutdown().await.unwrap();
}
