//! `import`: what becomes of good lines and of bad ones.

use std::io::Write as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use chronos_db::{Json, json};

use crate::cli::{Cli, Ran};

const IMPORT: [&str; 5] = ["import", "-c", "stock", "--key-property", "sku"];

fn import(cli: &Cli, flags: &[&str], log: &str) -> Ran {
    cli.run_with(&[&IMPORT[..], flags, &["-"]].concat(), log)
}

/// The documents by their `sku`; none while nothing was written.
fn stock(cli: &Cli) -> Vec<Json> {
    let exported = cli.run(&["export", "-c", "stock"]);
    if exported.err().contains("NOT_FOUND") {
        return Vec::new();
    }
    let mut documents = exported.lines();
    documents.sort_by_key(|document| document["sku"].to_string());
    documents
}

fn versions(cli: &Cli) -> Json {
    let found = cli.run(&["verify", "-c", "stock"]).value();
    assert_eq!(found["problems"], json!([]));
    found["versions"].clone()
}

#[test]
fn an_import_carries_out_every_kind_of_operation_with_its_time_actor_and_reason() {
    let cli = Cli::new();
    let log = concat!(
        "{\"op\": \"create\", \"key\": \"a\", \"data\": {\"sku\": \"a\", \"n\": 1}, \"at\": \"2020-01-01\", \"actor\": \"erp\", \"reason\": \"first\"}\n",
        "\n",
        "{\"op\": \"create\", \"key\": \"b\", \"data\": {\"sku\": \"b\"}, \"at\": \"2020-01-02\"}\r\n",
        "{\"op\": \"update\", \"key\": \"a\", \"data\": {\"m\": 2}, \"at\": \"2020-01-03\"}\n",
        "   \t\n",
        "{\"op\": \"replace\", \"key\": \"a\", \"data\": {\"sku\": \"a\", \"n\": 3}, \"at\": \"2020-01-04\"}\n",
        "{\"op\": \"delete\", \"key\": \"b\", \"at\": \"2020-01-05\"}",
    );
    let mut reported = import(&cli, &[], log).value();
    let [seconds, unflushed] =
        ["seconds", "unflushed"].map(|figure| reported.as_object_mut().unwrap().remove(figure).unwrap());
    assert!(seconds.as_f64().unwrap() > 0.0);
    assert_eq!(
        reported,
        json!({"lines": 5, "created": 2, "written": 5, "unchanged": 0, "skipped": 0, "failed": 0})
    );
    // A busy machine may leave some to a worker.
    assert!(unflushed.as_u64().unwrap() <= 5);
    assert_eq!(cli.run(&["worker", "-c", "stock", "--once"]).value()["waiting"], 0);
    assert_eq!(stock(&cli), [json!({"sku": "a", "n": 3})]);
    assert_eq!(cli.run(&["export", "-c", "stock", "--at", "2020-01-03"]).lines().len(), 2);
    let first = cli.run(&["history", "-c", "stock", "sku=a"]).lines().remove(0);
    assert_eq!(
        (&first["at"], &first["actor"], &first["reason"]),
        (&json!("2020-01-01T00:00:00.000Z"), &json!("erp"), &json!("first"))
    );
}

#[test]
fn importing_the_same_log_twice_makes_no_version() {
    let cli = Cli::new();
    let line = |i: usize| {
        format!(
            "{{\"op\": \"create\", \"key\": {i}, \"data\": {{\"sku\": {i}}}, \"at\": \"2020-01-01T00:00:00Z\"}}\n"
        )
    };
    let log: String = (0..1500).map(line).collect();
    cli.write("log.ndjson", &log);
    let file = [&IMPORT[..], &["log.ndjson", "--batch", "100"]].concat();
    assert_eq!(cli.run(&file).value()["created"], 1500);
    assert_eq!(versions(&cli), 1500);
    let again = cli.run(&file).value();
    assert_eq!(
        (&again["lines"], &again["written"], &again["skipped"]),
        (&json!(1500), &json!(0), &json!(1500))
    );
    assert_eq!(versions(&cli), 1500);
}

/// Good lines with one bad line each of every kind between them.
const BAD: [(&str, &str); 8] = [
    ("{\"op\": \"create\", ", "invalid JSON"),
    ("[]", "an operation is a JSON object"),
    ("{\"op\": \"upsert\", \"key\": \"x\", \"data\": {}}", "create, replace, update or delete"),
    ("{\"op\": \"create\", \"key\": {}, \"data\": {}}", "`key` is a string, a number or a boolean"),
    ("{\"op\": \"create\", \"key\": 123456789012345678901234567890, \"data\": {}}", "does not fit the index"),
    ("{\"op\": \"create\", \"key\": \"x\", \"data\": {\"sku\": \"y\"}}", "is not the operation's key"),
    ("{\"op\": \"delete\", \"key\": \"nobody\"}", "no live item with the key"),
    (
        "{\"op\": \"create\", \"key\": \"x\", \"data\": {\"sku\": \"x\"}, \"at\": \"yesterday\"}",
        "not an ISO-8601 date",
    ),
];

