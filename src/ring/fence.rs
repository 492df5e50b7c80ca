//! A pair of fences, one of which costs nothing.
//!
//! Two threads that each write one variable and then read the other's need a fence between the two, or both may read what was there before. Where
//! one of them does so for every message and the other once in a while, the system can pay for both: [`heavy`] makes every thread of the process
//! that is running pass a fence (`membarrier`, since Linux 4.14), and [`light`] merely keeps the compiler from moving accesses across it.
//!
//! Where the system has no such call, [`is_paired`] says so, and nothing may be built on them. Models, and Miri, use two real fences.

pub(super) use self::imp::{heavy, is_paired, light};

#[cfg(any(ringmq_loom, miri))]
mod imp {
    use crate::sync::{Ordering::SeqCst, fence};

    pub(in crate::ring) fn is_paired() -> bool {
        true
    }

    pub(in crate::ring) fn light() {
        fence(SeqCst);
    }

    pub(in crate::ring) fn heavy() {
        fence(SeqCst);
    }
}

#[cfg(all(target_os = "linux", not(any(ringmq_loom, miri))))]
mod imp {
    use std::sync::OnceLock;

    use crate::sync::{Ordering::SeqCst, compiler_fence};

    fn membarrier(command: libc::c_int) -> bool {
        // SAFETY: the call takes three integers and touches no memory of the process.
        let answer = unsafe { libc::syscall(libc::SYS_membarrier, command, 0, 0) };
        answer == 0
    }

    /// Whether [`heavy`] works here; the process says once that it will use it.
    pub(in crate::ring) fn is_paired() -> bool {
        static IS_PAIRED: OnceLock<bool> = OnceLock::new();
        *IS_PAIRED.get_or_init(|| membarrier(libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED))
    }

    #[inline(always)]
    pub(in crate::ring) fn light() {
        compiler_fence(SeqCst);
    }

    /// Some microseconds. Only after [`is_paired`] said yes.
    pub(in crate::ring) fn heavy() {
        let done = membarrier(libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED);
        assert!(done, "the system took the registration and refuses the call");
    }
}

#[cfg(not(any(target_os = "linux", ringmq_loom, miri)))]
mod imp {
    pub(in crate::ring) fn is_paired() -> bool {
        false
    }

    #[inline(always)]
    pub(in crate::ring) fn light() {}

    pub(in crate::ring) fn heavy() {
        unreachable!("nothing is built on fences that are not paired");
    }
}
