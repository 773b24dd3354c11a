//! From text to values.

use std::fmt;
use std::ops::Range;

use super::number::{Number, number_length};
use super::value::{Json, Map};

/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 128;

/// Why a text is not JSON, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    message: String,
    line: usize,
    column: usize,
}

impl ParseError {
    /// Returns the line of the place, from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Returns the byte within the line, from 1.
    #[must_use]
    pub fn column(&self) -> usize {
        self.column
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at line {} column {}", self.message, self.line, self.column)
    }
}

impl std::error::Error for ParseError {}

/// What is wrong, and at which byte.
struct Wrong(String, usize);

type Parsed<T> = Result<T, Wrong>;

pub(super) fn parse(bytes: &[u8]) -> Result<Json, ParseError> {
    with(bytes, |parser| parser.whole())
}

/// Reads an object, but for its member `key`, whose text it returns.
pub(crate) fn parse_without<'a>(bytes: &'a [u8], key: &str) -> Result<(Map, Option<&'a str>), ParseError> {
    with(bytes, |parser| {
        parser.skipped_key = Some(key);
        parser.skip_space();
        let wrong = parser.wrong("expected an object");
        match parser.whole()? {
            Json::Object(map) => Ok((map, parser.skipped.clone().map(|range| &parser.text[range]))),
            _ => Err(wrong),
        }
    })
}

fn with<'a, 'k, T>(
    bytes: &'a [u8],
    read: impl FnOnce(&mut Parser<'a, 'k>) -> Parsed<T>,
) -> Result<T, ParseError> {
    let parsed = match std::str::from_utf8(bytes) {
        Ok(text) => read(&mut Parser { text, at: 0, depth: 0, skipped_key: None, skipped: None }),
        Err(error) => Err(Wrong("invalid UTF-8".to_owned(), error.valid_up_to())),
    };
    parsed.map_err(|Wrong(message, at)| {
        let before = &bytes[..at.min(bytes.len())];
        let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
        ParseError {
            message,
            line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
            column: 1 + before.len() - line_start,
        }
    })
}

struct Parser<'a, 'k> {
    text: &'a str,
    at: usize,
    depth: usize,
    /// The member of the outermost object that is not read.
    skipped_key: Option<&'k str>,
    skipped: Option<Range<usize>>,
}

