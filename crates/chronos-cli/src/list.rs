//! `chronos list`.

use chronos_db::documents::Direction;
use chronos_db::{Json, List, OnDamage, json};
use clap::{Args, ValueEnum};
use futures::TryStreamExt as _;

use crate::args::{CollectionArg, PointArg, ShowArg, tell_built_in};
use crate::failure::Failure;
use crate::input;
use crate::open::Globals;
use crate::output::Output;
use crate::stderr::note;

/// List items by indexed properties, _id and _system.ov, cv, insertedAt and updatedAt, now or as they were.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chronos list -c users --filter '{\"status\": \"verified\"}' \\
    --sort plan,-updatedAt --limit 20
  chronos list -c users --filter '{\"age\": {\"$gte\": 18}}' --at 2026-01-31 --all
  chronos list -c users --filter '{\"plan\": \"team\"}' --count
  # {items, next}; go on with --after NEXT
  chronos list -c users --page --limit 100")]
pub(crate) struct ListArgs {
    #[command(flatten)]
    of: CollectionArg,
    /// Only items that match, in MongoDB's syntax.
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Sort by these properties; `-` before one, or `:desc` after it, sorts in descending order.
    #[arg(long, value_name = "A,-B,C:desc", value_delimiter = ',', allow_hyphen_values = true)]
    sort: Vec<String>,
    /// Items per page, 1 to 1000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Continue after a page: its `next`, with the same filter and sort.
    #[arg(long, value_name = "TOKEN", allow_hyphen_values = true)]
    after: Option<String>,
    #[command(flatten)]
    point: PointArg,
    #[command(flatten)]
    show: ShowArg,
    /// What to do about an item that cannot be read, or sorted by an array.
    #[arg(long, value_enum, value_name = "WHAT", default_value_t)]
    on_damage: OnDamageArg,
    /// All items instead of one page.
    #[arg(long, conflicts_with_all = ["page", "limit"])]
    all: bool,
    /// One JSON value {items, next} instead of one item per line.
    #[arg(long)]
    page: bool,
    /// How many items there are, {count}, instead of the items.
    #[arg(long, conflicts_with_all = ["all", "page", "limit", "sort", "after", "project", "presign"])]
    count: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum OnDamageArg {
    /// End with its error.
    #[default]
    Fail,
    /// Show it with its error.
    Show,
}

impl From<OnDamageArg> for OnDamage {
    fn from(given: OnDamageArg) -> Self {
        match given {
            OnDamageArg::Fail => Self::Fail,
            OnDamageArg::Show => Self::Show,
        }
    }
}

pub(crate) async fn run(globals: &Globals, args: ListArgs) -> Result<(), Failure> {
    let filter = args.filter.as_deref().map(parse_filter).transpose()?;
    let session = globals.open_for_reading()?;
    let collection = session.existing(&args.of.collection).await?;
    let list = collection.list().on_built_in(tell_built_in).on_damage(args.on_damage.into());
    let list = args.point.apply(list, List::as_of, List::as_of_cv);
    let mut list = args.show.apply(list, List::include_deleted, List::project, List::presign);
    if let Some(filter) = filter {
        list = list.filter(filter);
    }
    for key in &args.sort {
        let (property, direction) = sort_key(key)?;
        list = list.sort(property, direction);
    }
    if let Some(token) = &args.after {
        list = list.after(token);
    }
    let listed = if args.count {
        count(list).await
    } else if args.all {
        every_item(list).await
    } else {
        one_page(list.limit(args.limit), args.page).await
    };
    session.close().await?;
    listed
}

/// `name`, `-name`, `name:asc` or `name:desc`.
fn sort_key(key: &str) -> Result<(&str, Direction), Failure> {
    let (property, direction) =
        match (key.strip_prefix('-'), key.strip_suffix(":desc"), key.strip_suffix(":asc")) {
            (Some(_), Some(_), _) | (Some(_), _, Some(_)) => {
                return Err(Failure::wrong(format!(
                    "`{key}` says twice in which direction to sort: `-NAME`, `NAME:asc` or `NAME:desc`"
                )));
            }
            (Some(property), ..) | (_, Some(property), _) => (property, Direction::Descending),
            (_, _, Some(property)) => (property, Direction::Ascending),
            _ => (key, Direction::Ascending),
        };
    Ok((property, direction))
}

async fn every_item(list: List) -> Result<(), Failure> {
    let mut out = Output::new();
    tell_unknown(&list.unknown_properties().await?);
    let mut views = list.stream().await?;
    let mut damaged = 0_u64;
    while let Some(view) = views.try_next().await? {
        damaged += u64::from(view.damage.is_some());
        out.line(&view.to_json())?;
    }
    out.finish()?;
    tell_damaged(damaged);
    Ok(())
}

async fn count(list: List) -> Result<(), Failure> {
    tell_unknown(&list.unknown_properties().await?);
    Output::new().value(&json!({ "count": list.count().await? }))
}

async fn one_page(list: List, whole: bool) -> Result<(), Failure> {
    let page = list.await?;
    tell_unknown(&page.unknown);
    tell_damaged(page.items.iter().filter(|view| view.damage.is_some()).count() as u64);
    let items = page.items.iter().map(chronos_db::View::to_json);
    if whole {
        return Output::new().value(&json!({ "items": items.collect::<Vec<_>>(), "next": page.next }));
    }
    let mut out = Output::new();
    for item in items {
        out.line(&item)?;
    }
    out.finish()?;
    if let Some(next) = page.next {
        note(&format!("there is more: --after {next}"));
    }
    Ok(())
}

/// A misspelt name finds nothing, in silence.
fn tell_unknown(names: &[String]) {
    for name in names {
        note(&format!("no document of the collection has a property `{name}`"));
    }
}

fn tell_damaged(items: u64) {
    if items > 0 {
        note(&format!("{items} of the items could not be shown or sorted: each says why in its `error`"));
    }
}

fn parse_filter(text: &str) -> Result<Json, Failure> {
    input::parse(text.as_bytes(), "the filter")
}

#[cfg(test)]
mod tests {
    use chronos_db::documents::Direction::{Ascending, Descending};

    use super::sort_key;

    #[test]
    fn a_direction_may_stand_before_or_behind_the_property() {
        let keys = [
            ("price", "price", Ascending),
            ("-price", "price", Descending),
            ("price:asc", "price", Ascending),
            ("a.b:desc", "a.b", Descending),
        ];
        for (given, property, direction) in keys {
            assert_eq!(sort_key(given).unwrap(), (property, direction));
        }
        assert!(sort_key("-price:desc").is_err());
    }
}
