//! Rates, latencies and memory.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::{Context, Result};

/// The share of a round that warms up and does not count.
const WARM_UP: f64 = 0.25;

/// What one round saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    /// Sorted, in microseconds.
    pub(crate) latencies: Vec<u64>,
    /// All calls, those of the warm-up too.
    pub(crate) calls: u64,
    pub(crate) failed: u64,
}

impl Rate {
    pub(crate) fn p99(&self) -> f64 {
        percentile(&self.latencies, 0.99)
    }
}

/// Calls `call` from this many tasks at once for a while, and counts what began and ended after the warm-up.
pub(crate) async fn rate<F, R>(tasks: usize, round: Duration, call: F) -> Result<Rate>
where
    F: Fn(usize, u64) -> R + Send + Sync + 'static,
    R: Future<Output = Result<()>> + Send,
{
    let call = Arc::new(call);
    let begun = Instant::now();
    let warm = begun + round.mul_f64(WARM_UP);
    let end = warm + round;
    let running: Vec<_> = (0..tasks)
        .map(|task| {
            let call = Arc::clone(&call);
            tokio::spawn(async move {
                let (mut latencies, mut calls, mut failed) = (Vec::new(), 0_u64, 0_u64);
                let mut first = None;
                while Instant::now() < end {
                    let began = Instant::now();
                    match call(task, calls).await {
                        Ok(()) if began >= warm => {
                            latencies.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX))
                        }
                        Ok(()) => {}
                        Err(failure) => {
                            failed += 1;
                            first.get_or_insert(failure);
                        }
                    }
                    calls += 1;
                }
                (latencies, calls, failed, first)
            })
        })
        .collect();
    let mut all = Rate::default();
    for task in running {
        let (latencies, calls, failed, first) = task.await?;
        if let Some(failure) = first {
            eprintln!("bench: a call failed: {failure}");
        }
        all.latencies.extend(latencies);
        all.calls += calls;
        all.failed += failed;
    }
    all.latencies.sort_unstable();
    // The last call of every task ends a little after the end.
    all.per_second = all.latencies.len() as f64 / warm.elapsed().as_secs_f64();
    Ok(all)
}

/// Takes turns with two things to measure, after one round of each that does not count; returns the figures
/// of both.
pub(crate) async fn compare(
    context: &Context,
    mut ours: impl AsyncFnMut() -> Result<f64>,
    mut ceiling: impl AsyncFnMut() -> Result<f64>,
) -> Result<Comparison> {
    ours().await?;
    ceiling().await?;
    let mut comparison = Comparison::default();
    for _ in 0..context.rounds {
        comparison.ours.push(ours().await?);
        comparison.ceiling.push(ceiling().await?);
    }
    Ok(comparison)
}

/// The figures of two sides, round by round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    pub(crate) ours: Vec<f64>,
    pub(crate) ceiling: Vec<f64>,
}

impl Comparison {
    pub(crate) fn medians(&self) -> (f64, f64) {
        (median(&self.ours), median(&self.ceiling))
    }

    /// The lowest and the highest ratio of a round: how far to trust the medians.
    pub(crate) fn spread(&self) -> String {
        let ratios = self.ours.iter().zip(&self.ceiling).map(|(ours, ceiling)| ours / ceiling);
        let (low, high) =
            ratios.fold((f64::MAX, f64::MIN), |(low, high), ratio| (low.min(ratio), high.max(ratio)));
        format!("{low:.2}..{high:.2}")
    }
}

pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Of sorted values.
pub(crate) fn percentile(sorted: &[u64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the place lies within the values"
    )]
    let place = (last as f64 * share).round() as usize;
    sorted[place.min(last)] as f64
}

/// Forgets how much memory this process has had at most.
pub(crate) fn forget_peak_memory() -> Result<()> {
    std::fs::write("/proc/self/clear_refs", "5")
        .map_err(|e| format!("the peak of memory cannot be reset: {e}").into())
}

/// The memory this process has (`VmRSS`) or has had at most (`VmHWM`), in MiB.
pub(crate) fn memory(which: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(which))
        .ok_or_else(|| format!("there is no {which} in /proc"))?;
    let kib: f64 = line.trim_matches([':', '\t', ' ', 'k', 'B']).parse()?;
    Ok(kib / 1024.0)
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lcg(pub(crate) u64);

impl Lcg {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or(0) % bound.max(1)
    }
}
