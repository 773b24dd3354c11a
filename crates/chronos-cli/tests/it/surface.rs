//! What every command has in common: help, exit codes, what is printed where.

use crate::cli::Cli;

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<String> {
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names =
        commands.filter(|line| line.starts_with("  ") && !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

fn help_of(cli: &Cli, path: &[&str]) -> usize {
    let ran = cli.run(&[path, &["--help"]].concat());
    let text = ran.out();
    let examples = text.split_once("Examples:\n").unwrap_or_else(|| panic!("no examples in the help of {path:?}: {ran:?}")).1;
    assert!(examples.contains(&format!("chronos {}", path.join(" "))), "{path:?}: {examples}");
    let below = listed(text);
    1 + below.iter().map(|name| help_of(cli, &[path, &[name.as_str()]].concat())).sum::<usize>()
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
        (&["get", "-c", "users", "123"], "no item id"),
        (&["get", "-c", "../users", "a=1"], "collection"),
        (&["create", "-c", "users", "{"], "no JSON"),
        (&["create", "-c", "users", "[]"], "VALIDATION_ERROR"),
        (&["create", "-c", "users", "absent.json"], "absent.json"),
        (&["list", "-c", "users", "--filter", "{"], "the filter is no JSON"),
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
    for args in [&["list", "-c", "users", "--at", "never"][..], &["list"], &["nonsense"], &["restore", "-c", "users", "a=1"], &[]] {
        let ran = cli.run(args);
        assert!(ran.err().contains("Usage") || ran.failed(2).contains("2015-12-31T10:00:00Z"), "{ran:?}");
    }
}

#[test]
fn looking_finds_nothing_where_nothing_is_and_leaves_nothing_behind() {
    let cli = Cli::new();
    for args in [&["export", "-c", "users"][..], &["list", "-c", "users"], &["export", "-c", "users", "--cv", "3"]] {
        assert_eq!(cli.run(args).lines().len(), 0);
    }
    for args in [&["verify", "-c", "users"][..], &["verify", "-c", "users", "--repair"]] {
        assert_eq!(cli.run(args).value()["versions"], 0);
    }
    assert_eq!(cli.run(&["worker", "-c", "users", "--once"]).value()["waiting"], 0);
    for args in [&["get", "-c", "users", "a=1"][..], &["history", "-c", "users", "a=1"], &["diff", "-c", "users", "a=1", "0"]] {
        assert!(cli.run(args).failed(1).starts_with("error: NOT_FOUND"));
    }
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);
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
