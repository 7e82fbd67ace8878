//! The guest's first process, where it does not belong.

use std::process::Command;

#[test]
fn outside_of_a_guest_it_touches_nothing() {
    let output = Command::new(env!("CARGO_BIN_EXE_synmill-guest")).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cargo xtask vm"));
}
