//! Users with few rights: who may only read reads everything, and nothing that looks writes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use bson::Document;
use chronos_db::{Json, json};
use test_support::MongoServer;

use crate::cli::{Cli, Ran};

const DATABASES: [&str; 2] = ["app", "app-messaging"];
const TIMEOUT: Duration = Duration::from_secs(60);
const PASSWORD: &str = "a-word-of-the-test";

struct Few {
    cli: Cli,
    server: MongoServer,
}

impl Few {
    /// A server with something in it, that asks for passwords from now on.
    async fn new() -> Self {
        let few = Self { cli: Cli::new(), server: MongoServer::start().await };
        few.used_by(None);
        few.server.add_user("reader", PASSWORD, "read", &DATABASES).await;
        few.server.add_user("writer", PASSWORD, "readWrite", &DATABASES).await;
        few
    }

    /// Makes this user the one of the configuration.
    fn used_by(&self, user: Option<&str>) {
        self.configure("chronos.json", user);
    }

    fn configure(&self, file: &str, user: Option<&str>) {
        let config = json!({
            "dbConnections": {"main": {"mongoUri": self.server.uri(user.map(|name| (name, PASSWORD)))}},
            "databases": {
                "runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "main", "dbName": "app"}]},
                "messaging": {"dbConnRef": "main", "dbName": "app-messaging"},
            },
            "localStorage": {"enabled": true, "basePath": "./objects"},
        });
        self.cli.write(file, &config.to_string());
    }

    fn run(&self, line: &str) -> Ran {
        self.cli.run(&words(line))
    }
}

/// The words of a command line, of which none holds a space.
fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// What is new or changed; what has ended may be removed meanwhile by the server itself.
fn written(before: &BTreeMap<String, Document>, after: &BTreeMap<String, Document>) -> Vec<String> {
    after
        .iter()
        .filter(|(key, document)| before.get(*key) != Some(document))
        .map(|(key, document)| format!("{key}: {document}"))
        .collect()
}

/// Runs the test on a thread that may wait for the program.
fn on_a_server(test: impl AsyncFnOnce(Few)) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { test(Few::new().await).await });
}

#[test]
fn who_may_only_read_reads_everything_and_looking_writes_nothing() {
    on_a_server(async |mut few| {
        for n in 0..3 {
            few.run(&format!(r#"create -c users {{"email":"a{n}@x","n":{n}}}"#)).value();
        }
        few.run(r#"update -c users email=a1@x {"n":7}"#).value();
        few.run("delete -c users email=a2@x").value();
        few.run("worker -c users --once").value();
        few.run("bus topic create t --warm true").value();
        few.run("bus sub create t s --max-deliveries 1").value();
        few.run("bus publish t --payload 1").value();
        few.run("bus consume t s --settle nack --max 1").value();
        few.run("bus publish t --payload 2").value();
        few.run("shared set k 1 --forever --persist").value();
        // Its hot part is over; the warm one is not.
        few.run("shared set old 2 --ttl-ms 1 --persist").value();
        let before = few.server.documents(&DATABASES).await;

        few.server.ask_for_passwords(true).await;
        few.used_by(Some("reader"));
        let looking = [
            ("get -c users email=a1@x", 1),
            ("get -c users email=a1@x --cv 2", 1),
            (r#"list -c users --filter {"n":7}"#, 1),
            ("list -c users --cv 1", 2),
            ("list -c users --at 2999-01-01", 2),
            ("history -c users email=a1@x", 2),
            ("diff -c users email=a1@x 0 1", 1),
            ("export -c users", 2),
            ("export -c users --cv 1", 2),
            ("export -c users --at 2999-01-01", 2),
            ("verify -c users", 1),
            ("restore-collection -c users --cv 1 --dry-run", 1),
            ("bus topic list", 1),
            ("bus sub list t", 1),
            ("bus stats t", 1),
            ("bus top --frames 1", 1),
            ("bus peek t s", 1),
            ("bus dlq list t s", 1),
            ("shared get k", 1),
            ("shared get old", 1),
            ("shared list", 1),
            ("migrate messaging --dry-run", 1),
            ("config check chronos.json --connect", 1),
        ];
        for (line, count) in looking {
            assert_eq!(few.run(line).lines().len(), count, "{line}");
        }
        let check = few.run("config check chronos.json --connect");
        assert!(check.err().contains("may read the database `app`, and not write to it"), "{check:?}");
        for line in [
            r#"create -c users {"email":"b@x"}"#,
            "bus publish t --payload 3",
            "shared set k 2",
            "bus topic create u",
        ] {
            assert!(few.run(line).failed(1).contains("not authorized"), "{line}");
        }

        few.server.ask_for_passwords(false).await;
        assert_eq!(written(&before, &few.server.documents(&DATABASES).await), [""; 0]);
    });
}

#[test]
fn who_may_only_read_watches_what_others_write_and_the_end_of_values() {
    on_a_server(async |mut few| {
        few.run("shared set k 1 --forever").value();
        few.server.ask_for_passwords(true).await;
        few.configure("reader.json", Some("reader"));
        let mut watch = few.cli.command(words("--config reader.json shared watch")).spawn().unwrap();
        let (tell, changes) = mpsc::channel();
        let out = BufReader::new(watch.stdout.take().unwrap());
        let reading =
            thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| tell.send(line)));
        few.used_by(Some("writer"));
        // Nothing tells when it begins to watch, but what it sees.
        while changes.recv_timeout(Duration::from_millis(100)).is_err() {
            few.run("shared set sign 1 --forever").value();
        }
        few.run("shared set brief 1 --ttl-ms 300").value();
        let ended = loop {
            let change = Json::parse(changes.recv_timeout(TIMEOUT).unwrap()).unwrap();
            if change["key"] == json!("brief") && change["deleted"] == json!(true) {
                break change;
            }
        };
        assert_eq!(ended["expired"], json!(true));
        watch.kill().unwrap();
        watch.wait().unwrap();
        // It does not matter whether anything still listened.
        drop(reading.join().unwrap());
    });
}

#[test]
fn a_check_without_the_rights_to_do_anything_fails() {
    on_a_server(async |mut few| {
        few.run(r#"create -c users {"n":1}"#).value();
        few.server.ask_for_passwords(true).await;
        few.used_by(None);
        let check = few.run("config check chronos.json --connect");
        assert!(check.failed(1).contains("may not read the database `app`"), "{check:?}");
        few.cli.write(
            "chronos.json",
            &std::fs::read_to_string(few.cli.folder().join("chronos.json"))
                .unwrap()
                .replace("mongodb://", "mongodb://reader:wrong@"),
        );
        assert!(few.run("config check chronos.json --connect").failed(1).contains("Authentication failed"));
    });
}
