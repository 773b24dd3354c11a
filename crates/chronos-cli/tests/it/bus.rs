//! Topics and shared memory from outside.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use chronos_db::{Json, json};
use test_support::servers;

use crate::cli::{Cli, Ran};

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
    let lines: String =
        (0..count).map(|n| format!("{}\n", json!({"payload": {"n": n}, "headers": {"type": "t"}}))).collect();
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
    assert!(
        cli.run(&["bus", "peek", "payments", "fraud", "--limit", "30"])
            .lines()
            .iter()
            .all(|line| line["deliveries"] == 0)
    );
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
    assert!(
        !letters.is_empty()
            && letters.iter().all(|letter| letter["reason"].as_str().unwrap().contains("exit status: 3"))
    );
    assert_eq!(cli.run(&["bus", "dlq", "purge", "payments", "fraud"]).value()["purged"], letters.len());
}

#[test]
fn an_unsettled_message_comes_again_when_its_lock_ends() {
    let cli = topic();
    // So long that no pause of a busy machine ends a lock before its message is handled.
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--visibility-ms", "3000"]).value();
    publish(&cli, 1);
    let left = cli.run(&["bus", "consume", "payments", "fraud", "--settle", "none", "--max", "1"]).lines();
    let again = cli.run(&["bus", "consume", "payments", "fraud", "--max", "1"]).lines();
    assert_eq!((&left[0]["deliveries"], &again[0]["deliveries"]), (&json!(1), &json!(2)));
}

