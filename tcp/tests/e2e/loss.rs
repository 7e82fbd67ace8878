//! Text stays intact although packets are lost in both directions.

use std::net::Shutdown;

use synmill_lab::Side;

use crate::client::{MIB, Text, connect, curl, digest, echo, write_file};
use crate::harness::Stage;

/// Loses so many percent of the TCP packets that an end receives, and of those that it sends. Sent packets are forwarded to lo: the
/// kernel would tell its TCP of a plain drop, which would then be no loss.
pub(crate) fn set(stage: &Stage, side: Side, percent: u32) {
    let interface = side.interface();
    let rules = format!(
        "table netdev loss {{
           chain in {{ type filter hook ingress device {interface} priority 0;
             meta l4proto tcp numgen random mod 100 < {percent} drop
           }}
           chain out {{ type filter hook egress device {interface} priority 0;
             meta l4proto tcp numgen random mod 100 < {percent} fwd to lo
           }}
         }}"
    );
    stage.rules(side, &rules);
}

/// Ends the client's loss.
pub(crate) fn clear(stage: &Stage) {
    stage.ask("nft delete table netdev loss");
}

#[test]
fn a_body_survives_two_percent_loss() {
    let stage = Stage::new("lossy");
    let file = stage.file("body");
    let text = || Text::new(7, 20 * MIB);
    write_file(&file, &mut text());
    let service = format!("http-file:{}", file.display());
    let server = stage.serve(&["--listen", "198.18.0.2:80", "--service", &service]);
    set(&stage, Side::Client, 2);
    assert_eq!(curl(&stage, "http://198.18.0.2/"), digest(text()));
    clear(&stage);
    assert!(server.stop().count("retrans_segs") > 0, "nothing was lost");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn an_upload_survives_two_percent_loss() {
    let stage = Stage::new("lossyup");
    let server = stage.serve("--listen 198.18.0.2:9=discard");
    set(&stage, Side::Client, 2);
    let mut stream = connect(&stage, "198.18.0.2:9");
    std::io::copy(&mut Text::new(5, 20 * MIB), &mut stream).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(digest(&stream).bytes, 0);
    clear(&stage);
    assert!(stage.kernel_tcp(Side::Client, "RetransSegs") > 0, "nothing was lost on the way to the server");
    let report = server.stop();
    assert_eq!((report.count("in_bytes"), report.closed()), (20 * MIB, 1));
}

#[test]
fn an_echo_survives_two_percent_loss() {
    let stage = Stage::new("lossyecho");
    let server = stage.serve("--listen 198.18.0.2:7=echo");
    set(&stage, Side::Client, 2);
    echo(&stage, "198.18.0.2:7", 3, 10 * MIB);
    clear(&stage);
    let report = server.stop();
    assert!(report.count("retrans_segs") > 0, "nothing was lost on the way to the client");
    assert!(stage.kernel_tcp(Side::Client, "RetransSegs") > 0, "nothing was lost on the way to the server");
}
