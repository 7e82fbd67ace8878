//! The machine under the engine: from facts to a plan, from the plan to running workers, and back.
//!
//! - [`machine`]: what the machine is.
//! - [`nic`]: what an interface is, and the settings of a NIC that a run makes and takes back.
//! - [`program`]: the XDP program.
//! - [`rings`]: the AF_XDP rings of a queue.
//! - [`plan`]: what a run will do.
//! - [`launch`]: does it.

mod error;
pub mod launch;
pub mod machine;
pub mod nic;
pub mod plan;
pub mod program;
pub mod rings;

pub use error::Error;
