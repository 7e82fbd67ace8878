//! The serial line to the host. Knows lines; never what they mean.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::Write as _;

use anyhow::{Context as _, Result};
use nix::sys::termios::{OutputFlags, SetArg, tcdrain, tcgetattr, tcsetattr};
use synmill_vm::guest::{Message, REPORT};

/// Where the report goes: to the host once there are devices, to the console until then.
pub(crate) struct Reporter(RefCell<Option<File>>);

impl Reporter {
    /// One for the console.
    pub(crate) const fn open() -> Self {
        Self(RefCell::new(None))
    }

    /// Goes over to the serial line.
    pub(crate) fn reopen(&self) -> Result<()> {
        let line = OpenOptions::new().write(true).open(REPORT).context(REPORT)?;
        // Lines end with LF alone.
        let mut settings = tcgetattr(&line).context(REPORT)?;
        settings.output_flags.remove(OutputFlags::OPOST);
        tcsetattr(&line, SetArg::TCSANOW, &settings).context(REPORT)?;
        self.0.replace(Some(line));
        Ok(())
    }

    /// A line for the user.
    pub(crate) fn say(&self, line: &str) {
        // Where not even this can be written, there is nobody to tell.
        let _ = match &mut *self.0.borrow_mut() {
            Some(file) => file.write_all(format!("{line}\n").as_bytes()),
            None => writeln!(std::io::stderr(), "{line}"),
        };
    }

    /// A line for the host.
    pub(crate) fn tell(&self, message: &Message) -> Result<()> {
        self.say(&message.line()?);
        Ok(())
    }

    /// Waits until all of it has gone out: switching off would cut it.
    pub(crate) fn drain(&self) {
        if let Some(line) = &*self.0.borrow() {
            let _ = tcdrain(line);
        }
    }
}
