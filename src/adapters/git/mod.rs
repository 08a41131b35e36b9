//! Plain configurations in a git repository, one file per device: a bare one in `.git` of a folder
//! of its own, so that git finds it there and no working tree has to be kept in step.
//!
//! A commit writes five objects whatever the number of devices: the text, the trees of its bucket,
//! its folder and the root, and itself. It becomes visible when the branch moves, by compare-and-set.
//! Nothing is kept between calls: the repository is the operator's, who may repack it, or replace it,
//! at any time.

mod error;
mod making;
mod names;
mod trees;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use gix::ObjectId;
use gix::objs::Commit;

use crate::domain::Timestamp;
use crate::domain::device::DeviceId;

pub use error::GitError;
pub use names::{FilePath, tenant_folder};
use trees::{Head, advance, find, head, put};

/// The branch that we write.
const BRANCH: &str = "refs/heads/main";
/// How often a commit is made anew because somebody else moved the branch. Each time, one of the
/// contenders has succeeded.
const MAX_ROUNDS: u32 = 16;
/// How often objects are written, before it counts as trouble that they cannot be.
const WRITE_ROUNDS: u32 = 16;

/// A mirror in a folder.
#[derive(Clone, Debug)]
pub struct GitMirror {
    folder: PathBuf,
    author: String,
}

/// What the mirror has of a device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// Where its file is.
    pub path: FilePath,
    /// Which text it holds.
    pub text: TextId,
}

/// Identifies a text in the mirror.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TextId(ObjectId);

/// What to commit.
#[derive(Clone, Copy)]
pub struct Change<'a> {
    /// The device.
    pub device: DeviceId,
    /// Where its file is from now on.
    pub path: &'a FilePath,
    /// Its configuration.
    pub text: &'a str,
    /// One line.
    pub message: &'a str,
    /// When the router had that configuration.
    pub at: Timestamp,
}

impl GitMirror {
    /// A mirror in `folder`, whose commits are by mikrotik-backup on the machine `host`. Looks at
    /// nothing yet.
    pub fn new(folder: PathBuf, host: &str) -> Self {
        Self {
            folder,
            author: host.to_owned(),
        }
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What it has of `device`. Looks into the folder of `path` first; only for a device that is not
    /// there, the others.
    ///
    /// # Errors
    /// [`GitError`] when the repository cannot be read.
    pub fn find(&self, device: DeviceId, path: &FilePath) -> Result<Option<Kept>, GitError> {
        let operation = || format!("look for the file of device {device}");
        let repository = self.open()?;
        let failed = |error| GitError::of(operation(), &self.folder)(error);
        match head(&repository).map_err(failed)? {
            Some(head) => find(&repository, head.tree, device, &path.folder).map_err(failed),
            None => Ok(None),
        }
    }

    /// The text of a file, if it is one.
    ///
    /// # Errors
    /// [`GitError`] when the repository cannot be read.
    pub fn text(&self, id: TextId) -> Result<String, GitError> {
        let failed = GitError::of("read a file", &self.folder);
        let repository = self.open()?;
        let mut blob = repository.find_blob(id.0).map_err(failed)?;
        Ok(String::from_utf8(blob.take_data())
            .unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned()))
    }

    /// Commits `change`, unless nothing would change; tells whether it did.
    ///
    /// # Errors
    /// [`GitError`]; the mirror is as it was before, then.
    pub fn commit(&self, change: Change<'_>) -> Result<bool, GitError> {
        let operation = || format!("commit a change of device {}", change.device);
        let mut round = 0;
        loop {
            round += 1;
            // Anew each time: what was read may have moved into a pack.
            let repository = self.open()?;
            let parent = head(&repository).map_err(GitError::of(operation(), &self.folder))?;
            let made = match self.write(&repository, parent.as_ref(), change) {
                Ok(made) => made,
                // A folder that `git gc` found empty goes while a file is on its way into it.
                Err(_) if round < WRITE_ROUNDS => continue,
                Err(error) => return Err(GitError::of(operation(), &self.folder)(error)),
            };
            let Some((commit, objects)) = made else {
                return Ok(false);
            };
            self.settle(&repository, &objects)?;
            let Err(source) = advance(&repository, parent.as_ref(), commit) else {
                self.close_branch();
                return Ok(true);
            };
            let now = head(&repository).map_err(GitError::of(operation(), &self.folder))?;
            let moved = now.map(|head| head.commit) != parent.map(|head| head.commit);
            if !moved || round >= MAX_ROUNDS {
                return Err(self.not_moved(operation(), source));
            }
        }
    }

