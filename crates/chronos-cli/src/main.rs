//! `chronos`: versioned records, topics and shared memory from a shell.

mod admin;
mod analytics;
mod args;
mod backup;
mod bus;
mod config;
mod connect;
mod counters;
mod create;
mod delete;
mod demo;
mod diff;
mod enrich;
mod erase;
mod export;
mod failure;
mod fallback;
mod get;
mod history;
mod import;
mod input;
mod lines;
mod list;
mod metrics;
mod migrate;
mod open;
mod output;
mod replace;
mod restore;
mod restore_backup;
mod restore_collection;
mod retention;
mod shared;
mod smart_insert;
mod stderr;
mod stop;
mod tiers;
mod update;
mod usage;
mod verify;
mod with_entities;
mod worker;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::failure::Failure;
use crate::open::Globals;

/// Versioned JSON records: every write is a new version, and every version stays readable.
///
/// Without --config and --data the configuration is ./chronos.json, and if there is none, an embedded store
/// in ./chronos-data. Every command prints JSON, one value or one per line. The exit code is 0 for success, 1
/// for a failure and 2 for input that is wrong.
#[derive(Debug, Parser)]
#[command(
    name = "chronos",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  chronos demo
  chronos create -c users '{\"email\": \"a@example.org\"}'
  chronos update -c users email=a@example.org '{\"status\": \"verified\"}' \\
    --actor signup
  chronos history -c users email=a@example.org
  chronos export -c users --at 2026-01-31T12:00:00Z
  chronos bus publish payments --payload '{\"amount\": 42.5}'"
)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
    Get(get::GetArgs),
    List(list::ListArgs),
    History(history::HistoryArgs),
    Diff(diff::DiffArgs),
    Create(create::CreateArgs),
    Update(update::UpdateArgs),
    Replace(replace::ReplaceArgs),
    Delete(delete::DeleteArgs),
    Enrich(enrich::EnrichArgs),
    SmartInsert(smart_insert::SmartInsertArgs),
    Erase(erase::EraseArgs),
    Restore(restore::RestoreArgs),
    RestoreCollection(restore_collection::RestoreCollectionArgs),
    WithEntities(with_entities::WithEntitiesArgs),
    Knowledge(tiers::KnowledgeArgs),
    Metadata(tiers::MetadataArgs),
    Verify(verify::VerifyArgs),
    Backup(backup::BackupArgs),
    RestoreBackup(restore_backup::RestoreBackupArgs),
    Counters(counters::CountersArgs),
    Analytics(analytics::AnalyticsArgs),
    Rollup(retention::RollupArgs),
    Prune(retention::PruneArgs),
    Manifests(retention::ManifestsArgs),
    Worker(worker::WorkerArgs),
    Fallback(fallback::FallbackArgs),
    Admin(admin::AdminArgs),
    Migrate(migrate::MigrateArgs),
    Config(config::ConfigArgs),
    Bus(bus::BusArgs),
    Shared(shared::SharedArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { globals, command } = match usage::parse() {
        Ok(cli) => cli,
        Err(code) => return code,
    };
    if globals.verbose {
        stderr::init_tracing();
    }
    match run(&globals, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            globals.close().await;
            failure.report(globals.verbose)
        }
    }
}

async fn run(globals: &Globals, command: Command) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(globals, args).await,
        Command::Import(args) => import::run(globals, args).await,
        Command::Export(args) => export::run(globals, args).await,
        Command::Get(args) => get::run(globals, args).await,
        Command::List(args) => list::run(globals, args).await,
        Command::History(args) => history::run(globals, args).await,
        Command::Diff(args) => diff::run(globals, args).await,
        Command::Create(args) => create::run(globals, args).await,
        Command::Update(args) => update::run(globals, args).await,
        Command::Replace(args) => replace::run(globals, args).await,
        Command::Delete(args) => delete::run(globals, args).await,
        Command::Enrich(args) => enrich::run(globals, args).await,
        Command::SmartInsert(args) => smart_insert::run(globals, args).await,
        Command::Erase(args) => erase::run(globals, args).await,
        Command::Restore(args) => restore::run(globals, args).await,
        Command::RestoreCollection(args) => restore_collection::run(globals, args).await,
        Command::WithEntities(args) => with_entities::run(globals, args).await,
        Command::Knowledge(args) => tiers::knowledge(globals, args).await,
        Command::Metadata(args) => tiers::metadata(globals, args).await,
        Command::Verify(args) => verify::run(globals, args).await,
        Command::Backup(args) => backup::run(globals, args).await,
        Command::RestoreBackup(args) => restore_backup::run(globals, args).await,
        Command::Counters(args) => counters::run(globals, args).await,
        Command::Analytics(args) => analytics::run(globals, args).await,
        Command::Rollup(args) => retention::roll_up(globals, args).await,
        Command::Prune(args) => retention::prune(globals, args).await,
        Command::Manifests(args) => retention::manifests(globals, args).await,
        Command::Worker(args) => worker::run(globals, args).await,
        Command::Fallback(args) => fallback::run(globals, args).await,
        Command::Admin(args) => admin::run(globals, args).await,
        Command::Migrate(args) => migrate::run(globals, args).await,
        Command::Config(args) => config::run(args).await,
        Command::Bus(args) => bus::run(globals, args).await,
        Command::Shared(args) => shared::run(globals, args).await,
    }
}
