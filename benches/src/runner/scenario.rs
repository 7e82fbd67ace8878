//! Scenarios: the questions that the files of benches/scenarios ask.

use std::ffi::OsStr;
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use synmill_lab::{LabOptions, workspace};

use super::figures::Column;

/// The folder of the scenarios, in the workspace.
const FOLDER: &str = "benches/scenarios";

/// One question.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Scenario {
    /// The name of its file.
    #[serde(skip)]
    pub(super) name: String,
    /// The line above the table.
    pub(super) title: String,
    pub(super) question: String,
    /// Measurements of each case.
    #[serde(default = "five")]
    pub(super) rounds: u32,
    /// Length of a measurement, for cases without a length of their own.
    #[serde(default = "five")]
    pub(super) seconds: u32,
    #[serde(default)]
    lab: LabShape,
    #[serde(default)]
    client: ClientKind,
    /// Arguments of the client in every case.
    #[serde(default)]
    pub(super) generator: Vec<String>,
    /// The column that answers the question; ratios are of it.
    #[serde(default)]
    measure: Column,
    /// Further columns of the table.
    #[serde(default)]
    columns: Vec<Column>,
    /// Pairs of cases whose ratio is printed, besides that of each case to the first one in the same lab.
    #[serde(default)]
    ratio: Vec<[String; 2]>,
    /// Further columns whose ratios are printed.
    #[serde(default)]
    compare: Vec<Column>,
    /// Columns of the plot [default: `measure`].
    #[serde(default)]
    plot: Vec<Column>,
    pub(super) cases: Vec<Case>,
}

/// One server under one client.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) peer: PeerKind,
    /// The server's service, as `synmill serve` names it: `close`, `http:SIZE`, ...
    pub(super) service: String,
    /// Further arguments of the server.
    #[serde(default)]
    pub(super) arguments: Vec<String>,
    /// Cores of the server.
    #[serde(default = "one")]
    pub(super) cores: usize,
    /// Whether the kernel receives for the server on the server's cores (RPS). On a veth pair it does so on the sender's core.
    #[serde(default)]
    pub(super) own_cores: bool,
    /// Further arguments of the client.
    #[serde(default)]
    pub(super) generator: Vec<String>,
    /// Asks for this share of the connections/s that the first case established, after the cases without a share.
    pub(super) rate_share: Option<f64>,
    pub(super) seconds: Option<u32>,
    /// A lab of its own, instead of the scenario's.
    lab: Option<LabShape>,
}

/// A server.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum PeerKind {
    /// `synmill serve`.
    #[default]
    Serve,
    /// A server on the kernel's TCP with epoll.
    Kernel,
    /// A reflector without state: the most that the rings allow.
    Reflector,
    /// nginx with one worker.
    Nginx,
    /// A sender of full frames without TCP: the most that the rings carry.
    Sender,
}

impl PeerKind {
    /// Returns the command that one types.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Serve => "synmill serve",
            Self::Kernel => "synmill-kernel-server",
            Self::Reflector => "synmill-reflector",
            Self::Nginx => "nginx",
            Self::Sender => "synmill-bulk send",
        }
    }
}

/// A client.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(super) enum ClientKind {
    /// `synmill bench`.
    #[default]
    Generator,
    /// A socket that counts the frames of [`PeerKind::Sender`], whose client it always is.
    #[serde(skip)]
    Receiver,
    /// wrk.
    Wrk,
}

/// The lab of a scenario.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct LabShape {
    queues: u32,
    mtu: u32,
}

impl Default for LabShape {
    fn default() -> Self {
        let LabOptions { queues, mtu, .. } = LabOptions::default();
        Self { queues, mtu }
    }
}

impl From<LabShape> for LabOptions {
    fn from(LabShape { queues, mtu }: LabShape) -> Self {
        Self { queues, mtu, ..Self::default() }
    }
}

impl fmt::Display for LabShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "over {} queue(s) at MTU {}", self.queues, self.mtu)
    }
}

const fn five() -> u32 {
    5
}

const fn one() -> usize {
    1
}

