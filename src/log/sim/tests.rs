//! The disk is tested against its own table of events: each test breaks it in one way and looks at what is left.

use std::collections::BTreeSet;

use super::*;

fn path(s: &str) -> &Path {
    Path::new(s)
}

fn made(disk: &SimDisk, name: &str) -> Box<dyn VfsFile> {
    let file = disk.open(path(name), Open::Create).unwrap();
    disk.sync_dir(path("")).unwrap();
    file
}

/// What a file may hold after a power cut, over many seeds.
fn outcomes(disk: &SimDisk, name: &str) -> BTreeSet<Option<Vec<u8>>> {
    let cut = |seed| {
        let after = disk.copy();
        after.power_cut(seed);
        after.read(name)
    };
    (0..400).map(cut).collect()
}

#[test]
fn a_killed_process_leaves_what_it_wrote_and_nothing_else() {
    let disk = SimDisk::new(1);
    let file = disk.open(path("a"), Open::Create).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    let lock = disk.lock(path("LOCK")).unwrap();
    assert_eq!(disk.lock(path("LOCK")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    disk.kill();
    assert_eq!(disk.read("a").unwrap(), b"abc");
    assert!(file.write_at(b"ghost", 0).is_err());
    assert!(lock.still_named().is_err());
    disk.lock(path("LOCK")).unwrap();
}

#[test]
fn a_power_cut_loses_keeps_or_tears_what_was_not_synced() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.write_all_at(&[1; 1024], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[2; 1024], 1024).unwrap();
    let seen = outcomes(&disk, "a");
    let (mut old, mut new, mut torn, mut garbled) = (false, false, false, false);
    for content in &seen {
        let content = content.as_ref().unwrap();
        assert_eq!(content[..1024], [1; 1024], "promised bytes changed");
        let tail = &content[1024..];
        old |= tail.is_empty();
        new |= tail == [2; 1024];
        torn |= tail.len() == 1024 && tail[..512] == [0; 512] && tail[512..] == [2; 512];
        garbled |= tail.iter().any(|b| *b != 0 && *b != 2);
    }
    assert!(old && new && torn && garbled, "{old} {new} {torn} {garbled}");
}

#[test]
fn a_sector_that_is_half_promised_keeps_that_half() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.write_all_at(&[0; 512], 0).unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    file.sync_data().unwrap();
    file.write_all_at(&[1; 100], 0).unwrap(); // the same bytes again change nothing
    file.write_all_at(&[2; 100], 100).unwrap();
    for content in outcomes(&disk, "a") {
        let content = content.unwrap();
        assert_eq!(content[..100], [1; 100]);
        assert_eq!(content[200..], [0; 312]);
    }
}

#[test]
fn a_sector_written_twice_may_be_found_between() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.write_all_at(b"1", 0).unwrap();
    file.write_all_at(b"2", 0).unwrap();
    assert!(outcomes(&disk, "a").contains(&Some(b"1".to_vec())));
}

#[test]
fn a_name_survives_with_its_directory_only() {
    let disk = SimDisk::new(1);
    let file = disk.open(path("a"), Open::Create).unwrap();
    file.write_all_at(b"abc", 0).unwrap();
    file.sync_all().unwrap();
    assert!(outcomes(&disk, "a").contains(&None), "syncing a file does not keep its name");
    disk.sync_dir(path("")).unwrap();
    assert_eq!(outcomes(&disk, "a"), BTreeSet::from([Some(b"abc".to_vec())]));
    disk.unlink(path("a")).unwrap();
    assert_eq!(outcomes(&disk, "a").len(), 2, "an unlink may be undone");
}

#[test]
fn a_directory_that_was_not_synced_takes_its_files_along() {
    let disk = SimDisk::new(1);
    disk.create_dir(path("d")).unwrap();
    let file = disk.open(path("d/a"), Open::Create).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(path("d")).unwrap();
    assert!(outcomes(&disk, "d/a").contains(&None));
    disk.sync_dir(path("")).unwrap();
    assert!(!outcomes(&disk, "d/a").contains(&None));
}

#[test]
fn a_rename_happened_or_did_not() {
    let disk = SimDisk::new(1);
    for (name, bytes) in [("a", b"old"), ("b", b"new")] {
        let file = made(&disk, name);
        file.write_all_at(bytes, 0).unwrap();
        file.sync_data().unwrap();
    }
    disk.rename(path("b"), path("a")).unwrap();
    for seed in 0..100 {
        let after = disk.copy();
        after.power_cut(seed);
        let found = (after.read("a"), after.read("b"));
        let before = (Some(b"old".to_vec()), Some(b"new".to_vec()));
        assert!(found == before || found == (Some(b"new".to_vec()), None), "{found:?}");
    }
}

#[test]
fn a_failed_sync_lies_from_then_on() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.write_all_at(&[7; 8 * 512], 0).unwrap();
    disk.fail(Op::Sync, 1, Fault::Eio);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap(); // the lie
    assert_eq!(disk.read("a").unwrap(), [7; 8 * 512]);
    let seen = outcomes(&disk, "a");
    assert_eq!(seen.len(), 1, "nothing is dirty, so chance has no say");
    assert!(!seen.contains(&Some(vec![7; 8 * 512])));
    disk.evict(3);
    assert_ne!(disk.read("a").unwrap(), [7; 8 * 512]);
}

