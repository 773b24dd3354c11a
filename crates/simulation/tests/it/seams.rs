//! The simulated stores are stores.

use std::sync::Arc;

use chronos_db::documents::DocumentStore;
use chronos_db::objects::ObjectStorage;
use simulation::{Kind, Process, SimulatedDocuments, SimulatedObjects, World};

fn documents(kind: Kind) -> Arc<dyn DocumentStore> {
    let world = World::quiet(kind).expect("it does no I/O");
    Arc::new(SimulatedDocuments::new(world, Process::new(1, 0)))
}

chronos_db::documents_suite!(embedded, async { documents(Kind::Embedded) });
chronos_db::documents_suite!(replica_set, async { documents(Kind::ReplicaSet) });
chronos_db::documents_suite!(standalone, async { documents(Kind::Standalone) });

async fn objects() -> (Arc<dyn ObjectStorage>, ()) {
    let world = World::quiet(Kind::Embedded).expect("it does no I/O");
    (Arc::new(SimulatedObjects::new(world, Process::new(1, 0))), ())
}

chronos_db::objects_suite!(objects: basics, races, without_presigning);
