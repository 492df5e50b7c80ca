//! Goal: no input that a fuzzer ever found interesting breaks anything again; and, without a fuzzer, a thousand random
//! inputs for each target are tried each time.
//!
//! Method: the files in `tests/fuzz/corpus/<target>/` and seeded random bytes go through the functions of the targets.
//! `FUZZ_INPUTS=n` sets how many random ones (300 without it).

#[path = "log/support/mod.rs"]
mod support;
#[path = "fuzz/targets.rs"]
mod targets;

use std::path::Path;

use support::rng::Rng;

fn feed(name: &str, target: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
    let mut files: Vec<_> = std::fs::read_dir(&corpus).unwrap().map(|f| f.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", corpus.display());
    for file in &files {
        println!("{}", file.display());
        target(&std::fs::read(file).unwrap());
    }
    let inputs = std::env::var("FUZZ_INPUTS").map_or(300, |n| n.parse().expect("FUZZ_INPUTS is a number"));
    for seed in 0..inputs {
        println!("random input {seed}");
        let mut rng = Rng::new(seed);
        let seeded = std::fs::read(&files[rng.below(files.len() as u64) as usize]).unwrap();
        let mut input = if rng.one_in(2) { seeded } else { Vec::new() };
        for _ in 0..rng.below(24) {
            let at = rng.below(input.len() as u64 + 1) as usize;
            match rng.below(3) {
                0 if at < input.len() => input[at] = rng.next() as u8,
                1 => input.insert(at, rng.pick(&[0, 1, 4, 5, 8, 16, 255])),
                _ => input.extend((0..rng.below(9)).map(|_| rng.next() as u8)),
            }
        }
        target(&input);
    }
}

#[test]
fn block_headers_hold() {
    feed("block_header", targets::block_header);
}

#[test]
fn directories_of_blocks_hold() {
    feed("directory", targets::directory);
}

#[test]
fn segments_hold() {
    feed("segment", targets::segment);
}

#[test]
fn whole_directories_hold() {
    feed("log_directory", targets::log_directory);
}
