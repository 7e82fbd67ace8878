//! `cargo xtask lab`: a lab that stays up.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use synmill_lab::{
    CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, Interrupt, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6,
    Side, prerequisites,
};

use crate::build;

/// The commands of the lab.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Builds the lab, instead of one that is up, and synmill.
    Up {
        /// RX and TX queues of each end.
        #[arg(long, default_value_t = LabOptions::default().queues, value_parser = clap::value_parser!(u32).range(1..=64))]
        queues: u32,
        /// MTU of both ends, in bytes.
        #[arg(long, default_value_t = LabOptions::default().mtu, value_parser = clap::value_parser!(u32).range(1280..=65535))]
        mtu: u32,
    },
    /// Removes the lab, and ends the processes in it.
    Down,
    /// Runs a command in the lab, by default at the client's end.
    Exec {
        /// Runs it at the server's end.
        #[arg(long)]
        server: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Runs a command of the lab.
pub(crate) fn perform(command: Lab) -> Result<()> {
    prerequisites::root(match &command {
        Lab::Up { .. } => "lab up",
        Lab::Down => "lab down",
        Lab::Exec { .. } => "lab exec ...",
    })?;
    let interrupt = Interrupt::install()?;
    prerequisites::ensure(&interrupt, &[prerequisites::LAB])?;
    let prefix = synmill_lab::Lab::DEFAULT_PREFIX;
    match command {
        Lab::Up { queues, mtu } => {
            prerequisites::ensure(&interrupt, &[prerequisites::BUILD])?;
            let binary = build::synmill(&interrupt)?;
            let lab = synmill_lab::Lab::up(prefix, LabOptions { queues, mtu, ..LabOptions::default() })?;
            let (client, server) = (lab.namespace(Side::Client), lab.namespace(Side::Server));
            println!("{client}: {CLIENT_INTERFACE}, {CLIENT_V4}, {CLIENT_V6}");
            println!("{server}: {SERVER_INTERFACE}, {SERVER_V4}, {SERVER_V6}");
            println!("the responder: {}", binary.display());
            println!(
                "cargo xtask lab exec [--server] -- COMMAND runs a command there; cargo xtask lab down removes it"
            );
            lab.keep();
            Ok(())
        }
        Lab::Down => synmill_lab::Lab::down(prefix),
        Lab::Exec { server, command } => {
            let side = if server { Side::Server } else { Side::Client };
            let error = synmill_lab::Lab::attach(prefix)?.exec(side, command).exec();
            Err(error).context("cannot start `ip netns exec`")
        }
    }
}
