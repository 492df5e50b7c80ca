//! What is sent: a word, a cache line, a shared kilobyte. Each carries a value that the checksum adds up.

use std::sync::Arc;

/// A message body of the benchmark.
pub trait Payload: Clone + Send + Sync + 'static {
    /// What a publisher needs to make payloads without allocating for each of them.
    type Maker: Send;

    /// Prepares a maker for one publisher.
    fn maker() -> Self::Maker;

    /// Makes the payload of message `id`.
    fn make(maker: &Self::Maker, id: u64) -> Self;

    /// Fills the slots of rings that are never empty.
    fn blank() -> Self;

    /// Reads back what `make` put in.
    fn value(&self) -> u64;

    /// The sum of `value` over messages `0..messages`, wrapping.
    fn checksum(messages: u64) -> u64 {
        let maker = Self::maker();
        (0..messages).fold(0, |sum: u64, id| sum.wrapping_add(Self::make(&maker, id).value()))
    }
}

impl Payload for u64 {
    type Maker = ();

    fn maker() {}

    #[inline(always)]
    fn make((): &(), id: u64) -> Self {
        id
    }

    fn blank() -> Self {
        0
    }

    #[inline(always)]
    fn value(&self) -> u64 {
        *self
    }
}

/// A struct of 64 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Line([u64; 8]);

impl Payload for Line {
    type Maker = ();

    fn maker() {}

    #[inline(always)]
    fn make((): &(), id: u64) -> Self {
        Line([id; 8])
    }

    fn blank() -> Self {
        Line([0; 8])
    }

    #[inline(always)]
    fn value(&self) -> u64 {
        self.0[7]
    }
}

/// A reference-counted kilobyte: publishers clone it from a pool, as a fan-out of large messages would.
#[derive(Clone)]
pub struct Shared(Arc<[u64; 128]>);

/// How many different kilobytes a publisher cycles through.
const POOL: u64 = 256;

impl Payload for Shared {
    type Maker = Vec<Shared>;

    fn maker() -> Vec<Shared> {
        (0..POOL).map(|id| Shared(Arc::new([id; 128]))).collect()
    }

    #[inline(always)]
    fn make(pool: &Vec<Shared>, id: u64) -> Self {
        pool[(id % POOL) as usize].clone()
    }

    fn blank() -> Self {
        Shared(Arc::new([0; 128]))
    }

    #[inline(always)]
    fn value(&self) -> u64 {
        self.0[127]
    }
}
