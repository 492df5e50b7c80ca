//! The whole job: read, publish and receive, check, print.

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use crate::figures::{Counts, Expected};
use crate::{pipeline, reading, table};

/// Does the job with this file. `fixed`: what its figures are known to be; otherwise a plain pass over the file says that.
pub fn main(file: &Path, fixed: Option<Counts>) -> ExitCode {
    match run(file, fixed) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("error: a figure is off");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every figure is as expected.
fn run(file: &Path, fixed: Option<Counts>) -> Result<bool, Box<dyn Error>> {
    let started = Instant::now();
    let flights = reading::read(file)?;
    println!("read {} flights in {:.0?}", table::grouped(flights.len() as u64), started.elapsed());

    let found = pipeline::run(&flights)?;
    println!(
        "published by 2, received by 4 subscriptions in {:.1?}: {} flights/s archived",
        found.took,
        table::grouped((found.counts.archived as f64 / found.took.as_secs_f64()) as u64),
    );

    let expected = Expected::of(&flights);
    let right = table::counts(&found.counts, &fixed.unwrap_or(expected.counts));
    table::origins(&found.origins);
    Ok(right && found.origins == expected.origins)
}
