//! One item and one collection, through every command.

use chronos_db::{Json, json};

use crate::cli::Cli;

const ANN: &str = "email=ann@example.org";

/// Her document at version 0, with its number as it was written.
fn ann() -> Json {
    Json::parse(r#"{"email": "ann@example.org", "score": 1.50}"#).unwrap()
}

/// A folder with one user at version 1.
fn with_ann() -> (Cli, String) {
    let cli = Cli::new();
    let made = cli
        .run(&[
            "create",
            "-c",
            "users",
            r#"{"email": "ann@example.org", "score": 1.50}"#,
            "--actor",
            "signup",
        ])
        .value();
    cli.run(&["update", "-c", "users", ANN, r#"{"plan": {"name": "pro"}}"#, "--reason", "paid"]).value();
    (cli, made["id"].as_str().unwrap().to_owned())
}

/// A view's document without `_system`.
fn document(view: &Json) -> Json {
    let mut document = view["item"].clone();
    document.as_object_mut().unwrap().remove("_system");
    document
}

fn exported(cli: &Cli, args: &[&str]) -> Vec<Json> {
    cli.run(&[&["export", "-c", "users"], args].concat()).lines()
}

#[test]
fn an_item_is_created_from_text_a_file_or_standard_input() {
    let cli = Cli::new();
    cli.write("user.json", r#"{"name": "file"}"#);
    let made = cli.run(&["create", "-c", "users", r#"{"name": "text"}"#]).value();
    assert_eq!(
        (&made["ov"], &made["cv"], &made["changed"], &made["created"]),
        (&json!(0), &json!(0), &json!(true), &json!(true))
    );
    cli.run(&["create", "-c", "users", "user.json"]).value();
    let dated = cli
        .run_with(&["create", "-c", "users", "-", "--at", "2020-02-29T12:00:00Z"], r#"{"name": "stdin"}"#)
        .value();
    assert_eq!(dated["at"], "2020-02-29T12:00:00.000Z");
    let mut names: Vec<String> =
        exported(&cli, &[]).iter().map(|document| document["name"].as_str().unwrap().to_owned()).collect();
    names.sort();
    assert_eq!(names, ["file", "stdin", "text"]);
}

#[test]
fn an_item_is_named_by_its_id_or_by_a_property() {
    let (cli, id) = with_ann();
    let by_id = cli.run(&["get", "-c", "users", &id]).value();
    assert_eq!(by_id, cli.run(&["get", "-c", "users", ANN]).value());
    let mut expected = ann();
    expected["plan"] = json!({"name": "pro"});
    assert_eq!(document(&by_id), expected);
    assert_eq!(by_id, cli.run(&["get", "-c", "users", "plan.name=pro"]).value());
    assert_eq!(
        by_id,
        cli.run(&["get", "-c", "users", "score=1.5"]).value(),
        "a number is found by what it reads as"
    );
    cli.run(&["create", "-c", "users", r#"{"email": "ann@example.org"}"#]).value();
    let several = cli.run(&["get", "-c", "users", ANN]);
    assert!(several.failed(2).contains("several live items have email=ann@example.org"), "{several:?}");
}

#[test]
fn the_past_is_read_by_version_by_time_and_by_version_of_the_collection() {
    let (cli, id) = with_ann();
    let first = ann();
    let history = cli.run(&["history", "-c", "users", &id]).lines();
    let at = history[0]["at"].as_str().unwrap();
    for past in [["--ov", "0"], ["--at", at], ["--cv", "0"]] {
        let view = cli.run(&[&["get", "-c", "users", &id], &past[..]].concat()).value();
        assert_eq!((document(&view), &view["ov"]), (first.clone(), &json!(0)), "{past:?}");
    }
    for past in [["--at", at], ["--cv", "0"]] {
        assert_eq!(exported(&cli, &past), std::slice::from_ref(&first));
        let listed = cli.run(&[&["list", "-c", "users"], &past[..]].concat()).lines();
        assert_eq!(document(&listed[0]), first);
    }
    assert_eq!(exported(&cli, &["--at", "1999-12-31"]), Vec::<Json>::new());
    assert!(cli.run(&["get", "-c", "users", &id, "--ov", "7"]).failed(1).starts_with("error: NOT_FOUND"));
    let seen = cli.run(&["get", "-c", "users", &id, "--project", "email"]).value();
    assert_eq!(seen["item"], json!({"email": "ann@example.org"}));
}

#[test]
fn a_history_says_what_when_who_and_why() {
    let (cli, id) = with_ann();
    let versions = cli.run(&["history", "-c", "users", ANN]).lines();
    let said: Vec<_> = versions
        .iter()
        .map(|v| (v["ov"].clone(), v["op"].clone(), v["actor"].clone(), v["reason"].clone()))
        .collect();
    let expected = [
        (json!(0), json!("CREATE"), json!("signup"), Json::Null),
        (json!(1), json!("UPDATE"), Json::Null, json!("paid")),
    ];
    assert_eq!(said, expected);
    let newest = cli.run(&["history", "-c", "users", &id, "--newest-first"]).lines();
    assert_eq!(newest.into_iter().rev().collect::<Vec<_>>(), versions);
}

#[test]
fn a_diff_names_what_changed_between_versions_or_times() {
    let (cli, id) = with_ann();
    cli.run(&["replace", "-c", "users", &id, r#"{"email": "ann@example.org", "plan": {"name": "free"}}"#])
        .value();
    let diff = cli.run(&["diff", "-c", "users", ANN, "0", "1"]).value();
    assert_eq!(diff["id"], id);
    assert_eq!((&diff["from"]["ov"], &diff["to"]["ov"]), (&json!(0), &json!(1)));
    assert_eq!(diff["changes"], json!([{"path": "/plan", "op": "added", "to": {"name": "pro"}}]));
    let latest = cli.run(&["diff", "-c", "users", &id, "1"]).value();
    let changes = json!([
        {"path": "/score", "op": "removed", "from": ann()["score"]},
        {"path": "/plan/name", "op": "changed", "from": "pro", "to": "free"},
    ]);
    assert_eq!(latest["changes"], changes);
    let times = [&diff["from"]["at"], &latest["to"]["at"]].map(|at| at.as_str().unwrap());
    let by_time =
        cli.run(&["diff", "-c", "users", &id, "--from-time", times[0], "--to-time", times[1]]).value();
    assert_eq!((&by_time["from"]["ov"], &by_time["to"]["ov"]), (&json!(0), &json!(2)));
    assert!(cli.run(&["diff", "-c", "users", &id, "0", "9"]).failed(1).contains("no version 9"));
    assert!(
        cli.run(&["diff", "-c", "users", &id, "--from-time", "1999-12-31"])
            .failed(1)
            .contains("did not exist at 1999-12-31")
    );
}

#[test]
fn a_writer_who_expects_another_version_changes_nothing() {
    let (cli, id) = with_ann();
    for command in ["update", "replace", "enrich"] {
        let refused = cli.run(&[command, "-c", "users", &id, "{}", "--expect-ov", "0"]);
        assert!(refused.failed(1).starts_with("error: OPTIMISTIC_LOCK"), "{refused:?}");
    }
    assert!(
        cli.run(&["delete", "-c", "users", &id, "--expect-ov", "0"])
            .failed(1)
            .starts_with("error: OPTIMISTIC_LOCK")
    );
    assert!(
        cli.run(&["restore", "-c", "users", &id, "--ov", "0", "--expect-ov", "0"])
            .failed(1)
            .starts_with("error: OPTIMISTIC_LOCK")
    );
    assert_eq!(cli.run(&["verify", "-c", "users"]).value()["versions"], 2);
    assert_eq!(cli.run(&["update", "-c", "users", &id, r#"{"a": 1}"#, "--expect-ov", "1"]).value()["ov"], 2);
}

#[test]
fn a_deleted_item_is_absent_has_a_history_and_comes_back() {
    let (cli, id) = with_ann();
    let deleted = cli.run(&["delete", "-c", "users", ANN, "--actor", "admin"]).value();
    assert_eq!(deleted["ov"], 2);
    assert!(cli.run(&["get", "-c", "users", ANN]).failed(1).starts_with("error: NOT_FOUND"));
    assert!(cli.run(&["get", "-c", "users", &id]).failed(1).starts_with("error: NOT_FOUND"));
    assert_eq!(exported(&cli, &[]), Vec::<Json>::new());
    assert_eq!(
        cli.run(&["get", "-c", "users", ANN, "--include-deleted"]).value()["deletedAt"],
        deleted["at"]
    );
    assert_eq!(cli.run(&["list", "-c", "users", "--include-deleted"]).lines().len(), 1);
    assert_eq!(cli.run(&["history", "-c", "users", ANN]).lines().len(), 3);
    assert_eq!(cli.run(&["diff", "-c", "users", ANN, "1", "2"]).value()["to"]["deleted"], true);
    let restored = cli
        .run(&["restore", "-c", "users", ANN, "--ov", "0", "--actor", "admin", "--reason", "by mistake"])
        .value();
    assert_eq!(restored["ov"], 3);
    assert_eq!(exported(&cli, &[]), [ann()]);
    let at = deleted["at"].as_str().unwrap();
    assert!(cli.run(&["restore", "-c", "users", ANN, "--at", at]).failed(2).contains("deletion"));
}

#[test]
fn an_enrichment_merges_and_remembers_its_function() {
    let (cli, id) = with_ann();
    let patches = r#"[{"tags": ["a"]}, {"tags": ["b", "a"], "plan": {"since": 2024}}]"#;
    cli.run(&["enrich", "-c", "users", ANN, patches, "--function-id", "tagger@1"]).value();
    let view = cli.run(&["get", "-c", "users", &id]).value();
    assert_eq!(view["item"]["tags"], json!(["a", "b"]));
    assert_eq!(view["item"]["plan"], json!({"name": "pro", "since": 2024}));
    assert_eq!(view["item"]["_system"]["functionIds"], json!(["tagger@1"]));
    let again = cli.run(&["enrich", "-c", "users", ANN, patches, "--function-id", "tagger@1"]).value();
    assert_eq!((&again["changed"], &again["ov"]), (&json!(false), &json!(2)));
}

#[test]
fn a_smart_insert_enriches_who_is_there_and_creates_who_is_not() {
    let (cli, id) = with_ann();
    let insert = |document| {
        cli.run(&["smart-insert", "-c", "users", document, "--unique", "email", "--function-id", "crm@1"])
            .value()
    };
    let known = insert(r#"{"email": "ann@example.org", "vip": true}"#);
    assert_eq!((&known["id"], &known["created"]), (&json!(id), &json!(false)));
    let new = insert(r#"{"email": "bob@example.org"}"#);
    assert_eq!((&new["ov"], &new["created"]), (&json!(0), &json!(true)));
}

#[test]
fn a_list_filters_sorts_and_goes_on_page_by_page() {
    let cli = Cli::new();
    for (name, age) in [("ann", 31), ("bob", 17), ("cid", 31), ("dan", 55)] {
        cli.run(&["create", "-c", "users", &format!(r#"{{"name": "{name}", "age": {age}}}"#)]).value();
    }
    let names = |views: &[Json]| {
        views.iter().map(|view| view["item"]["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let base = ["list", "-c", "users", "--filter", r#"{"age": {"$gte": 18}}"#, "--sort", "-age,name"];
    let all = cli.run(&[&base[..], &["--all"]].concat()).lines();
    assert_eq!(names(&all), ["dan", "ann", "cid"]);
    let page = cli.run(&[&base[..], &["--limit", "2", "--page"]].concat()).value();
    assert_eq!(names(page["items"].as_array().unwrap()), ["dan", "ann"]);
    let rest = cli.run(&[&base[..], &["--after", page["next"].as_str().unwrap(), "--page"]].concat()).value();
    assert_eq!(
        (names(rest["items"].as_array().unwrap()), &rest["next"]),
        (vec!["cid".to_owned()], &Json::Null)
    );
    let first = cli.run(&[&base[..], &["--limit", "1"]].concat());
    assert_eq!(names(&first.lines()), ["dan"]);
    assert!(first.err().starts_with("there is more: --after "), "{first:?}");
    let bare =
        cli.run(&["list", "-c", "users", "--sort", "name", "--limit", "1", "--project", "age"]).value();
    assert_eq!(bare["item"], json!({"age": 31}));
}

#[test]
fn a_collection_goes_back_to_an_earlier_state_and_forth_again() {
    let (cli, _) = with_ann();
    cli.run(&["create", "-c", "users", r#"{"email": "bob@example.org"}"#]).value();
    let now = exported(&cli, &[]);
    let counted = cli.run(&["restore-collection", "-c", "users", "--cv", "0", "--dry-run"]).value();
    assert_eq!(
        (&counted["restored"], &counted["removed"], &counted["dryRun"]),
        (&json!(1), &json!(1), &json!(true))
    );
    assert_eq!(exported(&cli, &[]), now, "a dry run changes nothing");
    let back = cli
        .run(&["restore-collection", "-c", "users", "--cv", "0", "--actor", "admin", "--reason", "test"])
        .value();
    assert_eq!((&back["stableCv"], &back["restored"], &back["removed"]), (&json!(2), &json!(1), &json!(1)));
    assert_eq!(exported(&cli, &[]), [ann()]);
    let forth = cli.run(&["restore-collection", "-c", "users", "--cv", "2"]).value();
    assert_eq!((&forth["restored"], &forth["removed"]), (&json!(2), &json!(0)));
    assert_eq!(exported(&cli, &[]), now);
    assert_eq!(cli.run(&["verify", "-c", "users"]).value()["problemCount"], 0);
    assert!(
        cli.run(&["restore-collection", "-c", "users", "--cv", "99"]).failed(2).contains("not reached yet")
    );
    cli.run(&["restore-collection", "-c", "users", "--cv", "-1"]).value();
    assert_eq!(exported(&cli, &[]), Vec::<Json>::new());
}

#[test]
fn verify_tells_damage_by_its_exit_code_and_in_its_last_line() {
    let (cli, id) = with_ann();
    let clean = cli.run(&["verify", "-c", "users"]).value();
    assert_eq!((&clean["versions"], &clean["items"], &clean["problems"]), (&json!(2), &json!(1), &json!([])));
    // The commands before have waited for the storage only for a while.
    assert_eq!(cli.run(&["worker", "-c", "users", "--once"]).value()["waiting"], 0);
    let object = cli.folder().join("chronos-data/objects/chronos/users").join(&id).join("v0/item.json");
    std::fs::write(&object, "{}").unwrap();
    for flags in [&[][..], &["--repair"]] {
        let damaged = cli.run(&[&["verify", "-c", "users"], flags].concat());
        let reported = damaged.value_with_code(1);
        assert_eq!(
            (&reported["problemCount"], &reported["problems"][0]["kind"]),
            (&json!(1), &json!("damaged-payload"))
        );
        assert!(damaged.failed(1).starts_with("error: DAMAGE in `users`: 1 problem"), "{damaged:?}");
    }
}

#[test]
fn writes_succeed_while_the_storage_is_down_and_a_worker_stores_them_later() {
    let cli = Cli::new();
    std::fs::create_dir(cli.folder().join("chronos-data")).unwrap();
    // Where the folder of the objects belongs, there is a file.
    cli.write("chronos-data/objects", "");
    let made = cli.run(&["create", "-c", "users", r#"{"email": "ann@example.org"}"#]);
    assert_eq!(made.value()["ov"], 0);
    let reported = made.err();
    assert!(
        reported.starts_with("1 version waits to be stored; `chronos worker -c users` or the next write stores it (version 0 of "),
        "{reported}"
    );
    assert_eq!(exported(&cli, &[]), [json!({"email": "ann@example.org"})]);
    let waiting = cli.run(&["worker", "-c", "users", "--once", "--limit", "1"]);
    for (name, count) in waiting.value_with_code(1).as_object().unwrap() {
        let is_there = ["collections", "counted", "failing", "waiting"].contains(&name.as_str());
        assert_eq!(*count, json!(u64::from(is_there)), "{name}: {waiting:?}");
    }
    assert!(
        waiting.err().contains("version 0 of ") && waiting.err().contains(" in `users` was tried "),
        "{waiting:?}"
    );
    std::fs::remove_file(cli.folder().join("chronos-data/objects")).unwrap();
    assert_eq!(cli.run(&["worker", "-c", "users", "--once"]).value()["waiting"], 0);
    let found = cli.run(&["verify", "-c", "users"]).value();
    assert_eq!(
        (&found["unflushed"], &found["checked"], &found["problemCount"]),
        (&json!(0), &json!(1), &json!(0))
    );
}

#[test]
fn a_list_may_be_counted_instead_of_shown() {
    let cli = Cli::new();
    for plan in ["free", "team", "free"] {
        cli.run(&["create", "-c", "users", &json!({ "plan": plan }).to_string()]).value();
    }
    let count = |args: &[&str]| cli.run(&[&["list", "-c", "users", "--count"], args].concat()).value();
    assert_eq!(count(&[]), json!({"count": 3}));
    assert_eq!(count(&["--filter", r#"{"plan": "free"}"#]), json!({"count": 2}));
    assert_eq!(count(&["--cv", "0"]), json!({"count": 1}));
    let both = cli.run(&["list", "-c", "users", "--count", "--all"]);
    assert!(both.failed(2).contains("--all"), "{both:?}");
}
