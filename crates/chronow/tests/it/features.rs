//! What publishers and subscriptions can ask for, through the public interface.

use std::time::Duration;

use chronos_db::telemetry::MetricKind;
use chronos_db::{Json as Value, json};
use chronow::hot::DeliverPolicy;
use chronow::{Chronow, ErrorKind, Message, PublishMessage, TraceContext};
use futures::StreamExt as _;
use metrics_exporter_prometheus::PrometheusBuilder;

use crate::stores::{Stores, on_every_store};
use crate::tiers::{until, within};

on_every_store! {
    filters_and_start_positions_decide_what_a_subscription_gets,
    a_message_that_expires_is_a_dead_letter_and_an_idle_subscription_goes,
    a_copy_may_be_asked_for_one_message,
    copies_of_all_messages_follow_copies_of_some,
    messages_are_replayed_by_id_and_time,
    a_topic_is_made_only_if_asked_for,
    a_trace_goes_along,
    what_is_done_and_what_topics_hold_is_measured,
    bytes_are_received_and_deferred_as_they_are,
}

async fn numbers(chronow: &Chronow, topic: &str, subscription: &str) -> Vec<u64> {
    let subscription = chronow.bus().topic(topic).unwrap().subscription(subscription).unwrap();
    let received = subscription.receive::<Value>(100).await.unwrap();
    let numbers = received.iter().map(|message| message.payload["n"].as_u64().unwrap()).collect();
    subscription.ack_all(received).await.unwrap();
    numbers
}

async fn filters_and_start_positions_decide_what_a_subscription_gets(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let keeper = topic.subscription("all").unwrap();
    keeper.ensure().await.unwrap();
    let mut ids = Vec::new();
    for n in 0..4_u64 {
        let kind = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(topic.publish(&json!({ "n": n })).header("kind", kind).await.unwrap().id);
    }
    let with = |name: &str| topic.subscription(name).unwrap();
    with("new").ensure().await.unwrap();
    with("earliest").ensure().start(DeliverPolicy::Earliest).await.unwrap();
    with("behind").ensure().start(DeliverPolicy::Id(ids[1].clone())).await.unwrap();
    with("odd").ensure().start(DeliverPolicy::Earliest).filter(json!({"headers.kind": "odd"})).await.unwrap();
    with("large")
        .ensure()
        .start(DeliverPolicy::Earliest)
        .filter(json!({"payload.n": {"$gte": 3}}))
        .await
        .unwrap();
    let wrong = with("wrong").ensure().filter(json!({"payload.n": {"$near": 3}})).await;
    assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Validation);
    topic.publish(&json!({"n": 9})).header("kind", "odd").await.unwrap();
    let expected: [(&str, &[u64]); 6] = [
        ("all", &[0, 1, 2, 3, 9]),
        ("new", &[9]),
        ("earliest", &[0, 1, 2, 3, 9]),
        ("behind", &[2, 3, 9]),
        ("odd", &[1, 3, 9]),
        ("large", &[3, 9]),
    ];
    for (name, wanted) in expected {
        assert_eq!(numbers(&chronow, "t", name).await, wanted, "{name}");
    }
    with("odd").ensure().no_filter().await.unwrap();
    topic.publish(&json!({"n": 10})).await.unwrap();
    assert_eq!(numbers(&chronow, "t", "odd").await, [10]);
}

async fn a_message_that_expires_is_a_dead_letter_and_an_idle_subscription_goes(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().ttl(Some(Duration::from_millis(1))).await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    let idle = topic.subscription("idle").unwrap();
    idle.ensure().auto_delete(Some(Duration::from_millis(200))).await.unwrap();
    topic.publish(&1).await.unwrap();
    topic.publish(&2).ttl(Duration::from_secs(600)).await.unwrap();
    let published = chronow.hot().now().await.unwrap();
    until("the first is too old", || async {
        chronow.hot().now().await.unwrap().as_millis() > published.as_millis() + 1
    })
    .await;
    until("the first expires", || async {
        for message in subscription.receive::<u32>(10).await.unwrap() {
            assert_eq!(message.payload, 2);
            message.ack().await.unwrap();
        }
        subscription.stats().await.unwrap().dead_letters == 1
    })
    .await;
    assert_eq!(subscription.dead_letters().await.unwrap().items[0].reason, "expired");
    until("the idle one is gone", || async {
        topic.subscriptions().await.unwrap() == ["s"] || idle.options().await.unwrap().is_none()
    })
    .await;
}

