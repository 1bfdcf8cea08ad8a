//! The command `lode`: a node, and what people do with one.

mod cli;
mod input;

fn main() {}
