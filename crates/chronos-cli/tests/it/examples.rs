//! Every example that a help shows can be pasted: each is run, in the order of its help, in a folder in which
//! there is what the examples name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use chronos_db::Json;
use parking_lot::Mutex;

use crate::cli::{Cli, Ran};
use crate::surface::below;

/// Examples that another test runs, as they take their time.
const RUN_ELSEWHERE: [(&str, &str); 2] = [
    ("chronos demo", "readme::the_picture_of_the_demo_shows_what_the_demo_says"),
    (
        "chronos demo --data ./sp500",
        "demo::the_demo_tells_the_whole_history_and_leaves_a_store_that_can_be_used",
    ),
];

/// Examples that end with exit code 1 on an embedded store, and what they print then.
const ANSWERS_NO: [(&str, &str); 1] = [("chronos admin spaces-check", "is not DigitalOcean Spaces")];

/// What examples stand in for, and the file in which the preparation leaves what is really there.
const PLACEHOLDERS: [(&str, &str); 5] = [
    ("req_1767225600000_64f0c0ffee64f0c0ffee64f0", "REQUEST"),
    ("64f0c0ffee64f0c0ffee64f0", "ITEM"),
    ("1767225600000000", "VERSION"),
    ("ID", "ID"),
    // Two processes of a test may listen at once.
    ("127.0.0.1:9464", "ADDRESS"),
];

const CONFIG: &str = r#"{
    "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
    "localStorage": {"enabled": true, "basePath": "./objects"},
    "databases": {
        "runtime": {"tenantDatabases": [
            {"tenantId": "default", "dbConnRef": "here", "dbName": "app"},
            {"tenantId": "acme", "dbConnRef": "here", "dbName": "acme"}]},
        "knowledge": {
            "genericDatabase": {"dbConnRef": "here", "dbName": "knowledge"},
            "domainsDatabases": [{"domain": "production", "dbConnRef": "here", "dbName": "production"}],
            "tenantDatabases": [{"tenantId": "acme", "dbConnRef": "here", "dbName": "acme_knowledge"}]},
        "metadata": {
            "genericDatabase": {"dbConnRef": "here", "dbName": "metadata"},
            "domainsDatabases": [{"domain": "saas", "dbConnRef": "here", "dbName": "saas"}],
            "tenantDatabases": [{"tenantId": "acme", "dbConnRef": "here", "dbName": "acme_metadata"}]},
        "logs": {"dbConnRef": "here", "dbName": "logs"},
        "messaging": {"dbConnRef": "here", "dbName": "messaging"}
    },
    "counterRules": {"rules": [
        {"name": "activeUsers", "mode": "gauge", "when": {"status": "verified"}},
        {"name": "logins", "on": ["CREATE"], "when": {"action": "login"}, "countUnique": ["userId"]}]},
    "retention": {"ver": {"days": 30}, "counters": {"days": 30, "weeks": 12, "months": 120}},
    "analytics": {"timeBasedRules": [
        {"name": "daily_revenue", "collection": "orders", "operation": "sum", "field": "amount", "saveMode": "timeframe", "timeframe": "daily"}]},
    "hardDeleteEnabled": true
}"#;

/// A server that is away, and a spool.
const AWAY: &str = r#"{
    "dbConnections": {"main": {"mongoUri": "mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50"}},
    "localStorage": {"enabled": true, "basePath": "./objects"},
    "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "main", "dbName": "app"}]}},
    "fallback": {"spoolPath": "./spool"}
}"#;

const V1: &str = r#"{"mongoUris": ["embedded:./data-of-v1"]}"#;

/// Another embedded store, to which a backup is restored.
const MONGODB: &str = r#"{
    "dbConnections": {"main": {"mongoUri": "embedded:./elsewhere"}},
    "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "main", "dbName": "app"}]}},
    "localStorage": {"enabled": true, "basePath": "./objects-elsewhere"}
}"#;

const ONE_DATABASE: &str = r#"{"dbConnections": {"here": {"mongoUri": "embedded:./data"}},
    "databases": {"messaging": {"dbConnRef": "here", "dbName": "messaging"}}}"#;

const PER_TENANT: &str = r#"{"dbConnections": {"here": {"mongoUri": "embedded:./data"}},
    "databases": {"messaging": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "of_default"}]}}}"#;

