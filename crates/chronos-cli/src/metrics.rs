//! Metrics over HTTP, for Prometheus.

use std::net::SocketAddr;
use std::time::Duration;

use chronow::Chronow;
use clap::Args;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use crate::failure::{Failure, one_line};
use crate::stderr::note;

/// Upper ends of the buckets of every duration, in seconds: from a read out of memory to a call that hangs.
const BUCKETS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0,
    30.0,
];
/// The same of how long versions wait for their objects, which an outage makes long.
const LAGS: [f64; 10] = [0.05, 0.25, 1.0, 5.0, 15.0, 30.0, 60.0, 300.0, 900.0, 3_600.0];
/// So often it is looked what the topics hold.
const EVERY: Duration = Duration::from_secs(10);

/// Where metrics are served.
#[derive(Debug, Args)]
pub(crate) struct MetricsArg {
    /// Serve metrics for Prometheus at http://ADDR/metrics, such as 127.0.0.1:9464.
    #[arg(long, value_name = "ADDR")]
    metrics: Option<SocketAddr>,
}

impl MetricsArg {
    /// Begins to serve, if it is asked for. What is opened before is not measured.
    pub(crate) fn serve(&self) -> Result<(), Failure> {
        let Some(address) = self.metrics else { return Ok(()) };
        let served = PrometheusBuilder::new()
            .with_http_listener(address)
            .set_buckets(&BUCKETS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Full("chronos_flush_lag_seconds".to_owned()), &LAGS)
            })
            .and_then(PrometheusBuilder::install);
        served.map_err(|error| Failure::said(&format!("metrics cannot be served at {address}: {error}")))
    }

    /// Measures what the topics hold, again and again.
    pub(crate) async fn measure(&self, chronow: &Chronow) {
        if self.metrics.is_none() {
            return std::future::pending().await;
        }
        let mut was_reported = false;
        loop {
            match chronow.bus().measure().await {
                Ok(()) => was_reported = false,
                Err(error) if !was_reported => {
                    was_reported = true;
                    note(&format!("warning: topics are not measured: {}", one_line(&error.to_string())));
                }
                Err(_) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
    }
}