    fn open(&self) -> Result<gix::Repository, GitError> {
        // Of no user's settings, and none of what the environment says.
        let options = gix::open::Options::isolated().open_path_as_is(true);
        let opened = gix::ThreadSafeRepository::open_opts(self.folder.join(".git"), options);
        let opened = opened.map_err(GitError::of("open the repository", &self.folder))?;
        Ok(opened.to_thread_local())
    }

    /// Writes what `change` needs, and tells the new commit and all objects; `None` when it changes
    /// nothing.
    fn write(
        &self,
        repository: &gix::Repository,
        parent: Option<&Head>,
        change: Change<'_>,
    ) -> gix::Result<Option<(ObjectId, Vec<ObjectId>)>> {
        let tree = parent.map(|head| head.tree);
        let kept = match tree {
            Some(tree) => find(repository, tree, change.device, &change.path.folder)?,
            None => None,
        };
        let text = repository.write_blob(change.text)?.detach();
        if kept
            == Some(Kept {
                path: change.path.clone(),
                text: TextId(text),
            })
        {
            return Ok(None);
        }
        let mut objects = vec![text];
        let moved = kept
            .map(|kept| kept.path)
            .filter(|path| path != change.path);
        let mut tree = tree;
        if let Some(old) = moved {
            tree = put(repository, tree, &old.components(), None, &mut objects)?;
        }
        let tree = put(
            repository,
            tree,
            &change.path.components(),
            Some(text),
            &mut objects,
        )?;
        let Some(tree) = tree else { return Ok(None) };
        let at = change.at.unix_timestamp();
        // Git's walks by date need times that never go back; the author's time is the exact one.
        let committed = parent.map_or(at, |parent| parent.seconds.max(at));
        let signature = |seconds| gix::actor::Signature {
            name: "mikrotik-backup".into(),
            email: format!("mikrotik-backup@{}", self.author).into(),
            time: gix::date::Time { seconds, offset: 0 },
        };
        let commit = repository.write_object(&Commit {
            tree,
            parents: parent.iter().map(|parent| parent.commit).collect(),
            author: signature(at),
            committer: signature(committed),
            encoding: None,
            message: format!("{}\n", change.message).into(),
            extra_headers: Vec::new(),
        })?;
        let commit = commit.detach();
        objects.push(commit);
        Ok(Some((commit, objects)))
    }

    /// Makes sure that `objects` are on the disk, before the branch leads to them, and that nobody
    /// else reads them.
    fn settle(&self, repository: &gix::Repository, objects: &[ObjectId]) -> Result<(), GitError> {
        let place = repository.git_dir().join("objects");
        let mut folders = BTreeSet::new();
        for id in objects {
            let id = id.to_string();
            let folder = place.join(&id[..2]);
            let file = folder.join(&id[2..]);
            let done = fs::File::open(&file).and_then(|open| {
                open.sync_all()?;
                open.set_permissions(fs::Permissions::from_mode(0o400))
            });
            match done {
                Ok(()) => drop(folders.insert(folder)),
                // It was there before, and is in a pack.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(GitError::io("write to the disk", &file)(error)),
            }
        }
        for folder in folders.iter().chain([&place]) {
            match fs::File::open(folder).and_then(|open| open.sync_all()) {
                // Its objects are in a pack by now, which git has synced.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                synced => synced.map_err(GitError::io("write to the disk", folder))?,
            }
        }
        Ok(())
    }

    /// The branch has moved: what is left is best effort.
    fn close_branch(&self) {
        let branch = self.folder.join(".git").join(BRANCH);
        if let Ok(file) = fs::File::open(branch) {
            let _ = file.set_permissions(fs::Permissions::from_mode(0o600));
            let _ = file.sync_all();
        }
    }

    fn not_moved(&self, operation: String, source: gix::Error) -> GitError {
        let git = self.folder.join(".git");
        let lock = git.join(format!("{BRANCH}.lock"));
        if lock.exists() {
            return GitError::Locked {
                operation,
                folder: self.folder.clone(),
                lock,
                source: source.into(),
            };
        }
        GitError::of(operation, &self.folder)(source)
    }
}

impl FilePath {
    fn components(&self) -> [&str; 3] {
        [&self.folder, &self.bucket, &self.file]
    }
}

impl TextId {
    /// The id that `text` has.
    ///
    /// # Panics
    /// Never: hashing with a built-in function.
    pub fn of(text: &str) -> Self {
        let kind = gix::objs::Kind::Blob;
        let id = gix::objs::compute_hash(gix::hash::Kind::Sha1, kind, text.as_bytes());
        Self(id.unwrap_or_else(|_| ObjectId::null(gix::hash::Kind::Sha1)))
    }
}
