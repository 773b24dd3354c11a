//! Topics and shared memory from outside.

use chronos_db::Json;
use serde_json::json;

use crate::cli::Cli;

/// A topic with a subscription whose retries are due at once.
fn topic() -> Cli {
    let cli = Cli::new();
    cli.run(&["bus", "topic", "create", "payments"]).value();
    let create = ["bus", "sub", "create", "payments", "fraud", "--max-deliveries", "2", "--backoff-ms", "0"];
    assert_eq!(cli.run(&create).value()["options"]["maxDeliveries"], 2);
    cli
}

fn consume(cli: &Cli, more: &[&str]) -> Vec<Json> {
    cli.run(&[&["bus", "consume", "payments", "fraud", "--exit-when-idle-ms", "1500"], more].concat()).lines()
}

fn numbers(lines: &[Json]) -> Vec<u64> {
    let mut numbers: Vec<u64> = lines.iter().map(|line| line["payload"]["n"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

fn stats(cli: &Cli) -> Json {
    let stats = cli.run(&["bus", "stats", "payments", "--json"]).value();
    assert_eq!(stats["topic"], "payments");
    stats["subscriptions"][0].clone()
}

fn publish(cli: &Cli, count: usize) -> Vec<Json> {
    let lines: String = (0..count).map(|n| format!("{}\n", json!({"payload": {"n": n}, "headers": {"type": "t"}}))).collect();
    cli.run_with(&["bus", "publish", "payments", "-"], &lines).lines()
}

#[test]
fn what_fails_ends_in_the_dead_letters_and_comes_again_when_it_is_redriven() {
    let cli = topic();
    let published = publish(&cli, 5);
    assert_eq!(published.len(), 5);
    assert_eq!(stats(&cli)["backlog"], 5);

    let seen = consume(&cli, &["--fail-when", r#"{"n": 3}"#]);
    assert_eq!(numbers(&seen), [0, 1, 2, 3, 3, 4]);
    let third: Vec<&Json> = seen.iter().filter(|line| line["payload"]["n"] == 3).collect();
    assert_eq!((&third[0]["deliveries"], &third[1]["deliveries"]), (&json!(1), &json!(2)));
    assert_eq!((&third[0]["id"], &third[0]["headers"]), (&published[3]["id"], &json!({"type": "t"})));

    let letters = cli.run(&["bus", "dlq", "list", "payments", "fraud"]).lines();
    assert_eq!((numbers(&letters), &letters[0]["deliveries"]), (vec![3], &json!(2)));
    assert_eq!(letters[0]["reason"], "it matches --fail-when");
    assert_eq!(stats(&cli)["deadLetters"], 1);

    assert_eq!(cli.run(&["bus", "dlq", "redrive", "payments", "fraud"]).value(), json!({"redriven": 1}));
    let again = consume(&cli, &[]);
    assert_eq!((numbers(&again), &again[0]["deliveries"]), (vec![3], &json!(1)));
    let end = stats(&cli);
    for count in ["backlog", "pending", "scheduled", "deadLetters"] {
        assert_eq!(end[count], 0, "{end}");
    }
    assert_eq!(end["acked"], 5);
}

#[test]
fn a_consumer_takes_no_more_than_it_may_and_leaves_the_rest_uncounted() {
    let cli = topic();
    publish(&cli, 20);
    let two = cli.run(&["bus", "consume", "payments", "fraud", "--max", "2"]).lines();
    assert_eq!(two.len(), 2);
    assert_eq!((stats(&cli)["backlog"].as_u64(), stats(&cli)["deliveries"].as_u64()), (Some(18), Some(2)));
    assert!(cli.run(&["bus", "peek", "payments", "fraud", "--limit", "30"]).lines().iter().all(|line| line["deliveries"] == 0));
    let rest = consume(&cli, &["--concurrency", "3"]);
    assert_eq!(rest.len(), 18);
    assert!(rest.iter().all(|line| line["deliveries"] == 1));
}

#[test]
fn a_command_handles_messages_and_its_failure_is_that_of_the_message() {
    let cli = topic();
    publish(&cli, 3);
    let command = r#"cat >> "seen-$CHRONOS_DELIVERIES" && grep -q '"n":1' "seen-$CHRONOS_DELIVERIES" || exit 0; exit 3"#;
    consume(&cli, &["--exec", command, "--concurrency", "1"]);
    let seen = std::fs::read_to_string(cli.folder().join("seen-1")).unwrap();
    assert_eq!(seen.matches("\"n\":").count(), 3);
    let letters = cli.run(&["bus", "dlq", "list", "payments", "fraud"]).lines();
    assert!(!letters.is_empty() && letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("exit status: 3")));
    assert_eq!(cli.run(&["bus", "dlq", "purge", "payments", "fraud"]).value()["purged"], letters.len());
}

#[test]
fn an_unsettled_message_comes_again_when_its_lock_ends() {
    let cli = topic();
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--visibility-ms", "200"]).value();
    publish(&cli, 1);
    let left = cli.run(&["bus", "consume", "payments", "fraud", "--settle", "none", "--max", "1"]).lines();
    let again = cli.run(&["bus", "consume", "payments", "fraud", "--max", "1"]).lines();
    assert_eq!((&left[0]["deliveries"], &again[0]["deliveries"]), (&json!(1), &json!(2)));
}

#[test]
fn duplicates_delays_and_wrong_lines_are_told() {
    let cli = topic();
    let first = cli.run(&["bus", "publish", "payments", "--payload", "1", "--id", "a", "--header", "x=y"]).value();
    let second = cli.run_with(&["bus", "publish", "payments", "-"], r#"{"payload": 1, "id": "a"}"#).value();
    assert_eq!(second, json!({"id": first["id"], "duplicate": true}));
    let later = cli.run_with(&["bus", "publish", "payments", "-"], r#"{"payload": 2, "delayMs": 3600000}"#).value();
    assert_eq!(stats(&cli)["scheduled"], 1);
    assert_eq!(cli.run(&["bus", "cancel", "payments", later["id"].as_str().unwrap()]).value()["cancelled"], true);

    let ran = cli.run_with(&["bus", "publish", "payments", "-"], "{\"payload\": 3}\n{\"payloat\": 4}\n");
    assert!(ran.failed(2).contains("line 2"), "{ran:?}");
    assert_eq!((ran.out().lines().count(), stats(&cli)["backlog"].as_u64()), (1, Some(2)));
    assert!(cli.run(&["bus", "publish", "refunds", "--payload", "1"]).failed(1).contains("NOT_FOUND"));
    assert!(cli.run(&["bus", "dlq", "list", "payments", "frau"]).failed(1).contains("NOT_FOUND"));
    assert!(cli.run(&["bus", "topic", "create", "a:b"]).failed(2).contains("VALIDATION_ERROR"));
}

#[test]
fn a_subscription_can_be_paused_and_filtered_and_topics_removed() {
    let cli = topic();
    cli.run(&["bus", "sub", "create", "payments", "large", "--filter", r#"{"payload.n": {"$gte": 3}}"#]).value();
    cli.run(&["bus", "sub", "pause", "payments", "fraud"]).value();
    publish(&cli, 5);
    assert!(consume(&cli, &[]).is_empty());
    let large = cli.run(&["bus", "consume", "payments", "large", "--exit-when-idle-ms", "500"]).lines();
    assert_eq!(numbers(&large), [3, 4]);
    cli.run(&["bus", "sub", "resume", "payments", "fraud"]).value();
    assert_eq!(cli.run(&["bus", "purge", "payments"]).value()["purged"], 5);
    assert_eq!(cli.run(&["bus", "sub", "list", "payments"]).lines().len(), 2);
    cli.run(&["bus", "sub", "delete", "payments", "large"]).value();
    cli.run(&["bus", "topic", "delete", "payments"]).value();
    assert!(cli.run(&["bus", "topic", "list"]).lines().is_empty());
}

#[test]
fn shared_values_are_set_under_conditions_listed_and_deleted() {
    let cli = Cli::new();
    assert!(cli.run(&["shared", "get", "k"]).failed(1).contains("NOT_FOUND"));
    assert!(cli.run(&["shared", "list"]).lines().is_empty());
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);

    let version = cli.run(&["shared", "set", "k", r#"{"a": 1}"#]).value()["version"].to_string();
    assert!(cli.run(&["shared", "set", "k", "2", "--if-absent"]).failed(1).contains("CONFLICT"));
    cli.run(&["shared", "set", "k", "2", "--if-version", &version, "--forever"]).value();
    assert!(cli.run(&["shared", "set", "k", "3", "--if-version", &version]).failed(1).contains("CONFLICT"));
    let entry = cli.run(&["shared", "get", "k", "--with-version"]).value();
    assert_eq!((&entry["value"], &entry["ttlMs"]), (&json!(2), &Json::Null));
    assert_eq!(cli.run(&["shared", "list", "--prefix", "k"]).lines(), [json!({"key": "k"})]);
    assert!(cli.run(&["shared", "list", "--namespace", "other"]).lines().is_empty());
    cli.run(&["shared", "del", "k"]).value();
    assert!(cli.run(&["shared", "get", "k"]).failed(1).contains("NOT_FOUND"));
}
