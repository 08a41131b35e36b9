//! File systems of our own, small ones, where we may mount.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Uid;
use tempfile::TempDir;

/// A file system of two megabytes in memory; gone when dropped.
pub struct Small(TempDir);

impl Small {
    pub fn mount() -> Option<Self> {
        let at = tempfile::tempdir().expect("a temporary directory");
        let mounted = Uid::effective().is_root()
            && mount(
                &["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"],
                at.path(),
            );
        if !mounted {
            eprintln!("skipped: a small disk needs the right to mount one");
            return None;
        }
        Some(Self(at))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Uses up the space, and tells the file that holds it.
    pub fn fill(&self) -> PathBuf {
        use std::io::Write;
        let ballast = self.path().join("ballast");
        let mut file = fs::File::create(&ballast).expect("create the ballast");
        while file.write_all(&[0; 512]).is_ok() {}
        ballast
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: a connection that is still closing must not leave the mount behind.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

/// Runs `mount` on `at`, and tells whether it could.
pub fn mount(arguments: &[&str], at: &Path) -> bool {
    let run = Command::new("mount").args(arguments).arg(at).status();
    run.is_ok_and(|status| status.success())
}
