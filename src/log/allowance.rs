//! What looking for blocks behind damage may cost.
#![forbid(unsafe_code)]

/// How many bytes the searches of a file may check for being the front of a block and find to be none.
///
/// A damaged place holds a few such fronts. But bytes that were laid out for it could say at every step that a long directory follows, and
/// looking through a segment would take the square of its length. What is over the allowance is passed over like damage.
#[derive(Debug, Default)]
pub(crate) struct Allowance {
    pub(crate) spent: u64,
    pub(crate) searched: u64,
}

impl Allowance {
    /// The longest front there is, a few times.
    pub(crate) const START: u64 = 64 << 20;
    pub(crate) const PER_BYTE: u64 = 16;

    /// Tells whether a front of that length may be checked.
    pub(crate) fn spend(&mut self, front: u64) -> bool {
        let may = self.spent + front <= Self::START + self.searched * Self::PER_BYTE;
        self.spent += if may { front } else { 0 };
        may
    }
}
