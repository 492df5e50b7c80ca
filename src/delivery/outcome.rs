//! Outcome: what a handler says about a message.

use std::any::Any;
use std::error::Error as StdError;
use std::time::Duration;

use crate::user_code::drop_contained;

/// What a handler says about a message.
///
/// # Examples
///
/// ```
/// use ringmq::Outcome;
///
/// fn handle(temperature: f64) -> Outcome {
///     if temperature.is_nan() { Outcome::reject("not a number") } else { Outcome::Ack }
/// }
/// assert_eq!(handle(20.5), Outcome::Ack);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Done.
    Ack,
    /// Failed: deliver it again, as the retry rule says.
    Nack,
    /// Failed: deliver it again after this time.
    NackAfter(Duration),
    /// Failed with this error: deliver it again, as the retry rule says; the text goes into its history.
    Failed(String),
    /// To the dead letters at once, for this reason.
    Reject(String),
}

impl Outcome {
    /// To the dead letters at once.
    pub fn reject(reason: impl ToString) -> Self {
        Self::Reject(reason.to_string())
    }
}

/// What a handler may return: nothing, an [`Outcome`], or a result whose error counts as a failure.
///
/// # Examples
///
/// ```
/// use ringmq::{IntoOutcome, Outcome};
///
/// assert_eq!("7".parse::<i32>().map(drop).into_outcome(), Outcome::Ack);
/// assert!(matches!("x".parse::<i32>().map(drop).into_outcome(), Outcome::Failed(_)));
/// ```
pub trait IntoOutcome: sealed::Sealed {
    /// The outcome.
    fn into_outcome(self) -> Outcome;
}

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Ack
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl<E: Into<Box<dyn StdError + Send + Sync>>> IntoOutcome for Result<(), E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(()) => Outcome::Ack,
            Err(error) => Outcome::Failed(describe(&*error.into())),
        }
    }
}

impl Outcome {
    /// What a handler's panic says about the message.
    pub(crate) fn of_panic(panic: Box<dyn Any + Send>) -> Self {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned());
        drop_contained(panic);
        Self::Failed(format!("the handler panicked: {}", text.as_deref().unwrap_or("no text")))
    }
}

/// An error's text with its causes, cut to a bounded length.
pub(crate) fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source.filter(|_| text.len() < TEXT_MAX) {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    cut(text)
}

/// Cuts a text of a user to what a history keeps.
pub(crate) fn cut(mut text: String) -> String {
    if text.len() > TEXT_MAX {
        let at = (0..=TEXT_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(at);
    }
    text
}

/// How many bytes of an error's text a history keeps.
const TEXT_MAX: usize = 1000;

mod sealed {
    pub trait Sealed {}
    impl Sealed for () {}
    impl Sealed for super::Outcome {}
    impl<E> Sealed for Result<(), E> {}
}
