//! The socket's file: made so that nobody else may ever come in, found by its process, removed at the end. Knows paths; never what is
//! said through it.

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

/// Where endpoints have their sockets: `PID.sock` each.
pub const FOLDER: &str = "/run/synmill";
/// Clients that wait for their turn, at most; further ones wait for a place.
const WAITING: i32 = 8;
/// How long a client waits for a place.
const PLACE: Duration = Duration::from_secs(5);

/// A socket that listens, and its file: the owner may use it and nobody else. The file goes with it.
#[derive(Debug)]
pub struct Door {
    pub(super) listener: UnixListener,
    path: PathBuf,
    file: Arc<OwnFile>,
}

impl Door {
    /// At `PID.sock` in a folder, which is made if it is not there. What dead processes left there is removed.
    ///
    /// # Errors
    /// One line: what cannot be made, and why.
    pub fn in_folder(folder: &Path) -> Result<Self, String> {
        let path = folder.join(format!("{}.sock", std::process::id()));
        make_folder(folder)?;
        remove_dead(folder);
        Self::made(&path, Some(folder)).or_else(|line| {
            // The last of the others may just have taken the folder along.
            if folder.exists() {
                return Err(line);
            }
            make_folder(folder).and_then(|()| Self::made(&path, Some(folder)))
        })
    }

    /// At a path. A dead process's socket there is replaced.
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
                match fs::symlink_metadata(path) {
                    Ok(there) if !there.file_type().is_socket() => {
                        return Err(format!("{} is there, and no socket: give another path", path.display()));
                    }
                    _ if !is_dead(path) => {
                        return Err(format!("{} is another endpoint's: give another path", path.display()));
                    }
                    _ => {}
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

    /// Its file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file, which a process that ends without dropping this must remove.
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

/// Binds and listens. The mode is set before there is a file: on Linux the file takes it over from the socket (`unix_bind_bsd` of
/// net/unix/af_unix.c), whatever the process's umask, so that it is at no time more open.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let address = SockAddr::unix(path)?;
    let socket: OwnedFd = Socket::new(Domain::UNIX, Type::STREAM, None)?.into();
    let socket = File::from(socket);
    socket.set_permissions(Permissions::from_mode(0o600))?;
    let socket = Socket::from(OwnedFd::from(socket));
    socket.bind(&address)?;
    if let Err(error) = socket.listen(WAITING) {
        let _ = fs::remove_file(path);
        return Err(error);
    }
    Ok(UnixListener::from(OwnedFd::from(socket)))
}

fn make_folder(folder: &Path) -> Result<(), String> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(()),
        made => made.map_err(|error| format!("making {}: {error}", folder.display())),
    }
}

/// Connects, and does not wait for ever where many do.
pub(super) fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_write_timeout(Some(PLACE))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
}

/// Is it a socket that nobody listens at?
fn is_dead(path: &Path) -> bool {
    connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}

/// The sockets in a folder by their processes' numbers, in order. A folder that is not there has none.
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

/// Removes what processes that were killed left behind.
fn remove_dead(folder: &Path) {
    for (pid, path) in sockets(folder).unwrap_or_default() {
        // One that lives may be about to listen.
        if !Path::new(&format!("/proc/{pid}")).exists() && is_dead(&path) {
            let _ = fs::remove_file(path);
        }
    }
}

/// An error's text; of the one that the standard library words for programmers, another.
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
        // Bound only: nothing has changed the file since.
        let path = folder.path().join("s");
        let socket = File::from(OwnedFd::from(Socket::new(Domain::UNIX, Type::STREAM, None).unwrap()));
        socket.set_permissions(Permissions::from_mode(0o600)).unwrap();
        let socket = Socket::from(OwnedFd::from(socket));
        socket.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn the_dead_are_replaced_and_the_living_are_not() {
        let folder = Folder::new("dead");
        let path = folder.path().join("s");
        let door = Door::at(&path).unwrap();
        assert!(Door::at(&path).unwrap_err().contains("another endpoint's"));
        // As after kill -9: the file stays, and nobody listens.
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
        for (path, part) in
            [(&long, "at most 107 bytes"), (&folder.path().join("none/s"), "No such file or directory")]
        {
            let line = Door::at(path).unwrap_err();
            assert!(line.contains(part) && !line.contains('\n'), "{line}");
        }
        fs::write(folder.path().join("file"), "").unwrap();
        assert!(Door::in_folder(&folder.path().join("file")).unwrap_err().contains("File exists"));
        assert!(Door::in_folder(&folder.path().join("none/run")).unwrap_err().contains("No such file"));
    }
}
