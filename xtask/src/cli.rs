//! The command line of `cargo xtask`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::play;

/// The project's commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    /// The command.
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Shows synmill at work in a lab of two namespaces, and measures it there. With arguments it runs `synmill serve` with them on a NIC.
    #[command(disable_help_flag = true)]
    Run {
        /// Options for `synmill serve`: `--interface IF --listen ADDR:PORT ...`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs every test; some take root.
    Test,
    /// Checks a change: format, lints, the order of the tree, documentation, tests, virtual machines, and a fresh XDP object.
    Ci {
        /// Leaves the tests out, if they have just run.
        #[arg(long)]
        except_tests: bool,
    },
    /// Checks the order of the source tree: no circles of imports, none that runs up, no long files.
    Tidy,
    /// Rebuilds the XDP object from its sources.
    Ebpf {
        /// Builds nothing, and fails if the committed object is older than its sources.
        #[arg(long)]
        check: bool,
        /// Writes the object to this path instead of its committed place.
        #[arg(long, value_name = "PATH", conflicts_with = "check")]
        output: Option<PathBuf>,
    },
    /// Measures the engine in memory, or synmill beside other servers in a lab, which takes root. Alone: the list of what there is.
    #[command(disable_help_flag = true)]
    Bench {
        /// A bench and its options; `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Builds the documentation and checks it: links, options, tests that it names, and its commands, which run in the lab.
    Book {
        /// Runs no command, which takes no root either.
        #[arg(long)]
        except_commands: bool,
    },
    /// Runs synmill on emulated NICs in virtual machines, with the drivers of any Debian kernel.
    Vm(synmill_vm::Vm),
    /// Builds a lab and keeps it, to try synmill in.
    #[command(subcommand)]
    Lab(play::Lab),
}
