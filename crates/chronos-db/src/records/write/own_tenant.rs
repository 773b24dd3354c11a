//! Documents that say whose they are: those of logs, identities and messaging, where tenants share a database by
//! design.

use crate::json::Map;
use crate::records::index::Settings;
use crate::records::index::scope::{Scope, TENANT};
use crate::{Error, Json, Result, validate_name};

/// Makes a document say its tenant, and returns the one it says. Without `tenant`, which is so of a new item of
/// a handle for all tenants and of items of nobody, it is the document's to say.
///
/// # Errors
/// `VALIDATION_ERROR` if it says another one, or what cannot be a tenant.
pub(super) fn say(document: &mut Map, tenant: Option<&str>) -> Result<Option<String>> {
    let said = match document.get(TENANT) {
        None | Some(Json::Null) => None,
        Some(Json::String(said)) => Some(validate_name("tenant", said)?.to_owned()),
        Some(_) => return Err(Error::validation(format!("`{TENANT}` is the name of a tenant: a text"))),
    };
    match (said, tenant) {
        (Some(said), Some(tenant)) if said != tenant => Err(Error::validation(format!(
            "the document says the tenant `{said}`, but it is one of `{tenant}`"
        ))),
        (None, Some(tenant)) => {
            document.insert(TENANT.to_owned(), tenant.into());
            Ok(Some(tenant.to_owned()))
        }
        (said, _) => Ok(said),
    }
}

/// Refuses a document of an item of nobody that says a tenant, unless the version before it does so too. Whose an
/// item is, is decided at its creation: its versions would else be nobody's and its document a tenant's.
///
/// # Errors
/// `VALIDATION_ERROR`.
pub(super) fn keep_nobodys(said: Option<&str>, before: Option<&Map>) -> Result<()> {
    match said {
        Some(said) if before.and_then(|before| before.get(TENANT)?.as_str()) != Some(said) => {
            Err(Error::validation(format!(
                "the document says the tenant `{said}`, but it is one of nobody: create it anew, or assign the items of nobody to a tenant"
            )))
        }
        _ => Ok(()),
    }
}

/// Whose items the one with a document's unique keys is among. A handle for all tenants means those of the
/// document's own tenant: two tenants may have items with the same keys.
///
/// # Errors
/// `VALIDATION_ERROR` if such a handle's document says no tenant, or what cannot be one.
pub(super) fn scope_of(settings: &Settings, document: &Map, scope: &Scope) -> Result<Scope> {
    if !settings.says_tenant || *scope != Scope::All {
        return Ok(scope.clone());
    }
    match say(&mut document.clone(), None)? {
        Some(tenant) => Ok(Scope::tenant(&tenant)),
        None => Err(Error::validation(format!(
            "all tenants share this database, and unique keys are unique within each of them: the document has to say its tenant (`{TENANT}`)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn a_document_says_its_own_tenant_or_is_refused() {
        for (document, tenant, becomes) in [
            (json!({"n": 1}), Some("a"), Ok(json!({"n": 1, "tenantId": "a"}))),
            (json!({"tenantId": null}), Some("a"), Ok(json!({"tenantId": "a"}))),
            (json!({"tenantId": "a"}), Some("a"), Ok(json!({"tenantId": "a"}))),
            (json!({"tenantId": "b"}), None, Ok(json!({"tenantId": "b"}))),
            (json!({"n": 1}), None, Ok(json!({"n": 1}))),
            (json!({"tenantId": "b"}), Some("a"), Err("`b`")),
            (json!({"tenantId": 5}), Some("a"), Err("a text")),
            (json!({"tenantId": ""}), None, Err("tenant")),
            (json!({"tenantId": "../a"}), None, Err("tenant")),
        ] {
            let mut map = document.as_object().unwrap().clone();
            match (say(&mut map, tenant), becomes) {
                (Ok(said), Ok(expected)) => {
                    assert_eq!(said.map(Json::from).unwrap_or_default(), expected["tenantId"], "{document}");
                    assert_eq!(Json::Object(map), expected);
                }
                (Err(error), Err(why)) => assert!(error.message().contains(why), "{document}: {error}"),
                (got, expected) => panic!("{document}: {got:?} instead of {expected:?}"),
            }
        }
    }
}
