//! Publishing in batches.

use super::{BATCH, TASKS, batch_of, connect, on, subscribed, texts};
use crate::baseline::redis::Stream;
use crate::measure::{Comparison, compare, rate};
use crate::report::Line;
use crate::server::{Aof, RedisServer};
use crate::{Context, Result, targets};

const NAME: &str = "publish_batched";

pub(crate) async fn batched(context: &Context) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    for aof in [Aof::Everysec, Aof::Off] {
        let server = RedisServer::start(&context.dir, aof).await?;
        let comparison = measured(context, &server).await?;
        let (ours, ceiling) = comparison.medians();
        let line = Line::against(
            format!("{NAME}{}", aof.suffix()),
            "messages/s",
            ours,
            ceiling,
            Some(targets::PUBLISH),
        )
        .note("batch", BATCH)
        .note("publishers", TASKS)
        .note("bytes", 100)
        .note("ratios", comparison.spread());
        lines.push(on(line, &server));
    }
    Ok(lines)
}

async fn measured(context: &Context, server: &RedisServer) -> Result<Comparison> {
    let chronow = connect(server).await?;
    let both = compare(
        context,
        async || {
            let (topic, _) = subscribed(&chronow, NAME).await?;
            let publisher = topic.clone();
            let seen = rate(TASKS, context.round, move |_, _| {
                let topic = publisher.clone();
                async move {
                    topic.publish_batch(batch_of(BATCH)).await?;
                    Ok(())
                }
            });
            let seen = seen.await?;
            topic.delete().await?;
            messages(seen.failed, seen.per_second)
        },
        async || {
            let stream = Stream::create(server, NAME).await?;
            let adder = stream.clone();
            let seen = rate(TASKS, context.round, move |_, _| {
                let stream = adder.clone();
                async move { stream.add_all(&texts(BATCH)).await }
            });
            let seen = seen.await?;
            stream.drop().await?;
            messages(seen.failed, seen.per_second)
        },
    );
    let both = both.await?;
    chronow.close().await?;
    Ok(both)
}

fn messages(failed: u64, batches: f64) -> Result<f64> {
    if failed > 0 { Err(format!("{failed} batches failed").into()) } else { Ok(batches * BATCH as f64) }
}
