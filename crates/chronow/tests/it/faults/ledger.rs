//! The answers that every client got, one line per event, written by several processes; and the audit of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chronow::{Chronow, ErrorKind};
use futures::TryStreamExt as _;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::crew::{Crew, PUBLISHER, Role, TOPIC, ending_of, payload_number};
use crate::tiers::TIMEOUT;

/// How a handler ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum How {
    Ack,
    Retry,
    DeadLetter,
}

/// The answer to a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Reported {
    Done,
    Lost,
    Unknown,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Event {
    /// Before a publish.
    Sending {
        n: usize,
    },
    Acknowledged {
        n: usize,
        id: String,
    },
    /// It failed, and may have taken place.
    Unsure {
        n: usize,
    },
    /// A handler was started.
    Got {
        s: Role,
        n: usize,
        id: String,
        delivery: u32,
    },
    /// Before a settlement.
    Settling {
        s: Role,
        n: usize,
        delivery: u32,
        how: How,
    },
    Settled {
        s: Role,
        n: usize,
        delivery: u32,
        how: How,
        reported: Reported,
    },
}

#[derive(Debug)]
pub(super) struct Ledger {
    path: PathBuf,
    file: Mutex<File>,
    answers: AtomicUsize,
}

impl Ledger {
    pub(super) fn append(path: &Path) -> Arc<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        Arc::new(Self { path: path.to_owned(), file: Mutex::new(file), answers: AtomicUsize::new(0) })
    }

    pub(super) fn note(&self, event: &Event) {
        // One write, so that lines of several processes do not mix; on a line of its own, also behind the
        // half line of one that was killed.
        let line = format!("\n{}\n", serde_json::to_string(event).unwrap());
        self.file.lock().write_all(line.as_bytes()).unwrap();
        if matches!(event, Event::Acknowledged { .. }) {
            self.answers.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// How many messages were acknowledged to publishers of this process.
    pub(super) fn answers(&self) -> usize {
        self.answers.load(Ordering::SeqCst)
    }

    pub(super) fn events(&self) -> Vec<Event> {
        let text = std::fs::read_to_string(&self.path).unwrap();
        // Some are empty, and some were cut where the kernel ended the write of a process that was killed.
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// What became of one message in one subscription.
#[derive(Debug, Default)]
struct Story {
    deliveries: Vec<u32>,
    /// Deliveries whose acknowledgement counted, and those of which nobody knows.
    acked: Vec<u32>,
    maybe_acked: Vec<u32>,
    /// Where in the ledger it was first handed out, and last about to be acknowledged.
    first_got: usize,
    last_ack: Option<usize>,
}

#[derive(Debug, Default)]
struct Facts {
    accepted: Option<String>,
    unsure: bool,
    ids: BTreeSet<String>,
    stories: BTreeMap<Role, Story>,
}

fn read(events: &[Event]) -> BTreeMap<usize, Facts> {
    let mut all = BTreeMap::<usize, Facts>::new();
    for (at, event) in events.iter().enumerate() {
        match event {
            Event::Sending { n } => drop(all.entry(*n).or_default()),
            Event::Acknowledged { n, id } => {
                let reported = all.entry(*n).or_default();
                reported.accepted = Some(id.clone());
                reported.ids.insert(id.clone());
            }
            Event::Unsure { n } => all.entry(*n).or_default().unsure = true,
            Event::Got { s, n, id, delivery } => {
                let reported = all.entry(*n).or_default();
                reported.ids.insert(id.clone());
                let story = reported.stories.entry(*s).or_default();
                if story.deliveries.is_empty() {
                    story.first_got = at;
                }
                story.deliveries.push(*delivery);
            }
            Event::Settling { s, n, delivery, how: How::Ack } => {
                let story = all.entry(*n).or_default().stories.entry(*s).or_default();
                story.maybe_acked.push(*delivery);
                if story.deliveries.iter().max() == Some(delivery) {
                    story.last_ack = Some(at);
                }
            }
            Event::Settled { s, n, delivery, how: How::Ack, reported } => {
                let story = all.entry(*n).or_default().stories.entry(*s).or_default();
                if *reported != Reported::Unknown {
                    story.maybe_acked.retain(|other| other != delivery);
                }
                if *reported == Reported::Done {
                    story.acked.push(*delivery);
                }
            }
            Event::Settling { .. } | Event::Settled { .. } => {}
        }
    }
    all
}

/// Lets healthy consumers finish, and compares the answers with what there is.
pub(super) async fn audit(chronow: &Chronow, ledger: &Arc<Ledger>, context: &str) {
    let topic = chronow.bus().topic(TOPIC).unwrap();
    let crew = Crew::consume(chronow, ledger);
    let begun = Instant::now();
    while !topic.stats().await.is_ok_and(|stats| {
        stats.subscriptions.iter().all(|one| one.backlog + one.pending + one.scheduled == 0)
    }) {
        // There may be hundreds, and locks of the dead to wait for.
        assert!(begun.elapsed() < TIMEOUT * 3, "waited in vain: everything comes to an end, {context}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    crew.stop().await;
    let mut reported = read(&ledger.events());
    let mut dead = BTreeMap::<Role, BTreeMap<usize, chronow::hot::DeadLetter>>::new();
    for role in Role::ALL {
        let letters: Vec<_> =
            topic.subscription(role.name()).unwrap().dead_letters().stream().try_collect().await.unwrap();
        for letter in letters {
            let n = payload_number(&letter.message.payload);
            reported
                .get_mut(&n)
                .unwrap_or_else(|| panic!("{n} was never sent, {context}"))
                .ids
                .insert(letter.message.id.clone());
            let twice = dead.entry(role).or_default().insert(n, letter);
            assert!(twice.is_none(), "{n} is in the dead letters of {role:?} twice, {context}");
        }
    }
    let stats = topic.stats().await.unwrap();
    assert_eq!(stats.length, 0, "{stats:?}, {context}");
    let none = BTreeMap::new();
    for role in Role::ALL {
        let dead = dead.get(&role).unwrap_or(&none);
        let mut owed = 0;
        for (n, reported) in &reported {
            owed += u64::from(one(role, *n, reported, dead.get(n), context));
        }
        in_order(role, &reported, dead, context);
        let counts = stats.subscriptions.iter().find(|stats| stats.subscription == role.name()).unwrap();
        assert_eq!(
            (counts.acked, counts.dead_letters),
            (owed - dead.len() as u64, dead.len() as u64),
            "{role:?}: {counts:?}, {context}"
        );
    }
}

/// Whether the message was owed to the subscription.
fn one(
    role: Role,
    n: usize,
    reported: &Facts,
    dead: Option<&chronow::hot::DeadLetter>,
    context: &str,
) -> bool {
    let context = format!("{n} of {role:?}, {context}: {reported:?}, dead: {dead:?}");
    assert!(reported.ids.len() <= 1, "it was accepted twice: {context}");
    let silent = Story::default();
    let story = reported.stories.get(&role).unwrap_or(&silent);
    let seen = !story.deliveries.is_empty() || dead.is_some();
    if !role.wants(n) {
        assert!(!seen, "it leaked: {context}");
        return false;
    }
    // One that was not acknowledged counts if any consumer has seen it.
    if reported.ids.is_empty() {
        assert!(reported.accepted.is_none(), "{context}");
        return false;
    }
    assert!(seen, "it was lost: {context}");
    let mut deliveries = story.deliveries.clone();
    deliveries.sort_unstable();
    assert!(deliveries.windows(2).all(|pair| pair[0] < pair[1]), "two handlers had one delivery: {context}");
    let most = deliveries.last().copied().unwrap_or(0);
    assert!(most <= role.limit(), "too many deliveries: {context}");
    assert!(story.acked.iter().all(|acked| *acked >= most), "it came again after its end: {context}");
    assert!(story.acked.len() <= 1, "it was acknowledged twice: {context}");
    match dead {
        None => assert!(story.acked.len() + story.maybe_acked.len() > 0, "it was lost: {context}"),
        Some(letter) => {
            assert_eq!(story.acked.len(), 0, "an acknowledged message is dead: {context}");
            assert!((most..=role.limit()).contains(&letter.deliveries), "a wrong count: {context}");
            let chosen = letter.reason == "useless" && ending_of(role, n, 1) == How::DeadLetter;
            assert!(chosen || letter.deliveries == role.limit(), "it is dead too early: {context}");
        }
    }
    let doomed = ending_of(role, n, role.limit()) != How::Ack;
    assert!(!doomed || dead.is_some(), "a poisonous message has to be dead: {context}");
    true
}

/// Messages of one key come one after the other, in the order of publishing.
fn in_order(
    role: Role,
    reported: &BTreeMap<usize, Facts>,
    dead: &BTreeMap<usize, chronow::hot::DeadLetter>,
    context: &str,
) {
    let mut last = BTreeMap::<(usize, &str), (usize, usize)>::new();
    for (n, reported) in reported {
        // Of one that was not acknowledged it is not known when it was accepted.
        let (Some(key), Some(story), false) =
            (super::crew::key_of(*n), reported.stories.get(&role), reported.unsure)
        else {
            continue;
        };
        // Publishers do not know of each other.
        let key = (n / PUBLISHER, key);
        if let Some((before, ended)) = last.get(&key) {
            assert!(*ended < story.first_got, "{n} came before the end of {before}, {role:?}, {context}");
        }
        match story.last_ack {
            Some(ended) if !dead.contains_key(n) => drop(last.insert(key, (*n, ended))),
            _ => {}
        }
    }
}

/// Whether an error says for sure that nothing happened.
pub(super) fn nothing_happened(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Full | ErrorKind::Validation | ErrorKind::NotFound | ErrorKind::Closed)
}
