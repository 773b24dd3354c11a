//! `--metrics`: what Prometheus scrapes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use chronos_db::telemetry::{METRICS, MetricKind};
use test_support::{free_port, promtool};

use crate::cli::{Cli, Ran};

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// The body of the answer, if there is one.
fn scrape(address: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: chronos\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    Some(body.to_owned())
}

/// Asks until the answer is as it should be.
#[track_caller]
fn until(address: SocketAddr, child: &mut Child, is_right: impl Fn(&str) -> bool) -> String {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let text = scrape(address).unwrap_or_default();
        if is_right(&text) {
            return text;
        }
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < end, "{text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn end(child: Child) -> Ran {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    Ran::of(child)
}

#[cfg(unix)]
#[test]
fn a_worker_serves_every_metric_from_the_start_and_promtool_likes_them() {
    let cli = Cli::new();
    cli.run(&["create", "-c", "users", r#"{"n": 1}"#]).value();
    let address = address();
    let mut child =
        cli.command(["worker", "--every", "1", "--metrics", &address.to_string()]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.next().unwrap().unwrap();
    let text = until(address, &mut child, |text| text.contains("chronos_stable_cv{"));
    promtool(&["check", "metrics"], &text);
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} ", metric.name)), "{} in {text}", metric.name);
        let kind = match metric.kind {
            MetricKind::Counter => "counter",
            MetricKind::Gauge => "gauge",
            MetricKind::Histogram => "histogram",
        };
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{} in {text}", metric.name);
    }
    let up: Vec<&str> = text.lines().filter(|line| line.starts_with("chronos_backend_up{")).collect();
    assert!(!up.is_empty() && up.iter().all(|line| line.ends_with(" 1")), "{up:?}");
    assert!(text.contains("chronos_worker_done_total{work=\"counted\"} 1\n"), "{text}");
    end(child).lines();
}

#[cfg(unix)]
#[test]
fn a_consumer_serves_what_it_does_and_what_its_topics_hold() {
    let cli = Cli::new();
    cli.run(&["bus", "topic", "create", "payments"]).value();
    cli.run(&["bus", "sub", "create", "payments", "fraud"]).value();
    cli.run(&["bus", "publish", "payments", "--payload", r#"{"amount": 1}"#]).value();
    let address = address();
    let mut child = cli
        .command(["bus", "consume", "payments", "fraud", "--metrics", &address.to_string()])
        .spawn()
        .unwrap();
    let text = until(address, &mut child, |text| {
        text.contains("chronow_acked_total 1\n") && text.contains("chronow_topic_messages{")
    });
    promtool(&["check", "metrics"], &text);
    let of = r#"{tenant="default",namespace="default",topic="payments",subscription="fraud"}"#;
    assert!(text.contains(&format!("chronow_dead_letters{of} 0\n")), "{text}");
    assert!(!text.contains("amount"), "{text}");
    assert_eq!(end(child).lines().len(), 1);
}

#[test]
fn an_address_that_is_taken_or_none_at_all_is_an_error() {
    let cli = Cli::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let ran = cli.run(&["worker", "--metrics", &address]);
    assert!(ran.failed(1).contains(&address), "{ran:?}");
    assert!(cli.run(&["worker", "--metrics", "nowhere"]).failed(2).contains("nowhere"));
    assert_eq!(std::fs::read_dir(cli.folder()).unwrap().count(), 0);
}
