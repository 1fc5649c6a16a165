//! The buffer that all datagrams of a thread pass through.

use std::cell::RefCell;

use nix::cmsg_space;
use nix::libc::{in_pktinfo, in6_pktinfo};

/// The longest datagram.
const DATAGRAM_BYTES: usize = 65_535;

/// Room for one datagram and what the kernel says about it.
pub(super) struct Scratch {
    pub(super) bytes: Box<[u8]>,
    pub(super) control: Vec<u8>,
}

/// Lends the buffer of this thread. What is called must not borrow it again.
pub(super) fn with_scratch<T>(act: impl FnOnce(&mut Scratch) -> T) -> T {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
            bytes: vec![0; DATAGRAM_BYTES].into(),
            control: cmsg_space!(in_pktinfo, in6_pktinfo),
        });
    }
    SCRATCH.with_borrow_mut(act)
}
