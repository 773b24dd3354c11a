//! The lines of a file or of standard input, read and parsed ahead on a thread of their own, in bounded
//! memory.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::sync::Arc;
use std::thread;

use chronos_db::{Error, Json, MAX_DOCUMENT_BYTES};
use parking_lot::{Condvar, Mutex};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::input;

/// Lines read ahead at most, and their bytes.
const AHEAD: usize = 2_048;
/// Of a pipe little is read ahead: what was taken out of it and not carried out is lost to the program that
/// feeds it if this process dies.
const AHEAD_OF_PIPE: usize = 64;
const PIPE_BYTES: usize = 8 * 1024;
const AHEAD_BYTES: usize = 32 * 1024 * 1024;
/// A longer line cannot be a document that is taken; it is not held in memory.
const LONGEST: usize = 2 * MAX_DOCUMENT_BYTES;

/// A line that is not blank.
#[derive(Debug)]
pub(crate) struct Line<T> {
    /// Its number in the log, from 1, blank ones counted.
    pub(crate) number: u64,
    pub(crate) bytes: usize,
    /// Where in the log it ends.
    pub(crate) end: u64,
    pub(crate) read: Result<T, Error>,
}

/// A log that is being read.
#[derive(Debug)]
pub(crate) struct Lines<T> {
    name: String,
    bytes: Option<u64>,
    lines: mpsc::Receiver<io::Result<Line<T>>>,
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
        let mut held = self.held.lock();
        let full = |held: &mut usize| *held > 0 && *held + bytes > AHEAD_BYTES;
        self.released.wait_while(&mut held, full);
        *held += bytes;
    }

    fn release(&self, bytes: usize) {
        let mut held = self.held.lock();
        *held = held.saturating_sub(bytes);
        self.released.notify_one();
    }
}

impl<T: Send + 'static> Lines<T> {
    /// Begins to read a file, or standard input if it is `-`.
    pub(crate) fn open(log: &str, parse: fn(&Json) -> Result<T, Error>) -> Result<Self, Failure> {
        let failed = |error: io::Error| Failure::wrong(format!("{log}: the log cannot be read: {error}"));
        let (bytes, ahead, input): (_, _, Box<dyn BufRead + Send>) = if log == "-" {
            (None, AHEAD_OF_PIPE, Box::new(BufReader::with_capacity(PIPE_BYTES, io::stdin())))
        } else {
            let file = File::open(log).map_err(failed)?;
            let about = file.metadata().map_err(failed)?;
            (
                about.is_file().then_some(about.len()),
                AHEAD,
                Box::new(BufReader::with_capacity(256 * 1024, file)),
            )
        };
        let (sender, lines) = mpsc::channel(ahead);
        let budget = Arc::<Budget>::default();
        let held = Arc::clone(&budget);
        // It may wait for input that never comes, so nobody waits for it: it ends with its input, its
        // receiver or the program.
        thread::Builder::new()
            .name("chronos-lines".to_owned())
            .spawn(move || read(input, parse, &sender, &held))
            .map_err(failed)?;
        Ok(Self { name: log.to_owned(), bytes, lines, budget, failed: None })
    }

    /// The size of the log, if it has one.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Waits for a line, then takes what is there; 0 at the end.
    pub(crate) async fn take(&mut self, into: &mut Vec<Line<T>>, most: usize) -> usize {
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
    pub(crate) fn release(&self, bytes: usize) {
        self.budget.release(bytes);
    }

    /// Whether the log was read to its end.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        match self.failed.take() {
            None => Ok(()),
            Some(error) => {
                Err(Failure::wrong(format!("{}: the log cannot be read any further: {error}", self.name)))
            }
        }
    }
}

fn read<T>(
    mut input: Box<dyn BufRead + Send>,
    parse: fn(&Json) -> Result<T, Error>,
    to: &mpsc::Sender<io::Result<Line<T>>>,
    budget: &Budget,
) {
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
        let line = if number == 1 { input::without_mark(&text) } else { &text };
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        budget.hold(line.len());
        let line = Line { number, bytes: line.len(), end, read: json(line).and_then(|value| parse(&value)) };
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

fn json(line: &[u8]) -> Result<Json, Error> {
    if line.len() > LONGEST {
        return Err(Error::validation(format!("the line is longer than {LONGEST} bytes")));
    }
    if let Some(why) = input::not_json(line) {
        return Err(Error::validation(format!("the line is invalid JSON: {why}")));
    }
    Json::parse(line).map_err(|error| Error::validation(format!("the line is invalid JSON: {error}")))
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
