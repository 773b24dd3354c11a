//! `chronos diff`.

use chronos_db::json::Map;
use chronos_db::{Collection, Error, ItemId, Json, Timestamp, View, json};
use clap::Args;

use crate::args::{Among, ItemArg};
use crate::failure::Failure;
use crate::open::Globals;
use crate::output::Output;

/// Show what changed in an item between two of its versions.
///
/// {id, from: {ov, at}, to: {ov, at}, changes: [{path, op: added|removed|changed, from?, to?}]}; a path is a
/// JSON Pointer, such as /address/city.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos diff -c users email=a@example.org 0 3
  chronos diff -c users email=a@example.org 0  # from version 0 to the latest
  chronos diff -c users email=a@example.org --from-time 2025-12-31 \\
    --to-time 2026-01-31")]
pub(crate) struct DiffArgs {
    #[command(flatten)]
    item: ItemArg,
    /// The older version.
    #[arg(value_name = "FROM_OV", required_unless_present = "from_time", conflicts_with = "from_time")]
    from_ov: Option<i64>,
    /// The newer version; without it, the latest.
    #[arg(value_name = "TO_OV", conflicts_with = "to_time")]
    to_ov: Option<i64>,
    /// The item as it was at this time, as the older version.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    from_time: Option<Timestamp>,
    /// The item as it was at this time, as the newer version.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    to_time: Option<Timestamp>,
}

pub(crate) async fn run(globals: &Globals, args: DiffArgs) -> Result<(), Failure> {
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.item.of.collection).await?;
    let id = args.item.find(&collection, Among::Deleted).await?;
    let from = version(&collection, id, args.from_ov, args.from_time).await?;
    let to = version(&collection, id, args.to_ov, args.to_time).await?;
    session.close().await?;
    let mut changes = Vec::new();
    compare(&mut String::new(), Some(&from.document()), Some(&to.document()), &mut changes);
    Output::new()
        .value(&json!({ "id": id.to_string(), "from": named(&from), "to": named(&to), "changes": changes }))
}

/// A version of the item, deletions included.
async fn version(
    collection: &Collection,
    id: ItemId,
    ov: Option<i64>,
    at: Option<Timestamp>,
) -> Result<View, Failure> {
    let mut get = collection.get(&id).include_deleted();
    let mut what = "there is no such item".to_owned();
    if let Some(ov) = ov {
        get = get.version(ov);
        what = format!("the item has no version {ov}");
    }
    if let Some(at) = at {
        get = get.as_of(at);
        what = format!("the item did not exist at {at}");
    }
    let missing = || Error::not_found(what).during("diff").in_collection(collection.name()).on_item(id);
    Ok(get.await?.ok_or_else(missing)?)
}

fn named(view: &View) -> Json {
    let mut named = json!({ "ov": view.ov, "at": view.at.to_string() });
    if view.deleted_at.is_some() {
        named["deleted"] = true.into();
    }
    named
}

/// Notes every difference at and below `path`, the deepest place it can be pinned to. Arrays are compared by
/// position.
fn compare(path: &mut String, from: Option<&Json>, to: Option<&Json>, changes: &mut Vec<Json>) {
    match (from, to) {
        (Some(Json::Object(from)), Some(Json::Object(to))) => {
            for key in from.keys().chain(to.keys().filter(|key| !from.contains_key(*key))) {
                below(path, &key.replace('~', "~0").replace('/', "~1"), from.get(key), to.get(key), changes);
            }
        }
        (Some(Json::Array(from)), Some(Json::Array(to))) => {
            for index in 0..from.len().max(to.len()) {
                below(path, &index.to_string(), from.get(index), to.get(index), changes);
            }
        }
        (from, to) if from == to => {}
        (from, to) => {
            let op = match (from, to) {
                (None, _) => "added",
                (_, None) => "removed",
                _ => "changed",
            };
            let mut change = Map::from_iter([("path", path.as_str()), ("op", op)]);
            change.extend(from.map(|value| ("from".to_owned(), value.clone())));
            change.extend(to.map(|value| ("to".to_owned(), value.clone())));
            changes.push(Json::Object(change));
        }
    }
}

fn below(path: &mut String, segment: &str, from: Option<&Json>, to: Option<&Json>, changes: &mut Vec<Json>) {
    let end = path.len();
    path.push('/');
    path.push_str(segment);
    compare(path, from, to, changes);
    path.truncate(end);
}

#[cfg(test)]
mod tests {
    use chronos_db::{Json, json};

    fn changes(from: &Json, to: &Json) -> Vec<Json> {
        let mut changes = Vec::new();
        super::compare(&mut String::new(), Some(from), Some(to), &mut changes);
        changes
    }

    #[test]
    fn a_change_is_named_at_the_deepest_place_by_a_json_pointer() {
        let from = json!({ "a": { "b/c": [1, 2], "gone": null }, "same": [{}] });
        let to = json!({ "a": { "b/c": [1, 3, 4] }, "same": [{}], "n~w": true });
        let expected = [
            json!({ "path": "/a/b~1c/1", "op": "changed", "from": 2, "to": 3 }),
            json!({ "path": "/a/b~1c/2", "op": "added", "to": 4 }),
            json!({ "path": "/a/gone", "op": "removed", "from": null }),
            json!({ "path": "/n~0w", "op": "added", "to": true }),
        ];
        assert_eq!(changes(&from, &to), expected);
    }

    #[test]
    fn a_value_of_another_type_is_one_change() {
        let expected = [json!({ "path": "/a", "op": "changed", "from": { "b": 1 }, "to": [1] })];
        assert_eq!(changes(&json!({ "a": { "b": 1 } }), &json!({ "a": [1] })), expected);
        assert!(changes(&json!({ "a": [] }), &json!({ "a": [] })).is_empty());
    }
}
