//! What the packet rules are to be, and how they get into the kernel.
//!
//! [`rules`] turns the configuration into a [`table::Table`], which is pure
//! data; a [`Driver`] applies it.

pub mod iptables;
mod nftables;
pub mod rules;
pub mod table;
pub mod text;

use std::net::IpAddr;
use std::ops::AddAssign;

use egress_config::{Port, Protocol};
use serde::Serialize;

use self::iptables::{Iptables, IptablesError, may_have_iptables_rules};
use self::nftables::Nftables;
use self::rules::Firewall;
use crate::config::FirewallDriver;
use crate::redirect::Mapping;

/// Why packet rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// nftables.
    #[error(transparent)]
    Nftables(#[from] crate::netlink::nft::NftError),
    /// iptables.
    #[error(transparent)]
    Iptables(#[from] IptablesError),
}

/// Puts packet rules into the kernel.
pub trait Driver {
    /// Makes the rules in the kernel those of `firewall`, whatever was there
    /// before. Connections that the new rules still allow are not disturbed.
    ///
    /// # Errors
    /// When the rules are refused; the old ones are in force then.
    fn replace(&mut self, firewall: &Firewall<'_>) -> Result<Replaced, DriverError>;

    /// Removes our rules; `false` when there were none.
    ///
    /// # Errors
    /// When that is refused.
    fn remove(&mut self) -> Result<bool, DriverError>;

    /// Whether our rules are there.
    ///
    /// # Errors
    /// When that cannot be asked.
    fn is_present(&mut self) -> Result<bool, DriverError>;

    /// Whether our rules are still what the last replacement made of them, as
    /// far as that can be told so cheaply that it may be asked every second. A
    /// driver that cannot says yes: rules that are missing are noticed when
    /// they are counted.
    ///
    /// # Errors
    /// When that cannot be asked.
    fn is_intact(&mut self) -> Result<bool, DriverError> {
        Ok(true)
    }

    /// What the rules counted.
    ///
    /// # Errors
    /// When that cannot be asked, or our rules are not there.
    fn counters(&mut self) -> Result<Counters, DriverError>;
}

/// The driver that the configuration asks for, in the network namespace of
/// the calling thread.
///
/// # Errors
/// When it cannot work here.
pub fn open(driver: FirewallDriver) -> Result<Box<dyn Driver>, DriverError> {
    match driver {
        FirewallDriver::Nftables => Ok(Box::new(Nftables::open()?)),
        FirewallDriver::Iptables => Ok(Box::new(Iptables::open()?)),
    }
}

/// Removes what the driver that is *not* configured left here in an earlier
/// run; `false` when there was nothing. No iptables binary, no rules of its.
///
/// # Errors
/// When that is refused.
pub fn remove_other(driver: FirewallDriver) -> Result<bool, DriverError> {
    let mut other: Box<dyn Driver> = match driver {
        FirewallDriver::Nftables if !may_have_iptables_rules() => return Ok(false),
        FirewallDriver::Nftables => match Iptables::open() {
            Ok(driver) => Box::new(driver),
            Err(IptablesError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        },
        FirewallDriver::Iptables => Box::new(Nftables::open()?),
    };
    Ok(other.is_present()? && other.remove()?)
}

/// What a replacement changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Replaced {
    /// Entries that were not there before.
    pub added: usize,
    /// Entries that are gone.
    pub removed: usize,
    /// Entries that stayed, with their counters.
    pub kept: usize,
}

/// Packets and bytes, both directions, IP headers included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// A mapping as the counters know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Flow {
    /// The port the client speaks to.
    pub port: Port,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Where the connection goes.
    pub target: IpAddr,
    /// The port there.
    pub target_port: Port,
}

impl From<&Mapping> for Flow {
    fn from(mapping: &Mapping) -> Self {
        Self {
            protocol: mapping.protocol(),
            port: mapping.port(),
            target: mapping.target(),
            target_port: mapping.target_port(),
        }
    }
}

/// What the rules in force have counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By mapping, sorted; survives a reload that keeps the mapping.
    pub mappings: Vec<(Flow, Count)>,
    /// By fallback; survives a reload that keeps it.
    pub fallbacks: Vec<(IpAddr, Count)>,
    /// Refused on the pod network's side, since the last reload.
    pub refused: Count,
    /// Dropped on the physical network's side, to the pod's sockets or into
    /// the cluster, since the last reload.
    pub dropped: Count,
}
