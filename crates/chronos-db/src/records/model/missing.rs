//! What has no room in an index entry.

use std::collections::HashSet;

use bson::{Bson, RawBsonRef};

/// The names of properties that an entry leaves out may have this many bytes; of more it says that any may be
/// missing.
const MAX_NAMES_BYTES: usize = 4 * 1024;

/// Which properties of a document its entry lacks for want of room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Missing {
    #[default]
    None,
    These(Vec<String>),
    /// Too many to name.
    Any,
}

impl Missing {
    pub(crate) fn of(names: HashSet<String>) -> Self {
        if names.iter().map(String::len).sum::<usize>() > MAX_NAMES_BYTES {
            return Self::Any;
        }
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort_unstable();
        if names.is_empty() { Self::None } else { Self::These(names) }
    }

    /// Whether one of these top-level properties may be missing.
    pub(crate) fn has_any_of(&self, names: &[String]) -> bool {
        match self {
            Self::None => false,
            Self::These(missing) => missing.iter().any(|missing| names.contains(missing)),
            Self::Any => true,
        }
    }

    /// How it is stored: one name as it is, since an index finds it among others then.
    pub(crate) fn stored(&self) -> Option<Bson> {
        match self {
            Self::None => None,
            Self::These(names) => match names.as_slice() {
                [one] => Some(one.as_str().into()),
                several => Some(Bson::Array(several.iter().map(|name| name.as_str().into()).collect())),
            },
            Self::Any => Some(true.into()),
        }
    }

    pub(crate) fn read(stored: RawBsonRef<'_>) -> Self {
        match stored {
            RawBsonRef::String(one) => Self::These(vec![one.to_owned()]),
            RawBsonRef::Array(names) => {
                let names: Option<Vec<String>> =
                    names.into_iter().map(|name| Some(name.ok()?.as_str()?.to_owned())).collect();
                names.map_or(Self::Any, Self::These)
            }
            RawBsonRef::Null | RawBsonRef::Boolean(false) => Self::None,
            _ => Self::Any,
        }
    }

    /// The stored values of entries that lack one of these top-level properties.
    pub(crate) fn values_with(names: &[String]) -> Vec<Bson> {
        names.iter().map(|name| name.as_str().into()).chain([true.into()]).collect()
    }
}
