//! Dead letters: where a message ends that was rejected or failed too often, with its history.

use std::collections::VecDeque;
use std::fmt;

use crate::offset::Offset;
use crate::time::Timestamp;

/// Why a message was dead-lettered.
///
/// # Examples
///
/// ```
/// use ringmq::DeadReason;
///
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// # let sub = topic.subscribe("s")?;
/// topic.publish(2)?;
/// sub.recv()?.reject("not odd")?;
/// match &sub.dead_letters().list()?[0].reason {
///     DeadReason::Rejected(why) => assert_eq!(why, "not odd"),
///     other => panic!("{other}"),
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeadReason {
    /// It failed as often as the subscription allows.
    Failures,
    /// A subscriber rejected it, for this reason.
    Rejected(String),
}

impl fmt::Display for DeadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failures => f.write_str("failed too often"),
            Self::Rejected(reason) => write!(f, "rejected: {reason}"),
        }
    }
}

/// A message that is not delivered any more, and its history.
///
/// # Examples
///
/// ```
/// # fn main() -> ringmq::Result<()> {
/// # let topic = ringmq::Broker::open("mem:")?.topic::<u32>("numbers")?;
/// let sub = topic.subscribe("odd")?;
/// topic.publish(2)?;
/// sub.recv()?.reject("not odd")?;
/// let letter = sub.dead_letters().list()?.remove(0);
/// assert_eq!((letter.payload, letter.attempts), (2, 1));
/// assert_eq!(letter.reason.to_string(), "rejected: not odd");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeadLetter<T> {
    /// What was published.
    pub payload: T,
    /// Its key, if it had one.
    pub key: Option<Vec<u8>>,
    /// The topic that it came from.
    pub topic: String,
    /// The subscription that gave it up.
    pub subscription: String,
    /// Its offset in that topic.
    pub offset: Offset,
    /// Why it was given up.
    pub reason: DeadReason,
    /// The text of the last error, if a handler returned one or panicked.
    pub error: Option<String>,
    /// How often it was delivered.
    pub attempts: u32,
    /// How often it failed.
    pub failures: u32,
    /// When it failed first.
    pub first_failed: Timestamp,
    /// When it failed last, or was rejected.
    pub last_failed: Timestamp,
}

/// A bounded store of dead letters, oldest first.
pub(crate) struct Letters<L> {
    letters: VecDeque<L>,
    /// How many are lent: they count as stored.
    lent: usize,
    most: usize,
}

impl<L> Letters<L> {
    pub(crate) const fn new(most: usize) -> Self {
        Self {
            letters: VecDeque::new(),
            lent: 0,
            most,
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() >= self.most
    }

    pub(crate) fn push(&mut self, letter: L) {
        self.letters.push_back(letter);
    }

    /// The oldest, if none is lent: those may be older.
    pub(crate) fn pop(&mut self) -> Option<L> {
        if self.lent > 0 { None } else { self.letters.pop_front() }
    }

    /// Puts the oldest back.
    pub(crate) fn unpop(&mut self, letter: L) {
        self.letters.push_front(letter);
    }

    pub(crate) fn len(&self) -> usize {
        self.letters.len() + self.lent
    }

    pub(crate) fn take_all(&mut self) -> VecDeque<L> {
        std::mem::take(&mut self.letters)
    }

    /// Takes all out for a look, until they are put back.
    pub(crate) fn lend_all(&mut self) -> VecDeque<L> {
        self.lent += self.letters.len();
        self.take_all()
    }

    /// Puts what is left of so many that were lent in front of those that came meanwhile.
    pub(crate) fn put_back(&mut self, mut letters: VecDeque<L>, lent: usize) {
        self.lent -= lent;
        letters.append(&mut self.letters);
        self.letters = letters;
    }
}
