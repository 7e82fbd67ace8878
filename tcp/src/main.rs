//! The `synmill` command: arguments -> configuration -> launch -> report.

use std::io::Write as _;
use std::process::ExitCode;

use synmill::cli::{self, Command, Stop};
use synmill::config::Config;
use synmill::launch;
use synmill::service::BuiltIn;

/// Exit statuses; a panic is 101.
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const ACCOUNTS_OPEN: u8 = 3;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli.command,
        Err(Stop::Text(text)) => {
            // Nobody need be listening.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(Stop::Usage(line)) => return fail(&line, USAGE),
    };
    let Command::Serve(options) = command;
    let config = match Config::new(*options, str::parse::<BuiltIn>) {
        Ok(config) => config,
        Err(line) => return fail(&line, USAGE),
    };
    match launch::serve(&config) {
        Ok(report) if report.accounts.closed => ExitCode::SUCCESS,
        Ok(report) => {
            let broken: Vec<&str> =
                report.accounts.laws.iter().filter(|law| !law.holds).map(|law| law.name).collect();
            fail(&format!("the accounts do not close: {}", broken.join(", ")), ACCOUNTS_OPEN)
        }
        Err(error) => fail(&error.to_string(), FAILED),
    }
}

fn fail(line: &str, status: u8) -> ExitCode {
    let _ = writeln!(std::io::stderr(), "error: {line}");
    ExitCode::from(status)
}
