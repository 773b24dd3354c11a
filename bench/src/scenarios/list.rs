//! A page of a list.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::json;
use futures::TryStreamExt as _;

use crate::measure::{Dice, Rate, duel, rate};
use crate::opened::{How, Opened, open};
use crate::raw::mongo::Raw;
use crate::report::Line;
use crate::stored::{Stored, person};
use crate::{Context, Result, aims};

/// Items of a page, and items that share a status: a full page is found.
const PAGE: usize = 50;
const SHARING: usize = 100;

async fn listing(opened: &Opened, groups: usize, round: Duration) -> Result<Rate> {
    let people = opened.people.clone();
    let listed = rate(1, round, move |_, call| {
        let people = people.clone();
        async move {
            let status = format!("group{:06}", Dice(call).below(groups));
            let page = people.list().filter(json!({ "status": status })).limit(PAGE as u32).await?;
            if page.items.len() == PAGE {
                Ok(())
            } else {
                Err(format!("{} items were listed", page.items.len()).into())
            }
        }
    });
    well(listed.await?)
}

/// The heads of the page, and with `rows` also the version rows that hold their payloads.
async fn finding(raw: &Raw, groups: usize, rows: bool, round: Duration) -> Result<Rate> {
    let raw = raw.clone();
    let found = rate(1, round, move |_, call| {
        let raw = raw.clone();
        async move {
            let status = format!("group{:06}", Dice(call).below(groups));
            let all = raw.heads();
            let find =
                all.find(doc! { "metaIndexed.status": status }).sort(doc! { "_id": 1 }).limit(PAGE as i64);
            let heads: Vec<Document> = find.await?.try_collect().await?;
            if rows {
                let ids: Vec<Bson> = heads.iter().filter_map(|head| head.get("itemId").cloned()).collect();
                let found: Vec<Document> =
                    raw.rows().find(doc! { "itemId": { "$in": ids }, "ov": 0 }).await?.try_collect().await?;
                if found.len() != PAGE {
                    return Err(format!("{} rows were found", found.len()).into());
                }
            }
            if heads.len() == PAGE { Ok(()) } else { Err(format!("{} heads were found", heads.len()).into()) }
        }
    });
    well(found.await?)
}

fn well(rate: Rate) -> Result<Rate> {
    if rate.failed > 0 {
        Err(format!("{} of {} lists failed", rate.failed, rate.calls).into())
    } else {
        Ok(rate)
    }
}

pub(crate) async fn fifty(context: &Context) -> Result<Vec<Line>> {
    let heads: usize = if context.large { 1_000_000 } else { 50_000 };
    let mut lines = Vec::new();
    for inline in [false, true] {
        let raw = Raw::connect("list").await?;
        let opened = open(&How { database: raw.name(), cache: Some(0), ..How::default() })?;
        opened.people.ensure_index("status").await?;
        let ids: Vec<ObjectId> = (0..heads).map(|_| ObjectId::new()).collect();
        let stored = |number: usize| {
            let cv = i64::try_from(number)?;
            Stored::new(ids[number], 0, cv, cv, person(number, SHARING))
        };
        raw.load(&raw.heads(), (0..heads).map(|number| Ok(stored(number)?.head(!inline)))).await?;
        if inline {
            raw.load(&raw.rows(), (0..heads).map(|number| Ok(stored(number)?.row()))).await?;
        }
        raw.set_counter(i64::try_from(heads)? - 1).await?;
        let groups = heads / SHARING;
        let seen = duel(
            context,
            async || Ok(listing(&opened, groups, context.round).await?.per_second),
            async || Ok(finding(&raw, groups, inline, context.round).await?.per_second),
        );
        let seen = seen.await?;
        let (ours, ceiling) = seen.medians();
        let (name, payload) =
            if inline { ("list_50_inline", "in the rows") } else { ("list_50", "in the heads (shadow)") };
        lines.push(
            Line::against(name, "lists/s", ours, ceiling, Some(aims::LIST))
                .note("heads", heads)
                .note("payload", payload)
                .note("ratio_of_rounds", seen.spread()),
        );
        opened.chronos.shutdown().await?;
        raw.drop().await?;
    }
    Ok(lines)
}
