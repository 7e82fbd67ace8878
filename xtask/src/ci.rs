//! `cargo xtask ci`: the checks of a change.

use anyhow::Result;
use synmill_lab::{Interrupt, cargo, prerequisites, target};

use crate::{book, ebpf, test, tidy};

/// Checks format, lints, the order of the tree, documentation and tests, then the engine's instructions against the recorded ones, then
/// drivers in virtual machines, and last a fresh XDP object and its tests.
pub(crate) fn run(except_tests: bool) -> Result<()> {
    prerequisites::root("ci")?;
    let interrupt = Interrupt::install()?;
    let needs = [
        prerequisites::BUILD,
        prerequisites::LAB,
        prerequisites::TESTS,
        prerequisites::INSTRUCTIONS,
        prerequisites::EBPF,
    ];
    prerequisites::ensure(&interrupt, &needs)?;

    interrupt.run(&mut cargo(["fmt", "--all", "--check"]))?;
    tidy::run()?;
    interrupt.run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    interrupt.run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
    if !except_tests {
        test::tests(&interrupt)?;
    }
    book::perform(&interrupt, false)?;
    let instructions = ["bench", "--package", "synmill-benches", "--bench", "instructions", "--", "--check"];
    interrupt.run(&mut cargo(instructions))?;
    synmill_vm::continuous(&interrupt)?;

    prerequisites::ensure_bpf_linker(&interrupt)?;
    let fresh = target()?.join("fresh-steer.o");
    ebpf::write(&fresh)?;
    interrupt
        .run(cargo(["test", "--package", "synmill", "--test", "program"]).env("SYNMILL_EBPF_OBJECT", &fresh))
}
