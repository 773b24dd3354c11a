//! The last chapter: where everything lies.

use std::path::{Path, PathBuf};
use std::{fs, io};

use chronos_db::{Error, Json, Result, View};

use super::COLLECTION;
use super::chapters::{BACK_TO, COMPANY, Story};
use super::companies::KEY;
use super::printer::{Ink, grouped, size};

impl Story {
    /// `layout` is the described configuration. With `kept`, the folder stays and there are commands to try
    /// on it.
    pub(super) fn on_disk(&mut self, layout: &Json, example: &View, kept: Option<&Path>) -> Result<()> {
        let printer = &mut self.printer;
        printer.chapter("Where everything lies");
        let entry = &layout["entries"][0];
        let (folder, bucket) =
            (text(&entry["objects"]["folder"])?, text(&entry["objects"]["buckets"]["json"])?);
        let given = Path::new(text(&entry["file"])?);
        let database = database_file(given).map_err(|e| unreadable(given, e))?;
        let file = fs::metadata(&database).map_err(|e| unreadable(&database, e))?;
        printer.line(format!("{:<11}{}", "index", database.display()));
        printer.line(format!("{:<11}one SQLite file, {}", "", printer.ink(Ink::Number, &size(file.len()))));

        let bucket = Path::new(folder).join(bucket);
        let (objects, bytes) = weigh(&bucket).map_err(|e| unreadable(&bucket, e))?;
        printer.line(format!("{:<11}{}", "objects", bucket.display()));
        let bytes = printer.ink(Ink::Number, &size(bytes));
        printer.line(format!(
            "{:<11}{} files of JSON, {bytes}, one for each version with a payload of its own",
            "",
            printer.number(objects)
        ));
        // As `docs/format.md` says: the collection's name is in lower case and needs no encoding.
        let key = format!("{COLLECTION}/{}/v{}/item.json", example.id, example.ov);
        let object = fs::metadata(bucket.join(&key)).map_err(|e| unreadable(&bucket.join(&key), e))?;
        printer.line(format!("{:<11}such as {key}, {} bytes", "", grouped(object.len())));

        printer.gap();
        match kept {
            Some(dir) => {
                printer.line("It stays there. To try next:");
                let dir = quoted(dir);
                for command in [
                    format!("chronos history --data {dir} -c {COLLECTION} {KEY}={COMPANY}"),
                    format!("chronos diff --data {dir} -c {COLLECTION} {KEY}={COMPANY} 0"),
                    format!("chronos export --data {dir} -c {COLLECTION} --at {BACK_TO} | head -3"),
                ] {
                    printer.line(format!("  {}", printer.ink(Ink::Number, &command)));
                }
            }
            None => {
                printer.line(
                    "The folder is temporary and gone now. To keep it and go on with the other commands:",
                );
                let command = printer.ink(Ink::Number, "chronos demo --data ./sp500");
                printer.line(format!("  {command}"));
            }
        }
        Ok(())
    }
}

/// The database of a store that was given as a folder, or as the file itself.
fn database_file(store: &Path) -> io::Result<PathBuf> {
    if !store.is_dir() {
        return Ok(store.to_owned());
    }
    for entry in fs::read_dir(store)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "db") {
            return Ok(path);
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "there is no database file in it"))
}

/// Files below a folder, and their bytes.
fn weigh(folder: &Path) -> io::Result<(u64, u64)> {
    let (mut files, mut bytes) = (0, 0);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                files += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok((files, bytes))
}

fn text(value: &Json) -> Result<&str> {
    value
        .as_str()
        .ok_or_else(|| Error::validation("the demo runs on an embedded store with objects in a folder"))
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::storage(format!("{} cannot be read: {error}", path.display())).caused_by(error)
}

/// A path as a shell takes it.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '-' | '_');
    if path.chars().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
