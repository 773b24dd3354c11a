//! What the demo writes on: aligned text, with colours and bars where a person looks at a terminal.

use std::io::{self, IsTerminal as _, Write as _};

/// Columns of the output.
pub(super) const WIDTH: usize = 100;

/// How a piece of text stands out on a terminal; elsewhere it doesn't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Title,
    Number,
    Quiet,
    Added,
    Removed,
    Changed,
}

impl Ink {
    const fn code(self) -> &'static str {
        match self {
            Self::Title => "1",
            Self::Number => "1;36",
            Self::Quiet => "2",
            Self::Added => "32",
            Self::Removed => "31",
            Self::Changed => "33",
        }
    }
}

/// Text of one chapter, shown when the chapter is over.
#[derive(Debug)]
pub(super) struct Printer {
    colours: bool,
    bars: bool,
    chapter: u32,
    text: String,
}

impl Printer {
    pub(super) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        // See https://no-color.org: set and not empty means none.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self::plain_or(terminal && !refused, terminal)
    }

    const fn plain_or(colours: bool, bars: bool) -> Self {
        Self { colours, bars, chapter: 0, text: String::new() }
    }

    /// Writes out what was collected.
    pub(super) fn show(&mut self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(self.text.as_bytes())?;
        self.text.clear();
        out.flush()
    }

    /// Begins the next chapter.
    pub(super) fn chapter(&mut self, title: &str) {
        self.chapter += 1;
        let number = self.chapter;
        let title = self.ink(Ink::Title, &format!("{number}  {title}"));
        self.text.push_str(&format!("\n{title}\n\n"));
    }

    /// One indented line.
    pub(super) fn line(&mut self, text: impl AsRef<str>) {
        let line = format!("   {}", text.as_ref());
        self.text.push_str(line.trim_end());
        self.text.push('\n');
    }

    /// A remark, broken into lines.
    pub(super) fn remark(&mut self, text: &str) {
        for line in wrapped(text, WIDTH - 3) {
            let line = self.ink(Ink::Quiet, &line);
            self.line(line);
        }
    }

    pub(super) fn gap(&mut self) {
        self.text.push('\n');
    }

    /// A title above everything.
    pub(super) fn title(&mut self, text: &str) {
        let text = self.ink(Ink::Title, text);
        self.text.push_str(&text);
        self.text.push('\n');
    }

    pub(super) fn ink(&self, ink: Ink, text: &str) -> String {
        if self.colours { format!("\x1b[{}m{text}\x1b[0m", ink.code()) } else { text.to_owned() }
    }

    /// A number that matters.
    pub(super) fn number(&self, n: impl TryInto<i64>) -> String {
        self.ink(Ink::Number, &grouped(n))
    }

    /// A bar for `n` of `max`, padded to `width` columns; blank where no terminal shows it.
    pub(super) fn bar(&self, n: u64, max: u64, width: u64) -> String {
        if !self.bars {
            return " ".repeat(usize::try_from(width).unwrap_or(0));
        }
        const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
        let eighths = (n * width * 8).div_ceil(max.max(1));
        let (full, part) = (eighths / 8, eighths % 8);
        let mut bar: String = std::iter::repeat_n('█', usize::try_from(full).unwrap_or(0)).collect();
        if part > 0 {
            bar.push(EIGHTHS[usize::try_from(part).unwrap_or(0)]);
        }
        let missing = usize::try_from(width).unwrap_or(0).saturating_sub(bar.chars().count());
        self.ink(Ink::Number, &bar) + &" ".repeat(missing)
    }
}

/// `4696` as `4,696`.
pub(super) fn grouped(n: impl TryInto<i64>) -> String {
    let n: i64 = n.try_into().unwrap_or(i64::MAX);
    let digits = n.unsigned_abs().to_string();
    let mut out = String::from(if n < 0 { "-" } else { "" });
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text cut to `width` columns.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `1234567` bytes as `1.2 MB`.
pub(super) fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // One digit behind the point is shown.
    let mega = bytes as f64 / 1e6;
    if mega >= 0.1 { format!("{mega:.1} MB") } else { format!("{} bytes", grouped(bytes)) }
}

fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last().map_or(0, |line| line.chars().count());
        if last > 0 && last + 1 + word.chars().count() > width {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(
            ["0", "999", "1,000", "-12,345,678"],
            [0, 999, 1000, -12_345_678].map(|n: i64| grouped(n)).each_ref().map(|s| &**s)
        );
    }

    #[test]
    fn bars_have_their_width_and_are_seen_on_a_terminal_only() {
        let terminal = Printer::plain_or(false, true);
        assert_eq!(terminal.bar(4, 8, 4), "██  ");
        assert_eq!(terminal.bar(8, 8, 4), "████");
        assert_eq!(terminal.bar(1, 800, 4), "▏   ", "what is there can be seen");
        assert_eq!(terminal.bar(0, 8, 4), "    ");
        assert_eq!(Printer::plain_or(false, false).bar(4, 8, 4), "    ");
    }

    #[test]
    fn remarks_are_broken_between_words() {
        assert_eq!(wrapped("one two  three", 7), ["one two", "three"]);
    }
}
