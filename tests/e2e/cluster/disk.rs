//! The disk is full under the embedded file: nothing accepted is lost, and it recovers when there is room.

use super::long;
use crate::load::{Load, a_while};
use crate::scene::Scene;
use herald_tests::sandbox::Sandbox;
use herald_tests::wait::wait_for;
use herald_tests::{Herald, PATIENCE, Stack};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A file system of a few megabytes, most of them taken by a file that can be removed.
struct SmallDisk {
    path: PathBuf,
    _sandbox: Sandbox,
}

impl SmallDisk {
    /// Mounts one, which only root may.
    fn mount() -> Option<Self> {
        let sandbox = Sandbox::new("small-disk-");
        let path = sandbox.folder("mounted");
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", "size=256m", "herald-tests"])
            .arg(&path);
        // Where root may not either, it is not this kind of machine.
        mount.output().ok().filter(|output| output.status.success())?;
        Some(Self {
            path,
            _sandbox: sandbox,
        })
    }

    fn ballast(&self) -> PathBuf {
        self.path.join("ballast")
    }

    /// Leaves that much room.
    fn leave(&self, bytes: u64) {
        let free = free_bytes(&self.path);
        let ballast = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.ballast())
            .expect("a writable disk");
        let length = ballast.metadata().expect("it is open").len() + free.saturating_sub(bytes);
        rustix::fs::fallocate(&ballast, rustix::fs::FallocateFlags::empty(), 0, length).expect("that much is free");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("it was made");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // tests/sweep unmounts what is left.
        drop(Command::new("umount").arg(&self.path).output());
    }
}

fn free_bytes(path: &Path) -> u64 {
    let disk = rustix::fs::statvfs(path).expect("it is mounted");
    disk.f_bavail * disk.f_frsize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_loses_nothing_that_was_accepted() {
    if !long() {
        return;
    }
    let Some(disk) = SmallDisk::mount() else {
        crate::load::say("left out: no file system can be mounted here; root can");
        return;
    };
    let builder = Herald::builder().stack(Stack::Embedded);
    let mut scene = Scene::with(builder.data(disk.path.join("data"))).await;
    let load = Load::start(&scene).await;
    for crash in [false, true] {
        a_while().await;
        disk.leave(1 << 20);
        let before = load.refused();
        wait_for("the disk is full", 2 * PATIENCE, async || load.refused() > before + 20).await;
        // Time for outcomes to be due, and not to be written.
        tokio::time::sleep(Duration::from_secs(3)).await;
        if crash {
            scene.herald.kill().await;
        }
        disk.make_room();
        if crash {
            scene.herald.restart().await;
        }
        let before = load.accepted();
        wait_for("events are accepted again", PATIENCE, async || {
            load.accepted() > before + 100
        })
        .await;
    }
    load.finish(&scene, "the disk was full twice, one crash meanwhile")
        .await;
}
