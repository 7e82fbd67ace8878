//! The machine under the engine: from facts to a plan, from the plan to running workers, and back.
//!
//! - [`machine`]: the facts about the machine.
//! - [`nic`]: the facts about an interface, and the settings that a run makes and takes back.
//! - [`program`]: the XDP program.
//! - [`rings`]: the AF_XDP rings of a queue.
//! - [`plan`]: the plan of a run.
//! - [`launch`]: the run.

mod error;
pub mod launch;
pub mod machine;
pub mod nic;
pub mod plan;
pub mod program;
pub mod rings;

pub use error::Error;
