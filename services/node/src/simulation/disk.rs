//! A disk that loses power: of every file it knows what was synced, and a loss of power keeps that,
//! and of the rest whatever chance keeps: old bytes, new ones, a torn mixture of both, names or not.
//!
//! The files are real ones; a crash takes their image in the moment of the crash, and a restart
//! begins from the image. A process that is killed leaves everything that it wrote.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use segment_log::Extent;

use super::store::Contents;

/// What a disk writes at once or not at all, when it is honest.
const SECTOR: usize = 512;

/// How a node ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crash {
    /// The process ends; what it wrote stays.
    Killed,
    /// The machine loses power.
    PowerLost,
}

/// The files of a node, and its index.
#[derive(Debug, Clone, Default)]
pub(crate) struct Image {
    folders: BTreeSet<PathBuf>,
    pub(crate) files: BTreeMap<PathBuf, Vec<u8>>,
    pub(crate) index: Contents,
}

impl Image {
    /// Index and tiles are derived: moved away, they come back.
    pub(crate) fn lose_derived(&mut self) {
        self.index.clear();
        self.files.retain(|path, _| !path.starts_with("data/log"));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Name {
    File(u64),
    Folder,
}

struct Disk {
    random: ChaCha8Rng,
    /// Bytes of each synced file by inode.
    bytes: HashMap<u64, Vec<u8>>,
    /// Names in each synced folder.
    names: BTreeMap<PathBuf, BTreeMap<PathBuf, Name>>,
    index: Arc<Mutex<Contents>>,
    /// Steps to durability until the node crashes.
    fuse: Option<(u32, Crash)>,
    crashed: Option<Image>,
}

thread_local! {
    /// By the folder of each node.
    static DISKS: RefCell<BTreeMap<PathBuf, Disk>> = const { RefCell::new(BTreeMap::new()) };
}

fn with<T>(path: &Path, body: impl FnOnce(&Path, &mut Disk) -> T) -> Option<T> {
    DISKS.with_borrow_mut(|disks| {
        let (root, disk) = disks.iter_mut().find(|(root, _)| path.starts_with(root))?;
        Some(body(root, disk))
    })
}

fn lost() -> io::Error {
    io::Error::other("the simulated machine has stopped")
}

/// Stands in for the kernel's sync.
pub(crate) fn sync(file: &File, path: &Path, extent: Extent) -> io::Result<()> {
    let path = normal(path);
    let synced = with(&path, |root, disk| {
        disk.step(root)?;
        disk.sync(&path)?;
        disk.step(root)
    });
    synced.unwrap_or_else(|| segment_log::sync(file, &path, extent))
}

/// Without `..` at its end.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut out, component| {
        if component == Component::ParentDir {
            out.pop();
        } else {
            out.push(component);
        }
        out
    })
}

/// The index of the node in whose folder `path` is.
pub(crate) fn contents_of(path: &Path) -> Arc<Mutex<Contents>> {
    with(path, |_, disk| Arc::clone(&disk.index)).unwrap_or_default()
}

/// A durable, atomic change of an index.
pub(crate) fn committing(index: &Arc<Mutex<Contents>>, change: impl FnOnce()) -> io::Result<()> {
    let step = || {
        DISKS.with_borrow_mut(|disks| {
            let owner = disks.iter_mut().find(|(_, disk)| Arc::ptr_eq(&disk.index, index));
            owner.map_or(Ok(()), |(root, disk)| disk.step(root))
        })
    };
    step()?;
    change();
    step()
}

/// Puts an image in place of a node's files; all of it is durable.
pub(crate) fn start(root: &Path, image: &Image, seed: u64) -> io::Result<()> {
    forget(root);
    if root.exists() {
        fs::remove_dir_all(root)?;
    }
    fs::create_dir_all(root)?;
    for folder in &image.folders {
        fs::create_dir_all(root.join(folder))?;
    }
    for (path, bytes) in &image.files {
        fs::write(root.join(path), bytes)?;
    }
    take(root, image.index.clone(), seed)
}

/// Takes over the files of a node as they are; all of them are durable.
pub(crate) fn take(root: &Path, index: Contents, seed: u64) -> io::Result<()> {
    let mut disk = Disk {
        random: ChaCha8Rng::seed_from_u64(seed),
        bytes: HashMap::new(),
        names: BTreeMap::new(),
        index: Arc::new(Mutex::new(index)),
        fuse: None,
        crashed: None,
    };
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        let names = names(&folder)?;
        for (path, name) in &names {
            match name {
                Name::Folder => folders.push(path.clone()),
                Name::File(inode) => drop(disk.bytes.insert(*inode, fs::read(path)?)),
            }
        }
        disk.names.insert(folder, names);
    }
    DISKS.with_borrow_mut(|disks| disks.insert(root.to_owned(), disk));
    Ok(())
}

pub(crate) fn forget(root: &Path) {
    DISKS.with_borrow_mut(|disks| disks.remove(root));
}

/// Lets the node crash at a coming step to durability, the next one being number 0.
pub(crate) fn light(root: &Path, steps: u32, crash: Crash) {
    with(root, |_, disk| disk.fuse = Some((steps, crash)));
}

/// Takes the coming crash back.
pub(crate) fn put_out(root: &Path) {
    with(root, |_, disk| disk.fuse = None);
}

