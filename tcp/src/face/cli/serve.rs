//! The options of `synmill serve`.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use synmill_engine::service::BuiltIn;

use super::rings::Rings;
use super::values::{parse_address, parse_count, parse_duration};

/// The options of `synmill serve`, as given.
#[derive(Args, Clone, Debug)]
#[command(after_help = after())]
pub struct Serve {
    /// The interface, and the output.
    #[command(flatten)]
    pub rings: Rings,

    /// Address and port to listen on, and the service behind it; repeatable.
    /// IPv6 in brackets; 0.0.0.0 and `[::]` stand for any IPv4 and any IPv6 address
    #[arg(long, required = true, value_name = "ADDR:PORT[=SERVICE]", value_parser = parse_listen)]
    pub listen: Vec<Listen>,

    /// Service of each --listen that names none
    #[arg(long, value_name = "SERVICE", default_value = "http:1024")]
    pub service: String,

    /// Connections held at once, all workers together, TIME-WAIT included; K is 1000, M is 1000000
    #[arg(long, value_name = "COUNT", default_value = "1M", value_parser = parse_count)]
    pub max_connections: usize,

    /// Time that a closed connection stays in TIME-WAIT (2 MSL); ms, s, m or h
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub time_wait: Duration,

    /// Stop after this time; ms, s, m or h [default: at SIGINT, SIGTERM or SIGHUP]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub duration: Option<Duration>,

    /// Time for open connections to end after the stop, before they are reset; ms, s, m or h
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub drain: Duration,
}

/// Returns the help behind the options.
fn after() -> String {
    let services = BuiltIn::HELP.iter().map(|(syntax, help)| format!("  {syntax:<17}{help}\n"));
    format!("Services:\n{}{AFTER}", services.collect::<String>())
}

const AFTER: &str =
    "  SIZE is in bytes: K is 1024, M and G are powers of it; COUNT is a number: K is 1000, M its square

Examples:
  synmill serve --interface eth1 --listen 192.0.2.1:80
  synmill serve --interface eth1 --listen '[2001:db8::1]:7=echo' --listen 192.0.2.1:9=discard --duration 30s
  synmill serve --interface eth1 --listen 0.0.0.0:80 --service http:64 --queues 0-3 --cores 2-5 --json run.json

Exit status: 0 done, 1 a failure at run time, 2 wrong usage, 3 the final accounts do not close.";

/// The value of `--listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address and port; the unspecified address stands for every address of its family.
    pub address: SocketAddr,
    /// The service's text behind `=`.
    pub service: Option<String>,
}

fn parse_listen(text: &str) -> Result<Listen, String> {
    let (address, service) = match text.split_once('=') {
        Some((_, "")) => return Err("a service is missing after `=`".into()),
        Some((address, service)) => (address, Some(service.to_owned())),
        None => (text, None),
    };
    Ok(Listen { address: parse_address(address)?, service })
}
