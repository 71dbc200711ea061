//! Which disks a file lies on, and which EBS volumes those are (H40).
//!
//! Followed and never guessed: path, links on the way, mount, device, the disks below it, the serial that EBS gives an NVMe
//! disk. Where one of these does not lead on, the answer is `None`: a recovery point over such a file is not proven, whereas a
//! wrong volume would make one look whole that is not.

use crate::paths::Paths;
use nix::sys::statvfs::{FsFlags, statvfs};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use tde2hsm_protocol::VolumeId;
use tde2hsm_protocol::survey::{Disk, FileKind, FilePlace, Filesystem, Mount};

/// The mount table, and what files were looked up in it.
pub struct Storage<'a> {
    paths: &'a Paths,
    table: Vec<Row>,
}

/// A line of `/proc/self/mountinfo` (proc(5)).
#[derive(Debug)]
struct Row {
    /// `259:1`
    device: String,
    point: String,
    kind: String,
    source: String,
}

/// Links on the way of one path, at most: the kernel's own limit.
const LINKS: usize = 40;
/// Devices below devices (a file system on LVM on md on partitions).
const DEPTH: usize = 8;

impl Storage<'_> {
    pub fn read(paths: &Paths) -> Storage<'_> {
        let text = std::fs::read_to_string(paths.proc().join("self/mountinfo")).unwrap_or_default();
        Storage { paths, table: text.lines().filter_map(row).collect() }
    }

    fn of(&self, path: &Path) -> Option<&Row> {
        // The last mount of several on one point is the one that is seen.
        let fits = self.table.iter().enumerate().filter(|(_, m)| path.starts_with(&m.point));
        fits.max_by_key(|(n, m)| (m.point.len(), *n)).map(|(_, m)| m)
    }

    /// The kind of the file system that a path lies on.
    pub fn kind(&self, path: &Path) -> String {
        self.of(path).map(|row| row.kind.clone()).unwrap_or_default()
    }

    pub fn filesystem(&self, path: &Path) -> Option<Filesystem> {
        let mut existing = self.paths.at(path);
        while !existing.exists() {
            existing = existing.parent()?.to_owned();
        }
        let stat = statvfs(&existing).ok()?;
        let row = self.of(&existing);
        let kind = row.map(|row| row.kind.clone()).unwrap_or_default();
        let ephemeral = matches!(kind.as_str(), "tmpfs" | "ramfs")
            || row.and_then(|row| self.disks(row)).is_some_and(|disks| disks.iter().any(|disk| disk.ephemeral));
        let flags = stat.flags();
        Some(Filesystem {
            path: path.display().to_string(),
            kind,
            free_bytes: stat.blocks_available().saturating_mul(stat.fragment_size()),
            noexec: flags.contains(FsFlags::ST_NOEXEC),
            readonly: flags.contains(FsFlags::ST_RDONLY),
            ephemeral,
        })
    }

    /// Where each of these lies. Many files of one kind that lie in one directory are said as the directory.
    pub fn places(&self, files: impl IntoIterator<Item = (FileKind, String)>) -> Vec<FilePlace> {
        type Group = (FileKind, String, Option<Vec<String>>);
        let mut found: BTreeMap<Group, BTreeSet<String>> = BTreeMap::new();
        for (what, path) in files {
            let mounts = self.mounts(&path);
            let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).to_owned();
            found.entry((what, dir, mounts)).or_default().insert(path);
        }
        found
            .into_iter()
            .filter_map(|((what, dir, mounts), mut paths)| {
                let path = if paths.len() > 1 && !dir.is_empty() { dir } else { paths.pop_first()? };
                Some(FilePlace { what, path, mounts })
            })
            .collect()
    }

    /// Mount points that a path needs: its own, those of links on the way, and those below it.
    fn mounts(&self, path: &str) -> Option<Vec<String>> {
        let (real, links) = self.follow(Path::new(path))?;
        let mut points = vec![self.of(&real)?.point.clone()];
        for link in links {
            points.push(self.of(&link)?.point.clone());
        }
        let below = |row: &&Row| Path::new(&row.point).starts_with(&real) && Path::new(&row.point) != real;
        points.extend(self.table.iter().filter(below).map(|row| row.point.clone()));
        let mut seen = BTreeSet::new();
        points.retain(|point| seen.insert(point.clone()));
        Some(points)
    }

    /// The real path, and the links that led to it, as paths of this process. `None`: it is not there, or no path of the host's.
    fn follow(&self, path: &Path) -> Option<(PathBuf, Vec<PathBuf>)> {
        if !path.is_absolute() {
            return None;
        }
        let mut links = Vec::new();
        let mut at = self.paths.root().to_owned();
        let mut left: Vec<PathBuf> = vec![path.to_owned()];
        while let Some(next) = left.pop() {
            let mut parts = next.components();
            let Some(part) = parts.next() else { continue };
            let rest = parts.as_path().to_owned();
            if !rest.as_os_str().is_empty() {
                left.push(rest);
            }
            match part {
                Component::RootDir => at = self.paths.root().to_owned(),
                Component::ParentDir => {
                    if at != self.paths.root() {
                        at.pop();
                    }
                }
                Component::Normal(name) => {
                    let here = at.join(name);
                    let meta = std::fs::symlink_metadata(&here).ok()?;
                    if meta.file_type().is_symlink() {
                        left.push(std::fs::read_link(&here).ok()?);
                        links.push(here);
                        if links.len() > LINKS {
                            return None;
                        }
                    } else {
                        at = here;
                    }
                }
                Component::CurDir | Component::Prefix(_) => {}
            }
        }
        Some((at, links))
    }

    /// What the mount points of these files lie on, each once.
    pub fn mounted<'f>(&self, files: impl IntoIterator<Item = &'f FilePlace>) -> Vec<Mount> {
        let points: BTreeSet<&String> = files.into_iter().flat_map(|file| file.mounts.iter().flatten()).collect();
        points
            .into_iter()
            .filter_map(|point| {
                let row = self.table.iter().rfind(|row| row.point == *point)?;
                Some(Mount { point: point.clone(), source: row.source.clone(), disks: self.disks(row) })
            })
            .collect()
    }

    fn disks(&self, row: &Row) -> Option<Vec<Disk>> {
        // Its devices may be several, and the table names one.
        if row.kind == "btrfs" {
            return None;
        }
        let name = self.device_of(row)?;
        let mut disks = BTreeSet::new();
        self.disks_below(&name, 0, &mut disks)?;
        Some(disks.into_iter().collect())
    }

    /// The kernel's name of what is mounted. The number is believed before the name, which may be `/dev/root`.
    fn device_of(&self, row: &Row) -> Option<String> {
        let by_number = std::fs::canonicalize(self.paths.at("/sys/dev/block").join(&row.device)).ok();
        let real = by_number.or_else(|| {
            row.source.starts_with("/dev/").then_some(())?;
            std::fs::canonicalize(self.paths.at(&row.source)).ok()
        })?;
        Some(real.file_name()?.to_str()?.to_owned())
    }

    fn disks_below(&self, name: &str, depth: usize, disks: &mut BTreeSet<Disk>) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        let sys = std::fs::canonicalize(self.paths.at("/sys/class/block").join(name)).ok();
        if let Some(sys) = &sys {
            let slaves: Vec<String> = std::fs::read_dir(sys.join("slaves"))
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            if !slaves.is_empty() {
                return slaves.iter().try_for_each(|slave| self.disks_below(slave, depth + 1, disks));
            }
            if sys.join("partition").exists() {
                let whole = sys.parent()?.file_name()?.to_str()?.to_owned();
                return self.disks_below(&whole, depth + 1, disks);
            }
        } else if !self.paths.at("/dev").join(name).exists() {
            return None;
        }
        // A device of the mapper or of loop with nothing known below it is no disk.
        if ["dm-", "md", "loop"].iter().any(|kind| name.starts_with(kind)) {
            return None;
        }
        let whole = if sys.is_some() { name } else { nvme_disk(name) };
        let read = |file: &str| sys.as_ref().and_then(|sys| std::fs::read_to_string(sys.join("device").join(file)).ok());
        let link = self.by_id(name).or_else(|| self.by_id(whole));
        let linked = |prefix: &str| link.as_ref().and_then(|link| link.strip_prefix(prefix).map(str::to_owned));
        let serial = read("serial").or_else(|| linked("nvme-Amazon_Elastic_Block_Store_"));
        let ephemeral = read("model").is_some_and(|model| model.contains("Instance Storage"))
            || linked("nvme-Amazon_EC2_NVMe_Instance_Storage_").is_some();
        let volume = serial.filter(|_| !ephemeral).and_then(|serial| volume(&serial));
        disks.insert(Disk { name: whole.to_owned(), volume, ephemeral });
        Some(())
    }

    /// The name that udev gave a device by its serial.
    fn by_id(&self, name: &str) -> Option<String> {
        let device = std::fs::canonicalize(self.paths.at("/dev").join(name)).ok()?;
        let mut names: Vec<String> = std::fs::read_dir(self.paths.at("/dev/disk/by-id"))
            .ok()?
            .flatten()
            .filter(|entry| std::fs::canonicalize(entry.path()).is_ok_and(|real| real == device))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| name.starts_with("nvme-Amazon_"))
            .collect();
        names.sort();
        names.into_iter().next()
    }
}