#[test]
fn each_handle_hears_once_of_a_failed_write_back() {
    let disk = SimDisk::new(1);
    let (a, b) = (made(&disk, "a"), disk.open(path("a"), Open::Write).unwrap());
    a.write_all_at(b"x", 0).unwrap();
    disk.fail(Op::Write, 1, Fault::WriteBack);
    a.write_all_at(b"y", 1).unwrap();
    let late = disk.open(path("a"), Open::Write).unwrap();
    late.sync_data().unwrap();
    a.sync_data().unwrap_err();
    a.sync_data().unwrap();
    b.sync_data().unwrap_err();
    b.sync_data().unwrap();
}

#[test]
fn faults_strike_the_call_they_were_planned_for() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    disk.fail(Op::Write, 2, Fault::Interrupted);
    disk.fail(Op::Write, 3, Fault::Short(1));
    disk.fail_from(Op::Read, 2, Fault::Eio);
    assert_eq!(file.write_at(b"abc", 0).unwrap(), 3);
    assert_eq!(file.write_at(b"abc", 0).unwrap_err().kind(), io::ErrorKind::Interrupted);
    assert_eq!(file.write_at(b"abc", 0).unwrap(), 1);
    assert_eq!(file.write_at(b"abc", 0).unwrap(), 3);
    let mut buf = [0; 3];
    file.read_exact_at(&mut buf, 0).unwrap();
    file.read_exact_at(&mut buf, 0).unwrap_err();
    file.read_exact_at(&mut buf, 0).unwrap_err();
    disk.heal();
    file.read_exact_at(&mut buf, 0).unwrap();
}

#[test]
fn a_full_disk_takes_what_fits() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    disk.set_capacity(Some(8192));
    assert_eq!(file.write_at(&[1; 10_000], 100).unwrap(), 8092);
    assert_eq!(file.write_at(&[1; 1], 8192).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.write_at(&[2; 100], 8000).unwrap(), 100, "old blocks take new bytes");
    disk.unlink(path("a")).unwrap();
    assert_eq!(disk.used(), 8192, "an open file keeps its space");
    drop(file);
    disk.sync_dir(path("")).unwrap();
    let other = made(&disk, "b");
    other.write_all_at(&[1; 8192], 0).unwrap();
}

#[test]
fn a_cut_file_shows_zeros_when_it_grows_again() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.write_all_at(&[1; 5000], 0).unwrap();
    file.sync_data().unwrap();
    file.set_len(100).unwrap();
    file.set_len(6000).unwrap();
    let content = disk.read("a").unwrap();
    assert!(content[..100] == [1; 100] && content[100..] == [0; 5900]);
    for content in outcomes(&disk, "a") {
        assert_eq!(content.unwrap()[..100], [1; 100]);
    }
}

#[test]
fn rot_and_broken_sectors_hit_one_place() {
    let disk = SimDisk::new(1);
    disk.put("d/a", &[0; 2000]);
    assert!(disk.flip("d/a", 8 * 700 + 3) && !disk.flip("d/a", 8 * 2000));
    assert_eq!(disk.read("d/a").unwrap()[700], 8);
    assert!(disk.break_sector("d/a", 600));
    let file = disk.open(path("d/a"), Open::Write).unwrap();
    let mut buf = [0; 512];
    file.read_exact_at(&mut buf, 0).unwrap();
    file.read_exact_at(&mut buf, 1).unwrap_err();
    file.write_all_at(&[5; 512], 512).unwrap();
    file.read_exact_at(&mut buf, 512).unwrap();
    assert!(disk.remove("d/a") && !disk.remove("d/a"));
}

#[test]
fn a_misdirected_write_lands_elsewhere_and_says_nothing() {
    let disk = SimDisk::new(1);
    let file = made(&disk, "a");
    file.set_len(65536).unwrap();
    disk.fail(Op::Write, 1, Fault::Misdirected);
    file.write_all_at(&[9; 512], 32768).unwrap();
    let content = disk.read("a").unwrap();
    assert_eq!(content[32768..33280], [0; 512]);
    assert_eq!(content.iter().filter(|b| **b == 9).count(), 512);
}

#[test]
fn recorded_moments_are_the_disk_at_each_call() {
    let disk = SimDisk::new(1);
    disk.record();
    let file = made(&disk, "a");
    file.write_all_at(&[1; 600], 0).unwrap();
    file.sync_data().unwrap();
    let moments = disk.recorded();
    let ops: Vec<_> = moments.iter().map(|m| (m.call, m.op, m.midway)).collect();
    let whole = [
        (1, Op::Open, false),
        (2, Op::SyncDir, false),
        (3, Op::Write, false),
        (4, Op::Sync, false),
    ];
    assert_eq!(ops.iter().filter(|(_, _, midway)| !midway).copied().collect::<Vec<_>>(), whole);
    let midway = moments.iter().find(|m| m.midway).expect("this seed writes in halves");
    assert!(midway.disk.read("a").unwrap().len() < 600);
    assert_eq!(moments.last().unwrap().disk.read("a").unwrap(), [1; 600]);
}

#[test]
fn equal_seeds_give_equal_disks() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        let file = made(&disk, "a");
        for i in 0..50u8 {
            file.write_all_at(&[i; 300], u64::from(i) * 290).unwrap();
        }
        disk.fail(Op::Sync, 1, Fault::Eio);
        file.sync_data().unwrap_err();
        file.write_all_at(&[3; 9000], 0).unwrap();
        disk.power_cut(seed);
        disk.read("a")
    };
    assert_eq!(run(11), run(11));
    assert!((0..20).any(|seed| run(seed) != run(11)));
}