async fn a_copy_may_be_asked_for_one_message(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    topic.publish(&json!({"n": 1})).await.unwrap();
    let kept = topic.publish(&json!({"n": 2})).header("type", "x").persist_warm_copy(true).await.unwrap().id;
    topic.publish(&json!({"n": 3})).persist_warm_copy(false).await.unwrap();
    let copies = stores.chronos.messaging("default").unwrap().messages();
    until("the copy is made", || async { copies.get("t", kept.as_str()).await.unwrap().is_some() }).await;
    assert_eq!(copies.get("t", kept.as_str()).await.unwrap().unwrap().headers, Some(json!({"type": "x"})));
    let received = subscription.receive::<Value>(10).await.unwrap();
    assert!(
        received.iter().all(|message| message.headers().keys().all(|name| name == "type")),
        "handlers see their headers alone"
    );
    assert_eq!(received.len(), 3);
    subscription.ack_all(received).await.unwrap();
    until("nothing is held", || async { topic.stats().await.unwrap().length == 0 }).await;
    assert_eq!(copies.list("t").await.unwrap().items.len(), 1, "of the others there is none");
}

async fn copies_of_all_messages_follow_copies_of_some(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    topic.publish(&1).persist_warm_copy(true).await.unwrap();
    topic.ensure().warm(true).await.unwrap();
    topic.publish(&2).await.unwrap();
    topic.publish(&3).persist_warm_copy(true).await.unwrap();
    let copies = stores.chronos.messaging("default").unwrap().messages();
    until("three are kept", || async { copies.list("t").await.unwrap().items.len() == 3 }).await;
    topic.ensure().warm(false).await.unwrap();
    topic.publish(&4).await.unwrap();
    topic.publish(&5).persist_warm_copy(true).await.unwrap();
    until("one more is kept", || async { copies.list("t").await.unwrap().items.len() == 4 }).await;
}

async fn messages_are_replayed_by_id_and_time(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().warm(true).await.unwrap();
    let mut ids = Vec::new();
    for n in 0..4 {
        ids.push(topic.publish(&json!({ "n": n })).await.unwrap().id);
    }
    let copies = stores.chronos.messaging("default").unwrap().messages();
    until("copies are made", || async { copies.list("t").await.unwrap().items.len() == 4 }).await;
    let late = topic.subscription("late").unwrap();
    late.ensure().start(DeliverPolicy::New).await.unwrap();
    assert_eq!(late.replay().ids([&ids[3], &ids[1], "none"].map(|id: &str| id.to_owned())).await.unwrap(), 2);
    let mut replayed = numbers(&chronow, "t", "late").await;
    replayed.sort_unstable();
    assert_eq!(replayed, [1, 3]);
    let at = copies.get("t", ids[2].as_str()).await.unwrap().unwrap().first_seen_at;
    let after = chronow.hot().now().await.unwrap().plus_millis(1);
    assert!(late.replay().from(at).until(after).await.unwrap() >= 2);
    assert_eq!(late.replay().from(after).await.unwrap(), 0);
    assert_eq!(late.replay().ids([ids[0].as_str()]).from(after).await.unwrap(), 0);
}

