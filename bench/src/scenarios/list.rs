//! A page of a list.

use std::time::Duration;

use bson::oid::ObjectId;
use bson::{Bson, Document, doc};
use chronos_db::json;
use futures::TryStreamExt as _;

use crate::baseline::mongo::Baseline;
use crate::bench_store::{BenchStore, How, open};
use crate::measure::{Lcg, Rate, compare, rate};
use crate::report::Line;
use crate::stored::{Stored, person};
use crate::{Context, Result, targets};

/// Items of a page, and items that share a status: a full page is found.
const PAGE: usize = 50;
const SHARING: usize = 100;

async fn listing(db: &BenchStore, groups: usize, round: Duration) -> Result<Rate> {
    let people = db.people.clone();
    let listed = rate(1, round, move |_, call| {
        let people = people.clone();
        async move {
            let status = format!("group{:06}", Lcg(call).below(groups));
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
async fn finding(baseline: &Baseline, groups: usize, rows: bool, round: Duration) -> Result<Rate> {
    let baseline = baseline.clone();
    let found = rate(1, round, move |_, call| {
        let baseline = baseline.clone();
        async move {
            let status = format!("group{:06}", Lcg(call).below(groups));
            let all = baseline.heads();
            let find =
                all.find(doc! { "metaIndexed.status": status }).sort(doc! { "_id": 1 }).limit(PAGE as i64);
            let heads: Vec<Document> = find.await?.try_collect().await?;
            if rows {
                let ids: Vec<Bson> = heads.iter().filter_map(|head| head.get("itemId").cloned()).collect();
                let found: Vec<Document> = baseline
                    .rows()
                    .find(doc! { "itemId": { "$in": ids }, "ov": 0 })
                    .await?
                    .try_collect()
                    .await?;
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
        let baseline = Baseline::connect("list").await?;
        let db = open(&How { database: baseline.name(), cache: Some(0), ..How::default() })?;
        db.people.ensure_index("status").await?;
        let ids: Vec<ObjectId> = (0..heads).map(|_| ObjectId::new()).collect();
        let stored = |number: usize| {
            let cv = i64::try_from(number)?;
            Stored::new(ids[number], 0, cv, cv, person(number, SHARING))
        };
        baseline.load(&baseline.heads(), (0..heads).map(|number| Ok(stored(number)?.head(!inline)))).await?;
        if inline {
            baseline.load(&baseline.rows(), (0..heads).map(|number| Ok(stored(number)?.row()))).await?;
        }
        baseline.set_counter(i64::try_from(heads)? - 1).await?;
        let groups = heads / SHARING;
        let seen = compare(
            context,
            async || Ok(listing(&db, groups, context.round).await?.per_second),
            async || Ok(finding(&baseline, groups, inline, context.round).await?.per_second),
        );
        let seen = seen.await?;
        let (ours, ceiling) = seen.medians();
        let (name, payload) =
            if inline { ("list_50_inline", "in the rows") } else { ("list_50", "in the heads (shadow)") };
        lines.push(
            Line::against(name, "lists/s", ours, ceiling, Some(targets::LIST))
                .note("heads", heads)
                .note("payload", payload)
                .note("ratio_of_rounds", seen.spread()),
        );
        db.chronos.shutdown().await?;
        baseline.drop().await?;
    }
    Ok(lines)
}
