//! A client that nobody here wrote: lvmlockd and lvm share a volume group among three hosts.

use mxlock_e2e::disk::{Disk, Place};
use mxlock_e2e::libdlm::Libraries;
use mxlock_e2e::lvm::{Host, installed};
use mxlock_e2e::wait::{PATIENCE, until_true};
use mxlock_e2e::{Setup, shared};
use std::thread;
use std::time::{Duration, Instant};

const GROUP: &str = "vg0";
/// Longest time in which lvm's own retries, of a second each, come to an end.
const LVM_PATIENCE: Duration = Duration::from_secs(90);

/// lvm gives up when its locks were taken a few times in a row; its users try again.
fn insist(host: &Host, words: &[&str]) {
    let started = Instant::now();
    loop {
        let said = host.lvm(words);
        if said.code == 0 {
            return;
        }
        let busy = ["lock failed", "Failed to lock", "held by other host", "locked by other host"];
        let passing = busy.iter().any(|word| said.err.contains(word));
        assert!(passing && started.elapsed() < LVM_PATIENCE, "{words:?}: {}\n{}", said.out, said.err);
        thread::sleep(Duration::from_millis(100));
    }
}

fn volume(name: &str) -> String {
    format!("{GROUP}/{name}")
}

/// Makes, resizes and removes volumes of its own; the ones that stay.
fn work(host: &Host, number: usize, rounds: usize) -> Vec<String> {
    let mut stay = Vec::new();
    for round in 0..rounds {
        let name = format!("h{number}r{round}");
        insist(host, &["lvcreate", "-an", "-Zn", "-Wn", "-L", "4M", "-n", &name, GROUP]);
        insist(host, &["lvchange", "-aey", &volume(&name)]);
        insist(host, &["lvextend", "-L", "8M", &volume(&name)]);
        insist(host, &["lvchange", "-an", &volume(&name)]);
        if round % 2 == 0 {
            stay.push(name);
        } else {
            insist(host, &["lvremove", "-y", &volume(&name)]);
        }
    }
    stay
}

/// The names and sizes of all volumes, as a host reads them off the disk.
fn volumes(host: &Host) -> Vec<(String, String)> {
    let said = host.lvm(&["lvs", "--noheadings", "--units", "m", "-o", "lv_name,lv_size", GROUP]).ok();
    let mut volumes: Vec<(String, String)> = said
        .lines()
        .filter_map(|line| line.trim().split_once(char::is_whitespace))
        .map(|(name, size)| (name.to_owned(), size.trim().to_owned()))
        .collect();
    volumes.sort();
    volumes
}

