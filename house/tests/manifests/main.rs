//! Checks every manifest a user can apply: that each object is of a kind that
//! exists, that containers have the privileges they need and no others, and
//! that each program accepts, without a warning, what it would be given.
//!
//! | file | what |
//! |---|---|
//! | `unit` | objects that are applied together, and the pods among them |
//! | `given` | what a container's program makes of what it is given |
//! | `kinds`, `schemas`, `configuration`, `privilege`, `pods`, `services`, `policies`, `platforms`, `monitoring`, `images` | what must hold |

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "whatever cannot be read or is refused fails the test that reads it"
)]

mod configuration;
mod given;
mod images;
mod kinds;
mod monitoring;
mod platforms;
mod pods;
mod policies;
mod privilege;
mod schemas;
mod services;
mod unit;
