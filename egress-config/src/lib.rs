//! Text to types: the environment behind a trait, multi-line lists with line
//! numbers, ports, addresses and names as types, and diagnostics that report
//! every bad entry at once.
//!
//! Pure: no socket, file, clock, process environment or async in here.

mod address;
mod decimal;
mod diagnostics;
mod domain_name;
mod duration;
mod environment;
mod help;
mod interface_name;
mod list;
mod listen;
mod log;
mod port;
mod protocol;
mod proxy;
mod quote;
mod reader;
mod special;
mod switch;
mod unknown;
pub mod variables;

pub use address::{
    AddressError, AddressFamily, NetworkError, parse_address, parse_interface_address,
    parse_network,
};
pub use diagnostics::{Diagnostic, Diagnostics, Warning};
pub use domain_name::{DomainName, DomainNameError};
pub use duration::{DurationError, format_duration, parse_duration, serialize_duration};
pub use environment::{Environment, MAX_FILE_BYTES, MapEnvironment, NotUnicode};
pub use help::{help_text, markdown_table};
pub use interface_name::{InterfaceName, InterfaceNameError, LinkError, parse_link};
pub use list::{Continued, FileProblem, Line, List, ListError, ListVariable};
pub use listen::{ListenError, parse_listen};
pub use log::{LogFormat, LogFormatError, LogLevel, LogLevelError};
pub use port::{Port, PortError};
pub use protocol::{Protocol, ProtocolError};
pub use proxy::{
    CountError, ProxySettings, ReloadExisting, ReloadExistingError, TimeError, parse_count,
    parse_time,
};
pub use quote::OneLine;
pub use reader::{Reader, Reported, words};
pub use special::SpecialAddress;
pub use switch::{Switch, SwitchError};
pub use variables::{DefaultValue, Program, VariableKind, VariableSpec};
