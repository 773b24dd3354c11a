//! Every step fails now and then, before it was done and after: what was done counts although no caller
//! got an answer.

use std::time::Duration;

use chronos_db::Env;
use chronow::testing::{Point, hooked};
use chronow::{Error, ErrorKind};

use super::crew::{self, Crew};
use super::ledger::{Ledger, audit};
use super::{below, chance};
use crate::tiers::{World, connect_with, on_every_hot_tier};

on_every_hot_tier! {
    steps_that_fail_before_or_after_they_were_done_lose_and_double_nothing,
}

async fn steps_that_fail_before_or_after_they_were_done_lose_and_double_nothing(world: World) {
    let random = chance();
    let ledger = Ledger::append(&world.file("ledger"));
    crew::prepare(&world.chronow, Duration::from_millis(1_000), 2).await;
    let hook = move |point: Point<'_>| match below(&random, 8) {
        0 => Err(Error::new(ErrorKind::HotTier, format!("{} fails by chance", point.name())).retryable()),
        _ => Ok(()),
    };
    let failing = connect_with(&world.config, Env::default(), |hot| hooked(hot, hook)).await;
    let consumers = Crew::consume(&failing, &ledger);
    crew::publish(&failing, &ledger, 0..60).await;
    consumers.stop().await;
    audit(&world.chronow, &ledger, "steps that fail").await;
}
