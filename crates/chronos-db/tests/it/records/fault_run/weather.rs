//! What happens on the ways to the stores: a proxy in front of every server, a layer around what is in the process.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chronos_db::{Json, Random as _};
use test_support::{Failing, Fault, Proxy, SeededRandom, documents, objects};

use crate::records::pairing::{Pairing, Store};

/// A number below `bound`.
pub(super) fn below(random: &SeededRandom, bound: u64) -> u64 {
    random.next_u64() % bound
}

/// The way to one store.
enum Way {
    Line(Proxy),
    Documents(Arc<Failing<documents::Call>>),
    Objects(Arc<Failing<objects::Call>>),
}

impl Way {
    fn fails(&self, fault: Fault) {
        match self {
            Self::Documents(layer) => layer.switch_all_on(fault),
            Self::Objects(layer) => layer.switch_all_on(fault),
            Self::Line(proxy) if fault == Fault::Before => proxy.cut(),
            Self::Line(proxy) => proxy.mute(),
        }
    }

    fn heal(&self) {
        match self {
            Self::Line(proxy) => proxy.restore(),
            Self::Documents(layer) => layer.switch_off(),
            Self::Objects(layer) => layer.switch_off(),
        }
    }
}

pub(super) struct Weather {
    documents: Way,
    objects: Way,
    faults: AtomicU64,
}

impl Weather {
    pub(super) async fn over(p: &Pairing) -> Self {
        let config = p.config(&Json::Object(chronos_db::json::Map::default()));
        let documents = if p.kind.is_mongo() {
            let uri = config["dbConnections"]["main"]["mongoUri"].as_str().unwrap().to_owned();
            Way::Line(Proxy::in_front_of(&uri).await)
        } else {
            Way::Documents(Failing::new())
        };
        let objects = match config["spacesConnections"]["objects"]["endpoint"].as_str() {
            Some(endpoint) => Way::Line(Proxy::in_front_of(endpoint).await),
            None => Way::Objects(Failing::new()),
        };
        Self { documents, objects, faults: AtomicU64::new(0) }
    }

    /// Puts the proxies in the places of the servers.
    pub(super) fn lead_through(&self, p: &Pairing, more: &mut Json) {
        let config = p.config(more);
        if let Way::Line(proxy) = &self.documents {
            // Or the driver goes around it, to the members by their own names.
            let patience = "directConnection=true&serverSelectionTimeoutMS=1000&connectTimeoutMS=1000";
            more["dbConnections"] = config["dbConnections"].clone();
            let uri = format!("mongodb://{}/?{patience}", proxy.address());
            more["dbConnections"]["main"]["mongoUri"] = uri.into();
        }
        if let Way::Line(proxy) = &self.objects {
            more["spacesConnections"] = config["spacesConnections"].clone();
            more["spacesConnections"]["objects"]["endpoint"] = proxy.uri().into();
        }
    }

    pub(super) fn open(&self, p: &Pairing, more: &Json) -> Store {
        let mut opening = p.opening().with(more).without_cache();
        if let Way::Documents(layer) = &self.documents {
            opening = opening.documents(layer);
        }
        if let Way::Objects(layer) = &self.objects {
            opening = opening.objects(layer);
        }
        opening.open()
    }

    /// Changes for so long; then it is fine again.
    pub(super) async fn change(&self, seed: u64, long: Duration) {
        let until = Instant::now() + long;
        tokio::join!(
            self.change_on(&self.documents, SeededRandom::new(seed * 2), until),
            self.change_on(&self.objects, SeededRandom::new(seed * 2 + 1), until),
        );
    }

    async fn change_on(&self, way: &Way, random: SeededRandom, until: Instant) {
        // How long something lasts is no condition to wait for.
        let lasts =
            async |longest| tokio::time::sleep(Duration::from_millis(20 + below(&random, longest))).await;
        while Instant::now() < until {
            lasts(1_800).await;
            match (below(&random, 7), way) {
                (0 | 1, _) => {
                    way.fails(Fault::Before);
                    lasts(if below(&random, 6) == 0 { 3_000 } else { 400 }).await;
                }
                (2 | 3, Way::Line(proxy)) => {
                    // Requests arrive, and their answers are lost.
                    proxy.mute();
                    lasts(400).await;
                    proxy.drop_connections();
                }
                (4, Way::Line(proxy)) => proxy.drop_connections(),
                (5, Way::Line(proxy)) => {
                    proxy.delay(Duration::from_millis(1 + below(&random, 20)));
                    lasts(1_500).await;
                }
                (_, Way::Line(proxy)) => {
                    proxy.stall();
                    lasts(1_000).await;
                }
                _ => {
                    way.fails(Fault::After);
                    lasts(300).await;
                }
            }
            self.faults.fetch_add(1, Ordering::SeqCst);
            way.heal();
        }
        way.heal();
    }

    /// How many there were.
    pub(super) fn faults(&self) -> u64 {
        self.faults.load(Ordering::SeqCst)
    }
}
