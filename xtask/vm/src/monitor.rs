//! QEMU's monitor in its protocol (QMP): the commands that a guest may send, and their answers.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::guest::{NICS, WIRES};

/// Longest wait for an answer: QEMU starts slowly on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// The commands for the monitor, from the host and from the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "execute", content = "arguments", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Opens the dialogue: QEMU refuses every command before it.
    QmpCapabilities,
    /// Plugs a cable in, or pulls it out.
    SetLink { name: &'static str, up: bool },
    /// Unplugs a NIC.
    DeviceDel { id: &'static str },
}

impl Command {
    /// Reads a guest's command, which is in the words of QEMU's monitor for people.
    pub(crate) fn of_guest(asked: &str) -> Result<Self> {
        let one_of = |known: [&'static str; 2], name: &str| known.into_iter().find(|own| *own == name);
        let words: Vec<&str> = asked.split_whitespace().collect();
        let command = match words[..] {
            ["set_link", wire, state @ ("on" | "off")] => {
                one_of(WIRES, wire).map(|name| Self::SetLink { name, up: state == "on" })
            }
            ["device_del", nic] => one_of(NICS, nic).map(|id| Self::DeviceDel { id }),
            _ => None,
        };
        command.context("a guest may send `set_link WIRE on|off` and `device_del NIC`")
    }
}

/// A line from QEMU. The greeting and events have neither field.
#[derive(Debug, Deserialize)]
struct Reply {
    r#return: Option<serde_json::Value>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    desc: String,
}

/// The connection to the monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    replies: BufReader<UnixStream>,
}

impl Monitor {
    /// Waits for QEMU, whose `-qmp stdio` is the other end of the socket.
    pub(crate) fn greet(socket: UnixStream) -> Result<Self> {
        socket.set_read_timeout(Some(LIMIT)).context("preparing the monitor's socket")?;
        let mut monitor = Self { replies: BufReader::new(socket) };
        monitor.execute(Command::QmpCapabilities)?;
        Ok(monitor)
    }

    /// Executes a command and waits for its answer; an error holds QEMU's own text.
    pub(crate) fn execute(&mut self, command: Command) -> Result<()> {
        let line = serde_json::to_string(&command).context("writing a command for the monitor")? + "\n";
        self.replies.get_mut().write_all(line.as_bytes()).context("QEMU's monitor has gone")?;
        loop {
            let mut line = String::new();
            if self.replies.read_line(&mut line).context("QEMU's monitor does not answer")? == 0 {
                bail!("QEMU ended before its monitor answered");
            }
            let reply: Reply = serde_json::from_str(&line)
                .with_context(|| format!("QEMU's monitor said `{}`", line.trim()))?;
            if let Some(Refusal { desc }) = reply.error {
                bail!("QEMU refused: {desc}");
            }
            if reply.r#return.is_some() {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_ask_for_its_own_wires_and_nics_only() {
        let written = |asked| serde_json::to_string(&Command::of_guest(asked).unwrap()).unwrap();
        assert_eq!(
            written("set_link wire-server off"),
            r#"{"execute":"set_link","arguments":{"name":"wire-server","up":false}}"#
        );
        assert_eq!(
            written("device_del nic-client"),
            r#"{"execute":"device_del","arguments":{"id":"nic-client"}}"#
        );
        for asked in [
            "",
            "quit",
            "set_link wire-server",
            "set_link hub0 on",
            "device_del wire-server",
            "device_del nic-server now",
        ] {
            assert!(Command::of_guest(asked).is_err(), "{asked}");
        }
    }

    #[test]
    fn greeting_and_events_are_no_answers_and_a_refusal_is_told_in_qemu_s_words() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let said = [
            r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": []}}"#,
            r#"{"return": {}}"#,
            r#"{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "NIC_RX_FILTER_CHANGED", "data": {}}"#,
            r#"{"return": {}}"#,
            r#"{"error": {"class": "DeviceNotFound", "desc": "Device 'nic-server' not found"}}"#,
        ];
        (&theirs).write_all((said.join("\n") + "\n").as_bytes()).unwrap();
        let mut monitor = Monitor::greet(ours).unwrap();
        monitor.execute(Command::SetLink { name: WIRES[1], up: true }).unwrap();
        let error = monitor.execute(Command::DeviceDel { id: NICS[1] }).unwrap_err().to_string();
        assert!(error.ends_with("Device 'nic-server' not found"), "{error}");
        drop(theirs);
        assert!(monitor.execute(Command::DeviceDel { id: NICS[1] }).is_err());
    }
}
