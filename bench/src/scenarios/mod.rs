//! The scenarios, one file a topic.
//!
//! Each opens the library (`bench_store.rs`), measures it and its baseline by turns (`measure.rs`) and returns
//! lines of the report with their targets. `worker.rs` starts processes for those that need several.

pub(crate) mod bus;
mod commands;
mod counters;
mod creates;
mod list;
mod metadata;
mod processes;
mod reads;
mod restore;
mod retention;
mod worker;

use self::worker::Task;
use crate::report::Line;
use crate::{Context, Result};

/// A scenario and what it measures.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// The name of it and its like together.
    group: &'static str,
}

const fn scenario(name: &'static str, about: &'static str) -> Scenario {
    Scenario { name, about, group: "records" }
}

const fn of_the_bus(name: &'static str, about: &'static str) -> Scenario {
    Scenario { name, about, group: "bus" }
}

pub(crate) const ALL: [Scenario; 19] = [
    scenario("embedded_creates", "64 writers create items in a file, against the same rows in SQLite"),
    scenario("mongo_creates", "64 writers create items, against the driver inserting the same documents"),
    scenario("create_commands", "commands, connections and object requests of one create"),
    scenario("round_trips", "commands per create at 1, 8 and 64 writers"),
    scenario("mongo_processes_4", "4 processes write one collection, against 4 collections"),
    scenario("mongo_processes_8", "8 processes write one collection, against 8 collections"),
    scenario("mongo_latest_read", "latest reads, against find_one by _id"),
    scenario("as_of_read", "reads of the past, against latest reads; with more versions and more items"),
    scenario("list_50", "a list of 50 by an indexed property, against the same find"),
    scenario(
        "restore_collection",
        "a collection restored with nothing to copy, against a bulk write of the same",
    ),
    scenario(
        "counters",
        "creates with 20 counter rules, against none; the follower, against the rate of creating",
    ),
    scenario("roll_up", "versions beyond the window go into manifests, and how much memory it takes"),
    scenario("as_of_beyond", "reads of the past beyond the window, against reads inside it"),
    scenario("metadata_bytes", "bytes of the index per version beside the indexed fields"),
    of_the_bus("publish_batched", "batches published on Redis, against pipelined XADD"),
    of_the_bus(
        "consume_ack",
        "messages consumed and acknowledged on Redis, against XREADGROUP and pipelined XACK",
    ),
    of_the_bus(
        "end_to_end",
        "p99 from publish to acknowledged at a steady rate, against XADD, XREADGROUP and XACK",
    ),
    of_the_bus("bullmq_npm", "jobs through BullMQ's npm package on the same Redis"),
    of_the_bus("bullmq_crate", "jobs through BullMQ's crate on the same Redis"),
];

/// The scenarios that the names mean.
pub(crate) fn choose(names: &[String]) -> Result<Vec<Scenario>> {
    let mut chosen = Vec::new();
    for name in names {
        match ALL.iter().find(|scenario| scenario.name == name) {
            Some(scenario) => chosen.push(*scenario),
            None if ALL.iter().any(|scenario| scenario.group == name) => {
                chosen.extend(ALL.iter().filter(|scenario| scenario.group == name))
            }
            None => {
                let known: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
                return Err(format!(
                    "there is no scenario `{name}`; there are {}; or all `records`, all of the `bus`",
                    known.join(", ")
                )
                .into());
            }
        }
    }
    Ok(chosen)
}

pub(crate) async fn run(name: &str, context: &Context) -> Result<Vec<Line>> {
    match name {
        "embedded_creates" => creates::embedded(context).await,
        "mongo_creates" => creates::mongo(context).await,
        "create_commands" => commands::of_one_create(context).await,
        "round_trips" => commands::by_writers(context).await,
        "mongo_processes_4" => processes::share_a_collection(context, 4).await,
        "mongo_processes_8" => processes::share_a_collection(context, 8).await,
        "mongo_latest_read" => reads::latest(context).await,
        "as_of_read" => reads::as_of(context).await,
        "list_50" => list::fifty(context).await,
        "restore_collection" => restore::collection(context).await,
        "counters" => counters::rules(context).await,
        "roll_up" => retention::roll_up(context).await,
        "as_of_beyond" => retention::as_of(context).await,
        "metadata_bytes" => metadata::bytes(context).await,
        "publish_batched" => bus::publish::batched(context).await,
        "consume_ack" => bus::consume::and_ack(context).await,
        "end_to_end" => bus::end_to_end::latency(context).await,
        "bullmq_npm" => bus::bullmq::npm(context).await,
        "bullmq_crate" => bus::bullmq::of_the_crate(context).await,
        other => Err(format!("there is no scenario `{other}`").into()),
    }
}

/// The other side of a [`Worker`](worker::Worker): says when it is ready, waits for a line, works, and tells
/// what it saw.
pub(crate) async fn work(task: &str) -> Result<()> {
    match serde_json::from_str(task)? {
        Task::Write(task) => processes::write(task).await,
        Task::Restore(task) => restore::work(task).await,
        Task::RollUp(task) => retention::work(task).await,
    }
}
