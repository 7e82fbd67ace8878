//! Debian's packages, in a cache outside the tree.
//!
//! ```text
//! ~/.cache/synmill/vm   lock
//!   apt/                lists and settings of this cache; the machine's own apt only tells its mirror and its proxy
//!   kernels/RELEASE/    the content of a kernel's packages
//!   qemu/               the content of QEMU's packages
//!   partial/            an unfinished folder, which a rename turns into one of these
//! ```

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::env;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use synmill_lab::{
    Interrupt, output,
    prerequisites::{DEBIAN_KEYS, program},
    wait,
};

use crate::guest::Version;

/// The suites of the kernels, oldest first.
const SUITES: [&str; 3] = [QEMU_SUITE, "trixie", "trixie-backports"];
/// The suite of QEMU: it is built for the oldest supported system.
const QEMU_SUITE: &str = "bookworm-backports";
/// Age at which lists are fetched again.
const LISTS_AGE: Duration = Duration::from_hours(24);
/// Longest wait for another command that fetches into the cache.
const LOCK_LIMIT: Duration = Duration::from_mins(30);
/// The first QEMU with an igb.
const IGB: Version = Version(8, 0);

/// One of Debian's builds of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// For clouds: small, with virtio as its only driver.
    Cloud,
    /// With every driver.
    Whole,
}

/// A kernel, unpacked.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    /// Its release, as `uname -r` prints it.
    pub(crate) release: String,
    /// The image that boots.
    pub(crate) image: PathBuf,
    /// `.../lib/modules/RELEASE`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// Finds a kernel in a folder with the content of its packages. Debian has moved these files more than once.
    fn find(root: &Path, release: &str) -> Result<Self> {
        let first = |places: [String; 2]| {
            let found = places.iter().map(|place| root.join(place)).find(|path| path.exists());
            found.with_context(|| {
                format!(
                    "the packages of kernel {release} have no {}: not a layout we know",
                    places.join(" or ")
                )
            })
        };
        let image = first([format!("usr/lib/modules/{release}/vmlinuz"), format!("boot/vmlinuz-{release}")])?;
        let kinds = first(["usr/lib", "lib"].map(|lib| format!("{lib}/modules/{release}/kernel")))?;
        let modules = kinds.parent().context("a path without a folder")?.to_owned();
        Ok(Self { release: release.to_owned(), image, modules })
    }
}

/// A QEMU and the places of its parts.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    /// The program to start.
    pub(crate) program: PathBuf,
    /// The value of `QEMU_MODULE_DIR`, if QEMU is not in its usual place.
    pub(crate) modules: Option<PathBuf>,
    /// The folders for `-L`.
    pub(crate) data: Vec<PathBuf>,
}

impl Qemu {
    /// Returns the installed QEMU.
    pub(crate) fn of_host() -> Self {
        Self { program: "qemu-system-x86_64".into(), modules: None, data: Vec::new() }
    }
}

/// The cache of packages.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    /// apt's sources; `None` if no mirror is known, which matters only for a fetch.
    sources: Option<String>,
    interrupt: Interrupt,
}

impl Store {
    /// Opens the cache, without fetching anything yet. The default mirror is the machine's own.
    pub(crate) fn open(interrupt: &Interrupt, mirror: Option<&str>) -> Result<Self> {
        ensure!(
            env::consts::ARCH == "x86_64",
            "`cargo xtask vm` boots x86-64 kernels with this machine's own programs: run it on an x86-64 machine, not on {}",
            env::consts::ARCH
        );
        let mirror = match mirror {
            Some(uri) => {
                ensure!(
                    uri.contains(':') && !uri.contains(char::is_whitespace),
                    "`--mirror {uri}` is not the URI of a Debian mirror"
                );
                Some(uri.to_owned())
            }
            None => machine_mirror(),
        };
        let sources = mirror.map(|mirror| {
            SUITES
                .map(|suite| format!("deb [target=Packages signed-by={DEBIAN_KEYS}] {mirror} {suite} main\n"))
                .concat()
        });
        let folder = cache()?;
        fs::create_dir_all(&folder)
            .with_context(|| format!("cannot make the cache folder {}", folder.display()))?;
        Ok(Self { folder, sources, interrupt: interrupt.clone() })
    }

    /// Returns Debian's newest kernel whose version starts so; the newest one in the cache if nothing can be fetched.
    pub(crate) fn kernel(&self, version: &str, flavour: Flavour) -> Result<Kernel> {
        let _lock = lock(&self.folder)?;
        let kernels = self.folder.join("kernels");
        self.fetch_kernel(&kernels, version, flavour).or_else(|error| {
            self.interrupt.check()?;
            let here = fs::read_dir(&kernels).into_iter().flatten().flatten();
            let here = here.filter_map(|entry| entry.file_name().into_string().ok());
            let Some(newest) = newest(here, version, flavour) else { return Err(error) };
            eprintln!("note: taking kernel {newest} from {}, since: {error:#}", kernels.display());
            Kernel::find(&kernels.join(&newest), &newest)
        })
    }

