//! The simulator: a whole node - engine, connections, dispatch, mailboxes between shards - and its clients, one thing
//! at a time, over a drive, a network and a clock of memory. Everything follows from one seed, so a run that fails is run
//! again by its seed, step by step.
//!
//! What is real: `Reactor` with all that it calls, the engine, the wire on both sides. What is not: the ring, the
//! kernel. The control thread is real, and runs in step with the world (`control.rs`).

mod account;
mod client;
mod control;
mod drive;
mod history;
mod io;
mod link;
mod list;
mod loss;
mod node;
mod plan;
mod register;
mod schedule;
mod trace;
mod work;
mod world;

pub use drive::DriveOp;
pub use node::SLOW_REQUEST;
pub use plan::{Cut, Faults, Kept, Plan, Simpler};
pub use schedule::{FaultSet, shrink};
pub use trace::Verbosity;
pub use world::{Failure, Outcome, Record, moments, record, run, second_cuts};
