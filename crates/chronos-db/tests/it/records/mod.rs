//! Scenarios of records, above the seams. Each runs on every pairing of document store and object storage it
//! applies to, and ends with a clean verification of every collection it touched.

mod child;
mod pairing;

mod blobs;
mod buckets;
mod cost;
mod costs;
mod counters;
mod counts;
mod damage;
mod documents;
mod entities;
mod entities_failing;
mod entities_killed;
mod erasing;
mod erasure;
mod fallback;
mod flushing;
mod foreign;
mod import;
mod inline;
mod large;
mod lifecycle;
mod lineage;
mod lists;
mod locks;
mod numbers;
mod outages;
mod own_names;
mod past;
mod processes;
mod races;
mod reading;
mod removal;
mod restore;
mod restore_collection;
mod smart_insert;
mod states;
mod telemetry;
mod tenants;
mod tiers;
mod unversioned;
mod values;
mod worker;
mod write_optimization;
