use super::*;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;

const MIB: u64 = 1 << 20;

struct Fixture {
    dir: tempfile::TempDir,
    volume: Volume,
    gid: u32,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = self.volume.close();
    }
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let volume = Volume { dir: at("work spaces/main"), image: at("volumes/main.workspace.ext4") };
    fs::create_dir_all(&volume.dir).unwrap();
    let gid = fs::metadata(dir.path()).unwrap().gid();
    Fixture { dir, volume, gid }
}

/// A mounted volume. Without root it checks the error and returns nothing.
fn mounted(mib: u64) -> Option<Fixture> {
    let place = fixture();
    match place.volume.ensure_mounted(mib * MIB, place.gid) {
        Ok(()) => Some(place),
        Err(e) => {
            assert!(matches!(e, VolumeError::NotRoot), "{e}");
            None
        }
    }
}

fn told(result: Result<(), VolumeError>) -> String {
    let e = result.unwrap_err();
    assert_eq!(e.code(), "disk.image");
    e.to_string()
}

#[test]
fn b5_the_limit_is_usable_and_little_more() {
    let dir = tempfile::tempdir().unwrap();
    let lock = File::create(dir.path().join("lock")).unwrap();
    for mib in [8, 16, 64, 127, 128, 129, 256, 1000, 2048, 10_240] {
        let image = dir.path().join(format!("{mib}.ext4"));
        let volume = Volume { dir: dir.path().join("d"), image: image.clone() };
        volume.make(mib * MIB, 0, &lock).unwrap();
        let about = std::process::Command::new("/usr/sbin/dumpe2fs").arg("-h").arg(&image).output().unwrap();
        let about = String::from_utf8(about.stdout).unwrap();
        let number = |name: &str| -> u64 {
            let line = about.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().parse().unwrap()
        };
        let held_back = (number("Block count:") / 50).min(4096);
        let usable = (number("Free blocks:") - held_back) * 4096;
        let most = mib * MIB + mib * MIB / 40 + 2 * MIB;
        assert!((mib * MIB..most).contains(&usable), "{mib} MiB: {} KiB are usable", usable >> 10);
        assert!(number("Free inodes:") + 64 >= shape(mib * MIB).inodes);
        let on_disk = fs::metadata(&image).unwrap().blocks() * 512;
        assert!(on_disk < 24 * MIB, "{mib} MiB take {on_disk} of the disk before anything is in them");
    }
}