impl Parser<'_, '_> {
    fn whole(&mut self) -> Parsed<Json> {
        let value = self.value()?;
        self.skip_space();
        if self.at < self.text.len() { Err(self.wrong("unexpected text after the value")) } else { Ok(value) }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn wrong(&self, message: impl Into<String>) -> Wrong {
        if self.at < self.text.len() {
            Wrong(message.into(), self.at)
        } else {
            Wrong("unexpected end".to_owned(), self.text.len())
        }
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn value(&mut self) -> Parsed<Json> {
        self.skip_space();
        match self.peek() {
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'"') => self.string().map(Json::String),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", Json::Bool(true)),
            Some(b'f') => self.word("false", Json::Bool(false)),
            Some(b'n') => self.word("null", Json::Null),
            _ => Err(self.wrong("expected a value")),
        }
    }

    fn word(&mut self, word: &str, value: Json) -> Parsed<Json> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(value);
        }
        Err(self.wrong("expected a value"))
    }

    fn number(&mut self) -> Parsed<Json> {
        match number_length(&self.text.as_bytes()[self.at..]) {
            // Two numbers cannot follow each other, nor what only begins like one: `01`, `1.`, `1x`.
            Some(length)
                if !matches!(
                    self.text.as_bytes().get(self.at + length),
                    Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'+' | b'-')
                ) =>
            {
                let text = &self.text[self.at..self.at + length];
                self.at += length;
                Ok(Json::Number(Number::of_grammar(text)))
            }
            _ => Err(Wrong("invalid number".to_owned(), self.at)),
        }
    }

    fn nested(&mut self, parts: fn(&mut Self) -> Parsed<Json>) -> Parsed<Json> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.wrong(format!("nested deeper than {MAX_DEPTH} levels")));
        }
        self.at += 1;
        let value = parts(self)?;
        self.depth -= 1;
        Ok(value)
    }

    fn array(&mut self) -> Parsed<Json> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Json::Array(items));
        }
        loop {
            items.push(self.value()?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Json::Array(items));
                }
                _ => return Err(self.wrong("expected `,` or `]`")),
            }
        }
    }

    fn object(&mut self) -> Parsed<Json> {
        let mut map = Map::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Json::Object(map));
        }
        loop {
            self.skip_space();
            let key_at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.wrong("expected a key in double quotes"));
            }
            let key = self.string()?;
            if map.contains_key(&key) {
                return Err(twice(key, key_at));
            }
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.wrong("expected `:`"));
            }
            self.at += 1;
            if self.depth == 1 && self.skipped_key == Some(key.as_str()) {
                if self.skipped.is_some() {
                    return Err(twice(key, key_at));
                }
                self.skip_space();
                let from = self.at;
                self.skip_value()?;
                self.skipped = Some(from..self.at);
            } else {
                let value = self.value()?;
                map.insert(key, value);
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(Json::Object(map));
                }
                _ => return Err(self.wrong("expected `,` or `}`")),
            }
        }
    }

    /// Passes over a value whose parts are not looked at.
    fn skip_value(&mut self) -> Parsed<()> {
        let mut open = 0_usize;
        loop {
            self.skip_space();
            match self.peek() {
                Some(b'{' | b'[') => open += 1,
                Some(b'}' | b']') if open > 0 => open -= 1,
                Some(b',' | b':') if open > 0 => {}
                Some(b'"') => {
                    self.string()?;
                    self.at -= 1;
                }
                Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') => {
                    while let Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'E') = self.peek() {
                        self.at += 1;
                    }
                    self.at -= 1;
                }
                _ => return Err(self.wrong("expected a value")),
            }
            self.at += 1;
            if open == 0 {
                return Ok(());
            }
        }
    }

    fn string(&mut self) -> Parsed<String> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain =
                rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f)).unwrap_or(rest.len());
            out.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out);
                }
                Some(b'\\') => out.push(self.escape()?),
                Some(_) => return Err(self.wrong("a control character in a text must be escaped")),
                None => return Err(self.wrong("")),
            }
        }
    }

    fn escape(&mut self) -> Parsed<char> {
        let from = self.at;
        self.at += 1;
        let character = match self.peek() {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                self.at += 1;
                return self.unicode(from);
            }
            _ => return Err(self.wrong("invalid escape")),
        };
        self.at += 1;
        Ok(character)
    }

    /// The character of `\uXXXX`, or of two of them.
    fn unicode(&mut self, from: usize) -> Parsed<char> {
        let unit = self.hex()?;
        let code = match unit {
            0xd800..=0xdbff if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                self.at += 2;
                match self.hex()? {
                    low @ 0xdc00..=0xdfff => 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00),
                    _ => unit,
                }
            }
            _ => unit,
        };
        char::from_u32(code)
            .ok_or_else(|| Wrong(format!("\\u{unit:04x} is half of a character: a lone surrogate"), from))
    }

    fn hex(&mut self) -> Parsed<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let digits = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
        let unit = digits.and_then(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        let unit = unit.ok_or_else(|| self.wrong("four hexadecimal digits are expected after `\\u`"))?;
        self.at += 4;
        Ok(unit)
    }
}

fn twice(key: String, at: usize) -> Wrong {
    Wrong(format!("the key {} stands twice in one object", Json::String(cut(key))), at)
}

/// Enough of a key to find it by.
fn cut(key: String) -> String {
    if key.chars().count() > 100 { key.chars().take(100).chain(['…']).collect() } else { key }
}

impl Json {
    /// Reads JSON text.
    ///
    /// # Errors
    /// [`ParseError`] for what is not JSON, for a key that stands twice in one object, for text that is not
    /// Unicode (also by `\ud800` alone), and for values nested deeper than [`MAX_DEPTH`].
    pub fn parse(text: impl AsRef<[u8]>) -> Result<Self, ParseError> {
        parse(text.as_ref())
    }
}

impl std::str::FromStr for Json {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        Self::parse(text)
    }
}
