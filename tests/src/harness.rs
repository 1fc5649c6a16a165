//! `main` of every test file that uses the lab.
//!
//! ```no_run
//! use egress_lab::{harness, trials};
//!
//! fn the_address_is_announced() -> harness::TestResult {
//!     Ok(())
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     harness::run(&["egress-router-init"], trials![the_address_is_announced])
//! }
//! ```
//!
//! Such a file has `harness = false` in `Cargo.toml`: libtest starts threads
//! before any of our code runs, and a process with threads cannot enter a user
//! namespace. Test names, filters and options are those of libtest.

use std::{num::NonZero, process::ExitCode, thread::available_parallelism};

use libtest_mimic::{Arguments, Trial};

pub use libtest_mimic;

/// Result of a test function.
pub type TestResult = Result<(), libtest_mimic::Failed>;

/// Test functions, by name; each is a `fn() -> TestResult`.
#[macro_export]
macro_rules! trials {
    ($($function:path),* $(,)?) => {
        vec![$(
            $crate::harness::libtest_mimic::Trial::test(
                stringify!($function).replace(' ', ""),
                $function,
            )
        ),*]
    };
}

/// Builds `programs`, leaves the machine's namespaces, and runs the tests.
/// Call it before any thread starts.
#[must_use]
pub fn run(programs: &[&str], trials: Vec<Trial>) -> ExitCode {
    run_with(&Arguments::from_args(), programs, trials)
}

/// As [`run`], for tests that wait most of the time: several per core run side
/// by side.
#[must_use]
pub fn run_waiting(programs: &[&str], trials: Vec<Trial>) -> ExitCode {
    let cores = available_parallelism().map_or(1, NonZero::get);
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(4 * cores);
    run_with(&arguments, programs, trials)
}

/// As [`run`], for tests that each need the machine: one after the other.
#[must_use]
pub fn run_serially(programs: &[&str], trials: Vec<Trial>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(1);
    run_with(&arguments, programs, trials)
}

fn run_with(arguments: &Arguments, programs: &[&str], trials: Vec<Trial>) -> ExitCode {
    if !arguments.list {
        // Before the network is gone, should cargo need it.
        for name in programs {
            if let Err(error) = crate::program(name) {
                return fail(&error);
            }
        }
        if let Err(error) = crate::enter_sandbox() {
            return fail(&error);
        }
    }
    libtest_mimic::run(arguments, trials).exit_code()
}

#[expect(
    clippy::print_stderr,
    reason = "a test program says on stderr why it cannot run"
)]
fn fail(error: &crate::LabError) -> ExitCode {
    eprintln!("{error}");
    ExitCode::FAILURE
}
