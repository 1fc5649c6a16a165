//! Who may be reached: the rule list, canonical targets, the guard and the
//! decision. Pure: what a name resolves to is an argument.

mod client_hello;
mod decision;
mod guard;
mod inet_aton;
mod judged;
mod policy;
mod rules;
mod special_range;
mod target;

pub use client_hello::ClientHello;
pub use decision::{Admission, Decision, Judgement, Reason, Verdict};
pub use guard::{Guard, GuardError, Prohibited};
pub use policy::{Literals, LiteralsError, Mode, ModeError, Policy, Sni, SniError};
pub use rules::{Action, Entry, Rules};
pub use target::{AbsoluteForm, Host, Target, TargetError};