/// Whether the node has crashed within a call.
pub(crate) fn has_crashed(root: &Path) -> bool {
    with(root, |_, disk| disk.crashed.is_some()).unwrap_or_default()
}

/// What is left of the node's files: from the moment of its crash, or from now.
pub(crate) fn crash(root: &Path, crash: Crash) -> io::Result<Image> {
    with(root, |root, disk| match disk.crashed.take() {
        Some(image) => Ok(image),
        None => disk.image(root, crash),
    })
    .unwrap_or_else(|| Err(lost()))
}

/// Damages a file under a running node, and what is durable of it, or takes it away.
pub(crate) fn damage(path: &Path, bytes: Option<&[u8]>) -> io::Result<()> {
    let damage = |disk: &mut Disk| {
        let Some(bytes) = bytes else {
            if let Some(names) = path.parent().and_then(|folder| disk.names.get_mut(folder)) {
                names.remove(path);
            }
            return fs::remove_file(path);
        };
        fs::write(path, bytes)?;
        disk.bytes.insert(fs::metadata(path)?.ino(), bytes.to_vec());
        Ok(())
    };
    with(path, |_, disk| damage(disk)).unwrap_or_else(|| Err(lost()))
}

/// The synced bytes of a file that is never renamed.
pub(crate) fn durable(path: &Path) -> Option<Vec<u8>> {
    let inode = fs::metadata(path).ok()?.ino();
    with(path, |_, disk| disk.bytes.get(&inode).cloned()).flatten()
}

fn names(folder: &Path) -> io::Result<BTreeMap<PathBuf, Name>> {
    let mut names = BTreeMap::new();
    for item in fs::read_dir(folder)? {
        let item = item?;
        let metadata = item.metadata()?;
        let name = if metadata.is_dir() { Name::Folder } else { Name::File(metadata.ino()) };
        names.insert(item.path(), name);
    }
    Ok(names)
}

impl Disk {
    /// Something is about to become durable, or has just become so.
    fn step(&mut self, root: &Path) -> io::Result<()> {
        if self.crashed.is_some() {
            return Err(lost());
        }
        match &mut self.fuse {
            Some((0, crash)) => {
                let crash = *crash;
                self.crashed = Some(self.image(root, crash)?);
                Err(lost())
            }
            Some((steps, _)) => {
                *steps -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            self.names.insert(path.to_owned(), names(path)?);
        } else {
            self.bytes.insert(fs::metadata(path)?.ino(), fs::read(path)?);
        }
        Ok(())
    }

    fn image(&mut self, root: &Path, crash: Crash) -> io::Result<Image> {
        let mut image = Image { index: self.index.lock().clone(), ..Image::default() };
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            let now = names(&folder)?;
            let durable = match crash {
                Crash::Killed => now.clone(),
                Crash::PowerLost => self.names.get(&folder).cloned().unwrap_or_default(),
            };
            let paths: BTreeSet<&PathBuf> = now.keys().chain(durable.keys()).collect();
            for path in paths {
                let (before, after) = (durable.get(path), now.get(path));
                let kept = if before == after || self.random.random() { after } else { before };
                let inside = path.strip_prefix(root).map_err(io::Error::other)?.to_owned();
                match kept {
                    None => {}
                    Some(Name::Folder) => {
                        image.folders.insert(inside);
                        folders.push(path.clone());
                    }
                    Some(Name::File(inode)) => {
                        let current = if after == kept { Some(fs::read(path)?) } else { None };
                        let synced = self.bytes.get(inode).cloned().unwrap_or_default();
                        let bytes = match (crash, current) {
                            (Crash::Killed, Some(current)) => current,
                            (Crash::PowerLost, Some(current)) => torn(&synced, current, &mut self.random),
                            (_, None) => synced,
                        };
                        image.files.insert(inside, bytes);
                    }
                }
            }
        }
        Ok(image)
    }
}

/// What a loss of power leaves of a file whose last bytes were not synced.
fn torn(old: &[u8], new: Vec<u8>, random: &mut ChaCha8Rng) -> Vec<u8> {
    if old == new {
        return new;
    }
    match random.random_range(0..4) {
        0 => old.to_vec(),
        1 => new,
        _ => {
            let (shorter, longer) = (old.len().min(new.len()), old.len().max(new.len()));
            let len = match random.random_range(0..3) {
                0 => new.len(),
                _ => random.random_range(shorter..=longer),
            };
            let byte = |bytes: &[u8], at: usize| bytes.get(at).copied().unwrap_or_default();
            let mut mixed = Vec::with_capacity(len);
            for sector in (0..len).step_by(SECTOR) {
                let end = len.min(sector + SECTOR);
                // Within a sector the new bytes arrive from its start, if it is torn at all.
                let differs = |at: &usize| byte(old, *at) != byte(&new, *at);
                let (first, last) = ((sector..end).find(differs), (sector..end).rev().find(differs));
                let cut = match (random.random_range(0..4), first.zip(last)) {
                    (0, _) | (_, None) => end,
                    (1, _) => sector,
                    (_, Some((first, last))) => random.random_range(first..=last),
                };
                mixed.extend((sector..end).map(|at| if at < cut { byte(&new, at) } else { byte(old, at) }));
            }
            mixed
        }
    }
}
