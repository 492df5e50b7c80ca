//! What looking for blocks behind damage may cost.
#![forbid(unsafe_code)]

/// How many bytes of a file may be checked for being the front of a block and found to be none.
///
/// A damaged place holds a few such fronts. But bytes that were laid out for it could say at every step that a long directory follows, and
/// looking through a segment would take the square of its length. What is over the allowance is passed over like damage.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    pub(crate) spent: u64,
    /// How far searches have come, all together.
    pub(crate) searched: u64,
}

impl Allowance {
    /// The longest front there is, a few times.
    pub(crate) const START: u64 = 64 << 20;
    pub(crate) const PER_BYTE: u64 = 16;

    /// Tells whether a front of that length may be checked.
    pub(crate) fn has(&self, front: usize) -> bool {
        self.spent + front as u64 <= Self::START + self.searched * Self::PER_BYTE
    }

    /// A front of that length was none.
    pub(crate) fn spend(&mut self, front: usize) {
        self.spent += front as u64;
    }
}
