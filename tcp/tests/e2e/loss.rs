//! Text stays intact when packets are lost in both directions.

use std::io::Write as _;
use std::net::Shutdown;
use std::process::Stdio;

use synmill_lab::CLIENT_INTERFACE;

use crate::client::{MIB, Text, connect, curl, digest, echo, write_file};
use crate::harness::{Server, Stage};

/// Loses so many percent of what the client receives, and of what it sends. Sent packets are forwarded to nowhere: a plain
/// drop on the way out would be reported to the kernel's TCP, which is then no loss.
pub(crate) fn set(stage: &Stage, percent: u32) {
    let rules = format!(
        "table netdev loss {{
           chain in {{ type filter hook ingress device {CLIENT_INTERFACE} priority 0;
             meta l4proto tcp numgen random mod 100 < {percent} drop
           }}
           chain out {{ type filter hook egress device {CLIENT_INTERFACE} priority 0;
             meta l4proto tcp numgen random mod 100 < {percent} fwd to lo
           }}
         }}"
    );
    let mut nft = stage.client(&["nft", "-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "nft refused {rules}");
}

/// Ends it.
pub(crate) fn clear(stage: &Stage) {
    stage.ask(&["nft", "delete", "table", "netdev", "loss"]);
}

#[test]
fn a_body_survives_two_percent_loss() {
    let stage = Stage::new("lossy");
    let file = stage.file("body");
    let text = || Text::new(7, 20 * MIB);
    write_file(&file, &mut text());
    let service = format!("http-file:{}", file.display());
    let server = Server::start(&stage, &["--listen", "198.18.0.2:80", "--service", &service]);
    set(&stage, 2);
    assert_eq!(curl(&stage, "http://198.18.0.2/"), digest(text()));
    clear(&stage);
    assert!(server.stop(&stage).count("retrans_segs") > 0, "nothing was lost");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn an_upload_survives_two_percent_loss() {
    let stage = Stage::new("lossyup");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:9=discard"]);
    set(&stage, 2);
    let mut stream = connect(&stage, "198.18.0.2:9");
    std::io::copy(&mut Text::new(5, 20 * MIB), &mut stream).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(digest(&stream).bytes, 0);
    clear(&stage);
    assert!(stage.kernel_tcp("RetransSegs") > 0, "nothing was lost on the way to the server");
    let report = server.stop(&stage);
    assert_eq!((report.count("in_bytes"), report.closed()), (20 * MIB, 1));
}

#[test]
fn an_echo_survives_two_percent_loss() {
    let stage = Stage::new("lossyecho");
    let server = Server::start(&stage, &["--listen", "198.18.0.2:7=echo"]);
    set(&stage, 2);
    assert_eq!(echo(&connect(&stage, "198.18.0.2:7"), 3, 10 * MIB), digest(Text::new(3, 10 * MIB)));
    clear(&stage);
    let report = server.stop(&stage);
    assert!(report.count("retrans_segs") > 0, "nothing was lost on the way to the client");
    assert!(stage.kernel_tcp("RetransSegs") > 0, "nothing was lost on the way to the server");
}
