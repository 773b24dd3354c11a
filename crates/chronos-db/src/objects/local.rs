//! A bucket as a folder, opened when it is first needed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{fs, io};

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

use super::failure::Failure;

/// A folder that comes into being with the first object.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    opened: OnceLock<Arc<dyn ObjectStore>>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, opened: OnceLock::new() }
    }

    /// The store, or nothing as long as there is no folder.
    pub(super) async fn for_reading(&self) -> Result<Option<Arc<dyn ObjectStore>>, Failure> {
        if let Some(opened) = self.opened.get() {
            return Ok(Some(Arc::clone(opened)));
        }
        let path = self.path.clone();
        match blocking(move || Ok(path.try_exists().map(|there| (there, path)))).await? {
            Ok((true, path)) => self.open(path).await.map(Some),
            Ok((false, _)) => Ok(None),
            Err(error) => Err(Failure::io(format_args!("cannot look at {}", self.path.display()), &error)),
        }
    }

    /// The store, after the folder was made; or an error, if it must be there and is not.
    pub(super) async fn for_writing(&self, must_exist: bool) -> Result<Arc<dyn ObjectStore>, Failure> {
        if must_exist {
            let path = self.path.clone();
            // Each time: a store that is open would make the folder anew without a word.
            let looked = blocking(move || Ok(path.try_exists())).await?;
            match looked {
                Ok(true) => {}
                Ok(false) => return Err(Failure::no_bucket()),
                Err(error) => {
                    return Err(Failure::io(format_args!("cannot look at {}", self.path.display()), &error));
                }
            }
        }
        if let Some(opened) = self.opened.get() {
            return Ok(Arc::clone(opened));
        }
        let path = self.path.clone();
        blocking(move || {
            create_durably(&path)
                .map_err(|error| Failure::io(format_args!("cannot create {}", path.display()), &error))
        })
        .await?;
        self.open(self.path.clone()).await
    }

    /// Removes the files of unfinished puts below `prefix`.
    pub(super) async fn remove_unfinished(&self, prefix: &str) -> Result<(), Failure> {
        let path = self.path.join(prefix);
        blocking(move || {
            remove_unfinished(&path).map_err(|error| {
                Failure::io(format_args!("cannot remove files in {}", path.display()), &error)
            })
        })
        .await
    }

    async fn open(&self, path: PathBuf) -> Result<Arc<dyn ObjectStore>, Failure> {
        let store = blocking(move || LocalFileSystem::new_with_prefix(path).map_err(Failure::from)).await?;
        let store = store.with_fsync(true).with_automatic_cleanup(true);
        Ok(Arc::clone(self.opened.get_or_init(|| Arc::new(store))))
    }
}

/// Whether a file of that name is one of object_store's unfinished puts.
pub(super) fn is_unfinished(name: &str) -> bool {
    name.rsplit_once('#')
        .is_some_and(|(_, digits)| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn remove_unfinished(folder: &Path) -> io::Result<()> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            // Others remove empty folders.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_str().is_some_and(is_unfinished) {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Failure::io("the work on the folder did not end", &io::Error::other(error))),
    }
}

/// Creates a folder and its parents so that they are still there after a power cut.
fn create_durably(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path;
    while !at.try_exists()? {
        missing.push(at);
        let Some(parent) = at.parent() else { break };
        at = parent;
    }
    fs::create_dir_all(path)?;
    for created in missing {
        if let Some(parent) = created.parent() {
            sync_folder(parent)?;
        }
    }
    Ok(())
}

#[cfg(unix)]
fn sync_folder(path: &Path) -> io::Result<()> {
    fs::File::open(path)?.sync_all()
}

/// Elsewhere a folder cannot be opened to be synced.
#[cfg(not(unix))]
fn sync_folder(_path: &Path) -> io::Result<()> {
    Ok(())
}
