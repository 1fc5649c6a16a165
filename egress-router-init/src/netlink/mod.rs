//! The one place that speaks netlink.

pub mod conntrack;
pub mod nft;
pub mod route;
