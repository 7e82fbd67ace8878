//! A file that must not outlive the process.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A file of this process, in a form that a signal handler can remove.
#[derive(Debug)]
pub struct OwnFile {
    path: CString,
    /// Device and inode: a file that another process has put in its place stays.
    file: (u64, u64),
    /// A folder that goes with the last file in it.
    folder: Option<CString>,
}

impl OwnFile {
    /// The file at `path`, and the folder that goes with the last file in it.
    ///
    /// # Errors
    /// There is no such file.
    pub fn new(path: &Path, folder: Option<&Path>) -> io::Result<Self> {
        let bytes = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::from);
        let path = bytes(path)?;
        let there = rustix::fs::lstat(path.as_c_str())?;
        Ok(Self { path, file: (there.st_dev, there.st_ino), folder: folder.map(bytes).transpose()? })
    }

    /// Removes the file if it is still this process's. Makes three system calls and does nothing else, so that a signal handler may call
    /// it.
    pub fn remove(&self) {
        let is_ours = rustix::fs::lstat(self.path.as_c_str())
            .is_ok_and(|there| (there.st_dev, there.st_ino) == self.file);
        if is_ours {
            // A failure has no listener here.
            let _ = rustix::fs::unlink(self.path.as_c_str());
        }
        if let Some(folder) = &self.folder {
            // Fails while there are other files in it.
            let _ = rustix::fs::rmdir(folder.as_c_str());
        }
    }
}
