//! The names of the files that a log makes, and nothing else passes for one.
//!
//! ```text
//! LOCK                                    held by the writer, never deleted
//! META                                    format and identity
//! log/<first>-<last>.<generation>.log     a segment; numbers in 16 hexadecimal digits
//! log/<number>.spare                      space made ready for a segment to come
//! log/<number>.tmp                        a file on its way to become one of the others
//! quarantine/...                          bytes kept aside; never read by the log
//! ```
#![forbid(unsafe_code)]

use std::ffi::OsStr;
use std::fmt;

/// The name of a segment: which numbers it holds, and how often they were rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct SegmentName {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) generation: u32,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.{}.log", self.first, self.last, self.generation)
    }
}

/// What a name in the directory `log/` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(SegmentName),
    Spare(u64),
    Temporary(u64),
    Unknown,
}

impl Name {
    /// Reads a name. Only what this code would have written itself is known.
    pub(crate) fn parse(name: &OsStr) -> Self {
        let Some(text) = name.to_str() else {
            return Self::Unknown;
        };
        let parsed = Self::parse_loosely(text).unwrap_or(Self::Unknown);
        // Other spellings of the same numbers are not ours.
        if parsed.to_string() == text { parsed } else { Self::Unknown }
    }

    fn parse_loosely(text: &str) -> Option<Self> {
        let (stem, suffix) = text.rsplit_once('.')?;
        let hex = |digits: &str| u64::from_str_radix(digits, 16).ok().filter(|n| *n < u64::MAX / 2);
        match suffix {
            "spare" => hex(stem).map(Self::Spare),
            "tmp" => hex(stem).map(Self::Temporary),
            "log" => {
                let (range, generation) = stem.split_once('.')?;
                let (first, last) = range.split_once('-')?;
                let name = SegmentName {
                    first: hex(first)?,
                    last: hex(last)?,
                    generation: generation.parse().ok()?,
                };
                (name.first >= 1 && name.first <= name.last).then_some(Self::Segment(name))
            }
            _ => None,
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(name) => name.fmt(f),
            Self::Spare(number) => write!(f, "{number:016x}.spare"),
            Self::Temporary(number) => write!(f, "{number:016x}.tmp"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// The highest number that an opening may begin with. Names are read for as many more as no process will ever make, so that
/// whatever it writes is found again.
pub(crate) const LAST_NUMBER: u64 = u64::MAX / 2 - (1 << 32);

pub(crate) const LOCK: &str = "LOCK";
pub(crate) const META: &str = "META";
pub(crate) const META_TMP: &str = "META.tmp";
pub(crate) const LOG: &str = "log";
pub(crate) const QUARANTINE: &str = "quarantine";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_a_round_trip() {
        let segment = SegmentName {
            first: 1,
            last: 0x00ab_cdef,
            generation: 12,
        };
        for name in [Name::Segment(segment), Name::Spare(7), Name::Temporary(u64::MAX / 2 - 1)] {
            assert_eq!(Name::parse(OsStr::new(&name.to_string())), name);
        }
    }

    #[test]
    fn nothing_else_passes_for_one() {
        let strange = [
            "",
            ".",
            "unknown",
            "1-1.0.log",
            "0000000000000001-0000000000000001.00.log",
            "0000000000000001-0000000000000001.+1.log",
            "0000000000000002-0000000000000001.0.log",
            "0000000000000000-0000000000000001.0.log",
            "000000000000000A-000000000000000A.0.log",
            "+000000000000001.spare",
            "ffffffffffffffff.spare",
            "00000000000000001.tmp",
            "0000000000000001.log",
            "0000000000000001.spare.bak",
        ];
        for name in strange {
            assert_eq!(Name::parse(OsStr::new(name)), Name::Unknown, "{name}");
        }
    }
}
