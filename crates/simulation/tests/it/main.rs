//! What the simulation promises about itself, and some of its seeds.
#![allow(missing_docs, reason = "tests")]

mod seams;
mod seeds;