/// The files that examples name as configurations.
const CONFIGURATIONS: [(&str, &str); 6] = [
    ("chronos.json", CONFIG),
    ("away.json", AWAY),
    ("v1.json", V1),
    ("mongodb.json", MONGODB),
    ("per-tenant.json", PER_TENANT),
    ("one-database.json", ONE_DATABASE),
];

/// What is there before any example runs.
const PREPARE: &str = r#"
echo 127.0.0.1:0 > ADDRESS
echo '{"email": "c@example.org", "plan": "trial"}' > user.json
echo '[{"property": "customer", "collection": "customers", "keyProperty": "customerId"}]' > mapping.json
echo '{"orderId": "O-2", "amount": 7, "customer": {"customerId": "C-1", "name": "Ada"}}' > order.json
echo '{"payload": {"amount": 1200}}' > payments.ndjson
printf '%s\n' '{"op": "create", "at": "2014-01-02", "key": "MMM", "data": {"Symbol": "MMM"}}' \
    '{"op": "update", "at": "2016-01-02", "key": "MMM", "data": {"Name": "3M"}}' > history.ndjson
cp history.ndjson january.ndjson
echo '{"op": "create", "at": "2026-02-01", "key": "AOS", "data": {"Symbol": "AOS"}}' > february.ndjson
echo '{"op": "create", "key": "1", "data": {"number": "1", "amount": 12}}' > orders.ndjson
printf '#!/bin/sh\ngrep -q amount\n' > check-payment
chmod +x check-payment
printf '%s\n' \
    '{"op": "create", "at": "2025-12-01", "key": "a@example.org", "data": {"email": "a@example.org", "plan": "team", "age": 36}}' \
    '{"op": "update", "at": "2026-01-10", "key": "a@example.org", "data": {"status": "new"}}' \
    '{"op": "update", "at": "2026-01-20", "key": "a@example.org", "data": {"status": "verified"}}' \
    '{"op": "update", "at": "2026-02-10", "key": "a@example.org", "data": {"age": 37}}' > users.ndjson
chronos import -c users --key-property email users.ndjson
chronos get -c users email=a@example.org | sed 's/.*"id":"\([0-9a-f]*\)".*/\1/' > ITEM
chronos create -c users '{"email": "b@example.org", "plan": "trial"}'
chronos import -c companies --key-property Symbol history.ndjson
chronos create -c events '{"action": "login", "userId": "u1"}'
chronos create -c orders '{"orderId": "O-0", "amount": 42}'
chronos create -c orders --tenant acme '{"amount": 4}'
chronos create -c audit --type logs --tenant acme '{"what": "signed in"}'
chronos create -c configs --type knowledge --tenant acme '{"key": "ui", "theme": "dark"}'
chronos create -c schemas --type metadata --domain saas '{"entityType": "user"}'
chronos create -c schemas --type metadata --tenant acme '{"entityType": "user"}'
chronos worker --once
"#;

/// What is there besides, for the examples of these commands.
const ALSO: [(&str, &str); 10] = [
    ("analytics results", "chronos analytics run"),
    ("backup", "chronos backup; chronos backup --to backups"),
    ("restore-backup", "chronos backup; chronos backup --to backups"),
    (
        "fallback",
        "cp away.json chronos.json; chronos create -c users '{}' | sed 's/.*\"requestId\":\"\\([^\"]*\\)\".*/\\1/' > REQUEST",
    ),
    ("migrate tenants", "chronos --config v1.json --database shop create -c users '{}'"),
    (
        "shared",
        "chronos shared set session:42 1; chronos shared set counter 1 | sed 's/.*\"version\":\\([0-9]*\\).*/\\1/' > VERSION",
    ),
    (
        "with-entities get",
        "chronos create -c orders '{\"orderId\": \"O-1\"}'; chronos get -c orders orderId=O-1 | sed 's/.*\"id\":\"\\([0-9a-f]*\\)\".*/\\1/' > ITEM",
    ),
    ("bus", BUS),
    (
        "bus cancel",
        "chronos bus publish payments --payload 1 --delay-ms 600000 | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/' > ID",
    ),
    (
        "bus dlq purge",
        "chronos bus dlq list payments fraud | sed 's/.*\"id\":\"\\([^\"]*\\)\".*/\\1/' | head -1 > ID",
    ),
];

