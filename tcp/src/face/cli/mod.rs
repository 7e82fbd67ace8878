//! The command line as given: options, their help, and the text of values.

mod bench;
mod conns;
mod rings;
mod serve;
mod values;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

pub use bench::{Bench, Workload};
pub use conns::Conns;
pub use rings::{Rings, Steer};
pub use serve::{Listen, Serve};
pub use values::ControlSocket;

/// The `synmill` command.
#[derive(Debug, Parser)]
#[command(name = "synmill", version, about = "A TCP endpoint on AF_XDP", infer_subcommands = true)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Accept, answer and close TCP connections at the rate of the interface
    Serve(Box<Serve>),
    /// Open, use and close TCP connections at a rate, and measure them
    Bench(Box<Bench>),
    /// List the live connections of a running `serve` or `bench`
    Conns(Box<Conns>),
}

/// Reads the process's arguments.
///
/// # Errors
/// [`Stop`] if there is nothing to run: the user asked for help, or the usage is wrong.
pub fn parse<I, T>(arguments: I) -> Result<Cli, Stop>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    Cli::try_parse_from(arguments).map_err(|error| {
        if error.use_stderr() {
            Stop::Usage(one_line(&error))
        } else {
            Stop::Text(error.render().to_string())
        }
    })
}

/// Why there is nothing to run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// Help or version, to be printed to standard output as it is.
    #[error("{0}")]
    Text(String),
    /// One line for standard error: what is wrong and how to fix it.
    #[error("{0}")]
    Usage(String),
}

/// Returns clap's message without its lines of usage and hints.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let words: Vec<&str> = text
        .lines()
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"))
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    let line = words.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    match error.kind() {
        clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            "a command is missing: write `synmill serve ...`, `synmill bench ...`, `synmill conns`, or `synmill --help`".into()
        }
        clap::error::ErrorKind::ValueValidation | clap::error::ErrorKind::InvalidValue => line.into(),
        _ => format!("{line} (see `{} --help`)", command(&text)),
    }
}

/// Returns the command of a message's usage line.
fn command(message: &str) -> String {
    let usage = message.lines().find_map(|line| line.strip_prefix("Usage: ")).unwrap_or("synmill");
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    usage.split(' ').take_while(is_name).collect::<Vec<_>>().join(" ")
}
