//! Ethtool's questions and orders to an interface's driver.
//!
//! They go by ioctl: netlink has no flow rules, and sets the RSS table only since Linux 6.17. No crate has either.
//!
//! - [`request`]: the structures, and the ioctl.
//! - [`facts`]: driver, queues and offloads.
//! - [`hash`]: how the NIC spreads packets over its queues by a hash (RSS).
//! - [`rules`]: which packets a flow rule sends elsewhere.

pub(crate) mod facts;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod hash;
pub(crate) mod request;
pub(crate) mod rules;
