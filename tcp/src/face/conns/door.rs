//! The socket's file: only its owner can use it, its name is the process's number, and it goes with the process.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use crate::host::launch::OwnFile;

/// The folder of the endpoints' sockets, `PID.sock` each.
pub const FOLDER: &str = "/run/synmill";
/// The listener's backlog. Further clients wait in connect.
const BACKLOG: i32 = 8;
/// Maximum time of a connect.
const CONNECT: Duration = Duration::from_secs(5);

/// A listening socket and its file, which only the owner can use. Dropping it removes the file.
#[derive(Debug)]
pub struct Door {
    pub(super) listener: UnixListener,
    path: PathBuf,
    file: Arc<OwnFile>,
}

impl Door {
    /// Listens at `PID.sock` in a folder, and makes the folder if it does not exist. Sockets of dead processes in it are removed.
    ///
    /// # Errors
    /// One line: what failed, and why.
    pub fn in_folder(folder: &Path) -> Result<Self, String> {
        let path = folder.join(format!("{}.sock", std::process::id()));
        make_folder(folder)?;
        remove_dead(folder);
        Self::made(&path, Some(folder)).or_else(|line| {
            // The last other endpoint may have removed the folder in between.
            if folder.exists() {
                return Err(line);
            }
            make_folder(folder).and_then(|()| Self::made(&path, Some(folder)))
        })
    }

    /// Listens at a path, and replaces a dead process's socket there.
    ///
    /// # Errors
    /// One line: what is wrong with the path.
    pub fn at(path: &Path) -> Result<Self, String> {
        Self::made(path, None)
    }

    fn made(path: &Path, folder: Option<&Path>) -> Result<Self, String> {
        let refused = |error: io::Error| format!("making the socket {}: {}", path.display(), reason(&error));
        let listener = match listen(path) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let is_other = fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket());
                if is_other || !is_dead(path) {
                    let what = if is_other { "exists and is no socket" } else { "is another endpoint's" };
                    return Err(format!("{} {what}: give another path", path.display()));
                }
                fs::remove_file(path).map_err(refused)?;
                listen(path)
            }
            listener => listener,
        };
        let listener = listener.map_err(refused)?;
        let file = OwnFile::new(path, folder).map_err(refused)?;
        Ok(Self { listener, path: path.into(), file: Arc::new(file) })
    }

    /// Returns the path of the socket's file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file, which a process must remove if it ends without dropping the door.
    #[must_use]
    pub fn file(&self) -> Arc<OwnFile> {
        Arc::clone(&self.file)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.file.remove();
    }
}

/// Creates a socket that only its owner can use, and binds it.
///
/// The mode is set before there is a file: on Linux the file inherits it from the socket (`unix_bind_bsd` of
/// net/unix/af_unix.c), whatever the umask is. So the file is never open to others, not even for a moment.
fn bind(path: &Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None)?));
    socket.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&address)?;
    Ok(socket)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    let socket = bind(path)?;
    socket.listen(BACKLOG).inspect_err(|_| {
        let _ = fs::remove_file(path);
    })?;
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

fn make_folder(folder: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.map_err(|error| format!("making {}: {error}", folder.display())),
    }
}

/// Connects, with a timeout for a full backlog.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(CONNECT))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Is this a socket without a listener?
fn is_dead(path: &Path) -> bool {
    connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// Returns the sockets in a folder with their processes' numbers, in order. A folder that does not exist has none.
///
/// # Errors
/// The folder cannot be read.
pub(super) fn sockets(folder: &Path) -> io::Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let number = |path: &Path| path.file_name()?.to_str()?.strip_suffix(".sock")?.parse().ok();
    let paths = entries.map_while(Result::ok).map(|entry| entry.path());
    let mut found: Vec<(u32, PathBuf)> = paths.filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort_unstable();
    Ok(found)
}

/// Removes the sockets of processes that were killed.
fn remove_dead(folder: &Path) {
    for (pid, path) in sockets(folder).unwrap_or_default() {
        // A process that is alive may not listen yet.
        if !Path::new(&format!("/proc/{pid}")).exists() && is_dead(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// Returns an error's text. The standard library's text for a long path is for programmers, so that one is replaced.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::InvalidInput => "a socket's path has at most 107 bytes: give a shorter one".into(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::super::tests::Folder;
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn it_is_the_owners_alone_and_goes_with_its_process() {
        let folder = Folder::new("door");
        let inner = folder.path().join("run");
        let door = Door::in_folder(&inner).unwrap();
        let path = inner.join(format!("{}.sock", std::process::id()));
        assert_eq!(door.path(), path);
        assert_eq!((mode(&inner), mode(&path)), (0o700, 0o600));
        assert_eq!(sockets(&inner).unwrap(), [(std::process::id(), path.clone())]);
        drop(connect(&path).unwrap());
        drop(door);
        assert!(!inner.exists());
        assert!(sockets(&inner).unwrap().is_empty());
    }

    #[test]
    fn the_mode_is_the_sockets_before_there_is_a_file() {
        let folder = Folder::new("mode");
        // Only bound: nothing has changed the file since.
        let path = folder.path().join("s");
        let _socket = bind(&path).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn the_dead_are_replaced_and_the_living_are_not() {
        let folder = Folder::new("dead");
        let path = folder.path().join("s");
        let door = Door::at(&path).unwrap();
        assert!(Door::at(&path).unwrap_err().contains("another endpoint's"));
        // As after kill -9: the file stays, without a listener.
        drop(UnixListener::bind(folder.path().join("t")).unwrap());
        let second = Door::at(&folder.path().join("t")).unwrap();
        assert_eq!(mode(second.path()), 0o600);
        fs::write(folder.path().join("u"), "text").unwrap();
        let line = Door::at(&folder.path().join("u")).unwrap_err();
        assert!(line.contains("no socket"), "{line}");
        assert_eq!(fs::read(folder.path().join("u")).unwrap(), b"text");
        drop(door);
        assert!(!path.exists() && second.path().exists());
    }

    #[test]
    fn what_another_put_in_its_place_stays() {
        let folder = Folder::new("place");
        let path = folder.path().join("s");
        let door = Door::at(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "text").unwrap();
        drop(door);
        assert_eq!(fs::read(&path).unwrap(), b"text");
    }

    #[test]
    fn the_sockets_of_dead_processes_are_removed_from_the_folder() {
        let folder = Folder::new("others");
        // Linux has no process of that number: the most is 2^22 (proc_sys_kernel(5)).
        let dead = folder.path().join("4194305.sock");
        drop(UnixListener::bind(&dead).unwrap());
        let living = folder.path().join("4194306.sock");
        let _listener = UnixListener::bind(&living).unwrap();
        fs::write(folder.path().join("notes.sock"), "").unwrap();
        let door = Door::in_folder(folder.path()).unwrap();
        assert!(!dead.exists() && living.exists() && folder.path().join("notes.sock").exists());
        drop(door);
        assert!(living.exists(), "the folder is not empty, and stays");
    }

    #[test]
    fn a_path_that_cannot_be_is_told_in_a_line() {
        let folder = Folder::new("wrong");
        let long = folder.path().join("s".repeat(108));
        let none = folder.path().join("none/s");
        for (path, part) in [(&long, "at most 107 bytes"), (&none, "No such file or directory")] {
            let line = Door::at(path).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(Door::in_folder(&folder.path().join("file")).unwrap_err().contains("File exists"));
        assert!(Door::in_folder(&folder.path().join("none/run")).unwrap_err().contains("No such file"));
    }
}
