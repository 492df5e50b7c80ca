//! ringmq behind the same seam as its peers: the public API, nothing else.

use crate::{
    payload::Payload,
    peers::{Visitor, tasks::TaskVisitor},
};

/// Shows our variants.
pub fn visit<T: Payload>(visitor: &mut impl Visitor<T>) {
    let _ = visitor;
}

/// Shows our variants between tasks.
pub fn visit_tasks(visitor: &mut impl TaskVisitor) {
    let _ = visitor;
}
