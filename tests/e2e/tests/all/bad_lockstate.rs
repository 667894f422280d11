//! Lockstates that are damaged, foreign or in the wrong place: a clear error and the right exit code, or a cluster that
//! goes on (issue 2, "Bad input"; PROTOTYPE 4, 9, 10).

use mxlock_e2e::command::{ours, output};
use mxlock_e2e::disk::{Disk, Place};
use mxlock_e2e::wait::{PATIENCE, until_true};
use mxlock_e2e::{Setup, shared};
use mxlock_format::Uuid;
use std::fs::File;

/// A lockstate that was cut off.
#[test]
fn a_lockstate_that_is_too_short_is_65() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    let file = File::options().write(true).open(cluster.lockstate()).expect("the lockstate");
    file.set_len(file.metadata().expect("its size").len() / 2).expect("it can be cut");
    cluster.daemons[0].refusal().refused(65, "it was cut off");
    cluster.inspector().run(&["summary"]).refused(65, "it was cut off");
    file.set_len(100).expect("it can be cut");
    cluster.daemons[0].refusal().refused(65, "is not a lockstate");
}

/// PROTOTYPE 4: a file full of 0x5a is not an empty lockstate. `format` does not overwrite it unless forced.
#[test]
fn a_foreign_file_is_65_and_is_not_overwritten() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    for contents in [vec![0x5a; 4 << 20], vec![0; 4 << 20], b"#!/bin/sh\n".to_vec()] {
        std::fs::write(cluster.lockstate(), &contents).expect("it can be written");
        cluster.daemons[0].refusal().refused(65, "is not a lockstate");
        cluster.inspector().run(&["summary"]).refused(65, "is not a lockstate");
    }
    cluster.format(&[]).refused(73, "--force");
    cluster.format(&["--force"]).ok();
}

/// A file system on the device is not destroyed, and is no lockstate.
#[test]
fn a_device_with_a_file_system_is_refused() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).bare().prepare();
    cluster.disk.make_xfs().expect("a file system");
    cluster.format(&[]).refused(73, "an XFS file system");
    cluster.daemons[0].refusal().refused(65, "is not a lockstate");
    cluster.format(&["--force"]).ok();
    let mounted = Setup::new().nodes(1).prepare();
    let device = mounted.disk.device().to_owned();
    let said = output(ours("mxlockd").arg("format").arg(&device).arg("--force"));
    said.refused(75, &device.display().to_string());
}

/// PROTOTYPE 9: a lockstate with 512-byte sectors on a device that writes 4,096 bytes at a time.
#[test]
fn sectors_that_the_device_cannot_write_are_refused() {
    let Some(_turn) = shared() else { return };
    let small = Setup::new().nodes(1).bare().prepare();
    let large = Setup::new().nodes(1).bare().sector(4_096).prepare();
    output(ours("mxlockd").arg("format").arg(large.disk.device()).args(["--sector", "512", "--force"]))
        .refused(73, "4096");
    let mut from = File::open(small.disk.device()).expect("a device");
    let mut to = File::options().write(true).open(large.disk.device()).expect("a device");
    std::io::copy(&mut from, &mut to).expect("it can be copied");
    to.sync_all().expect("it is durable");
    large.daemons[0].refusal().refused(65, "--sector 4096");
}

/// Good sectors that disagree on the lockspace or on the geometry: nobody can say which are right.
#[test]
fn sectors_that_disagree_are_65() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    cluster.surgery().heartbeat(5, |heartbeat| heartbeat.superblock.uuid = Uuid([7; 16]));
    cluster.daemons[0].refusal().refused(65, "disagree");
    cluster.inspector().run(&["summary"]).refused(65, "disagree");
    cluster.format(&["--force"]).ok();
    cluster.surgery().heartbeat(9, |heartbeat| heartbeat.superblock.geometry.slot_count *= 2);
    cluster.daemons[0].refusal().refused(65, "disagree");
}