fn good(key: &str) -> String {
    json!({"op": "create", "key": key, "data": {"sku": key}}).to_string()
}

#[test]
fn the_first_bad_line_ends_an_import_and_nothing_of_it_or_behind_it_is_written() {
    for (bad, why) in BAD {
        let cli = Cli::new();
        let log = format!("{}\n\n{bad}\n{}\n", good("before"), good("behind"));
        let ran = import(&cli, &[], &log);
        let reported = ran.value_with_code(1);
        assert_eq!(
            (&reported["lines"], &reported["written"], &reported["failed"]),
            (&json!(2), &json!(1), &json!(1)),
            "{bad}"
        );
        let said = ran.failed(1);
        assert!(
            said.starts_with("error: line 3: ") && said.contains(why) && said.lines().count() == 1,
            "{said}"
        );
        assert_eq!(stock(&cli), [json!({"sku": "before"})]);
    }
}

#[test]
fn with_keep_going_every_bad_line_is_named_and_every_good_one_is_written() {
    let cli = Cli::new();
    let log: String =
        BAD.iter().enumerate().map(|(i, (bad, _))| format!("{}\n{bad}\n", good(&format!("g{i}")))).collect();
    let ran = import(&cli, &["--keep-going"], &log);
    let reported = ran.value_with_code(1);
    assert_eq!(
        (&reported["lines"], &reported["written"], &reported["failed"]),
        (&json!(16), &json!(8), &json!(8))
    );
    let said: Vec<&str> = ran.failed(1).lines().collect();
    assert_eq!(said.len(), 8);
    for (i, (said, (_, why))) in said.iter().zip(BAD).enumerate() {
        assert!(
            said.starts_with(&format!("error: line {}: VALIDATION_ERROR", 2 * i + 2))
                || said.contains("NOT_FOUND"),
            "{said}"
        );
        assert!(said.contains(why), "{said}");
    }
    assert_eq!(stock(&cli).len(), 8);
}

#[test]
fn lines_are_carried_out_while_the_input_pauses() {
    let cli = Cli::new();
    let mut child = cli.command([&IMPORT[..], &["-"]].concat()).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    for count in 1..=3 {
        writeln!(stdin, "{}", good(&format!("key {count}"))).unwrap();
        stdin.flush().unwrap();
        // Another process sees it before the input goes on. Its start is the wait.
        while stock(&cli).len() < count {
            assert!(Instant::now() < until, "line {count} was not carried out");
        }
    }
    drop(stdin);
    assert_eq!(Ran::of(child).value()["written"], 3);
}

#[test]
fn an_import_that_is_killed_is_repaired_and_completed() {
    let cli = Cli::new();
    let log: String = (0..50)
        .map(|i| good(&format!("key {i}")).replace("}}", "}, \"at\": \"2020-01-01\"}") + "\n")
        .collect();
    cli.write("log.ndjson", &log);
    let args = [&IMPORT[..], &["log.ndjson", "--batch", "10"]].concat();
    let ended =
        cli.command(&args).env("CHRONOS_FAIL_POINTS", "commit.before_answer=abort:2").spawn().unwrap();
    assert!(!ended.wait_with_output().unwrap().status.success());
    assert_eq!(cli.run(&["verify", "-c", "stock", "--repair"]).value()["problemCount"], 0);
    let before = versions(&cli).as_u64().unwrap();
    assert!((1..50).contains(&before), "{before} versions survived the kill");
    let reported = cli.run(&args).value();
    assert_eq!((&reported["skipped"], &reported["written"]), (&json!(before), &json!(50 - before)));
    assert_eq!(versions(&cli), 50);
}

#[test]
fn a_log_that_cannot_be_read_is_wrong_input_and_leaves_nothing_behind() {
    let cli = Cli::new();
    assert!(cli.run(&[&IMPORT[..], &["absent.ndjson"]].concat()).failed(2).contains("absent.ndjson"));
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);
    let reported = import(&cli, &[], "").value();
    assert_eq!(reported["lines"], 0);
}

#[test]
fn a_log_without_times_is_carried_out_once_if_it_has_a_name_and_a_warning_comes_if_it_has_none() {
    let cli = Cli::new();
    let log = concat!(
        r#"{"op": "create", "key": 7, "data": {"n": 7, "state": "new"}}"#,
        "\n",
        r#"{"op": "update", "key": 7, "data": {"state": "done"}}"#,
        "\n",
        r#"{"op": "delete", "key": 7}"#,
        "\n",
    );
    let args = ["import", "-c", "jobs", "--key-property", "n", "-"];
    for written in [3, 0] {
        let ran = cli.run_with(&[&args[..], &["--log", "jobs"]].concat(), log);
        assert_eq!(ran.value()["written"], written);
        assert!(!ran.err().contains("--log"));
    }
    let unnamed = cli.run_with(&args, log);
    assert_eq!(unnamed.err().matches("--log NAME").count(), 1, "{unnamed:?}");
}
