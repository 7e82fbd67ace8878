//! `cargo xtask lab`: the lab, kept to play in.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;

use anyhow::{Context as _, Result};
use clap::Subcommand;
use synmill_lab::{
    CLIENT_INTERFACE, CLIENT_V4, CLIENT_V6, Interrupt, LabOptions, SERVER_INTERFACE, SERVER_V4, SERVER_V6,
    Side, prerequisites,
};

use crate::build;

/// What to do with the lab.
#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Builds it, in place of one that is up, and the responder to run in it.
    Up {
        /// RX and TX queues of each end.
        #[arg(long, default_value_t = LabOptions::default().queues, value_parser = clap::value_parser!(u32).range(1..=64))]
        queues: u32,
        /// MTU of both ends, in bytes.
        #[arg(long, default_value_t = LabOptions::default().mtu, value_parser = clap::value_parser!(u32).range(1280..=65535))]
        mtu: u32,
    },
    /// Removes it, and ends what runs in it.
    Down,
    /// Runs a command in it: on the client's side, if not told otherwise.
    Exec {
        /// On the server's side.
        #[arg(long)]
        server: bool,
        /// The command and its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// Does it.
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
