//! Which handles may cross a panic: all of them. A panic of the user's code, wherever the crate calls it, leaves a topic usable and its numbers right
//! (the panic matrix in `tests/` goes through all such places), so nobody needs to assert it when he catches one.

use std::panic::{RefUnwindSafe, UnwindSafe};

use crate::topic::{DeadLetters, Delivery, Mode, Publisher, Running, SubscribeOptions, Subscriber, Subscription, Topic};

impl<T: Send + 'static> UnwindSafe for Topic<T> {}
impl<T: Send + 'static> RefUnwindSafe for Topic<T> {}
impl<T: Send + 'static> UnwindSafe for Publisher<T> {}
impl<T: Send + 'static> RefUnwindSafe for Publisher<T> {}
impl<T: Send + 'static, M: Mode> UnwindSafe for Subscription<T, M> {}
impl<T: Send + 'static, M: Mode> RefUnwindSafe for Subscription<T, M> {}
impl<T: Send + 'static, M: Mode> UnwindSafe for Subscriber<T, M> {}
impl<T: Send + 'static, M: Mode> RefUnwindSafe for Subscriber<T, M> {}
impl<T: Send + UnwindSafe + 'static> UnwindSafe for Delivery<T> {}
impl<T: Send + RefUnwindSafe + 'static> RefUnwindSafe for Delivery<T> {}
impl<T> UnwindSafe for DeadLetters<T> {}
impl<T> RefUnwindSafe for DeadLetters<T> {}
impl<T> UnwindSafe for SubscribeOptions<T> {}
impl<T> RefUnwindSafe for SubscribeOptions<T> {}
impl UnwindSafe for Running {}
impl RefUnwindSafe for Running {}
