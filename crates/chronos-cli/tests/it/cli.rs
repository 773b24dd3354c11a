//! Runs the real program in a folder of its own.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;

use chronos_db::Json;

/// A folder, and the program in it.
pub(crate) struct Cli {
    folder: tempfile::TempDir,
}

/// Part of what a command adds if the storage took longer than it waits, as on a busy machine.
const WAITS: &str = "to be stored; `chronos worker -c ";

/// The end of what an import says of lines without a time.
const TIMELESS: &str = "--log NAME lets them be recognised";

/// How one run ended.
#[derive(Debug)]
pub(crate) struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
    /// `err` without notes that versions wait, or that lines have no time.
    said: String,
}

impl Cli {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder().join(name), text).unwrap();
    }

    pub(crate) fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_chronos"));
        command.current_dir(self.folder()).args(args).env_remove("CHRONOS_FAIL_POINTS");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).spawn().unwrap())
    }

    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_owned();
        // The program may end without reading everything.
        let writer = thread::spawn(move || stdin.write_all(input.as_bytes()));
        let ran = Ran::of(child);
        drop(writer.join().unwrap());
        ran
    }
}

impl Ran {
    pub(crate) fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        let err = text(output.stderr);
        let said = err
            .lines()
            .filter(|line| !line.contains(WAITS) && !line.ends_with(TIMELESS))
            .collect::<Vec<_>>()
            .join("\n");
        Self { code: output.status.code(), out: text(output.stdout), err, said }
    }

    /// The one value a successful run printed.
    #[track_caller]
    pub(crate) fn value(&self) -> Json {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.into_iter().next().unwrap()
    }

    /// The values a successful run printed, one a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Json> {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out.lines().map(|line| Json::parse(line).unwrap()).collect()
    }

    /// The value a run printed that ended with this code.
    #[track_caller]
    pub(crate) fn value_with_code(&self, code: i32) -> Json {
        assert_eq!(self.code, Some(code), "{self:?}");
        Json::parse(self.out.trim_end()).unwrap()
    }

    /// What a run that ended with this code said on stderr.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.said.starts_with("error: "), "{self:?}");
        &self.said
    }

    pub(crate) fn err(&self) -> &str {
        &self.err
    }

    pub(crate) fn out(&self) -> &str {
        &self.out
    }
}
