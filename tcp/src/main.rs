//! The `synmill` command: from arguments to checked options, a run, and its exit status.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use synmill::face::cli::{self, Command, Stop};
use synmill::face::config::{Bench, Conns, Serve};
use synmill::face::conns::{client, door, step_back};
use synmill::face::run;
use synmill::host::Error;
use synmill_engine::service::BuiltIn;

/// Exit statuses. A panic's is 101.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// The run ended, and is not to be relied on: its accounts do not close, or it is not as requested.
const NOT_AS_ASKED: u8 = 3;

/// A line for standard error, and the exit status.
struct Failure(String, u8);

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error.to_string(), FAILED)
    }
}

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(Stop::Text(text)) => {
            // A closed standard output is no failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Stop::Usage(line)) => return fail(&Failure(line, USAGE)),
    };
    let ended = match command {
        Command::Serve(options) => serve(*options),
        Command::Bench(options) => bench(*options),
        Command::Conns(options) => conns(*options),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn fail(Failure(line, status): &Failure) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {line}");
    ExitCode::from(*status)
}

fn serve(options: cli::Serve) -> Result<(), Failure> {
    let config = Serve::new(options, str::parse::<BuiltIn>).map_err(|line| Failure(line, USAGE))?;
    let accounts = run::serve(&config)?.accounts;
    if accounts.closed {
        return Ok(());
    }
    let broken: Vec<&str> = accounts.laws.iter().filter(|law| !law.holds).map(|law| law.name).collect();
    Err(Failure(format!("the accounts do not close: {}", broken.join(", ")), NOT_AS_ASKED))
}

fn conns(options: cli::Conns) -> Result<(), Failure> {
    let conns = Conns::new(options).map_err(|line| Failure(line, USAGE))?;
    step_back();
    let folder = Path::new(door::FOLDER);
    client::list(folder, &conns.whom, &conns.request, conns.json, client::SILENCE, std::io::stdout().lock())
        .map_err(|line| Failure(line, FAILED))
}

fn bench(options: cli::Bench) -> Result<(), Failure> {
    let config = Bench::new(options).map_err(|line| Failure(line, USAGE))?;
    let verdict = run::bench(&config)?.verdict;
    if verdict.ok {
        return Ok(());
    }
    Err(Failure(format!("the run is not what was asked for: {}", verdict.problems.join("; ")), NOT_AS_ASKED))
}