    fn fetch_kernel(&self, kernels: &Path, version: &str, flavour: Flavour) -> Result<Kernel> {
        let stale = !self.lists_are_fresh() || newest(self.offers()?.into_keys(), version, flavour).is_none();
        // If one suite has left the mirror, the others still serve.
        let refreshed = if stale { self.refresh() } else { Ok(()) };
        self.interrupt.check()?;
        let offers = self.offers()?;
        let Some(release) = newest(offers.keys().cloned(), version, flavour) else {
            refreshed?;
            let series = series(offers.keys(), flavour);
            bail!("there is no kernel `{version}` among Debian's; name one of {series} with --kernel");
        };
        let folder = kernels.join(&release);
        if !folder.exists() {
            self.fetch(&offers[&release], &folder, |root| Kernel::find(root, &release).map(drop))?;
        }
        Kernel::find(&folder, &release)
    }

    /// Returns the kernels in apt's lists.
    fn offers(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let names = output(self.apt("apt-cache")?.args(["pkgnames", "linux-"]))?;
        Ok(offers(&names.lines().collect()))
    }

    /// Returns a QEMU with an igb: the machine's own, or Debian's if that is too old.
    pub(crate) fn qemu(&self) -> Result<Qemu> {
        let own = program("qemu-system-x86_64")
            .context("QEMU is missing; install qemu-system-x86 (the name of Debian's package)")?;
        let own_version = version_of(&own)?;
        if own_version >= IGB {
            return Ok(Qemu { program: own, modules: None, data: Vec::new() });
        }
        let _lock = lock(&self.folder)?;
        let folder = self.folder.join("qemu");
        let program = Path::new("usr/bin/qemu-system-x86_64");
        if !folder.exists() {
            if !self.lists_are_fresh() {
                self.refresh()?;
            }
            let packages = ["x86", "common", "data"].map(|part| format!("qemu-system-{part}/{QEMU_SUITE}"));
            self.fetch(&packages, &folder, |root| {
                version_of(&root.join(program)).map(drop).with_context(|| {
                    let Version(major, minor) = own_version;
                    format!("this machine's QEMU {major}.{minor} has no igb, and Debian's does not run here: install QEMU 8.0 or newer")
                })
            })?;
        }
        Ok(Qemu {
            program: folder.join(program),
            modules: Some(folder.join("usr/lib/x86_64-linux-gnu/qemu")),
            data: vec![folder.join("usr/share/qemu"), "/usr/share/seabios".into()],
        })
    }