#[test]
fn b5_a_volume_is_full_at_its_limit_and_gives_back_what_is_deleted() {
    let Some(place) = mounted(16) else { return };
    let Fixture { volume, gid, .. } = &place;
    let about = fs::metadata(&volume.dir).unwrap();
    assert_eq!((about.mode() & 0o7777, about.gid()), (0o2770, *gid));
    assert_eq!(fs::read_dir(&volume.dir).unwrap().count(), 0, "no lost+found");
    let beside = fs::metadata(volume.dir.parent().unwrap()).unwrap();
    assert_ne!(about.dev(), beside.dev());
    let image = fs::metadata(&volume.image).unwrap();
    assert_eq!(image.mode() & 0o777, 0o600);

    let file = volume.dir.join("fill");
    let full = fs::write(&file, vec![7; 40 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    File::open(&file).unwrap().sync_all().unwrap();
    let written = fs::metadata(&file).unwrap().len();
    assert!((16 * MIB..19 * MIB).contains(&written), "{written}");
    let taken = || fs::metadata(&volume.image).unwrap().blocks() * 512;
    assert!(taken() >= 16 * MIB);
    fs::remove_file(&file).unwrap();
    // The kernel punches the holes after the commit that frees the blocks.
    let began = Instant::now();
    while taken() >= 10 * MIB {
        assert!(began.elapsed() < Duration::from_secs(60), "{} bytes stay taken", taken());
        rustix::fs::syncfs(File::open(&volume.dir).unwrap()).unwrap();
        std::thread::sleep(Duration::from_millis(50));
    }

    // A second call changes nothing. A mount that is gone, as after a reboot, is made again.
    fs::write(&file, "kept").unwrap();
    volume.ensure_mounted(16 * MIB, *gid).unwrap();
    volume.close().unwrap();
    assert_eq!(fs::metadata(&volume.dir).unwrap().mode() & 0o7777, 0, "who misses the mount is locked out");
    volume.check(16 * MIB).unwrap();
    volume.ensure_mounted(16 * MIB, *gid).unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"kept");
    assert_eq!(
        mount_table::at(&resolved(&volume.dir)).unwrap().unwrap().image().unwrap(),
        resolved(&volume.image)
    );
    assert!(told(volume.check_absent()).contains("limits.disk_images is off"));
    volume.close().unwrap();
    volume.open().unwrap();
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

#[test]
fn a_volume_grows_when_it_is_free_and_does_not_shrink() {
    let Some(place) = mounted(16) else { return };
    let Fixture { volume, gid, .. } = &place;
    fs::write(volume.dir.join("file"), "kept").unwrap();
    for look in [volume.check(8 * MIB), volume.ensure_mounted(8 * MIB, *gid)] {
        assert!(
            told(look).contains("was made for 16 MiB, and the settings say 8: a disk image can grow, not")
        );
    }
    for look in [volume.check(17 * MIB), volume.ensure_mounted(17 * MIB, *gid)] {
        assert!(told(look).contains("was made for 16 MiB, and the settings say 17: when no box"));
    }
    for mib in [17, 300, 2048] {
        volume.close().unwrap();
        volume.check(mib * MIB).unwrap();
        volume.ensure_mounted(mib * MIB, *gid).unwrap();
        let usable = usable(&volume.dir).unwrap();
        assert!((mib * MIB..(mib + 4) * MIB + mib * MIB / 20).contains(&usable), "{mib}: {usable}");
    }
    // The growth stops after the file has its new size.
    volume.close().unwrap();
    let file = OpenOptions::new().write(true).open(&volume.image).unwrap();
    file.set_len(shape(4096 * MIB).bytes).unwrap();
    volume.ensure_mounted(4096 * MIB, *gid).unwrap();
    assert!(usable(&volume.dir).unwrap() >= 4096 * MIB);
    assert_eq!(fs::read(volume.dir.join("file")).unwrap(), b"kept");
}

#[test]
fn files_that_are_there_are_not_hidden() {
    let place = fixture();
    let Fixture { volume, gid, .. } = &place;
    fs::write(volume.dir.join("file"), "of before").unwrap();
    let told = told(volume.ensure_mounted(16 * MIB, *gid));
    let fix = if rustix::process::geteuid().is_root() { "move them away" } else { "as root" };
    assert!(told.contains(fix), "{told}");
    assert!(!volume.image.exists() && volume.dir.join("file").exists());
}

#[test]
fn what_somebody_else_mounted_is_not_taken_for_ours() {
    let Some(place) = mounted(16) else { return };
    let other = Volume { image: place.dir.path().join("volumes/other.ext4"), ..place.volume.clone() };
    assert!(told(other.ensure_mounted(16 * MIB, place.gid)).contains("something else than"));
    other.close().unwrap();
    assert!(place.volume.mounted().unwrap().is_some(), "and is not unmounted either");
}

#[test]
fn one_that_has_shut_itself_is_refused_and_can_still_be_read() {
    let Some(place) = mounted(16) else { return };
    let Fixture { volume, gid, .. } = &place;
    fs::write(volume.dir.join("file"), "kept").unwrap();
    rustix::mount::mount_remount(&volume.dir, rustix::mount::MountFlags::RDONLY, "").unwrap();
    for refused in [volume.ensure_mounted(16 * MIB, *gid), volume.check(16 * MIB)] {
        assert!(told(refused).contains("has shut itself after an error"));
    }
    volume.open().unwrap();
    assert_eq!(fs::read(volume.dir.join("file")).unwrap(), b"kept");
    volume.close().unwrap();
    volume.ensure_mounted(16 * MIB, *gid).unwrap();
    fs::write(volume.dir.join("file"), "again").unwrap();
}

#[test]
fn many_at_once_mount_it_once_and_a_half_made_image_is_made_anew() {
    let place = fixture();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Fixture { volume, gid, .. } = &place;
    let part = host_files::beside(&volume.image, ".part");
    fs::create_dir_all(part.parent().unwrap()).unwrap();
    fs::write(&part, "cut").unwrap();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..6).map(|_| scope.spawn(|| volume.ensure_mounted(16 * MIB, *gid))).collect();
        runs.into_iter().for_each(|run| run.join().unwrap().unwrap());
    });
    volume.close().unwrap();
    assert!(volume.mounted().unwrap().is_none(), "there was one mount");
    assert!(!part.exists());
    let mode = fs::metadata(place.dir.path().join("volumes")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn a_program_that_is_not_there_or_fails_is_named() {
    let place = fixture();
    let lock = place.volume.lock().unwrap();
    let missing = run_program::run("mkfs.nothing", &[], &lock);
    assert!(told(missing).contains("disk images need mkfs.nothing; install"));
    let fails = told(run_program::run("mount", &["--bogus".as_ref()], &lock));
    assert!(
        fails.starts_with("mount failed: exit status: 1; it said \"mount: unrecognized option"),
        "{fails}"
    );
}
