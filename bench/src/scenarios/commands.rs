//! What goes over the wire for one create.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bson::doc;
use chronos_db::json;
use test_support::objects::Call;

use crate::baseline::mongo::Baseline;
use crate::bench_store::{How, open};
use crate::report::Line;
use crate::scenarios::creates::creates;
use crate::stored::person;
use crate::watch::Gate;
use crate::{Context, Result, targets};

/// How long the flusher may take for one object.
const STORED: Duration = Duration::from_secs(30);

/// One create after the first ones. The objects are held back meanwhile, so that what the flusher does is
/// counted apart.
pub(crate) async fn of_one_create(context: &Context) -> Result<Vec<Line>> {
    let (baseline, folder, gate) =
        (Baseline::connect("commands").await?, tempfile::tempdir_in(&context.dir)?, Gate::closed());
    let how = How {
        database: baseline.name(),
        objects: Some(folder.path()),
        gate: Some(gate.clone()),
        count_commands: true,
        ..How::default()
    };
    let db = open(&how)?;
    let stats = db.stats()?;
    // Indexes, connections, and what the first write looks for.
    for number in 0..3 {
        db.people.create(person(number, 50)).await?;
    }
    stats.reset();
    db.people.create(person(3, 50)).await?;
    let (commands, connections) = (stats.commands(), stats.connections());
    stats.reset();
    gate.open();
    let begun = Instant::now();
    while baseline.heads().count_documents(doc! { "state": "new" }).await? < 4 {
        if begun.elapsed() > STORED {
            return Err("the objects are not stored".into());
        }
        tokio::task::yield_now().await;
    }
    let storing = stats.commands();
    db.people.flush(STORED).await?;
    let count = |call| db.calls.count(call);
    let (puts, others) = (count(Call::Put), count(Call::Head) + count(Call::Get) + count(Call::List));
    db.chronos.shutdown().await?;
    baseline.drop().await?;
    let total = |commands: &BTreeMap<String, u64>| commands.values().sum::<u64>() as f64;
    Ok(vec![
        Line::value("create_commands", "commands", total(&commands), Some(targets::CREATE_COMMANDS))
            .note("commands", json!(commands))
            .note("flusher_of_4", json!(storing)),
        Line::value(
            "create_connections",
            "new connections",
            connections as f64,
            Some(targets::CREATE_CONNECTIONS),
        ),
        Line::value("object_puts", "PUTs per object", puts as f64 / 4.0, Some(targets::PUTS)),
        Line::value("object_read_backs", "HEAD, GET, LIST", others as f64, Some(targets::READ_BACKS)),
    ])
}

/// Commands per create as load grows, without and with the flusher.
pub(crate) async fn by_writers(context: &Context) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for writers in [1, 8, 64] {
        let folder = tempfile::tempdir_in(&context.dir)?;
        let mut per_create = Vec::new();
        for objects in [None, Some(folder.path())] {
            let baseline = Baseline::connect("trips").await?;
            let db =
                open(&How { database: baseline.name(), objects, count_commands: true, ..How::default() })?;
            db.people.create(person(0, 50)).await?;
            let stats = db.stats()?;
            stats.reset();
            let created = creates(&db, writers, context.round / 2).await?;
            db.people.flush(Duration::from_secs(60)).await?;
            per_create.push(stats.total() as f64 / created.calls as f64);
            db.chronos.shutdown().await?;
            baseline.drop().await?;
        }
        let with_flusher = per_create.pop().unwrap_or(f64::NAN);
        lines.push(
            Line::value(
                format!("round_trips_{writers}"),
                "commands/create",
                per_create.pop().unwrap_or(f64::NAN),
                None,
            )
            .note("with_flusher", (with_flusher * 1000.0).round() / 1000.0),
        );
    }
    Ok(lines)
}
