//! Arguments that several commands share.

use std::time::Duration;

use chronos_db::documents::Direction;
use chronos_db::{Collection, Error, ItemId, Json, Timestamp, json};
use clap::Args;

use crate::failure::Failure;
use crate::stderr::note;

/// Which collection.
#[derive(Debug, Args)]
pub(crate) struct CollectionArg {
    /// The collection.
    #[arg(short, long, value_name = "COLL")]
    pub(crate) collection: String,
}

/// Which item.
#[derive(Debug, Args)]
pub(crate) struct ItemArg {
    #[command(flatten)]
    pub(crate) of: CollectionArg,
    /// The item: its id, or PROPERTY=VALUE, which names the one item whose indexed property has this value
    /// now.
    #[arg(value_name = "ITEM")]
    item: String,
}

/// Which items a property can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    Live,
    /// A live item; if there is none, the one that was deleted last.
    Deleted,
}

impl ItemArg {
    /// The item that is meant.
    pub(crate) async fn find(&self, collection: &Collection, among: Among) -> Result<ItemId, Failure> {
        find(&self.item, collection, among).await
    }
}

/// The item that is meant by its id, or by PROPERTY=VALUE.
pub(crate) async fn find(item: &str, collection: &Collection, among: Among) -> Result<ItemId, Failure> {
    match item.split_once('=') {
        None => Ok(item.parse()?),
        Some((property, value)) => find_by(collection, property, value, among).await,
    }
}

/// Says that a short name was taken for a built-in property, as the collection's documents have none of that
/// name.
pub(crate) fn tell_built_in(short: &str, full: &str) {
    note(&format!("`{short}` is taken for `{full}`: the collection has no property of that name"));
}

async fn find_by(
    collection: &Collection,
    property: &str,
    value: &str,
    among: Among,
) -> Result<ItemId, Failure> {
    let wanted = json!({ property: { "$in": readings(value) } });
    let live = collection
        .list()
        .on_built_in(tell_built_in)
        .filter(wanted.clone())
        .project([property])
        .limit(2)
        .await?
        .items;
    match live.as_slice() {
        [one] => return Ok(one.id),
        [] => {}
        [one, other, ..] => {
            let message = format!(
                "several live items have {property}={value}, such as {} and {}; name one by its id",
                one.id, other.id
            );
            return Err(Failure::wrong(message));
        }
    }
    if among == Among::Deleted {
        let deleted = collection.list().filter(wanted).project([property]).include_deleted();
        if let [last] =
            deleted.sort("_system.updatedAt", Direction::Descending).limit(1).await?.items.as_slice()
        {
            return Ok(last.id);
        }
    }
    let kind = if among == Among::Live { "live item" } else { "item" };
    Err(Error::not_found(format!("no {kind} has {property}={value}")).in_collection(collection.name()).into())
}

/// A value of the command line is text, and also the number or boolean it reads as.
fn readings(value: &str) -> Vec<Json> {
    let mut readings = vec![Json::from(value)];
    match Json::parse(value) {
        Ok(Json::Bool(read)) => readings.push(read.into()),
        // Only what the index can hold; another number is found nowhere.
        Ok(Json::Number(read))
            if read.as_i64().is_some()
                || read.as_f64().is_some_and(|read| read.is_finite() && read.fract() != 0.0) =>
        {
            readings.push(Json::Number(read));
        }
        _ => {}
    }
    readings
}

/// Which point of the past; without one, the present.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct PointArg {
    /// As it was at this time: 2015-12-31 or 2015-12-31T10:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Timestamp::parse)]
    pub(crate) at: Option<Timestamp>,
    /// As it was at this version of the collection.
    #[arg(long, value_name = "N")]
    pub(crate) cv: Option<i64>,
}

/// What is shown of an item.
#[derive(Debug, Args)]
pub(crate) struct ShowArg {
    /// Show deleted items too.
    #[arg(long)]
    pub(crate) include_deleted: bool,
    /// Only these top-level properties (`_system` is one of them).
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    pub(crate) project: Option<Vec<String>>,
    /// Add signed URLs of externalised properties, valid for this many seconds (S3 and Azure).
    #[arg(long, value_name = "SECONDS")]
    pub(crate) presign: Option<u64>,
}

/// What is recorded with a version.
#[derive(Debug, Args)]
pub(crate) struct WriteArg {
    /// Who makes this change.
    #[arg(long, value_name = "WHO")]
    pub(crate) actor: Option<String>,
    /// Why.
    #[arg(long, value_name = "WHY")]
    pub(crate) reason: Option<String>,
}

/// What is recorded with a change of an item, and under which condition it takes place.
#[derive(Debug, Args)]
pub(crate) struct ChangeArg {
    #[command(flatten)]
    write: WriteArg,
    /// Fail with OPTIMISTIC_LOCK unless the item is at this version.
    #[arg(long, value_name = "N")]
    expect_ov: Option<i64>,
}

// The library's actions have the same methods and no common type, so those that set an option are handed in.

impl PointArg {
    /// `action` at this point, which is set by its methods `as_of` and `as_of_cv`.
    pub(crate) fn apply<A>(&self, action: A, as_of: fn(A, Timestamp) -> A, as_of_cv: fn(A, i64) -> A) -> A {
        let action = match self.at {
            Some(at) => as_of(action, at),
            None => action,
        };
        match self.cv {
            Some(cv) => as_of_cv(action, cv),
            None => action,
        }
    }
}

impl ShowArg {
    /// `action` with these options, which are set by its methods of these names.
    pub(crate) fn apply<A>(
        &self,
        mut action: A,
        include_deleted: fn(A) -> A,
        project: fn(A, Vec<String>) -> A,
        presign: fn(A, Duration) -> A,
    ) -> A {
        if self.include_deleted {
            action = include_deleted(action);
        }
        if let Some(properties) = &self.project {
            action = project(action, properties.clone());
        }
        if let Some(seconds) = self.presign {
            action = presign(action, Duration::from_secs(seconds));
        }
        action
    }
}

impl WriteArg {
    /// `action` with these options, which are set by its methods `actor` and `reason`.
    pub(crate) fn apply<A>(&self, mut action: A, actor: fn(A, String) -> A, reason: fn(A, String) -> A) -> A {
        if let Some(who) = &self.actor {
            action = actor(action, who.clone());
        }
        if let Some(why) = &self.reason {
            action = reason(action, why.clone());
        }
        action
    }
}

impl ChangeArg {
    /// `action` with these options, which are set by its methods `actor`, `reason` and `expect_ov`.
    pub(crate) fn apply<A>(
        &self,
        action: A,
        actor: fn(A, String) -> A,
        reason: fn(A, String) -> A,
        expect_ov: fn(A, i64) -> A,
    ) -> A {
        let action = self.write.apply(action, actor, reason);
        match self.expect_ov {
            Some(ov) => expect_ov(action, ov),
            None => action,
        }
    }
}

#[cfg(test)]
mod tests {
    use chronos_db::json;

    use super::readings;

    #[test]
    fn a_value_of_the_command_line_is_text_and_what_it_reads_as() {
        assert_eq!(readings("MMM"), [json!("MMM")]);
        assert_eq!(readings("66740"), [json!("66740"), json!(66740)]);
        assert_eq!(readings("1.5"), [json!("1.5"), json!(1.5)]);
        assert_eq!(readings("true"), [json!("true"), json!(true)]);
        assert_eq!(readings("123456789012345678901234567890"), [json!("123456789012345678901234567890")]);
        assert_eq!(readings("null"), [json!("null")]);
    }
}
