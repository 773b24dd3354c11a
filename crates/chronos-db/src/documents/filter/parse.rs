//! From JSON to a checked filter.

use bson::Bson;

use super::{Filter, Pattern, Test};
use crate::json::{Map, extended};
use crate::{Error, Json, Result, json_to_bson, json_to_nearest_bson};

/// How deep filters and the values in them may nest.
const MAX_DEPTH: usize = 32;
/// How many conditions, operators and values a filter may have.
const MAX_NODES: usize = 1_000;

const OPERATORS: &str = "$eq, $ne, $gt, $gte, $lt, $lte, $in, $nin, $exists, $regex (with $options), $all, $elemMatch, $size and $not";

/// Reads a filter in MongoDB's syntax.
///
/// Values are read by [`json_to_bson`](crate::json_to_bson), so `{"$date": …}` and the other forms of
/// Extended JSON are typed values, everywhere a value may stand; whole numbers beyond 64 bits compare as the
/// nearest double. `resolve` gives the stored path of a property's path, or refuses it; the paths inside
/// `$elemMatch` are relative to the element and not resolved.
///
/// # Errors
/// `VALIDATION_ERROR` that names the operator and the place in the filter; and those of `resolve`.
pub fn parse(filter: &Json, resolve: &mut dyn FnMut(&str) -> Result<String>) -> Result<Filter> {
    Parser { resolve, nodes: 0 }.filter(filter, "filter", Paths::Resolved, 0)
}

#[derive(Clone, Copy, PartialEq)]
enum Paths {
    Resolved,
    Relative,
}

struct Parser<'a> {
    resolve: &'a mut dyn FnMut(&str) -> Result<String>,
    nodes: usize,
}

fn wrong<T>(at: &str, what: impl std::fmt::Display) -> Result<T> {
    Err(Error::validation(format!("{at}: {what}")))
}

