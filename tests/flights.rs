//! The flights example does its job: on the bundled file, on a small one, and it ends with an error when a figure or a row is wrong.
//!
//! Method: the example's own modules are run in this process; the exit code is what its `main` returns.

#[path = "../examples/flights/figures.rs"]
mod figures;
#[path = "../examples/flights/job.rs"]
mod job;
#[path = "../examples/flights/pipeline.rs"]
mod pipeline;
#[path = "../examples/flights/reading.rs"]
mod reading;
#[path = "../examples/flights/table.rs"]
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use figures::Counts;

const BUNDLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/data/flights.csv");
const HEADER: &str = "departure,origin,destination,distance_miles,delay_minutes";
const ROW: &str = "2001-01-01 06:20,BNA,MCI,491,0";

fn file(name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::write(&path, content).unwrap();
    path
}

/// 250 flights from three airports, every tenth of them 61 minutes late.
fn small(name: &str) -> PathBuf {
    let rows = (1..=250).map(|row| {
        let (origin, delay) = (["BNA", "MDW", "LAX"][row % 3], if row % 10 == 0 { 61 } else { 60 });
        format!("2001-02-{:02} {:02}:00,{origin},PHX,100,{delay}\n", row % 28 + 1, row % 24)
    });
    file(name, format!("{HEADER}\n{}", rows.collect::<String>()))
}

const SMALL: Counts = Counts {
    archived: 250,
    out_of_order: 0,
    counted: 250,
    origins: 3,
    alerts: 25,
    settled_first: 248,
    settled_second: 2,
    dead_letters: 0,
    deliveries: 252,
};

#[test]
#[cfg_attr(miri, ignore = "20,000 flights take too long there")]
fn the_bundled_file_gives_the_known_figures() {
    assert_eq!(job::main(BUNDLED.as_ref(), Some(figures::BUNDLED)), ExitCode::SUCCESS);
    // The known figures are those of the plain pass, too.
    let flights = reading::read(BUNDLED.as_ref()).unwrap();
    assert_eq!(figures::Expected::of(&flights).counts, figures::BUNDLED);
}

#[test]
fn any_file_of_that_form_works() {
    let small = small("small.csv");
    assert_eq!(job::main(&small, None), ExitCode::SUCCESS);
    assert_eq!(job::main(&small, Some(SMALL)), ExitCode::SUCCESS);
}

#[test]
fn a_wrong_figure_ends_with_an_error() {
    let wrong = Counts { alerts: 26, ..SMALL };
    assert_eq!(job::main(&small("wrong.csv"), Some(wrong)), ExitCode::FAILURE);
}

#[test]
fn a_file_with_the_header_alone_has_no_flights() {
    assert_eq!(job::main(&file("none.csv", HEADER), None), ExitCode::SUCCESS);
}

/// What reading this content says, without the path in front of it; the job ends with an error, too.
fn refusal(name: &str, content: impl AsRef<[u8]>) -> String {
    let path = file(name, content);
    let text = reading::read(&path).unwrap_err().to_string();
    assert_eq!(job::main(&path, None), ExitCode::FAILURE);
    text.replace(&format!("{}:", path.display()), "")
}

#[test]
fn a_bad_row_is_named_by_line_and_column() {
    let rows = |bad: &str| format!("{HEADER}\n{ROW}\n{bad}\n{ROW}\n");
    let cases = [
        (
            "2001-01-01 06:20,BNA,MCI,491",
            "3:29: expected 5 columns, delay_minutes is missing, found \"the end of the line\"",
        ),
        (
            "2001-01-01 06:20,BNA,MCI,491,late",
            "3:30: expected delay_minutes: a whole number of minutes, found \"late\"",
        ),
        (
            "2001-01-01 06:20,BNA,MCI,-1,0",
            "3:26: expected distance_miles: a whole number of miles, found \"-1\"",
        ),
        (
            "2001-01-01 06:20,BNA,,491,0",
            "3:22: expected destination: three capital letters, found nothing",
        ),
        (
            "2001-13-01 06:20,BNA,MCI,491,0",
            "3:1: expected departure: a time as YYYY-MM-DD HH:MM, found \"2001-13-01 06:20\"",
        ),
        ("2001-01-01 06:20,BNA,MCI,491,0,", "3:31: expected the end of the line, found \",\""),
        ("", "3:1: expected departure: a time as YYYY-MM-DD HH:MM, found nothing"),
    ];
    for (number, (bad, said)) in cases.into_iter().enumerate() {
        assert_eq!(refusal(&format!("bad{number}.csv"), rows(bad)), said);
    }
    let text = refusal("bytes.csv", [HEADER.as_bytes(), b"\n2001\xff"].concat());
    assert_eq!(text, "2:5: expected text in UTF-8, found the byte 0xff");
}

#[test]
fn an_empty_or_foreign_file_is_told_what_the_header_should_be() {
    let expected = format!("1:1: expected the header {HEADER:?}, found");
    assert_eq!(refusal("empty.csv", ""), format!("{expected} nothing"));
    assert_eq!(refusal("foreign.csv", "a,b\n1,2\n"), format!("{expected} \"a,b\""));
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let path = Path::new("no-such-folder/flights.csv");
    let text = reading::read(path).unwrap_err().to_string();
    assert!(text.starts_with("cannot read no-such-folder/flights.csv: "), "{text}");
    assert_eq!(job::main(path, None), ExitCode::FAILURE);
}

#[test]
fn windows_line_ends_are_fine() {
    let path = file("crlf.csv", format!("{HEADER}\r\n{ROW}\r\n"));
    assert_eq!(reading::read(&path).unwrap().len(), 1);
}
