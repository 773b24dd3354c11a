//! Regular expressions that mean the same here and on a server that runs PCRE.
//!
//! The syntax is that of the `regex` crate, with `\d`, `\s`, `\w` and `\b` over ASCII as MongoDB has them,
//! and `$` (without `m`) at the very end only. What a server gets is not the source but a PCRE pattern
//! printed from the parsed expression, with every class and case folding spelled out, so that differences of
//! dialect cannot show.

use std::convert::Infallible;
use std::fmt::Write as _;

use regex::{Regex, RegexBuilder};
use regex_syntax::ast::{self, AssertionKind, Ast, ClassPerlKind, ClassSetItem};
use regex_syntax::hir::{Class, Hir, HirKind, Look};

/// The longest source, in bytes.
const MAX_SOURCE: usize = 4_096;
/// The most memory a compiled expression may take, in bytes.
const MAX_COMPILED: usize = 1 << 20;
/// The longest PCRE pattern with its repetitions written out; servers refuse beyond 32,764 bytes and 64 KiB
/// compiled.
const MAX_PCRE: usize = 30_000;

/// A compiled regular expression that keeps its source.
#[derive(Clone)]
pub struct Pattern {
    source: String,
    options: String,
    compiled: Regex,
    #[cfg_attr(
        not(feature = "mongodb"),
        expect(dead_code, reason = "made everywhere, so that every build accepts the same patterns")
    )]
    pcre: String,
    #[cfg(feature = "embedded")]
    prefix: String,
}

crate::debug_some!(Pattern {});

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        (&self.source, &self.options) == (&other.source, &other.options)
    }
}

impl Pattern {
    /// Compiles an expression; `options` are letters out of `i`, `m` and `s`.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn new(source: &str, options: &str) -> Result<Self, String> {
        if source.len() > MAX_SOURCE {
            return Err(format!("the pattern has {} bytes; {MAX_SOURCE} are allowed", source.len()));
        }
        if let Some(other) = options.chars().find(|c| !"ims".contains(*c)) {
            return Err(format!("`{other}` is not an option; there are i, m and s"));
        }
        let ascii = with_ascii_classes(source)?;
        let hir = regex_syntax::ParserBuilder::new()
            .nest_limit(100)
            .case_insensitive(options.contains('i'))
            .multi_line(options.contains('m'))
            .dot_matches_new_line(options.contains('s'))
            .build()
            .parse(&ascii)
            .map_err(|error| format!("it does not compile: {}", reason(&error)))?;
        let compiled = RegexBuilder::new(&hir.to_string())
            .size_limit(MAX_COMPILED)
            .build()
            .map_err(|error| format!("it does not compile: {}", last_line(&error.to_string())))?;
        if cost(&hir) > MAX_PCRE {
            return Err("it is too large, written out without classes and repetitions".to_owned());
        }
        let mut pcre = String::new();
        print(&hir, &mut pcre)?;
        Ok(Self {
            source: source.to_owned(),
            options: options.to_owned(),
            compiled,
            pcre,
            #[cfg(feature = "embedded")]
            prefix: prefix(&hir),
        })
    }

    /// Returns the expression as it was given.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Reads the options.
    #[must_use]
    pub fn options(&self) -> &str {
        &self.options
    }

    /// Returns whether it matches somewhere in `text`.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }

    /// The same expression for PCRE, without options.
    #[cfg(feature = "mongodb")]
    pub(crate) fn pcre(&self) -> &str {
        &self.pcre
    }

    /// What every text it matches starts with.
    #[cfg(feature = "embedded")]
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

fn reason(error: &regex_syntax::Error) -> String {
    match error {
        regex_syntax::Error::Parse(error) => error.kind().to_string(),
        regex_syntax::Error::Translate(error) => error.kind().to_string(),
        other => last_line(&other.to_string()).to_owned(),
    }
}

fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default()
}

/// Replaces the Unicode classes and boundaries of the source by those over ASCII.
fn with_ascii_classes(source: &str) -> Result<String, String> {
    let ast = ast::parse::ParserBuilder::new()
        .nest_limit(100)
        .build()
        .parse(source)
        .map_err(|error| format!("it does not compile: {}", error.kind()))?;
    let replacements = match ast::visit(&ast, Replacements(Vec::new())) {
        Ok(replacements) => replacements,
        Err(never) => match never {},
    };
    let mut out = source.to_owned();
    for (span, text) in replacements.into_iter().rev() {
        out.replace_range(span.start.offset..span.end.offset, text);
    }
    Ok(out)
}