impl Scenario {
    /// Parses the text of the file of this name.
    pub(super) fn parse(name: &str, text: &str) -> Result<Self> {
        let scenario = Self { name: name.to_owned(), ..toml::from_str(text)? };
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<()> {
        let names: Vec<&str> = self.cases.iter().map(|case| case.name.as_str()).collect();
        let first = self.cases.first().context("it has no cases")?;
        ensure!(self.rounds > 0 && self.seconds > 0, "rounds and seconds begin at 1");
        ensure!(first.rate_share.is_none(), "the first case has no case before it to take a rate-share of");
        for (at, case) in self.cases.iter().enumerate() {
            let name = &case.name;
            ensure!(!names[..at].contains(&name.as_str()), "two cases are named `{name}`");
            ensure!(case.cores > 0 && case.seconds != Some(0), "cores and seconds of `{name}` begin at 1");
            if let Some(share) = case.rate_share {
                ensure!(share > 0.0 && share <= 1.0, "the rate-share of `{name}` lies above 0 and up to 1");
            }
            let known = match case.peer {
                PeerKind::Serve | PeerKind::Kernel => true,
                PeerKind::Reflector => case.service == "close" || case.http_bytes().is_some(),
                PeerKind::Nginx => case.http_bytes().is_some(),
                PeerKind::Sender => case.service == "frames",
            };
            ensure!(known, "the peer of `{name}` cannot serve `{}`", case.service);
            let known = self.client_of(case) != ClientKind::Wrk || case.http_bytes().is_some();
            ensure!(known, "wrk requests http:SIZE, and `{name}` serves `{}`", case.service);
        }
        for name in self.ratio.iter().flatten() {
            ensure!(names.contains(&name.as_str()), "ratio: there is no case `{name}`");
        }
        Ok(())
    }

    /// Returns the client of a case.
    pub(super) fn client_of(&self, case: &Case) -> ClientKind {
        if case.peer == PeerKind::Sender { ClientKind::Receiver } else { self.client }
    }

    /// Returns the client's command that one types, with the arguments of every case.
    pub(super) fn client_shown(&self) -> String {
        let name = if self.client == ClientKind::Wrk { "wrk" } else { "synmill bench" };
        format!("{name} ... {}", self.generator.join(" "))
    }

    /// Whether the scenario runs programs of other projects.
    pub(super) fn has_rivals(&self) -> bool {
        self.client == ClientKind::Wrk || self.cases.iter().any(|case| case.peer == PeerKind::Nginx)
    }

    /// Returns the columns of the table.
    pub(super) fn shown(&self) -> Vec<Column> {
        let mut shown = match self.client {
            ClientKind::Wrk => Column::BY_WRK.to_vec(),
            ClientKind::Generator | ClientKind::Receiver => Column::BY_GENERATOR.to_vec(),
        };
        for &column in [&self.measure].into_iter().chain(&self.compare).chain(&self.columns) {
            if !shown.contains(&column) {
                shown.push(column);
            }
        }
        shown
    }

    /// Returns the columns whose ratios are printed.
    pub(super) fn compared(&self) -> impl Iterator<Item = Column> {
        [self.measure].into_iter().chain(self.compare.iter().copied())
    }

    /// Returns the columns of the plot.
    pub(super) fn plotted(&self) -> impl Iterator<Item = Column> {
        let usual = self.plot.is_empty().then_some(self.measure);
        usual.into_iter().chain(self.plot.iter().copied())
    }

    /// Returns the lab of a case.
    pub(super) fn lab_of(&self, case: &Case) -> LabShape {
        case.lab.unwrap_or(self.lab)
    }

    /// Returns the pairs whose ratio is printed: each case and the first one, if both have the same lab, then `ratio`. Each comes once.
    pub(super) fn ratios(&self) -> Vec<[&str; 2]> {
        let (first, others) = (&self.cases[0], &self.cases[1..]);
        let beside = others.iter().filter(|case| self.lab_of(case) == self.lab_of(first));
        let to_first = beside.map(|case| [case.name.as_str(), first.name.as_str()]);
        let named = self.ratio.iter().map(|[over, under]| [over.as_str(), under.as_str()]);
        let mut pairs = Vec::new();
        for pair in to_first.chain(named) {
            if !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }
}

impl Case {
    /// Returns a case of a server on one core, with the defaults of a file.
    pub(super) fn plain(name: &str, peer: PeerKind, service: &str) -> Self {
        Self { name: name.to_owned(), peer, service: service.to_owned(), cores: 1, ..Self::default() }
    }

    /// Returns SIZE of `http:SIZE`, if it is a plain number.
    pub(super) fn http_bytes(&self) -> Option<usize> {
        self.service.strip_prefix("http:")?.parse().ok()
    }

    /// Returns SIZE of `source:SIZE`, if it is a plain number.
    pub(super) fn source_bytes(&self) -> Option<u32> {
        self.service.strip_prefix("source:")?.parse().ok()
    }
}

/// Returns all scenarios, sorted by name.
pub(super) fn all() -> Result<Vec<Scenario>> {
    let folder = workspace().join(FOLDER);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            found.push(read(&path).with_context(|| path.display().to_string())?);
        }
    }
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn read(path: &Path) -> Result<Scenario> {
    let name = path.file_stem().and_then(OsStr::to_str).context("its name is not text")?;
    Scenario::parse(name, &fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "
title = 'Rate'
question = 'How many?'
generator = ['--rate', 'max']
ratio = [['serve', 'kernel'], ['serve', 'reflector']]
[lab]
queues = 4
[[cases]]
name = 'kernel'
peer = 'kernel'
service = 'close'
[[cases]]
name = 'reflector'
peer = 'reflector'
service = 'http:64'
[[cases]]
name = 'serve'
peer = 'serve'
service = 'close'
lab = { queues = 2, mtu = 3498 }
arguments = ['--workers', '2']
rate-share = 0.5
seconds = 60
";

    #[test]
    fn a_scenario_says_what_it_wants() {
        let scenario = Scenario::parse("plain", PLAIN).unwrap();
        assert_eq!((scenario.rounds, scenario.seconds, scenario.measure), (5, 5, Column::default()));
        let labs = [0, 2].map(|at| LabOptions::from(scenario.lab_of(&scenario.cases[at])));
        let of = |queues, mtu| LabOptions { queues, mtu, checksum_offload: false };
        assert_eq!(labs, [of(4, 1500), of(2, 3498)]);
        assert!(scenario.plotted().eq([Column::ConnectionsPerS]));
        let serve = &scenario.cases[2];
        assert_eq!(
            (serve.peer, serve.cores, serve.rate_share, serve.seconds),
            (PeerKind::Serve, 1, Some(0.5), Some(60))
        );
        assert_eq!(scenario.cases[1].http_bytes(), Some(64));
        let want = [["reflector", "kernel"], ["serve", "kernel"], ["serve", "reflector"]];
        assert_eq!(scenario.ratios(), want);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (old, new, said) in [
            ("queues", "rings", "rings"),
            ("peer = 'serve'", "peer = 'apache'", "apache"),
            ("service = 'http:64'", "service = 'echo'", "cannot serve `echo`"),
            ("peer = 'reflector'", "peer = 'sender'", "cannot serve `http:64`"),
            ("name = 'serve'", "name = 'kernel'", "two cases are named `kernel`"),
            ("['serve', 'reflector']", "['serve', 'wrk']", "no case `wrk`"),
            ("rate-share = 0.5", "rate-share = 2.0", "rate-share of `serve`"),
            ("seconds = 60", "seconds = 0", "seconds of `serve`"),
            ("title = 'Rate'", "", "title"),
            ("generator =", "measure = 'speed'\ngenerator =", "speed"),
            ("generator =", "client = 'wrk'\ngenerator =", "`kernel` serves `close`"),
        ] {
            let text = PLAIN.replace(old, new);
            assert_ne!(text, PLAIN, "{old}");
            let error = format!("{:#}", Scenario::parse("wrong", &text).unwrap_err());
            assert!(error.contains(said), "{old} -> {new}: {error}");
        }
    }

    #[test]
    fn the_scenarios_of_the_tree_are_right() {
        let names: Vec<String> = all().unwrap().into_iter().map(|scenario| scenario.name).collect();
        assert!(names.contains(&"lab".to_owned()), "{names:?}");
    }
}