/// A heartbeat sector with a bad checksum may hold the only accepted value: no view is agreed on, and everybody who asks
/// is told why (section 4). The own sector is not claimed either.
#[test]
fn a_damaged_heartbeat_sector_stops_view_changes_and_is_named() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).prepare();
    cluster.surgery().damage_heartbeat(0);
    cluster.daemons[0].refusal().refused(65, "slot 0");
    let said = cluster.inspector().run(&["verify"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    cluster.daemons[1].start();
    let damaged = || {
        let Some(status) = cluster.daemons[1].try_status() else { return false };
        status.blocked.iter().any(|sentence| sentence.contains("heartbeat sector"))
    };
    until_true("the status names the damaged sector", PATIENCE, damaged);
    let said = cluster.mxlock(1, &["status", "--check"]);
    said.refused(75, "damaged");
    // The owner's, or the operator's, repair.
    cluster.surgery().damage_heartbeat(0);
    cluster.daemons[1].ready();
    cluster.mxlock(1, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// PROTOTYPE 4, 10: a record sector with a bad checksum is never taken as empty. It is reported, kept for study, and when
/// nobody can have a lock in it, harmless.
#[test]
fn damaged_record_sectors_are_reported_and_do_no_harm() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).prepare();
    cluster.surgery().damage_record(17);
    cluster.surgery().damage_record(4_000);
    let said = cluster.inspector().run(&["verify"]);
    assert_eq!(said.code, 1, "{}{}", said.out, said.err);
    for daemon in &mut cluster.daemons {
        daemon.start();
    }
    for daemon in &mut cluster.daemons {
        daemon.ready();
    }
    let logs: String = cluster.daemons.iter().map(|daemon| daemon.log()).collect();
    assert!(logs.contains("slot 17") && logs.contains("slot 4000"), "{logs}");
    let master = &cluster.daemons[cluster.master()];
    let quarantine = master.state_dir().join("quarantine");
    until_true("damaged sectors are kept", PATIENCE, || {
        std::fs::read_dir(&quarantine).is_ok_and(|directory| directory.count() >= 2)
    });
    cluster.mxlock(0, &["run", "-w", "60", "alpha", "--", "true"]).ok();
    cluster.mxlock(1, &["run", "-w", "60", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// Section 6: a record that rots under a running cluster is repaired from memory by the scrub.
#[test]
fn a_record_that_rots_while_it_is_held_is_repaired() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(2).start();
    let held = cluster.hold(1, &["alpha"]);
    let record = cluster.inspector().records_of("alpha").remove(0);
    cluster.surgery().damage_record(record.slot as u32);
    assert_ne!(cluster.inspector().run(&["slot", &record.slot.to_string()]).out, "");
    // The next master reads the table; who lived through has the final word.
    let before = cluster.inspector().view().expect("a view").epoch;
    cluster.mxlock(0, &["handover", "1"]).ok();
    until_true("the table is read again", cluster.failover_limit(), || {
        cluster.inspector().view().is_some_and(|view| view.active && view.epoch > before)
    });
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).refused(1, "alpha");
    until_true("the record is whole again", PATIENCE, || {
        let records = cluster.inspector().records_of("alpha");
        records.len() == 1 && records[0].owner == 1 && records[0].token == record.token
    });
    assert_eq!(held.release(), 0);
    cluster.mxlock(0, &["run", "-w", "60", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// Another lockspace under the same path is refused, until the operator accepts it.
#[test]
fn another_lockspace_is_65_unless_accepted() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).start();
    cluster.stop();
    cluster.format(&["--force"]).ok();
    cluster.daemons[0].refusal().refused(65, "--accept-new-lockstate");
    cluster.format(&["--force", "--lockspace", "other"]).ok();
    cluster.daemons[0].refusal().refused(65, "--lockspace other");
    cluster.format(&["--force"]).ok();
    cluster.daemons[0].args_mut().push("--accept-new-lockstate".into());
    cluster.daemons[0].start();
    cluster.daemons[0].ready();
    // I2: tokens of the new lockspace are larger than those of the old one; the epoch says so.
    cluster.mxlock(0, &["run", "-n", "alpha", "--", "true"]).ok();
    cluster.stop();
}

/// A mount point without the file system that should be there.
#[test]
fn a_missing_mount_is_65_and_nothing_is_made() {
    let Some(_turn) = shared() else { return };
    let mut cluster = Setup::new().nodes(1).prepare();
    let point = cluster.directory().join("mnt");
    std::fs::create_dir(&point).expect("a directory");
    let args = cluster.daemons[0].args_mut();
    let at = args.iter().position(|arg| arg == "--lockstate").expect("a lockstate") + 1;
    args[at] = point.display().to_string();
    cluster.daemons[0].refusal().refused(65, "nothing is mounted at");
    assert_eq!(std::fs::read_dir(&point).expect("it is there").count(), 0, "nothing was made");
    let args = cluster.daemons[0].args_mut();
    args[at] = point.join("no/such/file").display().to_string();
    cluster.daemons[0].refusal().refused(65, "no lockstate at");
}

/// A read-only file system.
#[test]
fn a_read_only_file_system_is_refused() {
    let Some(_turn) = shared() else { return };
    let cluster = Setup::new().nodes(1).prepare();
    cluster.disk.remount("ro");
    cluster.daemons[0].refusal().refused(74, "Read-only file system");
    cluster.format(&["--force"]).refused(73, "read-only file system");
    cluster.disk.remount("rw");
}

/// A file system that cannot do direct I/O or is not made for this.
#[test]
fn an_unsuitable_place_is_refused() {
    let Some(_turn) = shared() else { return };
    output(ours("mxlockd").args(["format", "/proc/lockstate"])).refused(78, "proc");
    let disk = Disk::xfs(512, Place::Steady).expect("a disk");
    let missing = disk.mount_point().join("no/such/directory/lockstate");
    output(ours("mxlockd").arg("format").arg(&missing)).refused(73, "no/such/directory");
}
