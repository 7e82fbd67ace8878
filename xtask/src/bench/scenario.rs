//! A scenario: one question, as a file of benches/scenarios asks it. Knows what may be asked; never how it is measured.

use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;
use synmill_lab::{LabOptions, workspace};

use super::sample::Column;

/// The folder of the scenarios, in the workspace.
const FOLDER: &str = "benches/scenarios";

/// One question.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Scenario {
    /// A line above the table.
    pub(crate) title: String,
    /// What is to be known.
    pub(crate) question: String,
    /// Measurements of each case.
    #[serde(default = "five")]
    pub(crate) rounds: u32,
    /// Length of a measurement, of each case that has none of its own.
    #[serde(default = "five")]
    pub(crate) seconds: u32,
    #[serde(default)]
    pub(crate) lab: LabShape,
    /// Arguments of `synmill bench` in every case.
    #[serde(default)]
    pub(crate) generator: Vec<String>,
    /// The column that answers the question; ratios are of it.
    #[serde(default)]
    pub(crate) measure: Column,
    /// Columns to show besides those of every scenario.
    #[serde(default)]
    pub(crate) columns: Vec<Column>,
    /// Pairs of cases whose ratio is told, besides that of each case to the first in the same lab.
    #[serde(default)]
    pub(crate) ratio: Vec<[String; 2]>,
    /// Columns besides `measure` whose ratios are told.
    #[serde(default)]
    pub(crate) compare: Vec<Column>,
    /// Columns to draw [default: `measure`].
    #[serde(default)]
    plot: Vec<Column>,
    pub(crate) cases: Vec<Case>,
}

/// What is compared.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) peer: PeerKind,
    /// What the peer serves: `close`, `http:SIZE`, ... as `synmill serve` names it.
    pub(crate) service: String,
    /// Further arguments of the peer.
    #[serde(default)]
    pub(crate) arguments: Vec<String>,
    /// Cores of the peer.
    #[serde(default = "one")]
    pub(crate) cores: usize,
    /// The kernel's receiving for the peer runs on the peer's cores (RPS), too. A veth pair has it done on the sender's.
    #[serde(default)]
    pub(crate) own_cores: bool,
    /// Further arguments of `synmill bench`.
    #[serde(default)]
    pub(crate) generator: Vec<String>,
    /// Ask for this share of the connections a second that the first case established, after the cases without one.
    pub(crate) rate_share: Option<f64>,
    pub(crate) seconds: Option<u32>,
    /// A lab of its own, in place of the scenario's.
    lab: Option<LabShape>,
}

/// The server at the other end.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PeerKind {
    /// `synmill serve`.
    Serve,
    /// The kernel's TCP behind one epoll loop.
    Kernel,
    /// The stateless one: what the rings allow at most.
    Reflector,
    /// One worker of nginx.
    Nginx,
    /// Full frames sent to a socket that counts them in the generator's place: what the rings carry at most.
    Sender,
}

impl PeerKind {
    /// What one would type.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Serve => "synmill serve",
            Self::Kernel => "synmill-kernel-server",
            Self::Reflector => "synmill-reflector",
            Self::Nginx => "nginx",
            Self::Sender => "synmill-bulk send",
        }
    }
}

/// The lab of a scenario.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct LabShape {
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
    /// From the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let scenario: Self = toml::from_str(text)?;
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
        }
        for name in self.ratio.iter().flatten() {
            ensure!(names.contains(&name.as_str()), "ratio: there is no case `{name}`");
        }
        Ok(())
    }

    /// The columns that are shown: those of every scenario, and what this one asks for.
    pub(crate) fn shown(&self) -> Vec<Column> {
        let mut shown = Column::ALWAYS.to_vec();
        for &column in [&self.measure].into_iter().chain(&self.compare).chain(&self.columns) {
            if !shown.contains(&column) {
                shown.push(column);
            }
        }
        shown
    }

    /// The columns whose ratios are told.
    pub(crate) fn compared(&self) -> impl Iterator<Item = Column> {
        [self.measure].into_iter().chain(self.compare.iter().copied())
    }

    /// The columns that are drawn.
    pub(crate) fn plotted(&self) -> impl Iterator<Item = Column> {
        let usual = self.plot.is_empty().then_some(self.measure);
        usual.into_iter().chain(self.plot.iter().copied())
    }

    /// The lab that a case is measured in.
    pub(crate) fn lab_of(&self, case: &Case) -> LabShape {
        case.lab.unwrap_or(self.lab)
    }

    /// The pairs whose ratio is told: each case to the first, if that has the same lab, then the named ones; each once.
    pub(crate) fn ratios(&self) -> Vec<[&str; 2]> {
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
    /// A peer on one core, and nothing besides.
    pub(crate) fn plain(name: &str, peer: PeerKind, service: &str) -> Self {
        Self {
            own_cores: false,
            name: name.to_owned(),
            peer,
            service: service.to_owned(),
            arguments: Vec::new(),
            cores: 1,
            generator: Vec::new(),
            rate_share: None,
            seconds: None,
            lab: None,
        }
    }

    /// Of `http:SIZE`, SIZE when it is a plain number.
    pub(crate) fn http_bytes(&self) -> Option<usize> {
        self.service.strip_prefix("http:")?.parse().ok()
    }

    /// Of `source:SIZE`, SIZE when it is a plain number.
    pub(crate) fn source_bytes(&self) -> Option<u32> {
        self.service.strip_prefix("source:")?.parse().ok()
    }
}

/// A scenario and its file's name.
#[derive(Debug)]
pub(crate) struct Named {
    pub(crate) name: String,
    pub(crate) scenario: Scenario,
}

/// All of them, by name.
pub(crate) fn all() -> Result<Vec<Named>> {
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

fn read(path: &Path) -> Result<Named> {
    let Some(name) = path.file_stem().and_then(|stem| stem.to_str()) else { bail!("its name is not text") };
    let text = fs::read_to_string(path)?;
    let scenario = Scenario::parse(&text)?;
    Ok(Named { name: name.to_owned(), scenario })
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
        let scenario = Scenario::parse(PLAIN).unwrap();
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
        ] {
            let text = PLAIN.replace(old, new);
            assert_ne!(text, PLAIN, "{old}");
            let error = format!("{:#}", Scenario::parse(&text).unwrap_err());
            assert!(error.contains(said), "{old} -> {new}: {error}");
        }
    }

    #[test]
    fn the_scenarios_of_the_tree_are_right() {
        let names: Vec<String> = all().unwrap().into_iter().map(|named| named.name).collect();
        assert!(names.contains(&"lab".to_owned()), "{names:?}");
    }
}
