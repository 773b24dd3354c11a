//! Processes die at every step of the write pipeline; the next one finds every acknowledged version, and none
//! by half.

mod audit;
mod sites;
mod workload;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chronos_db::fail::{FailAction, FailPoints};
use chronos_db::{Env, ErrorKind, Json as Value, Random as _, json};
use futures::StreamExt as _;
use test_support::SeededRandom;

use self::audit::{Reported, audit};
use self::sites::{Kind, Site};
use self::workload::{Ledger, Plan};

/// The scenario of a victim; without it the test that plays one has nothing to do.
const SCENARIO: &str = "CHRONOS_CRASH_SCENARIO";
/// Victims at once.
const AT_ONCE: usize = 6;

/// Between every two steps of a commit and of storing it.
const PIPELINE: [&str; 11] = [
    "commit.before_numbers",
    "commit.before_rows",
    "commit.before_answer",
    "flush.before_put",
    "flush.after_blobs",
    "flush.after_put",
    "flush.after_record",
    "large.after_note",
    "large.after_put",
    "large.before_forget",
    "claim.after_claim",
];
const EMBEDDED: [&str; 2] = ["embedded.before_commit", "embedded.after_commit"];
const MONGO: [&str; 3] = ["mongo.after_sequence", "mongo.between_stages", "mongo.after_apply"];

#[derive(Clone, Debug)]
struct Victim {
    site: Site,
    points: String,
    ledger: PathBuf,
    plan: Plan,
}

impl Victim {
    fn at(site: Site, run: &str, points: String) -> Self {
        let ledger = site.dir.join(format!("ledger-{run}"));
        let plan = Plan {
            run: run.to_owned(),
            seed: 1,
            tasks: 4,
            steps: 300,
            lenient: false,
            erasing: site.erasing,
        };
        Self { site, points, ledger, plan }
    }

