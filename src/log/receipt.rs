//! What a submit gives back: the promise that a level will be reached.
#![forbid(unsafe_code)]

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::error::LogError;
use super::record::Placed;

/// The outcome to come of a batch that was handed over. Wait for it with [`wait`](Self::wait), or await it.
#[derive(Debug)]
#[must_use = "dropping a receipt is fine, but then nobody learns whether the level was reached"]
pub struct Receipt {}

impl Receipt {
    /// Waits until the level is reached. The waiting thread may do the writing and syncing itself.
    ///
    /// # Errors
    ///
    /// Why it will not be reached.
    pub fn wait(self) -> Result<Placed, LogError> {
        todo!()
    }

    /// Tells the outcome if there is one.
    pub fn poll_now(&self) -> Option<Result<Placed, LogError>> {
        todo!()
    }
}

impl Future for Receipt {
    type Output = Result<Placed, LogError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _ = cx;
        todo!()
    }
}
