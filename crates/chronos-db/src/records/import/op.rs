//! One operation of an import log.

use crate::{Error, Json, Result, Timestamp, json_to_bson};

/// One operation of an import log.
#[derive(Clone, PartialEq)]
pub struct ImportOp {
    pub(crate) kind: Kind,
    pub(crate) key: Json,
    pub(crate) data: Json,
    pub(crate) at: Option<Timestamp>,
    pub(crate) actor: Option<String>,
    pub(crate) reason: Option<String>,
    pub(crate) line: Option<u64>,
}

crate::debug_some!(ImportOp { kind, at });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Create,
    Replace,
    Update,
    Delete,
}

impl ImportOp {
    /// Reads `{op: create|replace|update|delete, key, data?, at?, actor?, reason?}`.
    ///
    /// # Errors
    /// `VALIDATION_ERROR` for another shape.
    pub fn parse(operation: &Json) -> Result<Self> {
        let map = operation.as_object().ok_or_else(|| Error::validation("an operation is a JSON object"))?;
        if let Some(unknown) =
            map.keys().find(|key| !["op", "key", "data", "at", "actor", "reason"].contains(&key.as_str()))
        {
            return Err(Error::validation(format!(
                "`{unknown}` is not a part of an operation: op, key, data, at, actor and reason are"
            )));
        }
        let kind = match map.get("op").and_then(Json::as_str) {
            Some("create") => Kind::Create,
            Some("replace") => Kind::Replace,
            Some("update") => Kind::Update,
            Some("delete") => Kind::Delete,
            _ => return Err(Error::validation("`op` is create, replace, update or delete")),
        };
        let key = map.get("key").filter(|key| key.is_string() || key.is_number() || key.is_boolean());
        let key = key.ok_or_else(|| Error::validation("`key` is a string, a number or a boolean"))?.clone();
        // Otherwise it would fail later, together with all operations beside it.
        json_to_bson(&key)?;
        let data = map.get("data").cloned().unwrap_or(Json::Null);
        match (kind, &data) {
            (Kind::Delete, Json::Null) | (Kind::Create | Kind::Replace | Kind::Update, Json::Object(_)) => {}
            (Kind::Delete, _) => return Err(Error::validation("a delete has no `data`")),
            _ => return Err(Error::validation("`data` is the document, a JSON object")),
        }
        let text = |name: &str| match map.get(name) {
            None | Some(Json::Null) => Ok(None),
            Some(Json::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::validation(format!("`{name}` is text"))),
        };
        let at = text("at")?.map(|at| Timestamp::parse(&at)).transpose()?;
        Ok(Self { kind, key, data, at, actor: text("actor")?, reason: text("reason")?, line: None })
    }

    /// Says on which line of its log the operation stands, from 1. Without it the operations of an import are
    /// counted.
    #[must_use]
    pub fn on_line(mut self, line: u64) -> Self {
        self.line = Some(line);
        self
    }

    /// Returns when the change happened, if the log says so.
    #[must_use]
    pub fn at(&self) -> Option<Timestamp> {
        self.at
    }
}
