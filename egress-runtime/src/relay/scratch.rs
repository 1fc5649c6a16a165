//! The buffer that all copying relays of a thread share.

use std::cell::Cell;

/// Size of the buffer; what fills it twice in a row is bulk.
pub(super) const SCRATCH_BYTES: usize = 64 * 1024;

thread_local! {
    static SCRATCH: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// Calls `work` with the buffer, whose content is left over from anyone.
pub(super) fn with_scratch<R>(work: impl FnOnce(&mut [u8]) -> R) -> R {
    let mut buffer = SCRATCH
        .try_with(Cell::take)
        .ok()
        .flatten()
        .unwrap_or_else(|| vec![0; SCRATCH_BYTES].into_boxed_slice());
    let result = work(&mut buffer);
    // A thread that is ending has no place for it any more.
    let _ = SCRATCH.try_with(|scratch| scratch.set(Some(buffer)));
    result
}
