//! What every command has in common: help, exit codes, what is printed where.

use crate::cli::Cli;

/// The commands that a help text lists.
pub(crate) fn below(help: &str) -> Vec<String> {
    let commands =
        help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn help_of(cli: &Cli, path: &[&str]) -> usize {
    let ran = cli.run(&[path, &["--help"]].concat());
    let text = ran.out();
    let examples = text
        .split_once("Examples:\n")
        .unwrap_or_else(|| panic!("no examples in the help of {path:?}: {ran:?}"))
        .1;
    assert!(examples.contains(&format!("chronos {}", path.join(" "))), "{path:?}: {examples}");
    let names = below(text);
    1 + names.iter().map(|name| help_of(cli, &[path, &[name.as_str()]].concat())).sum::<usize>()
}

#[test]
fn the_help_of_every_command_shows_an_example() {
    assert!(help_of(&Cli::new(), &[]) >= 20);
}

#[test]
fn wrong_input_exits_with_2_and_says_why_in_one_line() {
    let cli = Cli::new();
    cli.run(&["create", "-c", "users", r#"{"a": 1}"#]).value();
    let wrong: [(&[&str], &str); 9] = [
        (&["get", "-c", "users", "123"], "not an item id"),
        (&["get", "-c", "../users", "a=1"], "collection"),
        (&["create", "-c", "users", "{"], "invalid JSON"),
        (&["create", "-c", "users", "[]"], "VALIDATION_ERROR"),
        (&["create", "-c", "users", "absent.json"], "absent.json"),
        (&["list", "-c", "users", "--filter", "{"], "the filter: invalid JSON"),
        (&["list", "-c", "users", "--filter", r#"{"a": {"$where": 1}}"#], "$where"),
        (&["list", "-c", "users", "--after", "nonsense"], "token"),
        (&["import", "-c", "users", "--key-property", "$a", "/dev/null"], "key property"),
    ];
    for (args, why) in wrong {
        let ran = cli.run(args);
        let said = ran.failed(2);
        assert!(said.contains(why) && said.lines().count() == 1, "{args:?}: {said}");
        assert_eq!(ran.out(), "");
    }
    let usage: [(&[&str], &str); 10] = [
        (&["erase", "-c", "users", "a=1", "--confirm"], "--reason <WHY>"),
        (&["erase", "-c", "users", "a=1", "--reason", "law"], "--confirm"),
        (&["erase", "-c", "users", "--reason", "law", "--confirm"], "ITEM"),
        (&["erase", "--reason", "law", "--confirm", "a=1"], "--collection <COLL>"),
        (&["list", "-c", "users", "--at", "never"], "2015-12-31T10:00:00Z"),
        (&["list"], "--collection <COLL>"),
        (&["nonsense"], "nonsense"),
        (&["restore", "-c", "users", "a=1"], "chronos restore --help"),
        (&["bus", "publish", "t", "--delay-ms", "-5", "--payload", "1"], "-5"),
        (&["get", "-c", "users", "a=1", "--nonsense"], "--nonsense"),
    ];
    for (args, why) in usage {
        let ran = cli.run(args);
        let said = ran.failed(2);
        assert!(said.contains(why) && said.lines().count() == 1, "{args:?}: {said}");
    }
    assert!(cli.run(&[]).err().contains("Usage"));
}

#[test]
fn negative_values_are_values_wherever_one_is_taken() {
    let cli = Cli::new();
    let id = cli.run(&["create", "-c", "users", r#"{"a": -5}"#]).value()["id"].as_str().unwrap().to_owned();
    cli.run(&["bus", "topic", "create", "t"]).value();
    cli.run(&["bus", "publish", "t", "--payload", "-1.5e3"]).value();
    assert!(cli.run(&["shared", "set", "k", "-5"]).value()["version"].is_i64());
    assert!(cli.run(&["get", "-c", "users", &id, "--ov", "-1"]).failed(1).contains("NOT_FOUND"));
    for args in [&["restore", "-c", "users", &id, "--ov", "-1"][..], &["diff", "-c", "users", &id, "-1"]] {
        assert!(cli.run(args).failed(1).contains("NOT_FOUND"));
    }
    assert!(
        cli.run(&["update", "-c", "users", &id, r#"{"a": 1}"#, "--expect-ov", "-1"])
            .failed(1)
            .contains("OPTIMISTIC_LOCK")
    );
}

#[test]
fn a_byte_order_mark_belongs_to_no_document() {
    let cli = Cli::new();
    let marked = |text: &str| format!("\u{feff}{text}");
    for name in ["document", "patch", "lines"] {
        let text = match name {
            "document" => r#"{"a": 1}"#,
            "patch" => r#"{"b": 2}"#,
            _ => r#"{"payload": 7}"#,
        };
        cli.write(name, &marked(text));
    }
    let id = cli.run(&["create", "-c", "users", "document"]).value()["id"].as_str().unwrap().to_owned();
    cli.run_with(&["create", "-c", "users", "-"], &marked(r#"{"a": 1}"#)).value();
    cli.run(&["create", "-c", "users", &marked(r#"{"a": 1}"#)]).value();
    cli.run(&["update", "-c", "users", &id, "patch"]).value();
    assert_eq!(cli.run(&["get", "-c", "users", &id]).value()["item"]["b"], 2);
    cli.run(&["bus", "topic", "create", "t"]).value();
    cli.run(&["bus", "publish", "t", "lines"]).value();
    cli.run_with(&["shared", "set", "k", "-"], &marked("1")).value();
}

#[test]
fn what_is_no_json_and_no_store_is_said_at_once() {
    let cli = Cli::new();
    std::fs::write(cli.folder().join("log.gz"), [0x1f, 0x8b, 8, 0, 0, 0]).unwrap();
    cli.write("empty", "");
    for args in [
        &["create", "-c", "users", "log.gz"][..],
        &["import", "-c", "users", "--key-property", "a", "log.gz"],
    ] {
        assert!(cli.run(args).err().contains("gzip"));
    }
    assert!(cli.run(&["create", "-c", "users", "empty"]).failed(2).contains("it is empty"));
    assert!(
        cli.run(&["--data", "empty", "create", "-c", "users", "{}"])
            .failed(2)
            .contains("--data takes a folder")
    );
    let named = r#"{"payload": 1, "delayMs": "5"}"#;
    cli.run(&["bus", "topic", "create", "t"]).value();
    assert!(
        cli.run_with(&["bus", "publish", "t", "-"], named).failed(2).contains("`delayMs` is a whole number")
    );
    assert!(
        cli.run_with(&["bus", "publish", "t", "-"], "5").failed(2).contains("a message is a JSON object")
    );
}

#[test]
fn looking_finds_nothing_where_nothing_is_and_leaves_nothing_behind() {
    let cli = Cli::new();
    for args in LOOKING {
        let ran = cli.run(args);
        let said = ran.failed(1);
        assert!(
            said.starts_with("error: NOT_FOUND") && said.contains("`users`") && said.lines().count() == 1,
            "{args:?}: {said}"
        );
        assert_eq!(ran.out(), "", "{args:?}");
    }
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);
}

/// Every command that means to find something in a collection, and creates nothing.
const LOOKING: [&[&str]; 12] = [
    &["export", "-c", "users"],
    &["export", "-c", "users", "--cv", "3"],
    &["list", "-c", "users"],
    &["list", "-c", "users", "--all", "--at", "2024-01-01"],
    &["get", "-c", "users", "a=1"],
    &["get", "-c", "users", "64f0c0ffee64f0c0ffee64f0"],
    &["history", "-c", "users", "a=1"],
    &["diff", "-c", "users", "a=1", "0"],
    &["verify", "-c", "users"],
    &["verify", "-c", "users", "--repair"],
    &["restore-collection", "-c", "users", "--at", "2024-01-01", "--dry-run"],
    &["worker", "-c", "users", "--once"],
];

#[test]
fn a_misspelt_collection_is_not_found_and_the_nearest_ones_are_named() {
    let cli = Cli::new();
    for name in ["user", "uzers", "invoices"] {
        cli.run(&["create", "-c", name, r#"{"a": 1}"#]).value();
    }
    let writing: [&[&str]; 7] = [
        &["erase", "-c", "users", "a=1", "--reason", "law", "--confirm"],
        &["restore-collection", "-c", "users", "--at", "2024-01-01"],
        &["restore", "-c", "users", "a=1", "--ov", "0"],
        &["update", "-c", "users", "a=1", "{}"],
        &["replace", "-c", "users", "a=1", "{}"],
        &["delete", "-c", "users", "a=1"],
        &["enrich", "-c", "users", "a=1", "{}"],
    ];
    for args in LOOKING.iter().copied().chain(writing) {
        let ran = cli.run(args);
        let said = ran.failed(1);
        assert!(
            said.contains("did you mean `user` or `uzers`?") && !said.contains("invoices"),
            "{args:?}: {said}"
        );
        assert_eq!(ran.out(), "", "{args:?}");
    }
}

#[test]
fn no_command_warns_of_an_option_that_has_its_effect() {
    let cli = Cli::new();
    let config = chronos_db::json!({
        "dbConnections": {"here": {"mongoUri": "embedded:./data"}},
        "databases": {"runtime": {"tenantDatabases": [{"tenantId": "default", "dbConnRef": "here", "dbName": "app"}]}},
        "retention": {"objects": {}},
    });
    cli.write("chronos.json", &config.to_string());
    for args in [
        &["create", "-c", "users", r#"{"a": 1}"#][..],
        &["list", "-c", "users"],
        &["config", "check", "chronos.json"],
    ] {
        let ran = cli.run(args);
        assert!(!ran.err().contains("warning"), "{args:?}: {ran:?}");
        ran.lines();
    }
}

#[test]
fn a_short_name_of_a_built_in_property_is_said_to_be_one() {
    let cli = Cli::new();
    cli.run(&["create", "-c", "users", r#"{"a": 1, "createdAt": "2014-02-03"}"#]).value();
    let sorted = cli.run(&["list", "-c", "users", "--sort", "createdAt,-cv"]);
    assert!(
        sorted.err().contains("`cv` is taken for `_system.cv`") && !sorted.err().contains("createdAt"),
        "{sorted:?}"
    );
    let found = cli.run(&["get", "-c", "users", "ov=0"]);
    assert!(found.err().contains("`ov` is taken for `_system.ov`"), "{found:?}");
    found.value();
    let own = cli.run(&["get", "-c", "users", "createdAt=2014-02-03"]);
    assert_eq!((own.err(), own.value()["item"]["a"].clone()), ("", chronos_db::json!(1)));
}

/// F19.
#[test]
fn a_property_that_no_document_has_is_said_to_be_one() {
    let cli = Cli::new();
    cli.run(&["create", "-c", "users", r#"{"price": 1, "tags": ["a"]}"#]).value();
    for sort in ["price", "price:desc", "-price"] {
        assert_eq!(cli.run(&["list", "-c", "users", "--sort", sort]).err(), "");
    }
    for all in [&["--all"][..], &[]] {
        let list = |args: &[&str]| cli.run(&[&["list", "-c", "users"], args, all].concat());
        let misspelt = list(&["--sort", "prize"]);
        assert!(
            misspelt.err().contains("no document of the collection has a property `prize`"),
            "{misspelt:?}"
        );
        assert_eq!(misspelt.lines().len(), 1);
        assert!(list(&["--filter", r#"{"prize": 1}"#]).err().contains("`prize`"));
        assert_eq!(list(&["--filter", r#"{"price": 2}"#]).err(), "");
        assert!(list(&["--sort", "tags"]).failed(2).contains("cannot sort by `tags`"));
        let shown = list(&["--sort", "tags", "--on-damage", "show"]);
        assert!(shown.err().contains("1 of the items could not be shown or sorted"), "{shown:?}");
        assert_eq!(shown.value()["error"]["code"], "VALIDATION_ERROR");
    }
}

#[test]
fn a_legacy_database_of_version_1_gets_its_tenant() {
    let cli = Cli::new();
    cli.write("v1.json", &chronos_db::json!({"mongoUris": ["embedded:./data"]}).to_string());
    let run = |args: &[&str]| cli.run(&[&["--config", "v1.json", "--database", "shop"], args].concat());
    run(&["create", "-c", "users", r#"{"a": 1}"#]).value();
    assert!(run(&["--tenant", "acme", "list", "-c", "users"]).failed(1).contains("NOT_FOUND"));
    let would = run(&["migrate", "tenants", "--assign", "acme", "--dry-run"]).value();
    assert_eq!((&would["items"], &would["versions"]), (&1.into(), &1.into()));
    assert_eq!(run(&["migrate", "tenants", "--assign", "acme"]).value(), would);
    assert_eq!(run(&["--tenant", "acme", "list", "-c", "users"]).lines().len(), 1);
    assert!(run(&["list", "-c", "users"]).failed(1).contains("NOT_FOUND"));
    assert_eq!(run(&["migrate", "tenants", "--assign", "acme"]).value()["items"], 0);
    assert!(
        run(&["--tenant", "globex", "migrate", "tenants", "--assign", "acme"])
            .failed(2)
            .contains("another tenant")
    );
}

#[test]
fn verbose_adds_the_causes_of_an_error() {
    let cli = Cli::new();
    cli.write("chronos-data", "a file where a folder belongs");
    let brief = cli.run(&["export", "-c", "users"]);
    assert_eq!(brief.failed(1).lines().count(), 1);
    let verbose = cli.run(&["export", "-c", "users", "-v"]);
    let said = verbose.failed(1);
    assert!(said.starts_with(brief.failed(1)) && said.contains("\n  caused by: "), "{said}");
}