async fn a_topic_is_made_only_if_asked_for(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    assert_eq!(topic.publish(&1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(
        topic.publish_batch([PublishMessage::json(&1)]).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
    topic.publish(&1).auto_create(true).await.unwrap();
    topic.publish_batch([PublishMessage::json(&1)]).auto_create(true).await.unwrap();
    assert_eq!(chronow.bus().topics().await.unwrap(), ["t"]);
}

async fn a_trace_goes_along(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    let trace = TraceContext::new("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", true)
        .unwrap()
        .with_state("vendor=1");
    topic.publish(&1).trace(&trace).await.unwrap();
    topic.publish(&2).traceparent(trace.to_string()).tracestate("a=b").await.unwrap();
    topic.publish(&3).traceparent("").tracestate("").await.unwrap();
    topic.publish(&4).traceparent("not one").await.unwrap();
    let traces: Vec<_> = subscription
        .receive::<u32>(4)
        .await
        .unwrap()
        .iter()
        .map(|message| (message.trace(), message.headers().len()))
        .collect();
    assert_eq!(traces, [(Some(trace.clone()), 2), (Some(trace.with_state("a=b")), 2), (None, 0), (None, 1)]);
}

async fn what_is_done_and_what_topics_hold_is_measured(stores: Stores) {
    // That of this thread alone, on which the scenario runs.
    let recorder = PrometheusBuilder::new().set_buckets(&[0.001, 1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    let _recorded = metrics::set_default_local_recorder(&recorder);
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().backoff([Duration::ZERO]).jitter_percent(0).await.unwrap();
    topic.publish_batch((0..4).map(|n| PublishMessage::json(&n))).await.unwrap();
    let waited = Duration::from_millis(50);
    tokio::time::sleep(waited).await;
    let handler = |message: Message<u32>| async move {
        match (message.payload, message.deliveries()) {
            (1, 1) => Err("once"),
            _ => Ok(()),
        }
    };
    let runner = subscription.run(handler).limit(4).start().await.unwrap();
    within(runner.join()).await.unwrap();
    let metrics = chronow.metrics();
    assert!(metrics.lag >= waited, "{metrics:?}");
    let text = handle.render();
    let has = |text: &str, line: &str| {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    };
    for line in [
        "chronow_published_total 4",
        "chronow_delivered_total 4",
        "chronow_acked_total 3",
        "chronow_nacked_total 1",
        "chronow_dead_lettered_total 0",
        "chronow_warm_refused_total 0",
        "chronow_in_flight 0",
        "chronow_handler_duration_seconds_count 4",
        "chronow_delivery_lag_seconds_bucket{le=\"0.001\"} 0",
        "chronow_operation_duration_seconds_count{operation=\"publish_batch\"} 1",
        "chronow_errors_total{operation=\"publish\",code=\"VALIDATION_ERROR\"} 0",
    ] {
        has(&text, line);
    }
    for metric in chronow::METRICS.iter().filter(|metric| metric.kind == MetricKind::Counter) {
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{text}");
    }
    let quoted = topic.subscription("quoted\"").unwrap();
    quoted.ensure().await.unwrap();
    topic.publish(&9).await.unwrap();
    topic.publish(&9).header("cw-mine", "no").await.unwrap_err();
    chronow.bus().measure().await.unwrap();
    let of = r#"{tenant="default",namespace="default",topic="t",subscription="quoted\""}"#;
    let text = handle.render();
    has(&text, &format!("chronow_backlog{of} 1"));
    has(&text, &format!("chronow_dead_letters{of} 0"));
    has(&text, "# TYPE chronow_lag_seconds gauge");
    has(&text, "chronow_errors_total{operation=\"publish\",code=\"VALIDATION_ERROR\"} 1");
    quoted.delete().await.unwrap();
    chronow.bus().measure().await.unwrap();
    has(&handle.render(), &format!("chronow_backlog{of} 0"));
}

async fn bytes_are_received_and_deferred_as_they_are(stores: Stores) {
    let chronow = stores.connect().await;
    let topic = chronow.bus().topic("t").unwrap();
    topic.ensure().await.unwrap();
    let subscription = topic.subscription("s").unwrap();
    subscription.ensure().await.unwrap();
    let id = topic.publish_bytes(&b"\xff\0"[..], "x/y").await.unwrap().id;
    let message = subscription.receive_bytes(1).await.unwrap().remove(0);
    assert_eq!((message.payload.as_ref(), message.content_type()), (&b"\xff\0"[..], "x/y"));
    message.defer().await.unwrap();
    let mut stream = subscription.consume_bytes().await.unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(200), stream.next()).await.is_err(),
        "it is set aside"
    );
    let message = subscription.fetch_deferred_bytes(vec![id]).await.unwrap().remove(0);
    assert_eq!((message.payload.as_ref(), message.deliveries()), (&b"\xff\0"[..], 2));
    message.ack().await.unwrap();
}