    /// Returns a command of one of apt's programs, with the cache's lists and settings.
    fn apt(&self, program: &str) -> Result<Command> {
        let apt = self.folder.join("apt");
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(apt.join(folder)).context("making a folder for apt")?;
        }
        let at = |file| apt.join(file).display().to_string();
        let settings = [
            ("Dir::State", at("state")),
            ("Dir::State::status", at("status")),
            ("Dir::Cache", at("cache")),
            ("Dir::Etc::sourcelist", at("sources.list")),
            ("Dir::Etc::sourceparts", "-".into()),
            ("APT::Architecture", "amd64".into()),
            // As root apt changes to a user who cannot write here.
            ("APT::Sandbox::User", "root".into()),
            // By default apt takes old lists, or none, for a success.
            ("APT::Update::Error-Mode", "any".into()),
            ("Acquire::Languages", "none".into()),
        ];
        // Other architectures, and the machine's own hooks around an update of its lists.
        let cleared =
            ["Architectures", "Update::Pre-Invoke", "Update::Post-Invoke", "Update::Post-Invoke-Success"];
        let mut text = cleared.map(|name| format!("#clear APT::{name};\n")).concat();
        for (name, value) in settings {
            text += &format!("{name} \"{value}\";\n");
        }
        let configuration = apt.join("apt.conf");
        for (file, text) in [
            ("apt.conf", &*text),
            ("status", ""),
            ("sources.list", self.sources.as_deref().unwrap_or_default()),
        ] {
            fs::write(apt.join(file), text).with_context(|| format!("cannot write {}", at(file)))?;
        }
        let mut command = Command::new(program);
        command.arg("-c").arg(configuration);
        Ok(command)
    }

    /// Returns the path of a file with the sources of the fetched lists.
    fn stamp(&self) -> PathBuf {
        self.folder.join("apt/fetched")
    }

    fn lists_are_fresh(&self) -> bool {
        let age = fs::metadata(self.stamp()).and_then(|stamp| stamp.modified());
        let young = age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < LISTS_AGE));
        young && fs::read_to_string(self.stamp()).ok() == self.sources
    }

    fn refresh(&self) -> Result<()> {
        let sources = self.sources.as_ref().context(
            "this machine's packages do not come from a Debian mirror; name one with --mirror URI, as apt's sources have it",
        )?;
        self.interrupt
            .run(self.apt("apt-get")?.args(["--quiet", "update"]))
            .map_err(|error| self.offline(error))?;
        fs::write(self.stamp(), sources).context("noting when lists were fetched")
    }

    /// Makes a folder with the content of packages, if `check` accepts it.
    fn fetch(&self, packages: &[String], into: &Path, check: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let partial = self.folder.join("partial");
        let _ = fs::remove_dir_all(&partial);
        let (archives, root) = (partial.join("archives"), partial.join("root"));
        for folder in [&archives, &root, &into.with_file_name("")] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let mut download = self.apt("apt-get")?;
        download.args(["--quiet", "download"]).args(packages).current_dir(&archives);
        self.interrupt.run(&mut download).map_err(|error| {
            // The mirror may have newer packages by now.
            let _ = fs::remove_file(self.stamp());
            self.offline(error)
        })?;
        for entry in fs::read_dir(&archives).context("reading what was fetched")? {
            let archive = entry.context("reading what was fetched")?.path();
            self.interrupt.run(Command::new("dpkg").arg("-x").arg(archive).arg(&root))?;
        }
        check(&root)?;
        fs::rename(&root, into).with_context(|| format!("cannot write {}", into.display()))?;
        fs::remove_dir_all(&partial).context("removing what was fetched")
    }

    fn offline(&self, error: anyhow::Error) -> anyhow::Error {
        if self.interrupt.check().is_err() {
            return error;
        }
        anyhow!(
            "Debian's packages cannot be fetched, for apt's reason above: see to the network, or name another mirror with --mirror \
             (what {} has needs none)",
            self.folder.display()
        )
    }
}

/// Locks a folder for this process until the lock is dropped.
pub(crate) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let what = format!("{} is free: another `cargo xtask vm` holds it", path.display());
    wait(&what, LOCK_LIMIT, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("locking {}", path.display())),
    })?;
    Ok(file)
}

/// Returns the folder of the cache.
fn cache() -> Result<PathBuf> {
    let folder = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let caches = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    Ok(caches.context("neither XDG_CACHE_HOME nor HOME names a folder for the cache")?.join("synmill/vm"))
}

/// Returns the mirror of the machine's own packages, if apt has one of Debian's.
fn machine_mirror() -> Option<String> {
    let mut ask = Command::new("apt-get");
    ask.args(["indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)", "Created-By: Packages"]);
    mirror(&output(&mut ask).ok()?).map(str::to_owned)
}

/// Returns Debian's archive among lines of `URI ORIGIN LABEL`; security updates and other archives have other labels.
fn mirror(targets: &str) -> Option<&str> {
    targets.lines().find_map(|line| line.strip_suffix(" Debian Debian"))
}

/// Returns the version that a QEMU prints.
fn version_of(qemu: &Path) -> Result<Version> {
    let said = output(Command::new(qemu).arg("--version"))?;
    let version = said.split_once("version ").map(|(_, version)| Version::of(version));
    version.with_context(|| format!("`{} --version` names none", qemu.display()))?
}

/// Returns the numbers of a kernel's release, if it is of this flavour.
fn numbers(release: &str, flavour: Flavour) -> Option<Vec<u32>> {
    let version = release.strip_suffix(match flavour {
        Flavour::Cloud => "-cloud-amd64",
        Flavour::Whole => "-amd64",
    })?;
    // Other flavours (-cloud, -rt), release candidates (~rc1) and packages that only name the newest kernel do not count.
    if version.contains(['-', '~']) || !version.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty())
        .map(|part| part.parse().ok())
        .collect()
}

/// Returns the newest of these releases whose version starts so; the prefix ends where a number ends.
fn newest(releases: impl Iterator<Item = String>, version: &str, flavour: Flavour) -> Option<String> {
    let starts = |release: &String| {
        release.strip_prefix(version).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    let wanted = releases.filter(starts).filter_map(|release| Some((numbers(&release, flavour)?, release)));
    wanted.max().map(|(_, release)| release)
}

/// Returns the list of all series, for the error about an unknown one.
fn series<'a>(releases: impl Iterator<Item = &'a String>, flavour: Flavour) -> String {
    let numbers = releases.filter_map(|release| numbers(release, flavour));
    let series: BTreeSet<Vec<u32>> = numbers.map(|numbers| numbers.into_iter().take(2).collect()).collect();
    let shown = series.iter().map(|series| series.iter().map(u32::to_string).collect::<Vec<_>>().join("."));
    shown.collect::<Vec<_>>().join(", ")
}

