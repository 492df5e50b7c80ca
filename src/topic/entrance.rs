//! The way in: what all handles that can publish to a topic share.
//!
//! The broker, a [`Topic`](super::Topic), a [`Publisher`](super::Publisher) and a subscription whose dead letters go to the topic keep it. Once the
//! last of them is gone, nothing can come any more, and whoever receives is told so when he has got what there is.
#![forbid(unsafe_code)]

use std::fmt;

use crate::sync::{Arc, Weak};
use crate::topic::core::TopicCore;

pub(crate) struct Entrance<T: Send + 'static>(Weak<TopicCore<T>>);

impl<T: Send + 'static> Entrance<T> {
    pub(crate) fn new(core: &Arc<TopicCore<T>>) -> Arc<Self> {
        Arc::new(Self(Arc::downgrade(core)))
    }
}

impl<T: Send + 'static> Drop for Entrance<T> {
    fn drop(&mut self) {
        // If nobody receives either, the topic is gone.
        if let Some(core) = self.0.upgrade() {
            core.nobody_publishes();
        }
    }
}

impl<T: Send + 'static> fmt::Debug for Entrance<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entrance").finish_non_exhaustive()
    }
}
