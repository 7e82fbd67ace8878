//! `cargo xtask`: the project's commands, one file each.

mod bench;
mod book;
mod build;
mod ci;
mod cli;
mod ebpf;
mod play;
mod run;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Arguments, Command};

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Run { arguments } if arguments.is_empty() => run::demonstration(),
        Command::Run { arguments } => run::serve(&arguments),
        Command::Test => test::run(),
        Command::Ci { except_tests } => ci::run(except_tests),
        Command::Tidy => tidy::run(),
        Command::Ebpf { output: Some(output), .. } => ebpf::write(&output),
        Command::Ebpf { check, .. } => ebpf::run(check),
        Command::Bench { arguments } => bench::perform(&arguments),
        Command::Vm(command) => synmill_vm::perform(&command),
        Command::Book { except_commands } => book::run(except_commands),
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
