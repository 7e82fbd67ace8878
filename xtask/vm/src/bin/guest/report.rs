//! The serial port to the host.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use nix::sys::termios::{OutputFlags, SetArg, tcdrain, tcgetattr, tcsetattr};
use synmill_vm::guest::{Message, REPORT};

/// The guest's report: it goes to the console until /dev is mounted, and then to the host.
pub(crate) struct Reporter(RefCell<Option<File>>);

impl Reporter {
    /// Returns a report to the console.
    pub(crate) const fn open() -> Self {
        Self(RefCell::new(None))
    }

    /// Switches to the serial port.
    pub(crate) fn reopen(&self) -> Result<()> {
        let line = OpenOptions::new().write(true).open(REPORT).context(REPORT)?;
        // The terminal must not turn LF into CR LF.
        let mut settings = tcgetattr(&line).context(REPORT)?;
        settings.output_flags.remove(OutputFlags::OPOST);
        tcsetattr(&line, SetArg::TCSANOW, &settings).context(REPORT)?;
        self.0.replace(Some(line));
        Ok(())
    }

    /// Reports a line for the user.
    pub(crate) fn say(&self, line: &str) {
        // After a failure here there is no place to report it.
        let _ = match &mut *self.0.borrow_mut() {
            Some(file) => file.write_all(format!("{line}\n").as_bytes()),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// Reports a message for the host.
    pub(crate) fn tell(&self, message: &Message) -> Result<()> {
        self.say(&message.line()?);
        Ok(())
    }

    /// Waits until the port has sent everything: switching off would cut it.
    pub(crate) fn drain(&self) {
        if let Some(line) = &*self.0.borrow() {
            let _ = tcdrain(line);
        }
    }
}
