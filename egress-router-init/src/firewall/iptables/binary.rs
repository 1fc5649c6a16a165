//! One iptables program, run through the `iptables` crate.

use std::error::Error;
use std::io;
use std::path::Path;

use egress_config::AddressFamily;

use super::command::{Change, Command, binary_name};
use super::error::IptablesError;
use super::listing::Listing;
use super::ruleset::TableName;

/// `iptables` or `ip6tables`, in the network namespace of the calling thread.
pub(super) struct Binary {
    family: AddressFamily,
    program: ::iptables::IPTables,
}

/// Whether the kernel knows a family at all; with `ipv6.disable=1` it has no
/// IPv6 to be filtered, and no tables for it.
pub(super) fn kernel_has(family: AddressFamily) -> bool {
    match family {
        AddressFamily::Ipv4 => true,
        AddressFamily::Ipv6 => Path::new("/proc/thread-self/net/if_inet6").exists(),
    }
}

impl Binary {
    pub(super) fn find(family: AddressFamily) -> Result<Self, IptablesError> {
        let binary = binary_name(family);
        match ::iptables::new(family == AddressFamily::Ipv6) {
            Ok(program) => Ok(Self { family, program }),
            Err(error) if is_not_found(&*error) => Err(IptablesError::Missing { binary }),
            Err(error) => Err(IptablesError::Unusable {
                binary,
                cause: cause(&*error),
            }),
        }
    }

    pub(super) fn family(&self) -> AddressFamily {
        self.family
    }

    /// All chains and rules of a table, with their counters.
    pub(super) fn list(&self, table: TableName) -> Result<Listing, IptablesError> {
        let refused = |cause| IptablesError::Refused {
            command: format!("{} -t {table} -v -S", binary_name(self.family)),
            cause,
        };
        // The crate's own listing takes a failure for an empty table.
        let output = self
            .program
            .execute(table.name(), "-v -S")
            .map_err(|error| refused(cause(&*error)))?;
        if output.status.success() {
            Ok(Listing::parse(&String::from_utf8_lossy(&output.stdout)))
        } else {
            Err(refused(one_line(&String::from_utf8_lossy(&output.stderr))))
        }
    }

    pub(super) fn run(&self, command: &Command) -> Result<(), IptablesError> {
        let (program, table) = (&self.program, command.table().name());
        match command.change() {
            Change::NewChain { chain } => program.new_chain(table, chain),
            Change::Append { chain, rule } => program.append(table, chain, rule),
            Change::InsertFirst { chain, rule } => program.insert(table, chain, rule, 1),
            Change::Delete { chain, rule } => program.delete(table, chain, rule),
            Change::Flush { chain } => program.flush_chain(table, chain),
            Change::DeleteChain { chain } => program.delete_chain(table, chain),
        }
        .map_err(|error| IptablesError::Refused {
            command: command.to_string(),
            cause: cause(&*error),
        })
    }
}

fn is_not_found(error: &(dyn Error + 'static)) -> bool {
    error
        .downcast_ref::<io::Error>()
        .is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
}

fn cause(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<::iptables::error::IptablesError>() {
        Some(refusal) => one_line(&refusal.msg),
        None => error.to_string(),
    }
}

/// What the program wrote, without the invitation to read its manual.
fn one_line(stderr: &str) -> String {
    let lines: Vec<&str> = stderr
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("Try `"))
        .collect();
    if lines.is_empty() {
        "it gave no reason".to_owned()
    } else {
        lines.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cause_is_one_line() {
        let stderr = "iptables v1.8.9 (nf_tables): Chain 'X' does not exist\n\
                      Try `iptables -h' or 'iptables --help' for more information.\n";
        assert_eq!(
            one_line(stderr),
            "iptables v1.8.9 (nf_tables): Chain 'X' does not exist"
        );
        assert_eq!(one_line("one\n\n  two \n"), "one two");
        assert_eq!(one_line(""), "it gave no reason");
    }
}
