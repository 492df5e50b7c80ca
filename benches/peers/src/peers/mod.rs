//! The peers, each in the configuration that its documentation shows as the fastest.

pub mod broadcast;
pub mod channels;
pub mod copies;
pub mod disruptor;
pub mod rings;
pub mod tasks;

use crate::{payload::Payload, queue::Queue};

use copies::Copies;

/// Is shown every queue, whatever its types.
pub trait Visitor<T: Payload> {
    /// Called once per queue.
    fn queue<Q: Queue<T>>(&mut self);
}

/// Shows all peers that can carry any payload.
pub fn visit<T: Payload>(visitor: &mut impl Visitor<T>) {
    visitor.queue::<channels::StdSyncChannel>();
    visitor.queue::<channels::CrossbeamChannel>();
    visitor.queue::<channels::Flume>();
    visitor.queue::<channels::Kanal>();
    visitor.queue::<channels::AsyncChannel>();
    visitor.queue::<channels::Loole>();
    visitor.queue::<channels::TokioMpsc>();
    visitor.queue::<channels::Thingbuf>();
    visitor.queue::<channels::OmangoSpsc>();
    visitor.queue::<channels::OmangoMpmc>();
    visitor.queue::<channels::CrossfireSpsc>();
    visitor.queue::<channels::CrossfireMpsc>();
    visitor.queue::<channels::CrossfireMpmc>();

    visitor.queue::<rings::Array>();
    visitor.queue::<rings::Concurrent>();
    visitor.queue::<rings::Rtrb>();
    visitor.queue::<rings::Ringbuf>();
    visitor.queue::<disruptor::Pair>();
    visitor.queue::<disruptor::FanIn>();
    visitor.queue::<disruptor::FanOut>();

    visitor.queue::<broadcast::PhotonEvents>();
    visitor.queue::<broadcast::Multiqueue>();
    visitor.queue::<broadcast::MultiqueueCompeting>();
    visitor.queue::<broadcast::Bus>();
    visitor.queue::<broadcast::AsyncBroadcast>();
    visitor.queue::<broadcast::TokioBroadcast>();

    visitor.queue::<Copies<channels::CrossbeamChannel, copies::CrossbeamCopies>>();
    visitor.queue::<Copies<channels::Kanal, copies::KanalCopies>>();
    visitor.queue::<Copies<channels::CrossfireSpsc, copies::CrossfireSpscCopies>>();
    visitor.queue::<Copies<channels::CrossfireMpmc, copies::CrossfireMpmcCopies>>();
    visitor.queue::<Copies<channels::OmangoSpsc, copies::OmangoSpscCopies>>();
    visitor.queue::<Copies<channels::OmangoMpmc, copies::OmangoMpmcCopies>>();
    visitor.queue::<Copies<rings::Rtrb, copies::RtrbCopies>>();
    visitor.queue::<Copies<rings::Array, copies::ArrayCopies>>();
}

/// Shows the peers that lead somewhere and carry any payload: fewer, because every payload of every peer takes its
/// time to compile.
pub fn visit_leaders<T: Payload>(visitor: &mut impl Visitor<T>) {
    visitor.queue::<channels::StdSyncChannel>();
    visitor.queue::<channels::CrossbeamChannel>();
    visitor.queue::<channels::Kanal>();
    visitor.queue::<channels::Thingbuf>();
    visitor.queue::<channels::OmangoSpsc>();
    visitor.queue::<channels::OmangoMpmc>();
    visitor.queue::<channels::CrossfireSpsc>();
    visitor.queue::<channels::CrossfireMpsc>();
    visitor.queue::<channels::CrossfireMpmc>();
    visitor.queue::<rings::Rtrb>();
    visitor.queue::<disruptor::Pair>();
    visitor.queue::<disruptor::FanOut>();
    visitor.queue::<broadcast::Multiqueue>();
    visitor.queue::<Copies<channels::CrossfireSpsc, copies::CrossfireSpscCopies>>();
    visitor.queue::<Copies<channels::CrossfireMpmc, copies::CrossfireMpmcCopies>>();
    visitor.queue::<Copies<channels::OmangoSpsc, copies::OmangoSpscCopies>>();
}

/// Shows the peers that carry plain data only.
pub fn visit_plain<T: Payload + photon_ring::Pod>(visitor: &mut impl Visitor<T>) {
    visitor.queue::<broadcast::PhotonPlain>();
}
