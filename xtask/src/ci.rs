//! `cargo xtask ci`: what must hold before a change is taken.

use anyhow::Result;

use crate::process::{Interrupt, cargo, target};
use crate::{book, ebpf, prerequisites, test, vm};

/// Format, lints, documentation and tests, the engine's instructions beside those on record, real drivers in virtual machines, then the XDP
/// object rebuilt from its sources and its tests on the fresh one.
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
    interrupt.run(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "--deny", "warnings"]))?;
    interrupt.run(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "--deny warnings"))?;
    if !except_tests {
        test::tests(&interrupt)?;
    }
    book::perform(&interrupt, false)?;
    let instructions = ["bench", "--package", "synmill-benches", "--bench", "instructions", "--", "--check"];
    interrupt.run(&mut cargo(instructions))?;
    vm::continuous(&interrupt)?;

    prerequisites::ensure_bpf_linker(&interrupt)?;
    let fresh = target()?.join("fresh-steer.o");
    ebpf::write(&fresh)?;
    interrupt
        .run(cargo(["test", "--package", "synmill", "--test", "program"]).env("SYNMILL_EBPF_OBJECT", &fresh))
}