/// A topic with a message that waits and one that failed.
const BUS: &str = r#"
chronos bus topic create payments --warm
chronos bus sub create payments fraud --max-deliveries 1
chronos bus publish payments --payload '{"amount": 7}'
chronos bus consume payments fraud --settle nack --exit-when-idle-ms 100
chronos bus publish payments --payload '{"amount": 8}'
"#;

/// A message for each example of `bus consume`.
const BEFORE_EACH: &str = r#"chronos bus publish payments --payload '{"amount": 9}'"#;

/// Folders that were prepared, by the script that did it.
static PREPARED: Mutex<BTreeMap<String, Cli>> = Mutex::new(BTreeMap::new());

/// A folder with all of it, for the examples of this command.
fn prepared(path: &str) -> Cli {
    let also = ALSO.iter().filter(|(of, _)| path == *of || path.starts_with(&format!("{of} ")));
    let script: Vec<&str> = [PREPARE].into_iter().chain(also.map(|(_, also)| *also)).collect();
    let script = script.join("\n");
    let mut prepared = PREPARED.lock();
    let original = prepared.entry(script).or_insert_with_key(|script| {
        let cli = Cli::new();
        for (name, text) in CONFIGURATIONS {
            cli.write(name, text);
        }
        let ran = shell(&cli, script).output().unwrap();
        assert!(ran.status.success(), "{path}: {}", String::from_utf8_lossy(&ran.stderr));
        cli
    });
    let cli = Cli::new();
    let copied = Command::new("cp").arg("-R").arg(original.folder().join(".")).arg(cli.folder()).status();
    assert!(copied.unwrap().success());
    cli
}

