//! One object of the configuration, and where it is.

use chronos_db::json::Map;
use secrecy::SecretString;

use crate::{Error, Json, Result};

/// An object of the configuration, and where it stands.
pub(super) struct Part<'j> {
    pub(super) path: String,
    pub(super) object: Option<&'j Map>,
}

impl<'j> Part<'j> {
    pub(super) fn new(path: &str, value: &'j Json) -> Result<Self> {
        match value {
            Json::Null => Ok(Self { path: path.to_owned(), object: None }),
            Json::Object(object) => Ok(Self { path: path.to_owned(), object: Some(object) }),
            _ => Err(Error::validation(format!(
                "{}: expected an object",
                if path.is_empty() { "chronow" } else { path }
            ))),
        }
    }

    pub(super) fn at(&self, key: &str) -> String {
        let dot = if self.path.is_empty() || key.is_empty() { "" } else { "." };
        format!("{}{dot}{key}", self.path)
    }

    pub(super) fn wrong(&self, key: &str, message: impl std::fmt::Display) -> Error {
        Error::validation(format!("{}: {message}", self.at(key)))
    }

    /// What is null or an empty text is not given.
    pub(super) fn value(&self, key: &str) -> Option<&'j Json> {
        self.object?.get(key).filter(|value| !value.is_null() && value.as_str() != Some(""))
    }

    pub(super) fn part(&self, key: &str) -> Result<Option<Part<'j>>> {
        self.value(key).map(|value| Part::new(&self.at(key), value)).transpose()
    }

    pub(super) fn text(&self, key: &str) -> Result<Option<&'j str>> {
        self.value(key)
            .map(|value| value.as_str().ok_or_else(|| self.wrong(key, "expected a text")))
            .transpose()
    }

    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.value(key)
            .map(|value| value.as_bool().ok_or_else(|| self.wrong(key, "expected true or false")))
            .transpose()
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>> {
        self.value(key)
            .map(|value| {
                value.as_u64().ok_or_else(|| self.wrong(key, "expected a whole number that is not negative"))
            })
            .transpose()
    }

    pub(super) fn checked_nodes<'t>(
        &self,
        key: &str,
        nodes: impl Iterator<Item = &'t str>,
    ) -> Result<Vec<SecretString>> {
        let check = |node: &'t str| {
            let address = node.rsplit_once('@').map_or(node, |(_, address)| address);
            let port =
                address.rsplit_once(':').and_then(|(_, port)| port.trim_end_matches('/').parse::<u16>().ok());
            match port {
                Some(1..) => Ok(SecretString::from(node)),
                _ => Err(self.wrong(key, "expected `host:port` for every node")),
            }
        };
        nodes.map(check).collect()
    }

    pub(super) fn known(&self, keys: &[&str], warnings: &mut Vec<String>) {
        let unknown = self.object.into_iter().flat_map(Map::keys).filter(|key| !keys.contains(&key.as_str()));
        warnings.extend(unknown.map(|key| format!("{}: is not known and ignored", self.at(key))));
    }
}
