//! Where the database file is.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Where a store keeps its data.
#[derive(Clone, Debug)]
pub(super) enum Location {
    /// Nowhere: gone with the store.
    Memory,
    /// At the path a user gave: a file, or a folder with the file in it.
    Path(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str(":memory:"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

impl Location {
    pub(super) fn parse(path: &Path) -> Result<Self> {
        if path.as_os_str().is_empty() {
            return Err(Error::validation(
                "the path of the embedded store is empty; give a folder, a .db file or :memory:",
            ));
        }
        Ok(if path == Path::new(":memory:") { Self::Memory } else { Self::Path(path.to_owned()) })
    }

    fn unusable(&self, what: &str, error: std::io::Error) -> Error {
        Error::database(format!("the embedded store {self} cannot be opened: {what} ({error})"))
            .caused_by(error)
    }

    /// The file itself, in a folder that exists afterwards.
    pub(super) fn file(&self) -> Result<Option<PathBuf>> {
        let Some(path) = self.path()? else { return Ok(None) };
        if let Some(folder) = path.parent() {
            create_folder(folder).map_err(|e| self.unusable("its folder cannot be created", e))?;
        }
        Ok(Some(path))
    }

    /// Where the file is, or will be.
    fn path(&self) -> Result<Option<PathBuf>> {
        let Self::Path(given) = self else { return Ok(None) };
        // Absolute, so that SQLite takes no name for a URI.
        let path =
            std::path::absolute(given).map_err(|e| self.unusable("the path has no absolute form", e))?;
        let named_file = path.extension().is_some_and(|e| e == "db" || e == "sqlite" || e == "sqlite3");
        if !named_file && path.metadata().is_ok_and(|about| about.is_file() && about.len() == 0) {
            // SQLite would make a database of it, whatever it was meant to be.
            return Err(Error::validation(format!(
                "{self} is an empty file, not an embedded store; name a folder or a .db file"
            )));
        }
        Ok(Some(if path.is_file() || (named_file && !path.is_dir()) {
            path
        } else {
            path.join("chronos.db")
        }))
    }

    /// What the file is known by: its path without links, and once it exists, what the file system calls it.
    pub(super) fn marks(&self) -> Result<Vec<String>> {
        let Some(path) = self.path()? else { return Ok(Vec::new()) };
        let mut marks = Vec::new();
        // Of what does not exist yet, the folder around it tells where it will be.
        let real = path.ancestors().find_map(|there| {
            let mut real = there.canonicalize().ok()?;
            for part in path.strip_prefix(there).ok()?.components() {
                match part {
                    std::path::Component::ParentDir => {
                        real.pop();
                    }
                    part => real.push(part),
                }
            }
            Some(real)
        });
        marks.push(format!("file {}", real.as_deref().unwrap_or(&path).display()));
        #[cfg(unix)]
        if let Ok(found) = std::fs::metadata(&path) {
            use std::os::unix::fs::MetadataExt as _;
            marks.push(format!("inode {}:{}", found.dev(), found.ino()));
        }
        Ok(marks)
    }
}

/// Creates a folder and makes its name survive a power cut.
fn create_folder(folder: &Path) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        create_folder(parent)?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && folder.is_dir() => {}
            done => done?,
        }
        #[cfg(unix)]
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(())
}