#[test]
fn duplicates_delays_and_wrong_lines_are_reported() {
    let cli = topic();
    let first =
        cli.run(&["bus", "publish", "payments", "--payload", "1", "--id", "a", "--header", "x=y"]).value();
    let second = cli.run_with(&["bus", "publish", "payments", "-"], r#"{"payload": 1, "id": "a"}"#).value();
    assert_eq!(second, json!({"id": first["id"], "duplicate": true}));
    let later =
        cli.run_with(&["bus", "publish", "payments", "-"], r#"{"payload": 2, "delayMs": 3600000}"#).value();
    assert_eq!(stats(&cli)["scheduled"], 1);
    assert_eq!(
        cli.run(&["bus", "cancel", "payments", later["id"].as_str().unwrap()]).value()["cancelled"],
        true
    );

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
    cli.run(&["bus", "sub", "create", "payments", "large", "--filter", r#"{"payload.n": {"$gte": 3}}"#])
        .value();
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
fn an_idle_consumer_stays_while_something_is_due() {
    let cli = topic();
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--visibility-ms", "3000"]).value();
    for n in 0..2 {
        cli.run(&["bus", "publish", "payments", "--payload", &json!({"n": n}).to_string(), "--key", "k"])
            .value();
    }
    // The consumer that has the first message of the key is gone: until its lock ends nobody can have the second.
    assert_eq!(
        numbers(&cli.run(&["bus", "consume", "payments", "fraud", "--settle", "none", "--max", "1"]).lines()),
        [0]
    );
    let rest = cli.run(&["bus", "consume", "payments", "fraud", "--exit-when-idle-ms", "100"]).lines();
    assert_eq!(numbers(&rest), [0, 1]);
}

#[test]
fn a_consumer_that_stood_still_does_not_take_that_for_a_time_without_messages() {
    // On a server: a process that is stopped in the midst of a write would hold up all others on an embedded
    // store.
    let cli = Cli::new();
    let config = json!({
        "dbConnections": {"main": {"mongoUri": servers::mongo_standalone_uri()}},
        "databases": {"messaging": {"dbConnRef": "main", "dbName": servers::unique_name("bus")}},
        "chronow": {"mongoOnly": true},
    });
    cli.write("chronos.json", &config.to_string());
    cli.run(&["bus", "topic", "create", "payments"]).value();
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--backoff-ms", "0"]).value();
    publish(&cli, 1);
    // Long enough to stop it before it has been idle for so long.
    let idle = Duration::from_secs(3);
    let millis = idle.as_millis().to_string();
    let mut consumer =
        cli.command(["bus", "consume", "payments", "fraud", "--exit-when-idle-ms", &millis]).spawn().unwrap();
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let signal = |name: &str| {
        assert!(Command::new("kill").args([name, &consumer.id().to_string()]).status().unwrap().success())
    };
    signal("-STOP");
    let (begun, mut published) = (Instant::now(), 0);
    while begun.elapsed() < idle + Duration::from_secs(1) {
        published += publish(&cli, 20).len();
    }
    signal("-CONT");
    assert_eq!(lines.map(Result::unwrap).count(), published);
    assert!(consumer.wait().unwrap().success());
    assert_eq!(stats(&cli)["backlog"], 0);
}

#[test]
fn a_consumer_that_is_terminated_gives_back_what_it_has_not_begun() {
    for signal in ["-TERM", "-INT"] {
        let cli = Cli::new();
        cli.run(&["bus", "topic", "create", "payments"]).value();
        cli.run(&["bus", "sub", "create", "payments", "fraud", "--visibility-ms", "600000"]).value();
        publish(&cli, 40);
        let consume = ["bus", "consume", "payments", "fraud", "--exec", "sleep 0.3", "--concurrency", "2"];
        let mut consumer = cli.command(consume).spawn().unwrap();
        let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
        lines.next().unwrap().unwrap();
        assert!(Command::new("kill").args([signal, &consumer.id().to_string()]).status().unwrap().success());
        let handled = 1 + lines.map(Result::unwrap).count();
        assert!(consumer.wait().unwrap().success(), "{signal}");
        let stats = stats(&cli);
        // Nothing is locked, and what was not begun was not counted.
        assert_eq!(
            (&stats["pending"], &stats["acked"], &stats["deliveries"]),
            (&json!(0), &json!(handled), &json!(handled)),
            "{signal}"
        );
        assert_eq!(stats["backlog"], json!(40 - handled));
    }
}

#[test]
fn a_publisher_that_is_terminated_says_behind_which_line() {
    for signal in ["-TERM", "-INT"] {
        let cli = topic();
        let mut publisher =
            cli.command(["bus", "publish", "payments", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = publisher.stdin.take().unwrap();
        let mut reported = BufReader::new(publisher.stdout.take().unwrap()).lines();
        stdin.write_all(b"{\"payload\": 1}\n\n{\"payload\": 2}\n").unwrap();
        for _ in 0..2 {
            assert!(Json::parse(reported.next().unwrap().unwrap()).unwrap()["id"].is_string());
        }
        assert!(Command::new("kill").args([signal, &publisher.id().to_string()]).status().unwrap().success());
        // Its input stays open: it does not end by that.
        let ended = publisher.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(1), "{signal}");
        assert_eq!(
            String::from_utf8(ended.stderr).unwrap(),
            "stopped behind line 3: nothing that follows is published\n"
        );
        drop(stdin);
        assert_eq!(stats(&cli)["backlog"], json!(2), "{signal}");
    }
}

#[test]
fn watching_tells_the_end_of_a_value_and_ends_when_it_is_terminated() {
    let cli = Cli::new();
    let mut watch = cli.command(["shared", "watch"]).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    let mut next = || Json::parse(lines.next().unwrap().unwrap()).unwrap();
    // Until it watches, changes are not reported.
    let mut set = cli.command(["shared", "set", "goes", "1", "--ttl-ms", "400"]);
    let (reported, stop) = std::sync::mpsc::channel::<()>();
    let teller = std::thread::spawn(move || {
        while stop.recv_timeout(Duration::from_millis(800)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            assert!(set.output().unwrap().status.success());
        }
    });
    let mut seen = next();
    while seen["expired"] != json!(true) {
        assert_eq!((&seen["key"], &seen["deleted"]), (&json!("goes"), &json!(false)));
        seen = next();
    }
    assert_eq!((&seen["key"], &seen["deleted"]), (&json!("goes"), &json!(true)));
    assert!(Command::new("kill").args(["-TERM", &watch.id().to_string()]).status().unwrap().success());
    assert!(watch.wait().unwrap().success());
    drop(reported);
    teller.join().unwrap();
    assert_eq!(cli.run(&["shared", "del", "missing"]).value(), json!({"key": "missing", "deleted": false}));
}

#[test]
fn verbose_tells_what_the_library_warns_of() {
    let cli = topic();
    // Handling a message takes it away.
    let purge = format!("{} bus purge payments 1>&2", env!("CARGO_BIN_EXE_chronos"));
    for (verbose, reported) in [(&[][..], false), (&["-v"], true)] {
        publish(&cli, 1);
        let ran = cli.run(
            &[&["bus", "consume", "payments", "fraud", "--max", "1", "--exec", &purge], verbose].concat(),
        );
        assert_eq!(ran.lines().len(), 1);
        assert_eq!(
            ran.err().contains("WARN") && ran.err().contains("the lock was lost"),
            reported,
            "{ran:?}"
        );
    }
}

#[test]
fn peeking_shows_where_each_message_is() {
    let cli = topic();
    let ids: Vec<Json> = publish(&cli, 2).into_iter().map(|line| line["id"].clone()).collect();
    cli.run(&["bus", "publish", "payments", "--payload", "{}", "--delay-ms", "3600000"]).value();
    cli.run(&["bus", "consume", "payments", "fraud", "--settle", "none", "--max", "1"]).lines();
    let peeked = cli.run(&["bus", "peek", "payments", "fraud"]).lines();
    let places: Vec<&Json> = peeked.iter().map(|line| &line["place"]).collect();
    assert_eq!(places, ["inFlight", "unread", "scheduled"]);
    assert_eq!((&peeked[0]["id"], &peeked[0]["deliveries"], &peeked[1]["id"]), (&ids[0], &json!(1), &ids[1]));
    assert_eq!(cli.run(&["bus", "peek", "payments", "fraud", "--limit", "1"]).lines().len(), 1);
}

#[test]
fn dead_letters_are_redriven_and_purged_one_by_one_or_the_oldest() {
    let cli = topic();
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--max-deliveries", "1"]).value();
    let ids: Vec<Json> = publish(&cli, 4).into_iter().map(|line| line["id"].clone()).collect();
    assert_eq!(consume(&cli, &["--settle", "nack", "--concurrency", "1"]).len(), 4);
    let id = ids[2].as_str().unwrap();
    assert_eq!(
        cli.run(&["bus", "dlq", "redrive", "payments", "fraud", "--ids", id]).value(),
        json!({"redriven": 1})
    );
    assert_eq!(consume(&cli, &[]).iter().map(|line| &line["id"]).collect::<Vec<_>>(), [&ids[2]]);
    assert_eq!(
        cli.run(&["bus", "dlq", "purge", "payments", "fraud", "--oldest", "2"]).value(),
        json!({"purged": 2})
    );
    let left = cli.run(&["bus", "dlq", "list", "payments", "fraud"]).lines();
    assert_eq!(left.iter().map(|line| &line["id"]).collect::<Vec<_>>(), [&ids[3]]);
}

#[test]
fn what_a_warm_topic_kept_can_be_replayed_to_one_subscription() {
    let cli = Cli::new();
    cli.run(&["bus", "topic", "create", "payments", "--warm"]).value();
    for subscription in ["fraud", "mail"] {
        cli.run(&["bus", "sub", "create", "payments", subscription]).value();
    }
    publish(&cli, 3);
    assert_eq!(numbers(&consume(&cli, &[])), [0, 1, 2]);
    let mail = ["bus", "consume", "payments", "mail", "--exit-when-idle-ms", "500"];
    assert_eq!(cli.run(&mail).lines().len(), 3);
    let none = cli.run(&["bus", "replay", "payments", "fraud", "--until", "2020-01-01"]).value();
    assert_eq!(none, json!({"replayed": 0}));
    let all = cli.run(&["bus", "replay", "payments", "fraud", "--from", "2020-01-01"]).value();
    assert_eq!(all, json!({"replayed": 3}));
    assert_eq!(numbers(&consume(&cli, &[])), [0, 1, 2]);
    assert!(cli.run(&mail).lines().is_empty());
}

#[test]
fn a_subscription_keeps_the_options_it_was_given() {
    let cli = Cli::new();
    cli.run(&[
        "bus",
        "topic",
        "create",
        "ticks",
        "--max-len",
        "1000",
        "--overflow",
        "drop-oldest",
        "--ttl-ms",
        "60000",
    ])
    .value();
    cli.run(&["bus", "publish", "ticks", "--payload", "1"]).value();
    let create = [
        "bus",
        "sub",
        "create",
        "ticks",
        "slow",
        "--visibility-ms",
        "5000",
        "--max-deliveries",
        "7",
        "--backoff-ms",
        "10,20,30",
        "--jitter-percent",
        "0",
        "--dead-letters",
        "false",
        "--start",
        "earliest",
        "--auto-delete-ms",
        "900000",
    ];
    cli.run(&create).value();
    let listed = cli.run(&["bus", "sub", "list", "ticks"]).value();
    let expected = json!({
        "visibilityMs": 5000, "maxDeliveries": 7, "backoffMs": [10, 20, 30], "jitterPercent": 0, "deadLetters": false, "autoDeleteMs": 900000,
    });
    for (option, value) in expected.as_object().unwrap() {
        assert_eq!(&listed["options"][option], value, "{listed}");
    }
    let begun_before = cli.run(&["bus", "consume", "ticks", "slow", "--exit-when-idle-ms", "300"]).lines();
    assert_eq!(begun_before.len(), 1);
    cli.run(&["bus", "sub", "create", "ticks", "late", "--start", "2020-01-01T00:00:00Z"]).value();
    assert!(
        cli.run(&["bus", "sub", "create", "ticks", "odd", "--start", "yesterday"])
            .failed(2)
            .contains("yesterday")
    );
    let topic = cli.run(&["bus", "topic", "list"]).value();
    assert_eq!((&topic["options"]["maxLen"], &topic["options"]["ttlMs"]), (&json!(1000), &json!(60000)));
}

#[test]
fn changes_of_shared_values_are_watched_as_they_happen() {
    let cli = Cli::new();
    cli.run(&["shared", "set", "other", "0"]).value();
    let mut watching = cli.command(["shared", "watch", "--prefix", "k", "--max", "2"]).spawn().unwrap();
    // Nothing says when it began to watch.
    while watching.try_wait().unwrap().is_none() {
        cli.run(&["shared", "set", "other", "1"]).value();
        cli.run(&["shared", "set", "key", "1", "--ttl-ms", "60000", "--persist"]).value();
    }
    let seen = Ran::of(watching).lines();
    assert_eq!(seen.len(), 2);
    for change in &seen {
        assert_eq!((&change["key"], &change["deleted"]), (&json!("key"), &json!(false)));
    }
    assert!(seen[0]["version"].as_u64() < seen[1]["version"].as_u64());
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
