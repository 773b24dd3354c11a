//! What calls of a document store cost.

use std::sync::Arc;

use bson::{Bson, Document, doc};

use super::{Gauge, Spent, in_proportion, same, spent};
use crate::documents::{
    Batch, Direction, DocumentStore, Filter, Guard, Index, Namespace, Newest, Outcome, Scan, Write,
};
use crate::testing::documents::Fresh;

use Direction::{Ascending, Descending};

/// Documents of the small world; the large one has a hundred times as many.
const FEW: i32 = 60;
/// Documents of one group.
const IN_GROUP: i32 = 5;
/// Documents that few documents are like, in either world.
const MARKED: i32 = 4;

/// Makes a module of tests, one per promise of
/// [`testing::costs::documents`](crate::testing::costs::documents). The second argument is a future that
/// yields an `Arc<dyn DocumentStore>` and the `Arc<dyn Gauge>` that counts what it does; it is evaluated once
/// per test.
#[macro_export]
macro_rules! documents_costs {
    ($module:ident, $make:expr) => {
        $crate::documents_costs!(@tests $module, $make,
            a_get_costs_what_it_gets,
            a_page_costs_a_page_wherever_it_begins,
            what_few_documents_are_costs_those_few,
            the_newest_of_some_groups_cost_those_groups,
            the_newest_of_a_group_costs_the_same_however_large_it_is,
            writes_cost_what_they_write,
            numbers_cost_the_same_however_many_were_given_out,
            ensuring_what_is_there_costs_a_look,
            a_whole_scan_costs_in_proportion,
            what_no_index_serves_is_noticed,
        );
    };
    (@tests $module:ident, $make:expr, $($name:ident),+ $(,)?) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    let (store, gauge) = $make.await;
                    ::chronos_db::testing::costs::documents::$name(store, gauge).await;
                }
            )+
        }
    };
}

struct World {
    fresh: Fresh,
    namespace: Namespace,
    gauge: Arc<dyn Gauge>,
    size: i32,
}

/// Document `n` is the newest of its group if `n % IN_GROUP` is the last.
fn document(n: i32, size: i32) -> Document {
    let mut document = doc! { "_id": n, "group": n / IN_GROUP, "at": n, "t": n % 2, "by": -n, "plain": n, "large": "x".repeat(100) };
    if n % (size / MARKED) == 1 {
        document.insert("marked", n);
    }
    document
}

impl World {
    async fn new(store: &Arc<dyn DocumentStore>, gauge: &Arc<dyn Gauge>, size: i32) -> Self {
        let fresh = Fresh::new(Arc::clone(store));
        let namespace = fresh.namespace("c");
        store.ensure(&namespace, &indexes()).await.unwrap();
        for chunk in (0..size).collect::<Vec<_>>().chunks(1_000) {
            fresh.fill(&namespace, chunk.iter().map(|n| document(*n, size))).await;
        }
        Self { fresh, namespace, gauge: Arc::clone(gauge), size }
    }

    async fn both(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) -> (Self, Self) {
        futures::future::join(Self::new(&store, &gauge, FEW), Self::new(&store, &gauge, FEW * 100)).await
    }

    async fn spent(&self, call: impl AsyncFn(i32)) -> Spent {
        spent(&*self.gauge, &self.fresh.database, call).await
    }

    async fn scan(&self, found: usize, scan: Scan) -> Spent {
        self.spent(async |_| {
            assert_eq!(self.fresh.scan(&self.namespace, scan.clone()).await.len(), found, "{scan:?}")
        })
        .await
    }

    async fn apply(&self, outcome: Outcome, write: impl Fn(i32) -> Write) -> Spent {
        self.spent(async |turn| {
            let mut batch = Batch::new();
            for n in 0..10 {
                batch.push(&self.namespace, write(turn * 10 + n));
            }
            let outcomes = self.fresh.store.apply(batch).await.unwrap();
            assert!(outcomes.iter().all(|o| *o == outcome), "{outcomes:?}");
        })
        .await
    }
}

fn indexes() -> [Index; 5] {
    [
        Index::on("group_at", &["group", "at"]).unique(),
        Index::on("at", &["at"]).unique(),
        Index::on("by", &["by", "_id"]),
        Index::on("t_by", &["t", "by", "_id"]),
        Index::on("marked", &["marked", "_id"]).only_if_exists("marked"),
    ]
}

fn order(paths: &[&str], direction: Direction) -> Vec<(String, Direction)> {
    paths.iter().map(|path| ((*path).to_owned(), direction)).collect()
}

