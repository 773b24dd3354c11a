//! Processes that are killed, at every step and at any moment; the next ones find everything, and nothing
//! twice.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::fail::FailPoints;
use chronos_db::{Env, Json as Value, Random as _, json};
use chronow::testing::{Point, hooked};
use chronow::{Error, ErrorKind};
use futures::StreamExt as _;

use super::crew::{self, Crew, PUBLISHER, Pace};
use super::ledger::{Ledger, audit};
use super::{below, chance};
use crate::tiers::{TIMEOUT, Tier, World, connect_with, on_every_hot_tier};

/// The scenario of a victim; without it the test that plays one has nothing to do.
const SCENARIO: &str = "CHRONOW_FAULT_SCENARIO";
const AT_ONCE: usize = 4;
/// Long enough for a healthy consumer on a busy machine, short enough to wait for behind a dead one.
const VISIBILITY: Duration = Duration::from_millis(1_200);

/// Messages of one victim, if it lives so long: enough to come to every point of publishing.
const PUBLISHED: usize = 16;

/// Steps inside the stores.
const EMBEDDED: [&str; 5] = [
    "embedded.before_commit",
    "embedded.after_commit",
    "bus.after_numbers",
    "bus.before_head",
    "bus.before_wake",
];
const MONGO: [&str; 4] = ["mongo.after_apply", "bus.after_numbers", "bus.before_head", "bus.before_wake"];

on_every_hot_tier! {
    a_process_killed_at_any_step_loses_and_doubles_nothing,
    processes_killed_at_any_moment_lose_and_double_nothing,
}

struct Victim<'w> {
    world: &'w World,
    points: String,
    ledger: PathBuf,
    publisher: usize,
}

impl Victim<'_> {
    fn spawn(&self) -> Child {
        let scenario = json!({ "config": self.world.config, "points": self.points, "ledger": self.ledger, "publisher": self.publisher });
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::kills::child", "--nocapture"])
            .env(SCENARIO, scenario.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    async fn live(&self) -> Output {
        let child = self.spawn();
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
    }
}

/// Plays a victim when this binary starts itself again with a scenario: publishes some, and consumes until it
/// is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let scenario: Value = Value::parse(&scenario).unwrap();
    let ledger = Ledger::append(Path::new(scenario["ledger"].as_str().unwrap()));
    let points = scenario["points"].as_str().unwrap();
    let fail = FailPoints::parse(points).unwrap();
    let pace = if points.starts_with("renew") { Pace::Endless } else { Pace::Quick };
    let first = PUBLISHER * usize::try_from(scenario["publisher"].as_u64().unwrap()).unwrap();
    let points = fail.clone();
    let hook = move |point: Point<'_>| {
        points
            .hit(point.name())
            .map_err(|error| Error::new(ErrorKind::HotTier, error.to_string()).retryable())
    };
    let env = Env { fail, ..Env::default() };
    let chronow = connect_with(&scenario["config"], env, |hot| hooked(hot, hook)).await;
    let consumers = Crew::consume_at(pace, &chronow, &ledger);
    let life = async {
        crew::publish(&chronow, &ledger, first..first + PUBLISHED).await;
        std::future::pending::<()>().await;
    };
    assert!(tokio::time::timeout(TIMEOUT * 2, life).await.is_ok(), "the victim lived too long");
    consumers.stop().await;
}

/// A victim dies at every point, early and a little later; they all share one topic.
async fn a_process_killed_at_any_step_loses_and_doubles_nothing(world: World) {
    let own: &[&str] = match world.tier {
        Tier::Embedded => &EMBEDDED,
        Tier::MongoReplicaSet | Tier::MongoStandalone => &MONGO,
        #[cfg(feature = "redis")]
        Tier::Redis | Tier::Cluster => &[],
    };
    crew::prepare(&world.chronow, VISIBILITY, 2).await;
    let ledger = world.file("ledger");
    // What the first ones find.
    crew::publish(&world.chronow, &Ledger::append(&ledger), 0..20).await;
    let points = Point::NAMES.iter().chain(own).flat_map(|point| [0, 7].map(|passes| (*point, passes)));
    let victims: Vec<Victim<'_>> = points
        .enumerate()
        .map(|(index, (point, passes))| {
            let points = format!("{point}=abort:{passes}");
            Victim { world: &world, points, ledger: ledger.clone(), publisher: index + 1 }
        })
        .collect();
    let deaths = futures::stream::iter(&victims).map(|victim| async move {
        let output = victim.live().await;
        assert!(was_killed(&output), "{} was never reached: {}", victim.points, said(&output));
    });
    deaths.buffer_unordered(AT_ONCE).collect::<()>().await;
    audit(&world.chronow, &Ledger::append(&ledger), "processes killed at every step").await;
}

async fn processes_killed_at_any_moment_lose_and_double_nothing(world: World) {
    let random = chance();
    crew::prepare(&world.chronow, VISIBILITY, 2).await;
    let path = world.file("ledger");
    let ledger = Ledger::append(&path);
    crew::publish(&world.chronow, &ledger, 0..20).await;
    for round in 0..4 {
        let victim =
            |publisher| Victim { world: &world, points: String::new(), ledger: path.clone(), publisher };
        let mut children: Vec<Child> = (1..=2).map(|which| victim(round * 2 + which).spawn()).collect();
        let lines = ledger.events().len() + usize::try_from(30 + below(&random, 100)).unwrap();
        let spin = Duration::from_micros(random.next_u64() % 5_000);
        let ledger = Arc::clone(&ledger);
        tokio::task::spawn_blocking(move || {
            let begun = std::time::Instant::now();
            while ledger.events().len() < lines {
                assert!(begun.elapsed() < TIMEOUT, "the victims do nothing");
                assert!(
                    children.iter_mut().all(|child| child.try_wait().unwrap().is_none()),
                    "a victim died by itself"
                );
                std::thread::sleep(Duration::from_millis(2));
            }
            // Somewhere behind that line: the moment of a kill is not a condition to wait for.
            std::thread::sleep(spin);
            for mut child in children {
                child.kill().unwrap();
                child.wait_with_output().unwrap();
            }
        })
        .await
        .unwrap();
    }
    audit(&world.chronow, &ledger, "processes killed at any moment").await;
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

fn was_killed(output: &Output) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    output.status.signal().is_some()
}
