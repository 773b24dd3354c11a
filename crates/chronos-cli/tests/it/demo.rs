//! `chronos demo`.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::tempdir;

fn chronos() -> Command {
    Command::new(env!("CARGO_BIN_EXE_chronos"))
}

/// As a user pastes it.
fn in_shell(command: &str) -> Output {
    let programs = Path::new(env!("CARGO_BIN_EXE_chronos")).parent().unwrap();
    let path = std::env::join_paths(
        [programs.to_owned()].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    Command::new("sh").args(["-c", command]).env("PATH", path.unwrap()).output().unwrap()
}

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap()
}

fn demo_in(dir: &Path) -> Output {
    chronos().args(["demo", "--data"]).arg(dir).output().unwrap()
}

#[test]
fn the_demo_tells_the_whole_history_and_leaves_a_store_that_can_be_used() {
    let home = tempdir().unwrap();
    let dir = home.path().join("sp500");
    let reported = demo_in(&dir);
    let (story, complaints) = (text(reported.stdout), text(reported.stderr));
    assert!(reported.status.success(), "{story}\n{complaints}");
    assert_eq!(complaints, "");

    for fact in [
        "4,696 operations at 187 times from 2012-12-27 to 2026-08-08",
        "862 companies created, 4,696 versions written, 503 companies in the index today",
        "2012-12-31      2017-03-31      2021-06-30      2026-06-30",
        "companies                       500             505             505             503",
        "read from the column           Sector          Sector          Sector          GICS Sector",
        "~ Name: \"3M Co.\" → \"3M Co\"",
        "~ column Sector renamed GICS Sector: \"Industrial Conglomerates\" → \"Industrials\"",
        "29 came back, 33 times in all",
        "before:  503 companies",
        "between: 494 companies, every document equal to the collection as of 2015-12-31: checked",
        "after:   503 companies, every document equal to the collection as of collection version 4,695: checked",
        "_system.functionIds  [\"name-history@v1\"]",
        "v9 is unchanged",
        "the same enrichment again changes nothing",
        "6,099 versions of 862 items (503 live)",
        "no problems: the index and the objects are what they should be",
        "4,338 files of JSON",
    ] {
        assert!(story.contains(fact), "the demo does not say: {fact}\n{story}");
    }
    assert!(!story.contains('\x1b'), "colours belong on terminals only");
    assert!(!story.contains('█'), "bars belong on terminals only");
    assert!(story.lines().all(|line| line.chars().count() <= 160), "only paths may make a line long");

    let example = story.lines().find_map(|line| line.trim().strip_prefix("such as ")).unwrap();
    let key = example.split(',').next().unwrap();
    let object = fs::read_to_string(dir.join("objects/chronos").join(key)).unwrap();
    assert!(object.contains("namesSoFar"), "{object}");

    let commands: Vec<&str> =
        story.lines().map(str::trim).filter(|line| line.starts_with("chronos ")).collect();
    assert_eq!(commands.len(), 3, "{story}");
    for command in commands {
        let tried = in_shell(command);
        assert!(tried.status.success() && !tried.stdout.is_empty(), "{command}: {tried:?}");
    }

    let again = demo_in(&dir);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(text(again.stdout), "");
    let complaints = text(again.stderr);
    assert!(
        complaints.contains("is not empty; the demo takes a new folder") && complaints.lines().count() == 1,
        "{complaints}"
    );
}

#[test]
fn a_demo_whose_reader_has_seen_enough_ends_well_and_leaves_no_folder_behind() {
    let tmp = tempdir().unwrap();
    let mut demo = chronos().arg("demo").env("TMPDIR", tmp.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = String::new();
    let mut reader = BufReader::new(demo.stdout.take().unwrap());
    reader.read_line(&mut first).unwrap();
    drop(reader);
    assert!(demo.wait().unwrap().success());
    assert!(first.contains("S&P 500"), "{first}");
    assert_eq!(fs::read_dir(tmp.path()).unwrap().count(), 0);
}
