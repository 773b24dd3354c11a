//! Which documents of a collection a handle may see and change.

use std::sync::Arc;

use bson::Bson;

use crate::documents::filter::Test;
use crate::documents::{Filter, Index};

/// The field every document of a shared database carries.
pub(crate) const TENANT: &str = "tenantId";

/// Whose documents a handle sees. Every read, write, lock, note and count of it is narrowed to these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every document: logs and identities of all tenants, and databases of no tenant that none can reach.
    All,
    /// The documents of one tenant, in a database that several can reach.
    Tenant(Arc<str>),
    /// The documents of no tenant, in a database that tenants can reach.
    Untenanted,
    /// The documents of one tenant and those of no tenant: its database is its own, and documents need not
    /// say whose they are. With `stamps` new ones do, because contexts that differ only by it lead here
    /// too, or may.
    Sole { tenant: Arc<str>, stamps: bool },
}

impl Scope {
    pub(crate) fn tenant(tenant: &str) -> Self {
        Self::Tenant(tenant.into())
    }

    /// What belongs to this tenant, or to none.
    pub(crate) fn of_owner(owner: Option<&str>) -> Self {
        owner.map_or(Self::Untenanted, Self::tenant)
    }

    /// What a handle sees, and what is nobody's: versions of its items that left the index before these got a
    /// tenant.
    pub(crate) fn and_nobodys(&self) -> Self {
        match self {
            Self::Tenant(tenant) => Self::Sole { tenant: Arc::clone(tenant), stamps: false },
            Self::All | Self::Untenanted | Self::Sole { .. } => self.clone(),
        }
    }

    /// The tenant that a new item gets; an item keeps it for good.
    pub(crate) fn stamp(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) | Self::Sole { tenant, stamps: true } => Some(tenant),
            Self::All | Self::Untenanted | Self::Sole { stamps: false, .. } => None,
        }
    }

    /// The tenant whose handle it is, if it is one's.
    pub(crate) fn owner(&self) -> Option<&str> {
        match self {
            Self::Tenant(tenant) | Self::Sole { tenant, .. } => Some(tenant),
            Self::All | Self::Untenanted => None,
        }
    }

    /// Whether documents of `owner` are seen.
    pub(crate) fn sees(&self, owner: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Tenant(tenant) => owner == Some(tenant),
            Self::Untenanted => owner.is_none(),
            Self::Sole { tenant, .. } => owner.is_none_or(|owner| owner == &**tenant),
        }
    }

    /// The filter, of documents that are seen.
    pub(crate) fn narrow(&self, filter: Filter) -> Filter {
        self.narrow_by(TENANT, filter)
    }

    /// The same for documents that have their tenant in another field.
    pub(crate) fn narrow_by(&self, field: &str, filter: Filter) -> Filter {
        let own = match self {
            Self::All => return filter,
            Self::Tenant(tenant) => Filter::eq(field, &**tenant),
            Self::Untenanted => Filter::eq(field, Bson::Null),
            Self::Sole { tenant, .. } => {
                Filter::Field(field.into(), Test::In(vec![Bson::Null, (&**tenant).into()]))
            }
        };
        // First, as it stands first in the indexes.
        own.and(filter)
    }

    /// Whether the documents seen have one value of [`TENANT`] among others in the same collection, so that
    /// indexes have to begin with it.
    pub(crate) fn is_one_of_several(&self) -> bool {
        matches!(self, Self::Tenant(_) | Self::Untenanted)
    }
}

/// The same index within each tenant.
pub(crate) fn by_tenant(index: Index) -> Index {
    let mut keys = vec![(TENANT.to_owned(), crate::documents::Direction::Ascending)];
    keys.extend(index.keys);
    Index { name: format!("tenant_{}", index.name), keys, ..index }
}

#[cfg(test)]
mod tests {
    use bson::doc;

    use super::*;

    #[test]
    fn a_scope_sees_exactly_what_its_filter_lets_through() {
        let scopes = [
            (Scope::All, [true, true, true]),
            (Scope::tenant("a"), [false, true, false]),
            (Scope::Untenanted, [true, false, false]),
            (Scope::Sole { tenant: "a".into(), stamps: false }, [true, true, false]),
            (Scope::Sole { tenant: "a".into(), stamps: true }, [true, true, false]),
        ];
        for (scope, seen) in scopes {
            for (owner, seen) in [None, Some("a"), Some("b")].into_iter().zip(seen) {
                let document =
                    owner.map_or_else(|| doc! { "x": 1 }, |owner| doc! { "x": 1, "tenantId": owner });
                assert_eq!(scope.sees(owner), seen, "{scope:?} {owner:?}");
                assert_eq!(scope.narrow(Filter::All).matches(&document), seen, "{scope:?} {owner:?}");
                assert!(!scope.narrow(Filter::eq("x", 2)).matches(&document), "{scope:?} {owner:?}");
            }
            assert!(
                scope.stamp().is_none_or(|tenant| scope.sees(Some(tenant))),
                "{scope:?} sees what it makes"
            );
            assert!(scope.stamp().is_some() || scope.sees(None), "{scope:?} sees what it makes");
        }
    }
}
