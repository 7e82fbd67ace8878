//! `cargo xtask`: the project's own commands, one file each.

mod bench;
mod book;
mod ci;
mod play;
mod prerequisites;
mod process;
mod run;
mod test;
mod vm;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::ebpf;

/// The project's own commands.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows synmill at work in a lab of two namespaces, and measures it there; with arguments, `synmill serve` with them, on a real NIC.
    #[command(disable_help_flag = true)]
    Run {
        /// Passed on to `synmill serve`: `--interface IF --listen ADDR:PORT ...`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Runs every test; some need root.
    Test,
    /// What must hold before a change is taken: format, lints, tests, documentation, and a fresh XDP object.
    Ci {
        /// Leaves the tests out, for who has just run them.
        #[arg(long)]
        except_tests: bool,
    },
    /// Rebuilds the XDP object from its sources.
    Ebpf {
        /// Builds nothing: fails when the committed object is older than its sources.
        #[arg(long)]
        check: bool,
        /// Where the object goes, instead of its committed place.
        #[arg(long, value_name = "PATH", conflicts_with = "check")]
        output: Option<PathBuf>,
    },
    /// Measures the engine in memory, or synmill beside other servers in a lab, which takes root. Alone: the list of what there is.
    Bench(bench::Bench),
    /// Builds the documentation and checks it: links, options, tests that it names, and its commands, which run in the lab.
    Book {
        /// Runs no command, which takes no root either.
        #[arg(long)]
        except_commands: bool,
    },
    /// Runs synmill on emulated NICs in virtual machines, with the drivers of a kernel of your choice.
    Vm(vm::Vm),
    /// The lab, kept to play in.
    #[command(subcommand)]
    Lab(play::Lab),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { arguments } if arguments.is_empty() => run::demonstration(),
        Command::Run { arguments } => run::serve(&arguments),
        Command::Test => test::run(),
        Command::Ci { except_tests } => ci::run(except_tests),
        Command::Ebpf { output: Some(output), .. } => ebpf::write(&output),
        Command::Ebpf { check, .. } => ebpf::run(check),
        Command::Bench(command) => bench::perform(&command),
        Command::Book { except_commands } => book::run(except_commands),
        Command::Vm(command) => vm::perform(&command),
        Command::Lab(command) => play::perform(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