fn row(line: &str) -> Option<Row> {
    let (left, right) = line.split_once(" - ")?;
    let mut left = left.split(' ');
    let device = left.nth(2)?.to_owned();
    let point = unescape(left.nth(1)?);
    let mut right = right.split(' ');
    Some(Row { device, point, kind: right.next()?.to_owned(), source: unescape(right.next()?) })
}

/// The kernel writes blank, tab, newline and backslash as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

/// `nvme1n1` of `nvme1n1p2`.
fn nvme_disk(name: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match name.rsplit_once('p') {
        Some((disk, part)) if name.starts_with("nvme") && digits(part) && disk.contains('n') => disk,
        _ => name,
    }
}

/// EBS's serial is the volume's id without its dash; udev's link may go on after it (`-ns-1`, `_1`, `-part1`).
fn volume(serial: &str) -> Option<VolumeId> {
    let digits = serial.trim().strip_prefix("vol")?.trim_start_matches('-');
    let digits: String = digits.chars().take_while(char::is_ascii_hexdigit).collect();
    VolumeId::new(format!("vol-{digits}")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    struct World {
        _dir: tempfile::TempDir,
        paths: Paths,
    }

    impl World {
        /// Mounts: point, device number, kind, source.
        fn new(mounts: &[(&str, &str, &str, &str)]) -> World {
            let dir = tempfile::tempdir().unwrap();
            let paths = Paths::below(dir.path().canonicalize().unwrap());
            let mut table = String::new();
            for (point, device, kind, source) in mounts {
                let point = paths.at(point);
                table += &format!("36 35 {device} / {} rw,noatime shared:1 - {kind} {source} rw\n", point.display());
            }
            let world = World { _dir: dir, paths };
            world.write("/proc/self/mountinfo", &table);
            world
        }
        fn write(&self, path: &str, text: &str) {
            let path = self.paths.at(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        fn link(&self, at: &str, to: &str) {
            let at = self.paths.at(at);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            symlink(to, at).unwrap();
        }
        /// A disk as sysfs shows it; `below`: a device of the mapper with these under it.
        fn device(&self, name: &str, number: &str, files: &[(&str, &str)], below: &[&str]) {
            let sys = format!("/sys/devices/{name}");
            self.write(&format!("{sys}/size"), "8");
            for (file, text) in files {
                self.write(&format!("{sys}/{file}"), text);
            }
            for slave in below {
                self.link(&format!("{sys}/slaves/{slave}"), "../..");
            }
            self.name(name, number, &sys);
        }
        fn name(&self, name: &str, number: &str, sys: &str) {
            let to = self.paths.at(sys).display().to_string();
            self.link(&format!("/sys/class/block/{name}"), &to);
            self.link(&format!("/sys/dev/block/{number}"), &to);
        }
        fn nvme(&self, name: &str, number: &str, volume: &str) {
            let serial = volume.replace('-', "");
            self.device(name, number, &[("device/serial", &serial), ("device/model", "Amazon Elastic Block Store")], &[]);
        }
        fn volumes(&self, path: &str) -> Option<Vec<Option<String>>> {
            let storage = Storage::read(&self.paths);
            let mounts = storage.mounts(path)?;
            let place = FilePlace { what: FileKind::Datafile, path: path.to_owned(), mounts: Some(mounts.clone()) };
            let mounted = storage.mounted([&place]);
            let mut disks = BTreeSet::new();
            for point in &mounts {
                disks.extend(mounted.iter().find(|mount| mount.point == *point)?.disks.clone()?);
            }
            Some(disks.into_iter().map(|disk| disk.volume.map(|volume| volume.to_string())).collect())
        }
    }

    const A: &str = "vol-0123456789abcdef0";
    const B: &str = "vol-0fedcba9876543210";

    fn some(volumes: &[&str]) -> Option<Vec<Option<String>>> {
        Some(volumes.iter().map(|volume| Some((*volume).to_owned())).collect())
    }

    #[test]
    fn h40_a_file_is_followed_over_its_mount_to_the_serial_of_the_disk() {
        let world = World::new(&[("/", "259:1", "xfs", "/dev/root"), ("/u02", "259:3", "xfs", "/dev/nvme1n1")]);
        world.nvme("nvme0n1", "259:0", A);
        world.write("/sys/devices/nvme0n1/nvme0n1p1/partition", "1");
        world.name("nvme0n1p1", "259:1", "/sys/devices/nvme0n1/nvme0n1p1");
        world.nvme("nvme1n1", "259:3", B);
        world.write("/u01/system01.dbf", "");
        world.write("/u02/users01.dbf", "");
        assert_eq!(world.volumes("/u01/system01.dbf"), some(&[A]), "by its number: the table says `/dev/root`");
        assert_eq!(world.volumes("/u02/users01.dbf"), some(&[B]));
        // A link lies on one volume and what it names on another: both are needed.
        world.link("/u01/users01.dbf", "/u02/users01.dbf");
        assert_eq!(world.volumes("/u01/users01.dbf"), some(&[A, B]));
        world.link("/u01/loop", "loop");
        for nothing in ["/u02/gone.dbf", "+DATA/FIN/users01.dbf", "users01.dbf", "/u01/loop"] {
            assert_eq!(world.volumes(nothing), None, "{nothing}");
        }
        // A directory needs what is mounted below it, too.
        assert_eq!(world.volumes("/"), some(&[A, B]));
    }

    #[test]
    fn h40_a_logical_volume_needs_every_disk_below_it() {
        let world = World::new(&[("/", "1:0", "xfs", "/dev/x"), ("/u02", "253:0", "xfs", "/dev/mapper/data-u02")]);
        world.nvme("nvme1n1", "259:3", A);
        world.nvme("nvme2n1", "259:4", B);
        world.device("dm-0", "253:0", &[], &["nvme1n1", "nvme2n1"]);
        world.write("/u02/users01.dbf", "");
        assert_eq!(world.volumes("/u02/users01.dbf"), some(&[A, B]));
        // One of several that is not known makes all of it unknown.
        std::fs::remove_file(world.paths.at("/sys/class/block/nvme2n1")).unwrap();
        assert_eq!(world.volumes("/u02/users01.dbf"), None);
    }

    #[test]
    fn h40_a_disk_that_does_not_say_its_volume_keeps_its_name_and_no_guess() {
        let world = World::new(&[
            ("/", "202:1", "ext4", "/dev/xvda1"),
            ("/u02", "0:44", "nfs4", "fs-1.efs.eu-central-1.amazonaws.com:/"),
            ("/u03", "259:7", "xfs", "/dev/nvme3n1"),
            ("/u04", "0:50", "btrfs", "/dev/nvme1n1"),
            ("/u05", "0:51", "tmpfs", "tmpfs"),
        ]);
        world.device("xvda", "202:0", &[], &[]);
        world.write("/sys/devices/xvda/xvda1/partition", "1");
        world.name("xvda1", "202:1", "/sys/devices/xvda/xvda1");
        world.device(
            "nvme3n1",
            "259:7",
            &[("device/serial", "AWS2A"), ("device/model", "Amazon EC2 NVMe Instance Storage")],
            &[],
        );
        world.nvme("nvme1n1", "259:3", A);
        world.write("/dev/nvme1n1", "");
        for dir in ["/u01", "/u02", "/u03", "/u04", "/u05"] {
            world.write(&format!("{dir}/f"), "");
        }
        let storage = Storage::read(&world.paths);
        let files = storage.places([(FileKind::Datafile, "/u01/f".to_owned()), (FileKind::RedoLog, "/u03/f".to_owned())]);
        let disks: Vec<Disk> = storage.mounted(&files).into_iter().flat_map(|mount| mount.disks.unwrap()).collect();
        let disk = |name: &str, ephemeral| Disk { name: name.to_owned(), volume: None, ephemeral };
        assert_eq!(disks, [disk("xvda", false), disk("nvme3n1", true)]);
        assert!(storage.filesystem(Path::new("/u03")).unwrap().ephemeral, "H5");
        for unknown in ["/u02/f", "/u04/f", "/u05/f"] {
            assert_eq!(world.volumes(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn h40_udevs_links_say_the_volume_where_sysfs_is_hidden() {
        let world = World::new(&[("/", "0:60", "overlay", "/dev/nvme0n1p1"), ("/u02", "0:61", "overlay", "/dev/nvme1n1")]);
        for (node, link) in [("nvme0n1p1", "vol0123456789abcdef0-part1"), ("nvme1n1", "vol0fedcba9876543210")] {
            world.write(&format!("/dev/{node}"), "");
            world.link(&format!("/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{link}"), &format!("../../{node}"));
        }
        world.write("/u01/f", "");
        world.write("/u02/f", "");
        assert_eq!(world.volumes("/u01/f"), some(&[A]));
        assert_eq!(world.volumes("/u02/f"), some(&[B]));
    }

    #[test]
    fn h5_what_a_keystore_lies_on_is_the_innermost_mount() {
        let world = World::new(&[("/", "259:1", "xfs", "/dev/x"), ("/u01/app/w", "0:20", "tmpfs", "tmpfs")]);
        let kind = |path: &str| Storage::read(&world.paths).kind(&world.paths.at(path));
        assert_eq!(kind("/u01/app/w/tde"), "tmpfs");
        assert_eq!(kind("/u01/app/wallet"), "xfs");
    }

    #[test]
    fn files_of_one_directory_are_said_as_the_directory() {
        let world = World::new(&[("/", "259:1", "xfs", "/dev/x")]);
        for n in 0..500 {
            world.write(&format!("/u01/oradata/FIN/users{n}.dbf"), "");
        }
        world.write("/u01/oradata/FIN/control01.ctl", "");
        let files = (0..500).map(|n| (FileKind::Datafile, format!("/u01/oradata/FIN/users{n}.dbf")));
        let control = (FileKind::Controlfile, "/u01/oradata/FIN/control01.ctl".to_owned());
        let gone = (FileKind::Datafile, "/u01/oradata/FIN/gone.dbf".to_owned());
        let places = Storage::read(&world.paths).places(files.chain([control, gone]));
        let seen: Vec<_> = places.iter().map(|place| (place.what, place.path.as_str(), place.mounts.is_some())).collect();
        assert_eq!(
            seen,
            [
                (FileKind::Datafile, "/u01/oradata/FIN/gone.dbf", false),
                (FileKind::Datafile, "/u01/oradata/FIN", true),
                (FileKind::Controlfile, "/u01/oradata/FIN/control01.ctl", true),
            ]
        );
    }

    #[test]
    fn names_of_devices_and_volumes_are_read_as_they_are_written() {
        for (name, disk) in [("nvme1n1p12", "nvme1n1"), ("nvme1n1", "nvme1n1"), ("xvdp1", "xvdp1"), ("sdp", "sdp")] {
            assert_eq!(nvme_disk(name), disk);
        }
        for serial in
            ["vol0123456789abcdef0", "vol-0123456789abcdef0", "vol0123456789abcdef0-ns-1", "vol0123456789abcdef0-part1\n"]
        {
            assert_eq!(volume(serial).map(|v| v.to_string()).as_deref(), Some(A), "{serial}");
        }
        for serial in ["AWS0123", "vol", "vol0123456789", ""] {
            assert_eq!(volume(serial), None, "{serial}");
        }
        let line = "24 22 0:21 / /u01/a\\040b rw - ext4 /dev/x rw";
        assert_eq!(row(line).map(|row| (row.device, row.point)), Some(("0:21".to_owned(), "/u01/a b".to_owned())));
    }
}
