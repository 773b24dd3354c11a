//! Processes that back up, restore and take out what was erased, and die between two steps.

use std::process::Output;

use chronos_db::{Collection, ItemId, Json, Route, json};

use super::backups::{assert_equal, holds};
use super::child::{self, was_killed};
use super::pairing::{Pairing, Store, TIMEOUT, on_pairings};

on_pairings!(embedded_local = EmbeddedLocal: a_backup_that_dies_at_any_step_is_gone_on_with, a_restore_that_dies_at_any_step_is_gone_on_with, what_was_erased_is_gone_though_whoever_takes_it_out_dies);
on_pairings!(standalone_local = StandaloneLocal: a_restore_that_dies_at_any_step_is_gone_on_with);
on_pairings!(replica_set_s3 = ReplicaSetS3: a_backup_that_dies_at_any_step_is_gone_on_with, a_restore_that_dies_at_any_step_is_gone_on_with);

const TASK: &str = "CHRONOS_TEST_BACKUPS";
/// Bytes of a document that is too long for the compression to make nothing of.
const LONG: usize = 300_000;

fn erasing() -> Json {
    json!({"logicalDelete": {"enabled": false}, "collectionMaps": {"users": {"indexedProps": ["n"]}}})
}

/// Versions for several files, and for several rounds of a restore.
async fn filled(store: &Store, name: &str) -> (Collection, Vec<ItemId>) {
    let users = store.collection(name);
    let mut ids = Vec::new();
    for n in 0..16 {
        ids.push(users.create(json!({"n": n, "text": format!("{n}-").repeat(LONG / 2)})).await.unwrap().id);
    }
    users.update(&ids[0], json!({"n": 100})).await.unwrap();
    (users, ids)
}

async fn run(p: &Pairing, what: Json, points: &str) -> Output {
    let test = concat!(module_path!(), "::one_process");
    child::run(p, test, TASK, &erasing(), points, what).await
}

async fn a_backup_that_dies_at_any_step_is_gone_on_with(p: &Pairing) {
    let steps = [
        ("backup.before_member", 1),
        ("backup.after_member", 0),
        ("backup.after_member", 2),
        ("backup.after_index", 0),
    ];
    for (at, (point, passes)) in steps.into_iter().enumerate() {
        let store = p.open_with(&erasing());
        let name = format!("users{at}");
        let (users, _) = filled(&store, &name).await;
        let dead = run(p, json!({"what": "backup", "of": name}), &format!("{point}=abort:{passes}")).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        let done = users.backup().await.unwrap();
        assert_eq!(done.cv, 16, "{point}");
        let listed =
            store.chronos.verify_backups(Route::runtime().tenant("acme").collection(&name)).await.unwrap();
        assert_eq!((listed.len(), listed[0].versions, listed[0].problems.len()), (1, 17, 0), "{point}");
        let copy = store.collection(&format!("copy{at}"));
        copy.restore_backup().of(&users).await.unwrap();
        assert_equal((&store, &users), (&store, &copy)).await;
    }
}

async fn a_restore_that_dies_at_any_step_is_gone_on_with(p: &Pairing) {
    let steps = [
        ("restore_backup.after_note", 0),
        ("restore_backup.after_objects", 0),
        ("restore_backup.after_numbers", 1),
        ("restore_backup.after_rows", 0),
        ("restore_backup.after_rows", 1),
        ("restore_backup.after_heads", 1),
        ("restore_backup.before_end", 0),
    ];
    let store = p.open_with(&erasing());
    let (users, _) = filled(&store, "users").await;
    users.backup().await.unwrap();
    for (at, (point, passes)) in steps.into_iter().enumerate() {
        let name = format!("copy{at}");
        let task = json!({"what": "restore", "of": "users", "into": name});
        let dead = run(p, task, &format!("{point}=abort:{passes}")).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        let copy = store.collection(&name);
        assert!(copy.create(json!({})).await.is_err(), "{point}: nobody writes before it is whole");
        copy.restore_backup().of(&users).await.unwrap();
        assert_equal((&store, &users), (&store, &copy)).await;
        copy.create(json!({"n": at})).await.unwrap();
    }
}

async fn what_was_erased_is_gone_though_whoever_takes_it_out_dies(p: &Pairing) {
    let steps =
        ["backup.after_index", "backup.after_rewrite", "backup.after_new_index", "backup.before_old_index"];
    for (at, point) in steps.into_iter().enumerate() {
        let store = p.open_with(&erasing());
        let users = store.collection(&format!("users{at}"));
        let folder = p.folder().join(format!("away{at}"));
        let marker = format!("word-of-{at}");
        let id = users.create(json!({"n": 1, "text": marker})).await.unwrap().id;
        users.create(json!({"n": 2})).await.unwrap();
        users.backup().to_folder(&folder).await.unwrap();
        assert!(holds(&folder, &marker));
        users.delete(&id).await.unwrap();
        assert_eq!(users.flush(TIMEOUT).await.unwrap(), 0);
        let task = json!({"what": "backup", "of": users.name(), "to": folder.to_str().unwrap()});
        let dead = run(p, task, &format!("{point}=abort")).await;
        assert!(was_killed(&dead), "{point} was never reached: {dead:?}");
        users.backup().to_folder(&folder).await.unwrap();
        let verify = store.chronos.verify_backups(Route::runtime().tenant("acme")).from_folder(&folder);
        assert!(verify.await.unwrap()[0].problems.is_empty(), "{point}");
        // A file that the dead one wrote and did not name has the others, and goes when it is a day old.
        assert!(!holds(&folder, &marker), "{point}");
    }
}

/// Does nothing in an ordinary run.
#[tokio::test]
async fn one_process() {
    let Some((task, chronos)) = child::task(TASK) else { return };
    let of = |name: &str| {
        let name = task[name].as_str().unwrap();
        chronos.with(Route::runtime().tenant("acme").collection(name)).unwrap()
    };
    let users = of("of");
    match task["what"].as_str().unwrap() {
        "backup" => {
            let mut backup = users.backup();
            if let Some(folder) = task["to"].as_str() {
                backup = backup.to_folder(folder);
            }
            backup.await.unwrap();
        }
        _ => drop(of("into").restore_backup().of(&users).await.unwrap()),
    }
    chronos.shutdown().await.unwrap();
}
