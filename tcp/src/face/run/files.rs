//! The files that a run writes: checked before the attachment, and written without losing the old content.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// A file that is written whole at the end, or not at all.
#[derive(Debug)]
pub(super) struct Replacement {
    /// The path as given.
    path: PathBuf,
    /// The file that gets the text before it takes the path's place; `None` for a path that cannot be replaced, such as a pipe.
    beside: Option<PathBuf>,
}

impl Replacement {
    /// Checks that the file can be written, and leaves it as it is.
    pub(super) fn prepare(path: &Path) -> Result<Self, String> {
        check(path)?;
        if is_special(path) {
            return Ok(Self { path: path.into(), beside: None });
        }
        let beside = target(path).with_added_extension(format!("{}.part", std::process::id()));
        check(&beside)?;
        Ok(Self { path: path.into(), beside: Some(beside) })
    }

    /// Writes the file, or leaves it as it was and fails.
    pub(super) fn write(&self, text: &str) -> Result<(), String> {
        let written = match &self.beside {
            None => File::options().append(true).open(&self.path).and_then(|file| write_to(file, text)),
            Some(beside) => {
                let replaced = File::create_new(beside)
                    .and_then(|file| write_to(file, text))
                    .and_then(|()| fs::rename(beside, target(&self.path)));
                if replaced.is_err() {
                    // The first failure counts. There may be nothing to remove.
                    let _ = fs::remove_file(beside);
                }
                replaced
            }
        };
        written.map_err(|error| format!("writing {}: {error}", self.path.display()))
    }
}

fn write_to(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())
}

/// Returns the target of a symbolic link, which stays.
fn target(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.into())
}

/// Folders and names of files that are open already.
const OPEN: [&str; 4] = ["/dev/stdout", "/dev/stderr", "/dev/fd", "/proc"];

/// Returns whether another file cannot take the path's place: a pipe, a device, or an open file such as /dev/stdout.
fn is_special(path: &Path) -> bool {
    let is_open = || OPEN.iter().any(|names| path.starts_with(names));
    fs::metadata(path).is_ok_and(|there| !there.is_dir() && (!there.is_file() || is_open()))
}

/// Checks that `path` can be written, and leaves it as it is.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let checked = if is_special(path) {
        // Opening a pipe may wait, and its reader would see an end.
        Ok(())
    } else if path.exists() {
        File::options().append(true).open(path).map(drop)
    } else {
        File::create_new(path).and_then(|_| fs::remove_file(path))
    };
    checked.map_err(|error| refused(path, &error))
}

/// Creates the file, empty.
pub(super) fn create(path: &Path) -> Result<File, String> {
    File::create(path).map_err(|error| refused(path, &error))
}

fn refused(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}: give another path", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A new folder of the test's own, removed by the drop.
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
        assert!(replacement.write("new").unwrap_err().contains("run.json"));
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
            let line = Replacement::prepare(&path).unwrap_err();
            assert!(
                line.contains(&path.display().to_string()) && line.contains("give another path"),
                "{line}"
            );
        }
    }
}