/// Spans of the source, in its order, and what stands there instead.
struct Replacements(Vec<(ast::Span, &'static str)>);

impl Replacements {
    fn class(&mut self, class: &ast::ClassPerl) {
        let text = match (&class.kind, class.negated) {
            (ClassPerlKind::Digit, false) => "[0-9]",
            (ClassPerlKind::Digit, true) => "[^0-9]",
            (ClassPerlKind::Space, false) => r"[\t\n\v\f\r ]",
            (ClassPerlKind::Space, true) => r"[^\t\n\v\f\r ]",
            (ClassPerlKind::Word, false) => "[0-9A-Za-z_]",
            (ClassPerlKind::Word, true) => "[^0-9A-Za-z_]",
        };
        self.0.push((class.span, text));
    }
}

impl ast::Visitor for Replacements {
    type Output = Vec<(ast::Span, &'static str)>;
    type Err = Infallible;

    fn finish(self) -> Result<Self::Output, Infallible> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Infallible> {
        match ast {
            Ast::ClassPerl(class) => self.class(class),
            Ast::Assertion(assertion) if assertion.kind == AssertionKind::WordBoundary => {
                self.0.push((assertion.span, r"(?-u:\b)"))
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Infallible> {
        if let ClassSetItem::Perl(class) = item {
            self.class(class);
        }
        Ok(())
    }
}

/// About how long the expression is for PCRE, which writes repeated groups out.
fn cost(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty => 4,
        HirKind::Literal(literal) => literal.0.len() * 2,
        HirKind::Look(_) => 16,
        HirKind::Class(Class::Unicode(class)) => 4 + class.ranges().len() * 20,
        HirKind::Class(Class::Bytes(class)) => 4 + class.ranges().len() * 20,
        HirKind::Capture(capture) => cost(&capture.sub).saturating_add(8),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(cost).fold(4, |a, b| a.saturating_add(b).saturating_add(4))
        }
        HirKind::Repetition(repetition) => {
            let once = cost(&repetition.sub).saturating_add(16);
            let single = matches!(repetition.sub.kind(), HirKind::Class(_));
            let times = repetition.max.unwrap_or(repetition.min.saturating_add(1)).max(1);
            if single { once } else { once.saturating_mul(times as usize) }
        }
    }
}

fn print(hir: &Hir, out: &mut String) -> Result<(), String> {
    match hir.kind() {
        HirKind::Empty => out.push_str("(?:)"),
        HirKind::Literal(literal) => {
            let text = std::str::from_utf8(&literal.0)
                .map_err(|_| "it matches bytes that are not text".to_owned())?;
            text.chars().for_each(|c| print_char(c, out));
        }
        HirKind::Class(Class::Unicode(class)) => {
            print_class(class.ranges().iter().map(|range| (range.start(), range.end())), out)
        }
        HirKind::Class(Class::Bytes(class)) => {
            print_class(
                class.ranges().iter().map(|range| (char::from(range.start()), char::from(range.end()))),
                out,
            );
        }
        HirKind::Look(look) => out.push_str(match look {
            Look::Start => r"\A",
            Look::End => r"\z",
            Look::StartLF => r"(?:\A|(?<=\n))",
            Look::EndLF => r"(?:(?=\n)|\z)",
            Look::WordAscii => r"\b",
            _ => {
                return Err(
                    "of the word and line boundaries only ^, $, \\A, \\z and \\b are supported".to_owned()
                );
            }
        }),
        HirKind::Capture(capture) => print_group(&capture.sub, out)?,
        HirKind::Concat(parts) => {
            for part in parts {
                match part.kind() {
                    HirKind::Alternation(_) => print_group(part, out)?,
                    _ => print(part, out)?,
                }
            }
        }
        HirKind::Alternation(parts) => {
            for (i, part) in parts.iter().enumerate() {
                if i > 0 {
                    out.push('|');
                }
                print(part, out)?;
            }
        }
        HirKind::Repetition(repetition) => {
            match repetition.sub.kind() {
                HirKind::Class(_) => print(&repetition.sub, out)?,
                _ => print_group(&repetition.sub, out)?,
            }
            // Writing to a string cannot fail.
            let _ = match (repetition.min, repetition.max) {
                (min, None) => write!(out, "{{{min},}}"),
                (min, Some(max)) => write!(out, "{{{min},{max}}}"),
            };
            if !repetition.greedy {
                out.push('?');
            }
        }
    }
    Ok(())
}

fn print_group(hir: &Hir, out: &mut String) -> Result<(), String> {
    out.push_str("(?:");
    print(hir, out)?;
    out.push(')');
    Ok(())
}

fn print_class(ranges: impl Iterator<Item = (char, char)>, out: &mut String) {
    let start = out.len();
    out.push('[');
    for (from, to) in ranges {
        print_char(from, out);
        if from != to {
            out.push('-');
            print_char(to, out);
        }
    }
    if out.len() == start + 1 {
        out.truncate(start);
        out.push_str("(?!)");
    } else {
        out.push(']');
    }
}

/// Control characters, and others that don't show, as numbers; what could mean something, after a backslash.
fn print_char(c: char, out: &mut String) {
    if c.is_ascii_graphic() || c == ' ' {
        if !c.is_ascii_alphanumeric() {
            out.push('\\');
        }
        out.push(c);
    } else if c.is_alphanumeric() {
        out.push(c);
    } else {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\x{{{:X}}}", u32::from(c));
    }
}

#[cfg(feature = "embedded")]
fn prefix(hir: &Hir) -> String {
    let HirKind::Concat(parts) = hir.kind() else { return String::new() };
    match (parts.first().map(Hir::kind), parts.get(1).map(Hir::kind)) {
        (Some(HirKind::Look(Look::Start)), Some(HirKind::Literal(literal))) => {
            std::str::from_utf8(&literal.0).map(str::to_owned).unwrap_or_default()
        }
        _ => String::new(),
    }
}
