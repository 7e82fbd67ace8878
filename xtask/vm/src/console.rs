//! The output of a guest's serial ports: whole lines as they come, and the kernel's report of a fault.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};

/// Parts of a kernel's report of a fault. The kernel's command line turns off the watchdogs, which would report a busy host's stalls.
const FAULTS: [&str; 6] =
    ["Kernel panic", "Oops", "BUG:", "kernel BUG at", "Call Trace:", "general protection fault"];
/// Lines of a console that are kept, and the part of them that may follow the first line of a fault.
const SHOWN: usize = 20;
const AFTER_FAULT: usize = 16;

/// A file that another process writes, and this one reads as it grows.
#[derive(Debug)]
pub(crate) struct Lines {
    file: File,
    rest: Vec<u8>,
}

impl Lines {
    /// Makes an empty file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let context = || format!("making {}", path.display());
        File::create(path).with_context(context)?;
        Ok(Self { file: File::open(path).with_context(context)?, rest: Vec::new() })
    }

    /// Returns the lines that have been completed since the last read.
    pub(crate) fn read(&mut self) -> Result<Vec<String>> {
        self.file.read_to_end(&mut self.rest).context("reading what the guest wrote")?;
        let whole = self.rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        Ok(String::from_utf8_lossy(&lines).lines().map(plain).collect())
    }

    /// Returns the remaining lines; the last one need not be complete.
    pub(crate) fn finish(&mut self) -> Result<Vec<String>> {
        let mut lines = self.read()?;
        if !self.rest.is_empty() {
            lines.push(plain(&String::from_utf8_lossy(&self.rest)));
            self.rest.clear();
        }
        Ok(lines)
    }
}

/// Returns a line without the escape sequences of a terminal.
fn plain(line: &str) -> String {
    let mut plain = String::with_capacity(line.len());
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        if character == '\x1b' {
            // One character follows; after `[` parameters follow, and a character from `@` to `~` ends them.
            if characters.next() == Some('[') {
                while characters.next().is_some_and(|next| !('@'..='~').contains(&next)) {}
            }
        } else if !character.is_control() || character == '\t' {
            plain.push(character);
        }
    }
    plain
}

/// A kernel's console: the first line of a fault with the lines around it; without a fault its last lines.
#[derive(Debug)]
pub(crate) struct Console {
    lines: Lines,
    last: VecDeque<String>,
    fault: Option<String>,
    room: usize,
}

impl Console {
    /// Makes its empty file.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Self {
            lines: Lines::create(path)?,
            last: VecDeque::with_capacity(SHOWN),
            fault: None,
            room: AFTER_FAULT,
        })
    }

    /// Reads the new lines, and returns the first line of a fault, if there has been one.
    pub(crate) fn read(&mut self) -> Result<Option<&str>> {
        let lines = self.lines.read()?;
        Ok(self.take(lines))
    }

    /// Reads the remaining lines, and returns the first line of a fault, if there has been one.
    pub(crate) fn finish(&mut self) -> Result<Option<&str>> {
        let lines = self.lines.finish()?;
        Ok(self.take(lines))
    }

    /// Returns the lines that are kept.
    pub(crate) fn last(&self) -> impl Iterator<Item = &str> {
        self.last.iter().map(String::as_str)
    }

    fn take(&mut self, lines: Vec<String>) -> Option<&str> {
        for line in lines {
            if self.fault.is_some() {
                let Some(room) = self.room.checked_sub(1) else { break };
                self.room = room;
            } else if FAULTS.iter().any(|fault| line.contains(fault)) {
                self.fault = Some(line.trim().to_owned());
            }
            if self.last.len() == SHOWN {
                self.last.pop_front();
            }
            self.last.push_back(line);
        }
        self.fault.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_come_whole_and_plain() {
        let folder = std::env::temp_dir().join(format!("synmill-console-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("report");
        let mut lines = Lines::create(&path).unwrap();
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        assert!(lines.read().unwrap().is_empty());
        writer.write_all(b"\x1bc\x1b[?7l\x1b[2Jtest pair ... ok\r\n\r\n  at \xff\t1\ntes").unwrap();
        assert_eq!(lines.read().unwrap(), ["test pair ... ok", "", "  at \u{fffd}\t1"]);
        writer.write_all(b"t ladder\x1b[").unwrap();
        assert!(lines.read().unwrap().is_empty());
        assert_eq!(lines.finish().unwrap(), ["test ladder"]);
        assert!(lines.finish().unwrap().is_empty());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_console_keeps_its_first_fault_and_what_is_around_it() {
        let folder = std::env::temp_dir().join(format!("synmill-fault-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("console");
        let mut console = Console::create(&path).unwrap();
        let before: Vec<_> = (0..30).map(|line| format!("before {line}")).collect();
        fs::write(&path, before.join("\n") + "\n").unwrap();
        assert_eq!(console.read().unwrap(), None);
        assert!(console.last().eq(&before[10..]));
        let mut writer = OpenOptions::new().append(true).open(&path).unwrap();
        writer.write_all(b"[    2.0] Oops: 0002 [#1] SMP\r\n").unwrap();
        for line in 0..30 {
            writeln!(writer, "after {line}").unwrap();
        }
        writer.write_all(b"[    3.0] Kernel panic - not syncing").unwrap();
        assert_eq!(console.read().unwrap(), Some("[    2.0] Oops: 0002 [#1] SMP"));
        assert_eq!(console.finish().unwrap(), Some("[    2.0] Oops: 0002 [#1] SMP"));
        let last: Vec<_> = console.last().collect();
        assert_eq!(
            last[..5],
            ["before 27", "before 28", "before 29", "[    2.0] Oops: 0002 [#1] SMP", "after 0"]
        );
        assert_eq!(last[SHOWN - 1], "after 15");
        fs::remove_dir_all(&folder).unwrap();
    }
}