fn shell(cli: &Cli, script: &str) -> Command {
    let program = Path::new(env!("CARGO_BIN_EXE_chronos"));
    let mut path = OsString::from(program.parent().unwrap());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new("sh");
    command.args(["-e", "-c", script]).current_dir(cli.folder()).env("PATH", path);
    command
        .env_remove("CHRONOS_FAIL_POINTS")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// The examples of a help text, those of several lines in one.
fn examples(help: &str) -> Vec<String> {
    let shown = help.split_once("Examples:\n").map_or("", |(_, shown)| shown);
    let lines = shown.lines().take_while(|line| line.starts_with("  "));
    let lines = lines.filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.map(str::trim).collect::<Vec<_>>().join("\n").replace("\\\n", "");
    joined.lines().map(str::to_owned).collect()
}

/// Whether a command goes on until it is stopped.
fn is_endless(example: &str) -> bool {
    let has = |options: &[&str]| options.iter().any(|option| example.contains(option));
    (example.starts_with("chronos worker") && !has(&["--once"]))
        || (example.starts_with("chronos bus consume") && !has(&["--exit-when-idle-ms", "--max "]))
        || ((example == "chronos bus top" || example.starts_with("chronos bus top ")) && !has(&["--frames"]))
        || (example.starts_with("chronos shared watch") && !has(&["--max "]))
}

/// Runs one example as it is pasted, and returns what it printed.
fn run(cli: &Cli, example: &str) -> Result<String, String> {
    let mut line = example.to_owned();
    for (placeholder, file) in PLACEHOLDERS {
        if let Ok(real) = std::fs::read_to_string(cli.folder().join(file)) {
            let words = line.split_inclusive([' ', ',']);
            let replaced = words.map(|word| {
                let (bare, end) = word.split_at(word.trim_end_matches([' ', ',']).len());
                if bare == placeholder { format!("{}{end}", real.trim()) } else { word.to_owned() }
            });
            line = replaced.collect();
        }
    }
    let ran = if is_endless(example) {
        let child = shell(cli, &format!("exec {line}")).spawn().unwrap();
        interrupted(cli, child, example)
    } else {
        let ran = shell(cli, &line).output().unwrap();
        (ran.status.code(), ran.stdout, String::from_utf8(ran.stderr).unwrap())
    };
    let (code, out, err) = ran;
    let out = String::from_utf8(out).unwrap();
    if code == Some(0) && !err.contains("error") {
        Ok(out)
    } else {
        Err(format!("{line}: {code:?} {out} {err}"))
    }
}

/// Waits until the child has printed something, stops it as Ctrl-C does, and returns how it ended.
fn interrupted(cli: &Cli, mut child: Child, example: &str) -> (Option<i32>, Vec<u8>, String) {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let watches = example.contains("shared watch");
    let feeder = std::thread::scope(|scope| {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let change = scope.spawn(move || {
            // When the watch begins is not known, so changes go on until one was seen.
            while watches && stopped.try_recv().is_err() {
                assert!(shell(cli, "chronos shared set session:7 1").output().unwrap().status.success());
            }
        });
        let mut first = String::new();
        out.read_line(&mut first).unwrap();
        stop.send(()).ok();
        change.join().unwrap();
        first
    });
    let signal = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(signal.success());
    let mut printed = feeder.into_bytes();
    std::io::copy(&mut out, &mut printed).unwrap();
    let ended = child.wait_with_output().unwrap();
    (ended.status.code(), printed, String::from_utf8(ended.stderr).unwrap())
}

/// Runs the examples of a command and of all below it; returns what was wrong.
fn run_all(cli: &Cli, path: &[&str]) -> Vec<String> {
    // As wide as a terminal is: what is wrapped cannot be pasted.
    let help = cli.command([path, &["--help"]].concat()).env("COLUMNS", "80").spawn().unwrap();
    let help = Ran::of(help);
    let name = path.join(" ");
    let shown = examples(help.out());
    assert!(!shown.is_empty(), "no examples in the help of `chronos {name}`");
    let folder = prepared(&name);
    let mut wrong = Vec::new();
    for example in shown {
        let bare = example.split(" #").next().unwrap().trim_end();
        if RUN_ELSEWHERE.iter().any(|(elsewhere, _)| *elsewhere == bare) {
            continue;
        }
        if name == "bus consume" {
            run(&folder, BEFORE_EACH).unwrap();
        }
        let ran = run(&folder, bare);
        let is_json = |out: &str| out.lines().all(|line| Json::parse(line).is_ok());
        match ran {
            Ok(out) if is_json(&out) => {}
            Err(why) if ANSWERS_NO.iter().any(|(of, says)| bare == *of && why.contains(says)) => {}
            Ok(out) => wrong.push(format!("{bare}: not JSON: {out}")),
            Err(why) => wrong.push(why),
        }
    }
    for name in below(help.out()) {
        wrong.extend(run_all(cli, &[path, &[name.as_str()]].concat()));
    }
    wrong
}

/// The commands of the program, in the order of its help.
fn commands() -> Vec<String> {
    below(Cli::new().run(&["--help"]).out())
}

/// Runs the examples of these commands, of which each takes a folder of its own.
fn works(commands: &[String]) {
    let cli = Cli::new();
    let wrong: Vec<String> = commands.iter().flat_map(|name| run_all(&cli, &[name])).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn is_of_the_bus(name: &str) -> bool {
    ["bus", "shared"].contains(&name)
}

#[test]
fn every_example_of_the_bus_and_of_shared_memory_works_when_pasted() {
    works(&commands().into_iter().filter(|name| is_of_the_bus(name)).collect::<Vec<_>>());
}

#[test]
fn every_example_of_the_first_half_of_the_other_commands_works_when_pasted() {
    let others: Vec<String> = commands().into_iter().filter(|name| !is_of_the_bus(name)).collect();
    works(&others[..others.len() / 2]);
}

#[test]
fn every_example_of_the_second_half_of_the_other_commands_works_when_pasted() {
    let others: Vec<String> = commands().into_iter().filter(|name| !is_of_the_bus(name)).collect();
    works(&others[others.len() / 2..]);
}

#[test]
fn the_examples_of_the_program_itself_work_when_pasted() {
    let cli = Cli::new();
    let shown = examples(cli.run(&["--help"]).out());
    assert!(shown.len() >= 5, "{shown:?}");
    // Without a configuration: they make what they need.
    for example in shown.iter().filter(|example| *example != "chronos demo") {
        if example.starts_with("chronos bus publish") {
            run(&cli, "chronos bus topic create payments").unwrap();
        }
        run(&cli, example).unwrap();
    }
}
