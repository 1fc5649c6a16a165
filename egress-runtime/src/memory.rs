//! `memcpy` and `memmove` of the static programs.
//!
//! Those of musl on x86-64 begin every copy with `rep movsq`, whose start takes
//! the processor longer than all of a copy of a field line, of a future or of
//! what a request is told of. A request makes dozens of those: a tenth of its
//! time. These are the usual ones of other C libraries: small copies by a few
//! loads and stores that may overlap each other, with what every x86-64 has
//! (SSE2), and `rep movsb` for large ones (Intel's Optimization Reference
//! Manual, section 3.7.6).
#![expect(
    unsafe_code,
    reason = "it is what copies bytes for everything that is safe"
)]

use std::arch::asm;
use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_storeu_si128};

/// Bytes of one register.
const REGISTER: usize = size_of::<__m128i>();
/// Bytes that a turn of a loop copies.
const TURN: usize = 4 * REGISTER;
/// From this size on `rep movsb` is the fastest.
const LARGE: usize = 4096;

/// Takes the place of the C library's.
///
/// # Safety
/// As memcpy(3).
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe { copy(to, from, length) };
    to
}

/// Takes the place of the C library's.
///
/// # Safety
/// As memmove(3).
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe { copy_overlapping(to, from, length) };
    to
}

/// # Safety
/// `from` may be read and `to` may be written for `length` bytes, and they do not
/// overlap.
#[inline(always)]
unsafe fn copy(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: each covers the bytes of the caller's promise, and no others.
    unsafe {
        if length <= 2 * TURN {
            copy_small(to, from, length);
        } else if length < LARGE {
            copy_forward(to, from, length);
        } else {
            asm!(
                "rep movsb",
                inout("rcx") length => _,
                inout("rdi") to => _,
                inout("rsi") from => _,
                options(nostack, preserves_flags)
            );
        }
    }
}

/// # Safety
/// `from` may be read and `to` may be written for `length` bytes.
#[inline(always)]
unsafe fn copy_overlapping(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: each covers the bytes of the caller's promise, and no others; which
    // one of the two keeps what it has not read depends on which is behind.
    unsafe {
        if length <= 2 * TURN {
            copy_small(to, from, length);
        } else if to.addr().wrapping_sub(from.addr()) >= length {
            copy_forward(to, from, length);
        } else {
            copy_backward(to, from, length);
        }
    }
}

/// At most two turns; everything is read before anything is written.
///
/// # Safety
/// As [`copy_overlapping`].
#[inline(always)]
unsafe fn copy_small(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: in each arm the first and the last bytes are within `length`, and
    // between them nothing is left out.
    unsafe {
        match length {
            0 => {}
            1..4 => {
                let middle = length / 2;
                let last = length - 1;
                let bytes = (from.read(), from.add(middle).read(), from.add(last).read());
                to.write(bytes.0);
                to.add(middle).write(bytes.1);
                to.add(last).write(bytes.2);
            }
            4..8 => copy_ends::<u32>(to, from, length),
            8..16 => copy_ends::<u64>(to, from, length),
            16..=32 => copy_ends::<__m128i>(to, from, length),
            33..=TURN => copy_ends::<[__m128i; 2]>(to, from, length),
            _ => copy_ends::<[__m128i; 4]>(to, from, length),
        }
    }
}

/// The first and the last bytes, as many as `T` has, which may be the same.
///
/// # Safety
/// As [`copy_overlapping`], and `length` is at least that of `T`.
#[inline(always)]
unsafe fn copy_ends<T: Copy>(to: *mut u8, from: *const u8, length: usize) {
    let last = length - size_of::<T>();
    // SAFETY: `length` holds both.
    unsafe {
        let start = from.cast::<T>().read_unaligned();
        let end = from.add(last).cast::<T>().read_unaligned();
        to.cast::<T>().write_unaligned(start);
        to.add(last).cast::<T>().write_unaligned(end);
    }
}

/// # Safety
/// As [`copy_overlapping`]; `length` is more than a turn, and `to` is not within
/// the bytes behind the first of `from`.
#[inline(always)]
unsafe fn copy_forward(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: `at` and a turn are within `length`, and so is the end.
    unsafe {
        let last = length - TURN;
        let end = load(from.add(last));
        let mut at = 0;
        while at < last {
            store(to.add(at), load(from.add(at)));
            at += TURN;
            keep_loop();
        }
        store(to.add(last), end);
    }
}

/// # Safety
/// As [`copy_overlapping`]; `length` is more than a turn, and `to` is behind
/// `from`.
#[inline(always)]
unsafe fn copy_backward(to: *mut u8, from: *const u8, length: usize) {
    // SAFETY: `at` and a turn are within `length`, and so is the start.
    unsafe {
        let start = load(from);
        let mut at = length;
        while at > TURN {
            at -= TURN;
            store(to.add(at), load(from.add(at)));
            keep_loop();
        }
        store(to, start);
    }
}

/// # Safety
/// `from` may be read for a turn.
#[inline(always)]
unsafe fn load(from: *const u8) -> [__m128i; 4] {
    // SAFETY: as the caller promises.
    [0, 1, 2, 3].map(|nth| unsafe { _mm_loadu_si128(from.add(nth * REGISTER).cast()) })
}

/// # Safety
/// `to` may be written for a turn.
#[inline(always)]
unsafe fn store(to: *mut u8, registers: [__m128i; 4]) {
    for (nth, register) in registers.into_iter().enumerate() {
        // SAFETY: as the caller promises.
        unsafe { _mm_storeu_si128(to.add(nth * REGISTER).cast(), register) };
    }
}

/// Keeps the compiler from finding that a loop is memcpy, and calling it.
#[inline(always)]
fn keep_loop() {
    // SAFETY: it is no instruction.
    unsafe { asm!("", options(nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths around every change of method.
    fn lengths() -> impl Iterator<Item = usize> {
        (0..300).chain(LARGE - 70..LARGE + 70).chain([10_000])
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..251).cycle().take(length).collect()
    }

    #[test]
    fn what_is_copied_is_the_same_and_nothing_else_is_written() {
        for length in lengths() {
            for offset in [0, 1, 7, 16] {
                let from = bytes(offset + length);
                let mut to = vec![0xee; length + 2 * REGISTER];
                // SAFETY: both hold `length` bytes from there on.
                unsafe {
                    copy(
                        to.as_mut_ptr().add(REGISTER),
                        from.as_ptr().add(offset),
                        length,
                    );
                }
                assert_eq!(to[REGISTER..REGISTER + length], from[offset..], "{length}");
                assert_eq!(to[..REGISTER], [0xee; REGISTER]);
                assert_eq!(to[REGISTER + length..], [0xee; REGISTER]);
            }
        }
    }

    #[test]
    fn what_overlaps_is_moved_whole_both_ways() {
        for length in lengths() {
            for distance in [0, 1, 3, 8, 15, 16, 17, 63, 64, 65, 200] {
                for (from, to) in [(0, distance), (distance, 0)] {
                    let mut moved = bytes(length + distance);
                    let mut expected = moved.clone();
                    expected.copy_within(from..from + length, to);
                    let start = moved.as_mut_ptr();
                    // SAFETY: both are within the vector.
                    unsafe { copy_overlapping(start.add(to), start.add(from), length) };
                    assert_eq!(moved, expected, "{length} bytes from {from} to {to}");
                }
            }
        }
    }
}
