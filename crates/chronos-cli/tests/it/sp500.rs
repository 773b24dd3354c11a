//! A real history: the first changes of the constituents of the S&P 500.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::sync::LazyLock;

use chronos_db::Json;

use crate::cli::Cli;

const OPERATIONS: usize = 600;

static HISTORY: LazyLock<Vec<Json>> = LazyLock::new(|| {
    let file =
        std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/data/sp500-history.ndjson")).unwrap();
    let lines = BufReader::new(file).lines().take(OPERATIONS);
    lines.map(|line| Json::parse(line.unwrap()).unwrap()).collect()
});

fn text<'a>(operation: &'a Json, key: &str) -> &'a str {
    operation[key].as_str().unwrap()
}

/// What the source had at this time.
fn state_at(at: &str) -> BTreeMap<String, Json> {
    let mut state = BTreeMap::new();
    for operation in HISTORY.iter().filter(|operation| text(operation, "at") <= at) {
        let key = text(operation, "key").to_owned();
        match text(operation, "op") {
            "delete" => state.remove(&key),
            _ => state.insert(key, operation["data"].clone()),
        };
    }
    state
}

fn exported(cli: &Cli, args: &[&str]) -> BTreeMap<String, Json> {
    let documents = cli.run(&[&["export", "-c", "companies"], args].concat()).lines();
    documents.into_iter().map(|document| (text(&document, "Symbol").to_owned(), document)).collect()
}

fn imported() -> Cli {
    let cli = Cli::new();
    let log: Vec<String> = HISTORY.iter().map(Json::to_string).collect();
    cli.write("history.ndjson", &log.join("\n"));
    let reported =
        cli.run(&["import", "-c", "companies", "--key-property", "Symbol", "history.ndjson"]).value();
    assert_eq!(reported["written"], OPERATIONS);
    cli
}

#[test]
fn every_date_of_the_history_is_exported_as_the_source_had_it() {
    let cli = imported();
    let mut dates: Vec<&str> = HISTORY.iter().map(|operation| text(operation, "at")).collect();
    dates.dedup();
    assert!(dates.len() > 8);
    for date in &dates {
        assert_eq!(exported(&cli, &["--at", date]), state_at(date), "at {date}");
    }
    assert_eq!(exported(&cli, &[]), state_at(dates[dates.len() - 1]));
    assert_eq!(exported(&cli, &["--at", "2012-12-26"]), BTreeMap::new());
}

#[test]
fn the_whole_collection_goes_back_to_a_date_and_forth() {
    let cli = imported();
    let then = "2013-06-08T17:29:43Z";
    let now = exported(&cli, &[]);
    cli.run(&["restore-collection", "-c", "companies", "--at", then]).value();
    assert_eq!(exported(&cli, &[]), state_at(then));
    cli.run(&["restore-collection", "-c", "companies", "--cv", &(OPERATIONS - 1).to_string()]).value();
    assert_eq!(exported(&cli, &[]), now);
    let found = cli.run(&["verify", "-c", "companies"]).value();
    assert_eq!(found["problemCount"], 0);
}

#[test]
fn a_reader_that_goes_away_ends_an_export_quietly() {
    let cli = imported();
    let mut child = cli.command(["export", "-c", "companies", "--view"]).spawn().unwrap();
    let mut first = String::new();
    // Its end of the pipe closes with this statement, while most of the export is still to come.
    BufReader::with_capacity(64, child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(Json::parse(&first).is_ok());
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((child.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}