/// Returns the kernels for which all packages exist, by release, with their packages. Newer kernels come in several packages; while
/// Debian builds or removes one, some of them are missing.
fn offers(names: &HashSet<&str>) -> BTreeMap<String, Vec<String>> {
    let mut offers = BTreeMap::new();
    for name in names {
        let Some(release) = name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-"))
        else {
            continue;
        };
        let package = |part: &str| format!("linux-{part}-{release}");
        let has = |part: &str| names.contains(&*package(part));
        let parts: &[&str] = match (has("binary"), has("modules")) {
            (true, true) => &["base", "binary", "modules"],
            (false, false) => &["image"],
            _ => continue,
        };
        offers.insert(release.to_owned(), parts.iter().map(|part| package(part)).collect());
    }
    offers
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &str = "linux-image-6.12.107+deb13-amd64 linux-image-6.12.107+deb13-cloud-amd64 \
        linux-image-6.12.107+deb13-cloud-amd64-dbg linux-image-6.12.107+deb13-cloud-amd64-unsigned \
        linux-image-6.12.107+deb13-rt-amd64 linux-image-6.12.95+deb12-amd64 linux-image-6.12.90+deb12.1-cloud-amd64 \
        linux-image-6.1.99+deb13-amd64 linux-binary-7.1.13+deb13-amd64 linux-image-7.1.13+deb13-amd64 \
        linux-base-7.2.12+deb13-amd64 linux-binary-7.2.12+deb13-amd64 linux-modules-7.2.12+deb13-amd64 \
        linux-binary-7.2.9+deb13-amd64 linux-modules-7.2.9+deb13-amd64 linux-image-7.2.12+deb13-amd64 \
        linux-modules-7.3.4+deb13-amd64 linux-image-7.3.4+deb13-amd64-dbg linux-image-amd64 linux-image-cloud-amd64 linux-libc-dev";

    fn newest_of(version: &str, flavour: Flavour) -> Option<String> {
        newest(offers(&NAMES.split(' ').collect()).into_keys(), version, flavour)
    }

    #[test]
    fn the_newest_kernel_is_the_one_with_the_largest_numbers() {
        assert_eq!(newest_of("6.12", Flavour::Whole).unwrap(), "6.12.107+deb13-amd64");
        assert_eq!(newest_of("6.12", Flavour::Cloud).unwrap(), "6.12.107+deb13-cloud-amd64");
        assert_eq!(newest_of("6.12.90", Flavour::Cloud).unwrap(), "6.12.90+deb12.1-cloud-amd64");
        assert_eq!(newest_of("7.2", Flavour::Whole).unwrap(), "7.2.12+deb13-amd64");
        assert_eq!(newest_of("7.2.9", Flavour::Whole).unwrap(), "7.2.9+deb13-amd64");
        assert!(
            numbers("6.12.90+deb12.1-amd64", Flavour::Whole) > numbers("6.12.90+deb12-amd64", Flavour::Whole)
        );
    }

    #[test]
    fn a_version_ends_where_a_number_does() {
        assert_eq!(newest_of("6.1", Flavour::Whole).unwrap(), "6.1.99+deb13-amd64");
        assert_eq!(newest_of("7.2.1", Flavour::Whole), None);
        assert_eq!(newest_of("", Flavour::Whole), None);
    }

    #[test]
    fn parts_of_a_kernel_are_no_kernel() {
        assert_eq!(newest_of("7.1", Flavour::Whole), None);
        assert_eq!(newest_of("7.3", Flavour::Whole), None);
        let offers = offers(&NAMES.split(' ').collect());
        assert_eq!(
            offers["7.2.12+deb13-amd64"],
            ["base", "binary", "modules"].map(|part| format!("linux-{part}-7.2.12+deb13-amd64"))
        );
        assert_eq!(offers["6.12.95+deb12-amd64"], ["linux-image-6.12.95+deb12-amd64"]);
        assert_eq!(series(offers.keys(), Flavour::Whole), "6.1, 6.12, 7.2");
    }

    #[test]
    fn the_mirror_is_that_of_debians_own_archive() {
        let targets = "tor+https://a.example/x/ Other Debian\nhttps://b.example/debian-security/ Debian Debian-Security\n\
            https://c.example/debian/ Debian Backports Debian Backports\nhttps://d.example/debian/ Debian Debian\n";
        assert_eq!(mirror(targets), Some("https://d.example/debian/"));
        assert_eq!(mirror("https://e.example/ubuntu/ Ubuntu Ubuntu\n"), None);
    }
}
