//! Where the figures come from: they mean nothing without it.

use chronos_db::{Json as Value, json};

use crate::Context;
use crate::baseline::mongo::Baseline;
use crate::disk::device_of;

/// Cores, processor, kernel, stores and what they write on.
pub(crate) async fn describe(context: &Context) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    let mongo = match Baseline::connect("bench").await {
        Ok(baseline) => baseline.describe().await.unwrap_or_else(|failure| json!(failure.to_string())),
        Err(_) => Value::Null,
    };
    json!({
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": model.unwrap_or("unknown"),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "loadBefore": read("/proc/loadavg").split(' ').next().and_then(|load| load.parse::<f64>().ok()),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "sqlite": { "version": rusqlite::version(), "durability": "WAL, synchronous=FULL", "on": device_of(&context.dir) },
        "objects": { "kind": "local folder, file and folder fsynced", "on": device_of(&context.dir) },
        "mongo": mongo,
    })
}

/// The same for the head of a table.
pub(crate) fn sentence(machine: &Value) -> String {
    let debug = if machine["build"] == "debug" { "  DEBUG BUILD: the figures mean nothing" } else { "" };
    format!(
        "{} cores, {}, Linux {}, load {} before; SQLite {} on {}; MongoDB {} on {}, w: majority, j: true{debug}",
        machine["cores"],
        machine["cpu"].as_str().unwrap_or("-"),
        machine["kernel"].as_str().unwrap_or("-"),
        machine["loadBefore"],
        machine["sqlite"]["version"].as_str().unwrap_or("-"),
        machine["sqlite"]["on"].as_str().unwrap_or("-"),
        machine["mongo"]["version"].as_str().unwrap_or("-"),
        machine["mongo"]["on"].as_str().unwrap_or("-"),
    )
}