/// Three hosts work on one volume group at once; the daemon that is master is killed in the middle. Nothing of the metadata is
/// lost, and what a host holds exclusively no other host gets, before, during and after.
#[test]
fn three_hosts_share_a_volume_group() {
    let Some(_turn) = shared() else { return };
    if !installed() {
        return;
    }
    let mut cluster = Setup::new().steady().start();
    let disk = Disk::bare(512, Place::Steady).unwrap_or_else(|e| panic!("{e}"));
    let libraries = Libraries::new();
    let device = disk.device().display().to_string();
    let mut hosts: Vec<Host> = (0..3)
        .map(|n| Host::start(n, cluster.directory(), &libraries, &cluster.daemons[n].socket(), disk.device()))
        .collect();

    hosts[0].lvm(&["vgcreate", "--shared", "-s", "4M", GROUP, &device]).ok();
    for host in &hosts[1..] {
        insist(host, &["vgchange", "--lockstart", GROUP]);
    }
    for host in &hosts {
        host.set_members(GROUP, &[0, 1, 2]);
    }
    insist(&hosts[1], &["lvcreate", "-an", "-Zn", "-Wn", "-L", "4M", "-n", "mine", GROUP]);

    // Exclusive is exclusive, shared is shared.
    insist(&hosts[1], &["lvchange", "-aey", &volume("mine")]);
    let refused = hosts[2].lvm(&["lvchange", "-aey", &volume("mine")]);
    assert!(refused.code != 0 && refused.err.contains("locked by other host"), "{refused:?}");
    assert_ne!(hosts[2].lvm(&["lvchange", "-asy", &volume("mine")]).code, 0);
    insist(&hosts[1], &["lvchange", "-an", &volume("mine")]);
    for host in &hosts[1..] {
        insist(host, &["lvchange", "-asy", &volume("mine")]);
    }
    assert_ne!(hosts[0].lvm(&["lvchange", "-aey", &volume("mine")]).code, 0);
    for host in &hosts[1..] {
        insist(host, &["lvchange", "-an", &volume("mine")]);
    }
    insist(&hosts[1], &["lvchange", "-aey", &volume("mine")]);

    // All at once, with the death of a master.
    let master = cluster.master();
    let stayed = thread::scope(|scope| {
        let workers: Vec<_> = hosts.iter().enumerate().map(|(n, host)| scope.spawn(move || work(host, n, 4))).collect();
        until_true("somebody has made a volume", LVM_PATIENCE, || {
            hosts[0].log().contains("lvcreate") && hosts[1].log().contains("lvextend")
        });
        cluster.daemons[master].kill();
        cluster.daemons[master].start();
        cluster.daemons[master].ready();
        let refused = hosts[2].lvm(&["lvchange", "-aey", &volume("mine")]);
        assert_ne!(refused.code, 0, "{refused:?}");
        assert!(workers.iter().any(|worker| !worker.is_finished()), "it was the middle");
        workers.into_iter().flat_map(|worker| worker.join().expect("a host works")).collect::<Vec<_>>()
    });

    // What is there is what everybody made, on every host, and lvm finds nothing to repair.
    let mut expected: Vec<(String, String)> = stayed.iter().map(|name| (name.clone(), "8.00m".to_owned())).collect();
    expected.push(("mine".to_owned(), "4.00m".to_owned()));
    expected.sort();
    assert_eq!(expected.len(), 7);
    for host in &hosts {
        assert_eq!(volumes(host), expected);
        let said = host.lvm(&["vgck", GROUP]);
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{}", said.err);
    }
    let refused = hosts[0].lvm(&["lvremove", "-y", &volume("mine")]);
    assert!(refused.code != 0 && refused.err.contains("locked by other host"), "{refused:?}");

    // The group goes: first on the other hosts, then from the disk.
    insist(&hosts[1], &["lvchange", "-an", &volume("mine")]);
    for name in stayed.iter().map(String::as_str).chain(["mine"]) {
        insist(&hosts[0], &["lvremove", "-y", &volume(name)]);
    }
    let refused = hosts[0].lvm(&["vgremove", GROUP]);
    assert!(refused.code != 0 && refused.err.contains("not stopped on other hosts"), "{refused:?}");
    for host in &hosts[1..] {
        insist(host, &["vgchange", "--lockstop", GROUP]);
    }
    hosts[0].set_members(GROUP, &[0]);
    insist(&hosts[0], &["vgremove", GROUP]);
    assert!(hosts.iter().all(Host::runs));

    // A host whose lvmlockd dies may have its volumes in use still: nobody else gets them.
    hosts[0].lvm(&["vgcreate", "--shared", "-s", "4M", GROUP, &device]).ok();
    insist(&hosts[2], &["vgchange", "--lockstart", GROUP]);
    insist(&hosts[2], &["lvcreate", "-an", "-Zn", "-Wn", "-L", "4M", "-n", "left", GROUP]);
    insist(&hosts[2], &["lvchange", "-aey", &volume("left")]);
    hosts[2].kill();
    until_true("the lock on the volume is an orphan", PATIENCE, || {
        cluster.mxlock(0, &["--json", "locks"]).ok().contains("\"orphan\": true")
    });
    let refused = hosts[0].lvm(&["lvchange", "-aey", &volume("left")]);
    assert!(refused.code != 0 && refused.err.contains("locked by other host"), "{refused:?}");
    drop(hosts);
    cluster.stop();
}