    fn spawn(&self) -> Child {
        let Plan { run, seed, tasks, steps, .. } = &self.plan;
        let scenario = json!({
            "site": self.site.to_json(), "points": self.points, "ledger": self.ledger, "run": run, "seed": seed, "tasks": tasks, "steps": steps,
        });
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::child", "--nocapture"])
            .env(SCENARIO, scenario.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs to its end, whatever that is.
    async fn live(&self) -> Output {
        let child = self.spawn();
        tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
    }

    fn reported(&self) -> Reported {
        Reported::read(&[&self.ledger])
    }
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

/// Plays a victim when this binary starts itself again with a scenario.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Ok(scenario) = std::env::var(SCENARIO) else { return };
    let scenario: Value = Value::parse(&scenario).unwrap();
    let site = Site::from_json(&scenario["site"]);
    let number = |key: &str| scenario[key].as_u64().unwrap();
    let plan = Plan {
        run: scenario["run"].as_str().unwrap().to_owned(),
        seed: number("seed"),
        tasks: number("tasks") as usize,
        steps: number("steps") as usize,
        lenient: false,
        erasing: site.erasing,
    };
    let fail = FailPoints::parse(scenario["points"].as_str().unwrap()).unwrap();
    let ledger = Arc::new(Ledger::append(Path::new(scenario["ledger"].as_str().unwrap())));
    let opened = site.open(Env { fail, ..Env::default() });
    let life = workload::run(&opened.things, &ledger, &plan);
    tokio::time::timeout(Duration::from_secs(300), life).await.expect("the victim lived too long");
    opened.chronos.shutdown().await.unwrap();
}

/// Kills a victim at each of `points`, after each number of passes, each in a place of its own; then audits
/// all of them.
async fn kill_at_every_point(kind: Kind, points: &[(&[&str], &[u64])], erasing: bool) {
    let dir = tempfile::tempdir().unwrap();
    let mut victims = Vec::new();
    for (points, passes) in points {
        for (point, passes) in
            points.iter().flat_map(|point| passes.iter().map(move |passes| (point, passes)))
        {
            let run = format!("{}-{passes}", point.replace('.', "-"));
            let mut site = Site::new(kind, dir.path().join(&run));
            std::fs::create_dir_all(&site.dir).unwrap();
            site.erasing = erasing;
            victims.push(Victim::at(site, &run, format!("{point}=abort:{passes}")));
        }
    }
    let deaths = futures::stream::iter(&victims).map(|victim| async move {
        let output = victim.live().await;
        assert!(was_killed(&output), "{} was never reached: {}", victim.points, said(&output));
    });
    deaths.buffer_unordered(AT_ONCE).collect::<()>().await;
    let audits = futures::stream::iter(&victims).map(|victim| async move {
        audit(&victim.site, &victim.reported(), &format!("{kind:?} {}", victim.points)).await;
    });
    audits.buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_of_the_embedded_store_loses_nothing_acknowledged() {
    kill_at_every_point(Kind::Embedded, &[(&PIPELINE, &[0, 1, 5]), (&EMBEDDED, &[0, 1, 5])], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_on_a_replica_set_and_s3_loses_nothing_acknowledged() {
    kill_at_every_point(Kind::ReplicaSetS3, &[(&PIPELINE, &[1]), (&MONGO, &[0, 1, 5])], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_at_any_step_on_a_standalone_server_loses_nothing_acknowledged() {
    kill_at_every_point(Kind::StandaloneLocal, &[(&PIPELINE, &[1]), (&MONGO, &[0, 1, 5])], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_is_interrupted_is_completed_by_the_next_process() {
    let points = [
        "commit.before_answer",
        "flush.before_put",
        "erase.after_note",
        "erase.after_rows",
        "erase.after_objects",
        "flush.after_put",
        "flush.after_record",
    ];
    kill_at_every_point(Kind::Embedded, &[(&points, &[0, 1, 5])], true).await;
    let points = ["erase.after_note", "erase.after_rows", "erase.after_objects", "mongo.between_stages"];
    kill_at_every_point(Kind::StandaloneLocal, &[(&points, &[0, 3])], true).await;
}

/// Between every two steps of erasing, and of what it may meet in another process.
const ERASING: [&str; 10] = [
    "erase.after_note",
    "erase.after_rows",
    "erase.after_objects",
    "flush.before_put",
    "flush.after_put",
    "flush.after_record",
    "commit.before_rows",
    "commit.before_answer",
    "large.after_put",
    "large.before_forget",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures_of_two_processes_of_which_one_dies_stay_erasures_on_an_embedded_store() {
    one_of_two_dies(Kind::Embedded, &ERASING, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures_of_two_processes_of_which_one_dies_stay_erasures_on_a_standalone_server() {
    one_of_two_dies(Kind::StandaloneLocal, &ERASING, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn erasures_of_two_processes_of_which_one_dies_stay_erasures_on_a_replica_set() {
    one_of_two_dies(Kind::ReplicaSetS3, &ERASING, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_killed_again_and_again_at_random_moments_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::env::var("CHRONOS_CRASH_SEED").map_or(7, |seed| seed.parse().unwrap());
    eprintln!("CHRONOS_CRASH_SEED={seed}");
    let random = SeededRandom::new(seed);
    let site = Site::new(Kind::Embedded, dir.path().to_owned());
    let mut ledgers = Vec::new();
    for round in 0..15 {
        let mut victim = Victim::at(site.clone(), &format!("round{round}"), String::new());
        victim.plan.seed = random.next_u64() % 1_000_000;
        victim.plan.steps = 1_000_000;
        let mut child = victim.spawn();
        let (lines, spin) = (1 + random.next_u64() % 120, Duration::from_micros(random.next_u64() % 3_000));
        let ledger = victim.ledger.clone();
        tokio::task::spawn_blocking(move || {
            while std::fs::read(&ledger)
                .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count() as u64)
                < lines
            {
                assert!(child.try_wait().unwrap().is_none(), "the victim died by itself");
                std::thread::yield_now();
            }
            // Somewhere behind that line: the moment of a kill is not a condition to wait for.
            std::thread::sleep(spin);
            child.kill().unwrap();
            child.wait_with_output().unwrap();
        })
        .await
        .unwrap();
        ledgers.push(victim.ledger);
        // In between the next process begins with whatever the killed one left.
        if round % 3 == 2 {
            let reported = Reported::read(&ledgers.iter().map(PathBuf::as_path).collect::<Vec<_>>());
            audit(&site, &reported, &format!("seed {seed}, round {round}")).await;
        }
    }
    let reported = Reported::read(&ledgers.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert!(reported.acknowledged() > 100, "only {} acknowledged writes", reported.acknowledged());
}

/// Two processes write one collection; one of them is killed, the other must not notice.
async fn one_of_two_dies(kind: Kind, points: &[&str], erasing: bool) {
    let dir = tempfile::tempdir().unwrap();
    let pairs: Vec<_> = points
        .iter()
        .map(|point| {
            let mut site = Site::new(kind, dir.path().join(point));
            site.erasing = erasing;
            std::fs::create_dir_all(&site.dir).unwrap();
            let victim = Victim::at(site.clone(), "victim", format!("{point}=abort:7"));
            let mut survivor = Victim::at(site, "survivor", String::new());
            survivor.plan = Plan { seed: 2, tasks: 3, steps: 20, ..survivor.plan };
            (victim, survivor)
        })
        .collect();
    let deaths = futures::stream::iter(&pairs).map(|(victim, survivor)| async move {
        let (dead, alive) = futures::future::join(victim.live(), survivor.live()).await;
        assert!(was_killed(&dead), "{}: {}", victim.points, said(&dead));
        assert!(alive.status.success(), "the survivor of {}: {}", victim.points, said(&alive));
    });
    deaths.buffer_unordered(3).collect::<()>().await;
    let audits = futures::stream::iter(&pairs).map(|(victim, survivor)| async move {
        let reported = Reported::read(&[&victim.ledger, &survivor.ledger]);
        audit(&victim.site, &reported, &format!("{kind:?} two, {}", victim.points)).await;
    });
    audits.buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_one_of_two_processes_on_an_embedded_store_does_not_disturb_the_other() {
    one_of_two_dies(
        Kind::Embedded,
        &["commit.before_rows", "embedded.before_commit", "embedded.after_commit", "flush.after_put"],
        false,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_one_of_two_processes_on_a_replica_set_does_not_disturb_the_other() {
    one_of_two_dies(
        Kind::ReplicaSetS3,
        &["mongo.after_sequence", "mongo.between_stages", "claim.after_claim", "flush.after_put"],
        false,
    )
    .await;
}

/// Two processes write and erase the same items; one of them is killed at a point or at any moment, the other
/// goes on, and is killed, too. Several rounds a place, then its audit. `CHRONOS_ERASE_ROUNDS` says how many;
/// the seed that is printed gives the same rounds again.
async fn erasers_are_killed_in_turn(kind: Kind) {
    const ROUNDS: u64 = 2;
    const ROUNDS_A_PLACE: u64 = 4;
    let number = |name: &str, default| std::env::var(name).map_or(default, |given| given.parse().unwrap());
    let (rounds, seed) = (number("CHRONOS_ERASE_ROUNDS", ROUNDS), number("CHRONOS_CRASH_SEED", 7));
    eprintln!("CHRONOS_CRASH_SEED={seed} CHRONOS_ERASE_ROUNDS={rounds}");
    let random = SeededRandom::new(seed);
    let mut acknowledged = 0;
    for first in (0..rounds).step_by(usize::try_from(ROUNDS_A_PLACE).unwrap()) {
        let dir = tempfile::tempdir().unwrap();
        let mut site = Site::new(kind, dir.path().to_owned());
        site.erasing = true;
        let mut ledgers = Vec::new();
        for round in first..rounds.min(first + ROUNDS_A_PLACE) {
            let spawn = |side: &str, points: String| {
                let mut victim = Victim::at(site.clone(), &format!("round{round}{side}"), points);
                victim.plan =
                    Plan { seed: random.next_u64() % 1_000_000, tasks: 3, steps: 1_000_000, ..victim.plan };
                (victim.spawn(), victim.ledger)
            };
            let at = (random.next_u64() % (2 * ERASING.len() as u64)) as usize;
            let point = ERASING
                .get(at)
                .map(|point| format!("{point}=abort:{}", random.next_u64() % 6))
                .unwrap_or_default();
            let (one, one_wrote) = spawn("a", point);
            let (other, other_wrote) = spawn("b", String::new());
            let (lines, more) = (20 + random.next_u64() % 80, 20 + random.next_u64() % 60);
            let ledger = (one_wrote.clone(), other_wrote.clone());
            tokio::task::spawn_blocking(move || {
                let written = |ledger: &Path| {
                    std::fs::read(ledger)
                        .map_or(0, |text| text.iter().filter(|byte| **byte == b'\n').count() as u64)
                };
                let (mut one, mut other) = (one, other);
                while written(&ledger.0) < lines && one.try_wait().unwrap().is_none() {
                    std::thread::yield_now();
                }
                one.kill().unwrap();
                let dead = one.wait_with_output().unwrap();
                assert!(was_killed(&dead), "one died by itself: {}", said(&dead));
                let until = written(&ledger.1) + more;
                while written(&ledger.1) < until {
                    if other.try_wait().unwrap().is_some() {
                        panic!("the survivor died by itself: {}", said(&other.wait_with_output().unwrap()));
                    }
                    std::thread::yield_now();
                }
                other.kill().unwrap();
                other.wait_with_output().unwrap();
            })
            .await
            .unwrap();
            ledgers.extend([one_wrote, other_wrote]);
        }
        let reported = Reported::read(&ledgers.iter().map(PathBuf::as_path).collect::<Vec<_>>());
        audit(&site, &reported, &format!("{kind:?}, seed {seed}, rounds from {first}")).await;
        acknowledged += reported.acknowledged();
    }
    assert!(acknowledged > 20, "only {acknowledged} acknowledged writes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_erase_are_killed_in_turn_on_an_embedded_store() {
    erasers_are_killed_in_turn(Kind::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_erase_are_killed_in_turn_on_a_standalone_server() {
    erasers_are_killed_in_turn(Kind::StandaloneLocal).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_erase_are_killed_in_turn_on_a_replica_set_and_s3() {
    erasers_are_killed_in_turn(Kind::ReplicaSetS3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_that_erase_are_killed_in_turn_on_a_replica_set_and_azure() {
    erasers_are_killed_in_turn(Kind::ReplicaSetAzure).await;
}

/// Lets every point fail once, in this process, and goes on.
async fn fail_at_every_point(kind: Kind, points: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let runs: Vec<_> = points
        .iter()
        .enumerate()
        .map(
            |(i, point)| {
                if i % 2 == 0 { (*point, 0, ErrorKind::Database) } else { (*point, 3, ErrorKind::Storage) }
            },
        )
        .map(|(point, passes, error)| {
            let run = format!("{}-{passes}", point.replace('.', "-"));
            let site = Site::new(kind, dir.path().join(&run));
            std::fs::create_dir_all(&site.dir).unwrap();
            (
                Victim::at(site, &run, format!("{point} fails after {passes} with {error:?}")),
                point,
                passes,
                error,
            )
        })
        .collect();
    let failures = futures::stream::iter(&runs).map(|(victim, point, passes, error)| async move {
        let fail = FailPoints::armable();
        fail.arm(point, FailAction::Error(*error), *passes, 1);
        let opened = victim.site.open(Env { fail, ..Env::default() });
        let plan = Plan { steps: 13, lenient: true, ..victim.plan.clone() };
        workload::run(&opened.things, &Arc::new(Ledger::append(&victim.ledger)), &plan).await;
        opened.chronos.shutdown().await.unwrap();
        audit(&victim.site, &victim.reported(), &format!("{kind:?} {}", victim.points)).await;
    });
    failures.buffer_unordered(AT_ONCE).collect::<()>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_any_step_of_the_embedded_store_leaves_nothing_half_done() {
    fail_at_every_point(Kind::Embedded, &[PIPELINE.as_slice(), &EMBEDDED].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_at_any_step_on_a_replica_set_leaves_nothing_half_done() {
    fail_at_every_point(Kind::ReplicaSetS3, &[PIPELINE.as_slice(), &MONGO].concat()).await;
}
