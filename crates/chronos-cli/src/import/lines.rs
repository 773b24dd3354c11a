//! The lines of a log, read and parsed ahead on a thread of their own, in bounded memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;

use chronos_db::{Error, ImportOp, MAX_DOCUMENT_BYTES};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Lines read ahead at most, and their bytes.
const AHEAD: usize = 2_048;
const AHEAD_BYTES: usize = 32 * 1024 * 1024;
/// A longer line cannot be a document that is taken; it is not held in memory.
const LONGEST: usize = 2 * MAX_DOCUMENT_BYTES;

/// A line that is not blank.
#[derive(Debug)]
pub(super) struct Line {
    /// Its number in the log, from 1, blank ones counted.
    pub(super) number: u64,
    pub(super) bytes: usize,
    /// Where in the log it ends.
    pub(super) end: u64,
    pub(super) operation: Result<ImportOp, Error>,
}

/// A log that is being read.
#[derive(Debug)]
pub(super) struct Lines {
    name: String,
    bytes: Option<u64>,
    lines: mpsc::Receiver<io::Result<Line>>,
    budget: Arc<Budget>,
    failed: Option<io::Error>,
}

/// Bytes that were read and not yet carried out.
#[derive(Debug, Default)]
struct Budget {
    held: Mutex<usize>,
    released: Condvar,
}

impl Budget {
    /// Waits until there is room. One line always has room, however long it is.
    fn hold(&self, bytes: usize) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |held: &mut usize| *held > 0 && *held + bytes > AHEAD_BYTES;
        *self.released.wait_while(held, full).unwrap_or_else(PoisonError::into_inner) += bytes;
    }

    fn release(&self, bytes: usize) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.saturating_sub(bytes);
        self.released.notify_one();
    }
}

impl Lines {
    /// Begins to read a file, or standard input if it is `-`.
    pub(super) fn open(log: &str) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::wrong(format!("{log}: the log cannot be read: {error}"));
        let (bytes, input): (_, Box<dyn BufRead + Send>) = if log == "-" {
            (None, Box::new(BufReader::with_capacity(256 * 1024, io::stdin())))
        } else {
            let file = File::open(log).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            (about.is_file().then_some(about.len()), Box::new(BufReader::with_capacity(256 * 1024, file)))
        };
        let (sender, lines) = mpsc::channel(AHEAD);
        let budget = Arc::<Budget>::default();
        let held = Arc::clone(&budget);
        // It may wait for input that never comes, so nobody waits for it: it ends with its input, its receiver or the program.
        thread::Builder::new().name("chronos-import".to_owned()).spawn(move || read(input, &sender, &held)).map_err(failed)?;
        Ok(Self { name: log.to_owned(), bytes, lines, budget, failed: None })
    }

    /// The size of the log, if it has one.
    pub(super) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Waits for a line, then takes what is there; 0 at the end.
    pub(super) async fn take(&mut self, into: &mut Vec<Line>, most: usize) -> usize {
        if self.failed.is_some() {
            return 0;
        }
        let mut taken = Vec::with_capacity(most);
        self.lines.recv_many(&mut taken, most).await;
        for line in taken {
            match line {
                Ok(line) => into.push(line),
                Err(error) => self.failed = Some(error),
            }
        }
        into.len()
    }

    /// After lines are carried out: there is room for others.
    pub(super) fn release(&self, bytes: usize) {
        self.budget.release(bytes);
    }

    /// Whether the log was read to its end.
    pub(super) fn end(&mut self) -> Result<(), Failure> {
        match self.failed.take() {
            None => Ok(()),
            Some(error) => Err(Failure::wrong(format!("{}: the log cannot be read any further: {error}", self.name))),
        }
    }
}

fn read(mut input: Box<dyn BufRead + Send>, to: &mpsc::Sender<io::Result<Line>>, budget: &Budget) {
    let (mut number, mut end) = (0, 0);
    let mut text = Vec::new();
    loop {
        let read = match next(&mut *input, &mut text) {
            Ok(0) => return,
            Ok(read) => read,
            Err(error) => {
                // If nobody listens any more, nobody wants to know.
                let _ = to.blocking_send(Err(error));
                return;
            }
        };
        number += 1;
        end += read;
        let mut line = text.as_slice();
        if number == 1 {
            // Some editors begin files with a byte order mark.
            line = line.strip_prefix("\u{feff}".as_bytes()).unwrap_or(line);
        }
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        budget.hold(line.len());
        let line = Line { number, bytes: line.len(), end, operation: parse(line) };
        if to.blocking_send(Ok(line)).is_err() {
            return;
        }
    }
}

/// The next line, cut where it gets too long, and the bytes read; 0 at the end.
fn next(input: &mut dyn BufRead, text: &mut Vec<u8>) -> io::Result<u64> {
    text.clear();
    let mut read = io::Read::take(&mut *input, LONGEST as u64 + 1).read_until(b'\n', text)?;
    if text.len() > LONGEST && !text.ends_with(b"\n") {
        read += input.skip_until(b'\n')?;
    }
    Ok(read as u64)
}

fn parse(line: &[u8]) -> Result<ImportOp, Error> {
    if line.len() > LONGEST {
        return Err(Error::validation(format!("the line is longer than {LONGEST} bytes")));
    }
    let operation = serde_json::from_slice(line).map_err(|error| Error::validation(format!("the line is no JSON: {error}")))?;
    ImportOp::parse(&operation)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{LONGEST, next};

    #[test]
    fn a_line_that_is_too_long_is_cut_and_the_next_one_begins_where_it_ended() {
        let mut log = vec![b'x'; LONGEST + 70_000];
        log.extend_from_slice(b"\nnext\nlast");
        let (mut input, mut text) = (Cursor::new(log), Vec::new());
        assert_eq!(next(&mut input, &mut text).unwrap(), LONGEST as u64 + 70_001);
        assert_eq!(text.len(), LONGEST + 1);
        assert_eq!(next(&mut input, &mut text).unwrap(), 5);
        assert_eq!(text, b"next\n");
        assert_eq!(next(&mut input, &mut text).unwrap(), 4);
        assert_eq!(next(&mut input, &mut text).unwrap(), 0);
    }
}