impl Parser<'_> {
    fn enter(&mut self, at: &str, depth: usize) -> Result<()> {
        self.nodes += 1;
        if depth > MAX_DEPTH {
            return wrong(at, format_args!("a filter may nest {MAX_DEPTH} levels deep"));
        }
        if self.nodes > MAX_NODES {
            return wrong(
                "filter",
                format_args!("it has more than {MAX_NODES} conditions, operators and values"),
            );
        }
        Ok(())
    }

    fn filter(&mut self, filter: &Json, at: &str, paths: Paths, depth: usize) -> Result<Filter> {
        self.enter(at, depth)?;
        let Json::Object(map) = filter else {
            return wrong(at, format_args!("a filter is an object, not {}", kind(filter)));
        };
        let mut parts = Vec::new();
        for (key, value) in map {
            let at = within(at, key);
            match key.as_str() {
                "$and" => parts.push(Filter::And(self.filters(value, &at, paths, depth + 1)?)),
                "$or" => parts.push(Filter::Or(self.filters(value, &at, paths, depth + 1)?)),
                "$nor" => parts.push(Filter::Nor(self.filters(value, &at, paths, depth + 1)?)),
                operator if operator.starts_with('$') => {
                    let place =
                        if is_test(operator) { "it stands under a property" } else { "it is not supported" };
                    return wrong(
                        &at,
                        format_args!("{place}; beside properties there may be $and, $or and $nor"),
                    );
                }
                path => {
                    check_path(path, &at)?;
                    let path = if paths == Paths::Resolved { (self.resolve)(path)? } else { path.to_owned() };
                    let tests = self.condition(value, &at, depth + 1)?;
                    parts.extend(tests.into_iter().map(|test| Filter::Field(path.clone(), test)));
                }
            }
        }
        Ok(match (parts.pop(), parts.is_empty()) {
            (None, _) => Filter::All,
            (Some(only), true) => only,
            (Some(last), false) => {
                parts.push(last);
                Filter::And(parts)
            }
        })
    }

    fn filters(&mut self, value: &Json, at: &str, paths: Paths, depth: usize) -> Result<Vec<Filter>> {
        self.enter(at, depth)?;
        match value {
            Json::Array(items) if items.is_empty() => wrong(at, "it needs at least one filter"),
            Json::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.filter(item, &format!("{at}[{i}]"), paths, depth + 1))
                .collect(),
            other => wrong(at, format_args!("it takes an array of filters, not {}", kind(other))),
        }
    }

    /// What stands beside a path: operators, or the value it must equal.
    fn condition(&mut self, value: &Json, at: &str, depth: usize) -> Result<Vec<Test>> {
        match operators(value) {
            Some(map) => self.tests(map, at, depth),
            None => Ok(vec![Test::Eq(self.value(value, at, depth)?)]),
        }
    }

    fn tests(&mut self, map: &Map, at: &str, depth: usize) -> Result<Vec<Test>> {
        let mut tests = Vec::with_capacity(map.len());
        for (operator, value) in map {
            let at = within(at, operator);
            self.enter(&at, depth)?;
            let below = depth + 1;
            tests.push(match operator.as_str() {
                "$eq" => Test::Eq(self.value(value, &at, below)?),
                "$ne" => Test::Ne(self.value(value, &at, below)?),
                "$gt" => Test::Gt(self.value(value, &at, below)?),
                "$gte" => Test::Gte(self.value(value, &at, below)?),
                "$lt" => Test::Lt(self.value(value, &at, below)?),
                "$lte" => Test::Lte(self.value(value, &at, below)?),
                "$in" => Test::In(self.values(value, &at, below)?),
                "$nin" => Test::Nin(self.values(value, &at, below)?),
                "$all" => Test::All(self.values(value, &at, below)?),
                "$exists" => match value {
                    Json::Bool(present) => Test::Exists(*present),
                    other => return wrong(&at, format_args!("it takes true or false, not {}", kind(other))),
                },
                "$size" => match value.as_i64() {
                    Some(size) if size >= 0 => Test::Size(size),
                    _ => return wrong(&at, "it takes a whole number from 0 on"),
                },
                "$regex" => Test::Regex(pattern(value, map.get("$options"), &at)?),
                "$options" if map.contains_key("$regex") => continue,
                "$options" => return wrong(&at, "it stands beside $regex only"),
                "$not" => self.not(value, &at, below)?,
                "$elemMatch" => self.element(value, &at, below)?,
                other if other.starts_with('$') => {
                    return wrong(
                        &at,
                        format_args!("it is not supported under a property; there are {OPERATORS}"),
                    );
                }
                _ => return wrong(&at, "operators and plain keys cannot be mixed in one object"),
            });
        }
        Ok(tests)
    }

    fn not(&mut self, value: &Json, at: &str, depth: usize) -> Result<Test> {
        let Some(map) = operators(value) else {
            return wrong(at, "it takes an object of operators; for a value there is $ne");
        };
        let mut tests = self.tests(map, at, depth)?;
        Ok(Test::Not(Box::new(if tests.len() == 1 { tests.swap_remove(0) } else { Test::Every(tests) })))
    }

    fn element(&mut self, value: &Json, at: &str, depth: usize) -> Result<Test> {
        let first = value.as_object().and_then(|map| map.keys().next());
        if first.is_some_and(|key| key.starts_with('$') && !matches!(key.as_str(), "$and" | "$or" | "$nor")) {
            let tests = value.as_object().map(|map| self.tests(map, at, depth)).transpose()?;
            return Ok(Test::ElemMatch(tests.unwrap_or_default()));
        }
        Ok(Test::ElemMatchFilter(Box::new(self.filter(value, at, Paths::Relative, depth)?)))
    }

    fn values(&mut self, value: &Json, at: &str, depth: usize) -> Result<Vec<Bson>> {
        match value {
            Json::Array(items) => items
                .iter()
                .enumerate()
                .map(|(i, item)| self.value(item, &format!("{at}[{i}]"), depth))
                .collect(),
            other => wrong(at, format_args!("it takes an array of values, not {}", kind(other))),
        }
    }

    fn value(&mut self, value: &Json, at: &str, depth: usize) -> Result<Bson> {
        self.check_value(value, at, depth)?;
        match json_to_bson(value) {
            Ok(value) => Ok(value),
            // Whole numbers beyond 64 bits compare as doubles; beyond doubles there is nothing to compare
            // with.
            Err(_) if is_finite(value) => Ok(json_to_nearest_bson(value)),
            Err(error) => wrong(at, error.message()),
        }
    }

    /// Refuses keys with a `$` within values: a server might take them for operators.
    fn check_value(&mut self, value: &Json, at: &str, depth: usize) -> Result<()> {
        self.enter(at, depth)?;
        match value {
            Json::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(i, item)| self.check_value(item, &format!("{at}[{i}]"), depth + 1)),
            Json::Object(map) if extended::is_meant(map) => match json_to_bson(value)? {
                Bson::Int32(_)
                | Bson::Int64(_)
                | Bson::Double(_)
                | Bson::DateTime(_)
                | Bson::ObjectId(_)
                | Bson::Binary(_) => Ok(()),
                Bson::Document(_) => wrong(at, extended::EXPECTED),
                // Servers take some of these for patterns or bounds of all types.
                _ => wrong(
                    at,
                    "filters compare with dates, object ids, numbers and binary data of Extended JSON; for patterns there is $regex",
                ),
            },
            Json::Object(map) => map.iter().try_for_each(|(key, value)| {
                let at = within(at, key);
                if key.starts_with('$') {
                    return wrong(&at, "no operator may stand inside a value");
                }
                if key.contains('\0') {
                    return wrong(&at, "a key may not hold NUL");
                }
                self.check_value(value, &at, depth + 1)
            }),
            _ => Ok(()),
        }
    }
}

fn is_finite(value: &Json) -> bool {
    match value {
        Json::Number(number) => number.as_f64().is_some(),
        Json::Array(items) => items.iter().all(is_finite),
        Json::Object(map) => map.values().all(is_finite),
        _ => true,
    }
}

fn within(at: &str, key: &str) -> String {
    let shown: String = key.chars().take(80).collect();
    format!("{at}.{}", shown.escape_debug())
}

fn kind(value: &Json) -> &'static str {
    match value {
        Json::Null => "null",
        Json::Bool(_) => "a boolean",
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "an array",
        Json::Object(_) => "an object",
    }
}

/// The value as an object of operators, if it is one.
fn operators(value: &Json) -> Option<&Map> {
    value
        .as_object()
        .filter(|map| !extended::is_meant(map) && map.keys().next().is_some_and(|key| key.starts_with('$')))
}

fn is_test(operator: &str) -> bool {
    OPERATORS.split([' ', ',', '(', ')']).any(|known| known == operator)
}

fn check_path(path: &str, at: &str) -> Result<()> {
    if path.split('.').any(|segment| segment.is_empty() || segment.starts_with('$') || segment.contains('\0'))
    {
        return wrong(
            &at.replace('\0', "\\0"),
            "a property's path is one or more names with dots between them, none of them starting with $",
        );
    }
    Ok(())
}

fn pattern(value: &Json, options: Option<&Json>, at: &str) -> Result<Pattern> {
    let Json::String(source) = value else {
        return wrong(at, format_args!("it takes a pattern as a string, not {}", kind(value)));
    };
    let options = match options {
        None => "",
        Some(Json::String(options)) => options,
        Some(other) => return wrong(at, format_args!("its $options are a string, not {}", kind(other))),
    };
    Pattern::new(source, options).or_else(|reason| wrong(at, reason))
}
