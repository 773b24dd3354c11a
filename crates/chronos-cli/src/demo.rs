//! `chronos demo`: the main job on real data, written for a person to read. The one command that prints prose instead of
//! JSON.

mod chapters;
mod companies;
mod disk;
mod printer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use chronos_db::{Error, View};
use clap::Args;
use futures::{StreamExt as _, TryStreamExt as _};
use tempfile::TempDir;

use crate::failure::Failure;
use crate::open::Globals;
use crate::stderr::note;
use crate::stop::Stop;
use chapters::Story;
use printer::{Ink, Printer};

/// The collection the demo makes.
const COLLECTION: &str = "companies";

/// Folders removed at once.
const REMOVALS: usize = 32;

/// Shows what this is about: imports the history of the S&P 500 and travels through it.
///
/// Everything happens in a temporary folder that is gone afterwards, or in the new folder that --data names,
/// which stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos demo
  chronos demo --data ./sp500")]
pub(crate) struct DemoArgs {}

pub(crate) async fn run(globals: &Globals, _args: DemoArgs) -> Result<(), Failure> {
    if globals.config.is_some() {
        return Err(Failure::wrong(
            "the demo runs on an embedded store of its own: leave out --config, or name a new folder with --data",
        ));
    }
    // Removed when it is dropped, also when a chapter fails or is interrupted.
    let (dir, temporary) = match &globals.data {
        Some(dir) => (new_folder(dir)?, None),
        None => {
            let temporary = tempfile::Builder::new()
                .prefix("chronos-demo-")
                .tempdir()
                .map_err(|error| no_folder(&std::env::temp_dir(), &error))?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    let printed = open_and_tell(globals, &dir, temporary.is_none()).await;
    if let Some(temporary) = temporary {
        let removed = remove(temporary).await;
        printed?;
        return removed.map_err(|error| {
            Failure::from(Error::storage(format!("{} cannot be removed: {error}", dir.display())))
        });
    }
    printed
}

async fn open_and_tell(globals: &Globals, dir: &Path, kept: bool) -> Result<(), Failure> {
    let start = Instant::now();
    let session = Globals { data: Some(dir.to_owned()), ..globals.clone() }.open_for_writing()?;
    let layout = session.chronos.config().describe();
    let mut story = Story { companies: session.collection(COLLECTION)?, printer: Printer::new() };
    let mut stop = Stop::listen();
    let printed = tokio::select! {
        printed = story.tell() => printed,
        () = stop.comes() => {
            note("stopped before the end");
            Err(Failure::Reported)
        }
    };
    // Only then the database file is complete by itself, and nothing is written into the folder any more; so
    // this is not cut short.
    let closed = session.chronos.shutdown().await;
    let example = printed?;
    closed?;
    story.on_disk(&layout, &example, kept.then_some(dir))?;
    story.printer.gap();
    let took = format!("All of this took {:.1} s.", start.elapsed().as_secs_f64());
    let took = story.printer.ink(Ink::Title, &took);
    story.printer.line(took);
    story.show()
}

/// Removes the folder, the many small ones in it side by side: where a file system discards the blocks of
/// every file it removes, one after the other takes several times as long as the whole demo.
async fn remove(temporary: TempDir) -> io::Result<()> {
    let mut folders = vec![temporary.path().to_owned()];
    // Below the folder: objects, bucket, collection, items.
    for _ in 0..4 {
        let mut below = Vec::new();
        for folder in folders {
            for entry in std::fs::read_dir(folder)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    below.push(entry.path());
                }
            }
        }
        folders = below;
    }
    let removals = folders.into_iter().map(|folder| async {
        match tokio::task::spawn_blocking(|| std::fs::remove_dir_all(folder)).await {
            Ok(removed) => removed,
            Err(stopped) => Err(io::Error::other(stopped)),
        }
    });
    futures::stream::iter(removals).buffer_unordered(REMOVALS).try_collect::<()>().await?;
    temporary.close()
}

/// The folder a user named, if the demo can have it for itself.
fn new_folder(dir: &Path) -> Result<PathBuf, Failure> {
    let empty = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(no_folder(dir, &error)),
    };
    if !empty {
        return Err(Failure::wrong(format!("{} is not empty; the demo takes a new folder", dir.display())));
    }
    Ok(dir.to_owned())
}

fn no_folder(dir: &Path, error: &io::Error) -> Failure {
    Failure::wrong(format!("the folder {} cannot be used: {error}", dir.display()))
}

impl Story {
    /// All chapters on the open collection; returns the company to look at on disk.
    async fn tell(&mut self) -> Result<View, Failure> {
        self.printer
            .title("The companies of the S&P 500 since 2012: every change of the list, kept as versions");
        self.show()?;
        self.import().await?;
        self.show()?;
        self.sectors().await?;
        self.show()?;
        self.history().await?;
        self.show()?;
        self.returns().await?;
        self.show()?;
        self.restore().await?;
        self.show()?;
        self.enrich().await?;
        self.show()?;
        self.verify().await?;
        self.show()?;
        Ok(self.company().await?)
    }

    fn show(&mut self) -> Result<(), Failure> {
        self.printer.show().map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Output(error),
        })
    }
}