/// Also of what is not there.
pub async fn a_get_costs_what_it_gets(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    let get = async |world: &World| {
        let ids: Vec<Bson> = (0..20).map(|n| Bson::from(n * world.size / 10)).collect();
        world
            .spent(async |_| {
                assert_eq!(world.fresh.store.get(&world.namespace, ids.clone()).await.unwrap().len(), 10)
            })
            .await
    };
    same("ten documents by their ids", get(&few).await, get(&many).await);
}

/// In every order that an index has, up and down, at the beginning, in the middle, with a filter of one value
/// and without.
pub async fn a_page_costs_a_page_wherever_it_begins(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    for direction in [Ascending, Descending] {
        for (paths, filter) in [
            (&["_id"][..], Filter::All),
            (&["at"], Filter::All),
            (&["by", "_id"], Filter::All),
            (&["by", "_id"], Filter::eq("t", 0)),
            (&["group", "at"], Filter::All),
            (&["at"], Filter::eq("group", 1)),
        ] {
            for later in [false, true] {
                let page = async |world: &World| {
                    let middle = if filter == Filter::eq("group", 1) { IN_GROUP + 2 } else { world.size / 2 };
                    let scan = Scan {
                        order: order(paths, direction),
                        filter: filter.clone(),
                        limit: Some(2),
                        ..Scan::default()
                    };
                    let middle = crate::testing::documents::position(&document(middle, world.size), &scan);
                    world.scan(2, Scan { after: later.then_some(middle), ..scan }).await
                };
                let what = format!(
                    "a {} page by {paths:?}, {direction:?}, of {filter:?}",
                    if later { "later" } else { "first" }
                );
                same(&what, page(&few).await, page(&many).await);
            }
        }
    }
}

/// Read, or counted.
pub async fn what_few_documents_are_costs_those_few(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    let found = MARKED.unsigned_abs();
    let marked = || Filter::Field("marked".into(), crate::documents::filter::Test::Ne(Bson::Null));
    let in_order =
        || Scan { filter: marked(), order: order(&["marked", "_id"], Ascending), ..Scan::default() };
    same(
        "what is in a partial index",
        few.scan(MARKED as usize, in_order()).await,
        many.scan(MARKED as usize, in_order()).await,
    );
    let equal = || Scan { filter: Filter::eq("by", -7), ..Scan::default() };
    same("what has one value", few.scan(1, equal()).await, many.scan(1, equal()).await);
    for (what, filter, expected) in [
        ("a count of a partial index", marked(), u64::from(found)),
        ("a count of one value", Filter::eq("by", -7), 1),
        ("a count that ends at a limit", Filter::eq("t", 1), 5),
    ] {
        let count = async |world: &World| {
            world
                .spent(async |_| {
                    assert_eq!(
                        world.fresh.store.count(&world.namespace, filter.clone(), 5).await.unwrap(),
                        expected
                    )
                })
                .await
        };
        same(what, count(&few).await, count(&many).await);
    }
}

fn newest(at_most: i32, groups: impl IntoIterator<Item = i32>) -> Scan {
    let filter = Filter::any_of("group", groups.into_iter().map(Bson::from).collect());
    let newest = Newest { per: "group".into(), by: "at".into(), at_most: at_most.into() };
    Scan { filter, newest: Some(newest), ..Scan::default() }
}

/// Those that are asked for, among many.
pub async fn the_newest_of_some_groups_cost_those_groups(
    store: Arc<dyn DocumentStore>,
    gauge: Arc<dyn Gauge>,
) {
    let (few, many) = World::both(store, gauge).await;
    let some = async |world: &World| {
        let groups = world.size / IN_GROUP;
        world.scan(6, newest(i32::MAX, (0..6).map(|n| n * groups / 6))).await
    };
    same("the newest of six groups", some(&few).await, some(&many).await);
    let one = async |world: &World| world.scan(1, newest(world.size / 2, [1])).await;
    same("the newest of a group", one(&few).await, one(&many).await);
}

