//! Twenty thousand flights through one topic: two publishers, four subscriptions with rules of their own, every figure checked.
//!
//! ```text
//! cargo run --release --example flights [FILE]
//! ```
//!
//! Any CSV file with the columns of `examples/data/flights.csv` will do. Ends with an error if a row is bad or a figure is off.

mod figures;
mod job;
mod pipeline;
mod reading;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let bundled = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv");
    match std::env::args_os().nth(1) {
        Some(file) => job::main(&PathBuf::from(file), None),
        None => job::main(bundled.as_ref(), Some(figures::BUNDLED)),
    }
}
