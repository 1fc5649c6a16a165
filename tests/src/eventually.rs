//! Waiting for what nobody announces.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// Tries until it works. Where something can be waited for, wait for that.
///
/// # Panics
/// When it has not worked before `deadline` is over; the message is the last
/// attempt's error.
#[track_caller]
pub fn eventually<T, E: Debug>(deadline: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> T {
    let start = Instant::now();
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(
                start.elapsed() < deadline,
                "not within {deadline:?}: {error:?}"
            ),
        }
        thread::sleep(PAUSE);
    }
}
