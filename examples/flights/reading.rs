//! Reading the file: typed flights, or the place of the first error and what was expected there.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{fmt, fs, io};

use serde::{Deserialize, Serialize};

const COLUMNS: [&str; 5] = ["departure", "origin", "destination", "distance_miles", "delay_minutes"];

/// One departure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flight {
    /// Which row of the file it was, from 1.
    pub row: u64,
    pub departure: LocalTime,
    pub origin: Airport,
    pub destination: Airport,
    pub distance_miles: u32,
    /// Negative: early.
    pub delay_minutes: i32,
}

/// An airport's IATA code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Airport([u8; 3]);

impl FromStr for Airport {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let code: [u8; 3] = text.as_bytes().try_into().map_err(drop)?;
        if code.iter().all(u8::is_ascii_uppercase) {
            Ok(Self(code))
        } else {
            Err(())
        }
    }
}

impl fmt::Display for Airport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.map(char::from).iter().collect::<String>())
    }
}

/// A date and time of day at the airport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocalTime {
    year: u16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
}

impl FromStr for LocalTime {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let separated = text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            10 => byte == b' ',
            13 => byte == b':',
            _ => byte.is_ascii_digit(),
        });
        if text.len() != 16 || !separated {
            return Err(());
        }
        let number = |at: usize| text[at..at + 2].parse::<u8>().map_err(drop);
        let time = Self {
            year: text[..4].parse().map_err(drop)?,
            month: number(5)?,
            day: number(8)?,
            hour: number(11)?,
            minute: number(14)?,
        };
        let in_range = (1..=12).contains(&time.month) && (1..=31).contains(&time.day) && time.hour < 24 && time.minute < 60;
        in_range.then_some(time).ok_or(())
    }
}

/// Why a file could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot read {}: {source}", file.display())]
    Io { file: PathBuf, source: io::Error },
    /// Line and column count from 1, the column in characters.
    #[error("{}:{line}:{column}: expected {expected}, found {found}", file.display())]
    Bad {
        file: PathBuf,
        line: usize,
        column: usize,
        expected: String,
        found: String,
    },
}

/// Reads all flights of a file.
pub fn read(file: &Path) -> Result<Vec<Flight>, ReadError> {
    let bytes = fs::read(file).map_err(|source| ReadError::Io {
        file: file.to_owned(),
        source,
    })?;
    parse(&bytes).map_err(|(place, expected, found)| ReadError::Bad {
        file: file.to_owned(),
        line: place.line,
        column: place.column,
        expected,
        found,
    })
}

#[derive(Clone, Copy)]
struct Place {
    line: usize,
    column: usize,
}

/// Where it went wrong, what was expected there, and what was found.
type Bad = (Place, String, String);

fn parse(bytes: &[u8]) -> Result<Vec<Flight>, Bad> {
    let text = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let mut lines = text.split(|&byte| byte == b'\n').zip(1..).map(|(text, line)| Line::new(text, line));
    let header = lines.next().expect("splitting gives at least one part")?;
    if header.text != COLUMNS.join(",") {
        return Err(header.bad_at(0, format!("the header {:?}", COLUMNS.join(",")), header.text));
    }
    lines.zip(1..).map(|(line, row)| line?.flight(row)).collect()
}

struct Line<'a> {
    number: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn new(bytes: &'a [u8], number: usize) -> Result<Self, Bad> {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Self { number, text }),
            Err(error) => {
                let column = error.valid_up_to() + 1;
                let found = format!("the byte {:#04x}", bytes[error.valid_up_to()]);
                Err((Place { line: number, column }, "text in UTF-8".to_owned(), found))
            }
        }
    }

    fn bad_at(&self, byte: usize, expected: String, found: &str) -> Bad {
        let column = self.text[..byte].chars().count() + 1;
        let found = match found.char_indices().nth(60) {
            None if found.is_empty() => "nothing".to_owned(),
            None => format!("{found:?}"),
            Some((cut, _)) => format!("{:?}...", &found[..cut]),
        };
        (Place { line: self.number, column }, expected, found)
    }

    fn flight(&self, row: u64) -> Result<Flight, Bad> {
        let mut fields = Fields {
            line: self,
            start: 0,
            next: 0,
        };
        let flight = Flight {
            row,
            departure: fields.parse("a time as YYYY-MM-DD HH:MM")?,
            origin: fields.parse("three capital letters")?,
            destination: fields.parse("three capital letters")?,
            distance_miles: fields.parse("a whole number of miles")?,
            delay_minutes: fields.parse("a whole number of minutes")?,
        };
        if fields.start <= self.text.len() {
            return Err(self.bad_at(fields.start - 1, "the end of the line".to_owned(), &self.text[fields.start - 1..]));
        }
        Ok(flight)
    }
}

/// The fields of a line, one by one.
struct Fields<'a> {
    line: &'a Line<'a>,
    /// Where the next field starts; one behind the end once there is none left.
    start: usize,
    next: usize,
}

impl Fields<'_> {
    fn parse<V: FromStr>(&mut self, expected: &str) -> Result<V, Bad> {
        let column = COLUMNS[self.next];
        let text = self.line.text;
        let Some(rest) = text.get(self.start..) else {
            let expected = format!("{} columns, {column} is missing", COLUMNS.len());
            return Err(self.line.bad_at(text.len(), expected, "the end of the line"));
        };
        let field = rest.split(',').next().unwrap_or_default();
        let value = field
            .parse()
            .map_err(|_| self.line.bad_at(self.start, format!("{column}: {expected}"), field))?;
        self.start += field.len() + 1;
        self.next += 1;
        Ok(value)
    }
}
