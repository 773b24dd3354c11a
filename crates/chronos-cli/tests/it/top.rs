//! `chronos bus top` from outside.

use std::io::{BufRead as _, BufReader};
use std::time::{Duration, Instant};

use chronos_db::{Json, json};

use crate::cli::Cli;

#[test]
fn two_frames_tell_counts_and_then_rates() {
    let cli = Cli::new();
    for topic in ["orders", "payments"] {
        cli.run(&["bus", "topic", "create", topic]).value();
    }
    cli.run(&["bus", "sub", "create", "payments", "fraud", "--max-deliveries", "1"]).value();
    let lines: String = (0..6).map(|n| format!("{}\n", json!({"payload": {"n": n}}))).collect();
    cli.run_with(&["bus", "publish", "payments", "-"], &lines).lines();
    cli.run(&["bus", "consume", "payments", "fraud", "--settle", "nack", "--max", "1"]).lines();
    cli.run(&["bus", "consume", "payments", "fraud", "--settle", "none", "--max", "2"]).lines();

    let frames = cli.run(&["bus", "top", "--frames", "2", "--interval-ms", "50"]).lines();
    assert_eq!(frames.len(), 2);
    assert!(frames[0]["at"].is_string());
    assert_eq!(
        (&frames[0]["topics"][0]["topic"], &frames[0]["topics"][0]["subscriptions"]),
        (&json!("orders"), &json!([]))
    );
    let of = |frame: usize| &frames[frame]["topics"][1]["subscriptions"][0];
    assert_eq!(
        (&of(0)["backlog"], &of(0)["pending"], &of(0)["deadLetters"]),
        (&json!(3), &json!(2), &json!(1))
    );
    assert!(of(0)["oldestAgeMs"].is_u64() && of(0)["inPerSecond"].is_null());
    assert_eq!((of(1)["inPerSecond"].as_f64(), of(1)["outPerSecond"].as_f64()), (Some(0.0), Some(0.0)));
}

#[test]
fn rates_tell_what_came_and_went_between_two_frames() {
    let cli = Cli::new();
    cli.run(&["bus", "topic", "create", "payments"]).value();
    cli.run(&["bus", "sub", "create", "payments", "fraud"]).value();
    let mut watching = cli.command(["bus", "top", "payments", "--interval-ms", "100"]).spawn().unwrap();
    let mut frames = BufReader::new(watching.stdout.take().unwrap()).lines();
    let until = Instant::now() + Duration::from_secs(60);
    let (mut came, mut went) = (false, false);
    while !(came && went) {
        assert!(Instant::now() < until, "what came was counted: {came}, what went: {went}");
        cli.run(&["bus", "publish", "payments", "--payload", "1"]).value();
        assert_eq!(cli.run(&["bus", "consume", "payments", "fraud", "--max", "1"]).lines().len(), 1);
        let frame: Json = Json::parse(frames.next().unwrap().unwrap()).unwrap();
        let rate = |name: &str| frame["topics"][0]["subscriptions"][0][name].as_f64().unwrap_or(0.0);
        came |= rate("inPerSecond") > 0.0;
        went |= rate("outPerSecond") > 0.0;
    }
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn a_topic_that_is_asked_for_must_be_there() {
    let cli = Cli::new();
    assert!(cli.run(&["bus", "top", "payments", "--frames", "1"]).failed(1).contains("NOT_FOUND"));
    assert_eq!(cli.run(&["bus", "top", "--frames", "1"]).value()["topics"], json!([]));
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0, "looking leaves nothing behind");
}