/// As of a moment long ago.
pub async fn the_newest_of_a_group_costs_the_same_however_large_it_is(
    store: Arc<dyn DocumentStore>,
    gauge: Arc<dyn Gauge>,
) {
    let groups = async |size: i32| {
        let fresh = Fresh::new(Arc::clone(&store));
        let namespace = fresh.namespace("c");
        fresh.store.ensure(&namespace, &indexes()).await.unwrap();
        for chunk in (0..size).collect::<Vec<_>>().chunks(1_000) {
            fresh
                .fill(&namespace, chunk.iter().map(|n| doc! { "_id": n, "group": n % 3, "at": n, "by": n }))
                .await;
        }
        World { fresh, namespace, gauge: Arc::clone(&gauge), size }
    };
    let (few, many) = (groups(FEW).await, groups(FEW * 100).await);
    for part in [1, 2, 3] {
        let one = async |world: &World| world.scan(1, newest(world.size * part / 4, [1])).await;
        same("the newest of a large group", one(&few).await, one(&many).await);
        let two = async |world: &World| world.scan(2, newest(world.size * part / 4, [1, 2])).await;
        same("the newest of two large groups", two(&few).await, two(&many).await);
    }
}

/// Inserts, puts and deletes, guarded or not.
pub async fn writes_cost_what_they_write(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    let new = |n: i32| doc! { "_id": -1 - n, "group": -1 - n, "at": -1 - n, "by": 1, "t": 1 };
    let next = |n: i32| doc! { "_id": -1 - n, "group": -1 - n, "at": -1 - n, "by": 2, "t": 1 };
    let newer = |n: i32| doc! { "_id": -1 - n, "group": -1 - n, "at": -1 - n, "by": 3, "t": 1 };
    let equals = |value: i32| Guard::Equals { field: "by".into(), value: value.into() };
    let id = |n: i32| Bson::from(-1 - n);
    type Step<'a> = (&'a str, Outcome, &'a dyn Fn(i32) -> Write);
    let steps: [Step<'_>; 7] = [
        ("inserts", Outcome::Applied, &|n| Write::insert(new(n))),
        ("puts that are refused", Outcome::Refused, &|n| Write::put(next(n), equals(9))),
        ("puts of what has a value", Outcome::Applied, &|n| Write::put(next(n), equals(1))),
        ("puts of what is newer", Outcome::Applied, &|n| {
            Write::put(newer(n), Guard::Newer { field: "by".into() })
        }),
        ("puts", Outcome::Applied, &|n| Write::put(next(n), Guard::Any)),
        ("deletes of what has a value", Outcome::Applied, &|n| Write::Delete { id: id(n), guard: equals(2) }),
        ("deletes", Outcome::Applied, &|n| Write::Delete { id: id(n), guard: Guard::Any }),
    ];
    for (what, outcome, write) in steps {
        same(what, few.apply(outcome.clone(), write).await, many.apply(outcome, write).await);
    }
}

/// In a collection with other documents.
pub async fn numbers_cost_the_same_however_many_were_given_out(
    store: Arc<dyn DocumentStore>,
    gauge: Arc<dyn Gauge>,
) {
    let (few, many) = World::both(store, gauge).await;
    let next = async |world: &World| {
        world.fresh.store.sequence(&world.namespace, "s", world.size.unsigned_abs()).await.unwrap();
        world
            .spent(async |_| {
                assert!(
                    world.fresh.store.sequence(&world.namespace, "s", 1).await.unwrap().first
                        >= i64::from(world.size)
                )
            })
            .await
    };
    same("a number", next(&few).await, next(&many).await);
}

/// Nothing is made anew, nothing is read through.
pub async fn ensuring_what_is_there_costs_a_look(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    let ensure = async |world: &World| {
        world.spent(async |_| world.fresh.store.ensure(&world.namespace, &indexes()).await.unwrap()).await
    };
    same("indexes that are there", ensure(&few).await, ensure(&many).await);
}

/// In an order that an index has, and in any.
pub async fn a_whole_scan_costs_in_proportion(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    for paths in [&[][..], &["by", "_id"]] {
        let whole = async |world: &World| {
            world.scan(world.size as usize, Scan { order: order(paths, Ascending), ..Scan::default() }).await
        };
        in_proportion(&format!("a scan by {paths:?}"), whole(&few).await, whole(&many).await);
    }
}

/// Or the promises above would say nothing: a counter sees what a look at everything costs.
pub async fn what_no_index_serves_is_noticed(store: Arc<dyn DocumentStore>, gauge: Arc<dyn Gauge>) {
    let (few, many) = World::both(store, gauge).await;
    let plain = || Scan { filter: Filter::eq("plain", 3), ..Scan::default() };
    let (few, many) = (few.scan(1, plain()).await, many.scan(1, plain()).await);
    assert!(few.examined > 0 && many.examined >= few.examined * 20, "{few:?} among few, {many:?} among many");
}
