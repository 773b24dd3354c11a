//! The adversary: several processes on stores that fail, on one thread, in virtual time, all from one seed;
//! and a checker that reads what each client was answered and what the stores hold in the end.
//!
//! | file | what |
//! |---|---|
//! | `chance.rs` | every random choice, from the seed |
//! | `process.rs` | what of a process goes on, and its clock |
//! | `history.rs` | what happened, and what clients were answered |
//! | `world.rs` | what processes share, and how much goes wrong |
//! | `documents.rs`, `objects.rs` | the seams, with what goes wrong on the way |
//! | `setting.rs` | what of the engine is at work, and how each process is configured |
//! | `machine.rs`, `client.rs`, `trouble.rs` | processes, their clients, and who kills them |
//! | `bus.rs`, `bus_check.rs` | the bus: what is done, and what must be true |
//! | `log.rs`, `check.rs`, `end.rs` | what is left, and what must be true of it |
//! | `mutation.rs` | guards of the engine that can be taken away, so that something fails |
//! | `run.rs` | one run from its seed to the verdict |
//!
//! `docs/proof.md` says how to add an operation, a fault, or a check.

mod bus;
mod bus_check;
mod chance;
mod check;
mod client;
mod documents;
mod end;
mod history;
mod log;
mod machine;
pub mod mutation;
mod objects;
mod process;
mod run;
mod setting;
mod trouble;
mod world;

pub use chance::{Chance, own_this_thread};
pub use documents::SimulatedDocuments;
pub use objects::SimulatedObjects;
pub use process::Process;
pub use run::{Verdict, run};
pub use world::{Kind, Options, Profile, World};
