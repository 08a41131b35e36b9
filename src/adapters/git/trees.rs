//! Owns what the mirror reads and writes of git's objects: the branch, its trees, a file in them.

use gix::ObjectId;
use gix::objs::Tree;
use gix::objs::tree::{Entry, EntryKind};
use gix::refs::transaction::{PreviousValue, RefEdit};
use gix::refs::{FullName, Target};

use super::{BRANCH, FilePath, Kept, TextId, names};
use crate::domain::device::DeviceId;

/// The newest commit.
pub(super) struct Head {
    pub(super) commit: ObjectId,
    pub(super) tree: ObjectId,
    /// Its commit time, in seconds since 1970.
    pub(super) seconds: i64,
}

/// The newest commit of our branch, if it has one.
pub(super) fn head(repository: &gix::Repository) -> gix::Result<Option<Head>> {
    let Some(mut branch) = repository.try_find_reference(BRANCH)? else {
        return Ok(None);
    };
    let commit = branch.peel_to_id()?;
    let commit = repository.find_commit(commit)?;
    Ok(Some(Head {
        commit: commit.id,
        tree: commit.tree_id()?.detach(),
        seconds: commit.time()?.seconds,
    }))
}

/// The entries of a tree.
fn entries(repository: &gix::Repository, tree: ObjectId) -> gix::Result<Vec<Entry>> {
    let tree = repository.find_tree(tree)?;
    let tree = Tree::from(tree.decode()?);
    Ok(tree.entries)
}

fn child(entries: &[Entry], name: &str) -> Option<ObjectId> {
    let found = entries
        .iter()
        .find(|entry| entry.filename == name && entry.mode.is_tree());
    found.map(|entry| entry.oid)
}

/// What the tree `root` has of `device`, looked for in the folder `likely` first.
pub(super) fn find(
    repository: &gix::Repository,
    root: ObjectId,
    device: DeviceId,
    likely: &str,
) -> gix::Result<Option<Kept>> {
    let (bucket, ending) = (names::bucket(device), names::ending(device));
    let mut folders = entries(repository, root)?;
    folders.retain(|entry| entry.mode.is_tree());
    folders.sort_by_key(|entry| entry.filename != likely);
    for folder in folders {
        let Some(list) = child(&entries(repository, folder.oid)?, &bucket) else {
            continue;
        };
        let files = entries(repository, list)?;
        let file = files
            .iter()
            .find(|file| file.mode.is_blob() && names::is_of(&file.filename, &ending));
        if let Some(file) = file {
            return Ok(Some(Kept {
                path: FilePath {
                    folder: folder.filename.to_string(),
                    bucket,
                    file: file.filename.to_string(),
                },
                text: TextId(file.oid),
            }));
        }
    }
    Ok(None)
}

/// `tree` with `file` at `path`, or without anything there; no tree if nothing is left of it.
pub(super) fn put(
    repository: &gix::Repository,
    tree: Option<ObjectId>,
    path: &[&str],
    file: Option<ObjectId>,
    objects: &mut Vec<ObjectId>,
) -> gix::Result<Option<ObjectId>> {
    let mut list = match tree {
        Some(tree) => entries(repository, tree)?,
        None => Vec::new(),
    };
    let Some((name, rest)) = path.split_first() else {
        return Ok(tree);
    };
    let (kind, made) = if rest.is_empty() {
        (EntryKind::Blob, file)
    } else {
        let below = put(repository, child(&list, name), rest, file, objects)?;
        (EntryKind::Tree, below)
    };
    list.retain(|entry| entry.filename != *name);
    if let Some(oid) = made {
        list.push(Entry {
            mode: kind.into(),
            filename: (*name).into(),
            oid,
        });
        list.sort();
    }
    if list.is_empty() {
        return Ok(None);
    }
    let written = repository.write_object(&Tree { entries: list })?.detach();
    objects.push(written);
    Ok(Some(written))
}

/// Moves the branch from `parent` to `commit`, unless it is elsewhere meanwhile.
pub(super) fn advance(
    repository: &gix::Repository,
    parent: Option<&Head>,
    commit: ObjectId,
) -> Result<(), gix::Error> {
    let expected = match parent {
        Some(parent) => PreviousValue::MustExistAndMatch(Target::Object(parent.commit)),
        None => PreviousValue::MustNotExist,
    };
    let name = FullName::try_from(BRANCH)
        .map_err(|_| gix::error::message!("{BRANCH} is no name of a branch"))?;
    let edit = RefEdit::update(name, commit, expected, "");
    repository.edit_references_as(Some(edit), None).map(drop)
}
