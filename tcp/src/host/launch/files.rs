//! The files that a run writes: looked at before anything is attached, written without losing what was there. Knows paths; never what
//! the files say.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Error;

/// A file that is written whole at the end, or not at all.
#[derive(Debug)]
pub(super) struct Replacement<'a> {
    /// As it was given.
    path: &'a Path,
    /// Where the text is written before it takes the path's place; `None` for what cannot be replaced, such as a pipe.
    beside: Option<PathBuf>,
}

impl<'a> Replacement<'a> {
    /// Makes sure that the file can be written. Leaves what is there as it is.
    pub(super) fn prepare(path: &'a Path) -> Result<Self, Error> {
        check(path)?;
        if is_special(path) {
            return Ok(Self { path, beside: None });
        }
        let beside = with_suffix(&target(path), &format!(".{}.part", std::process::id()));
        check(&beside)?;
        Ok(Self { path, beside: Some(beside) })
    }

    /// Writes it. When that fails, the file is as it was.
    pub(super) fn write(&self, text: &str) -> Result<(), Error> {
        let written = match &self.beside {
            None => File::options().append(true).open(self.path).and_then(|file| write_to(file, text)),
            Some(beside) => {
                let replaced = File::create_new(beside)
                    .and_then(|file| write_to(file, text))
                    .and_then(|()| fs::rename(beside, target(self.path)));
                if replaced.is_err() {
                    // It is the first failure that counts; perhaps there is nothing to remove.
                    let _ = fs::remove_file(beside);
                }
                replaced
            }
        };
        written.map_err(|error| Error(format!("writing {}: {error}", self.path.display())))
    }
}

fn write_to(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())
}

/// What a symbolic link stands for: the link stays.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// Where names stand for files that are open already.
const OPEN: [&str; 4] = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];

/// A pipe, a device, or a name for an open file such as /dev/stdout: nothing that another file may take the place of.
fn is_special(path: &Path) -> bool {
    let is_open = || OPEN.iter().any(|names| path.starts_with(names));
    fs::metadata(path).is_ok_and(|there| !there.is_dir() && (!there.is_file() || is_open()))
}

/// Makes sure that `path` can be written, without changing what is there.
pub(super) fn check(path: &Path) -> Result<(), Error> {
    let checked = if is_special(path) {
        // Opening a pipe can wait, and its reader would see an end.
        Ok(())
    } else if path.exists() {
        File::options().append(true).open(path).map(drop)
    } else {
        File::create_new(path).and_then(|_| fs::remove_file(path))
    };
    checked.map_err(|error| refused(path, &error))
}

/// The file, empty.
pub(super) fn create(path: &Path) -> Result<File, Error> {
    File::create(path).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &io::Error) -> Error {
    Error(format!("cannot write {}: {error}: give another path", path.display()))
}

/// A capture file of each worker's own: `FILE`, or `FILE.0`, `FILE.1` and so on for several.
pub(super) fn captures(path: &Path, workers: usize) -> Vec<PathBuf> {
    match workers {
        1 => vec![path.into()],
        _ => (0..workers).map(|number| with_suffix(path, &format!(".{number}"))).collect(),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new folder of the test's own; removed when dropped.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("synmill-files-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn an_old_report_stays_until_the_new_one_is_whole() {
        let folder = Folder::new("report");
        let path = folder.0.join("run.json");
        let replacement = Replacement::prepare(&path).unwrap();
        assert!(folder.names().is_empty(), "a look leaves nothing behind");
        replacement.write("old").unwrap();

        let replacement = Replacement::prepare(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        // Something stands where it is to be written first.
        fs::create_dir(replacement.beside.as_ref().unwrap()).unwrap();
        assert!(replacement.write("new").unwrap_err().to_string().contains("run.json"));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_dir(replacement.beside.as_ref().unwrap()).unwrap();
        replacement.write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(folder.names(), ["run.json"]);
    }

    #[test]
    fn a_link_to_a_report_stays_a_link() {
        let folder = Folder::new("link");
        let [path, link] = ["run.json", "last.json"].map(|name| folder.0.join(name));
        fs::write(&path, "old").unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Replacement::prepare(&link).unwrap().write("new").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        let null = Path::new("/dev/null");
        Replacement::prepare(null).unwrap().write("gone").unwrap();
        assert!(is_special(null) && !fs::metadata(null).unwrap().is_file());
    }

    #[test]
    fn a_file_in_memory_is_a_file_like_others() {
        let path = PathBuf::from(format!("/dev/shm/synmill-files-{}", std::process::id()));
        for text in ["old", "new"] {
            Replacement::prepare(&path).unwrap().write(text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_cannot_be_written_is_named() {
        let folder = Folder::new("refused");
        let nowhere = ["/proc/synmill-report", "/dev/fd/none"].map(PathBuf::from);
        for path in [folder.0.clone(), folder.0.join("none/run.json")].into_iter().chain(nowhere) {
            let line = Replacement::prepare(&path).unwrap_err().to_string();
            assert!(
                line.contains(&path.display().to_string()) && line.contains("give another path"),
                "{line}"
            );
        }
    }

    #[test]
    fn each_of_several_workers_has_its_own_capture() {
        assert_eq!(captures(Path::new("a.pcap"), 1), [PathBuf::from("a.pcap")]);
        let two = ["a.pcap.0", "a.pcap.1"].map(PathBuf::from);
        assert_eq!(captures(Path::new("a.pcap"), 2), two);
    }
}
