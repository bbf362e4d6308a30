//! What a push costs: memory for a large one, time for a small one onto many refs.

use crate::support::{Site, gits};
use std::fs;
use std::time::Instant;
use tidegate::gate::forward::Verdict;

/// The highest resident set of this process since the last call, in KiB.
fn peak_since_last() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    fs::write("/proc/self/clear_refs", "5").unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

#[test]
fn a_large_pack_does_not_pass_through_our_memory() {
    let site = Site::new(&gits()[0]);
    site.sh("cd work; head -c 100000000 /dev/urandom > big; git add big; git -c core.compression=0 commit -q -m big");
    let body = site.request("main");
    assert!(body.metadata().unwrap().len() > 100_000_000);
    peak_since_last();
    let before = peak_since_last();
    let push = site.hold(body);
    assert_eq!(site.forward(&push).verdict, Verdict::Accepted);
    let grown = peak_since_last().saturating_sub(before);
    assert!(grown < 32 * 1024, "the process grew by {grown} KiB");
    site.remove(&push);
}

#[test]
#[ignore = "prints how long the steps take; it asserts nothing about time"]
fn three_commits_onto_many_refs() {
    for git in gits() {
        let site = Site::new(&git);
        site.sh("cd srv.git; tip=$(git rev-parse main); tree=$(git rev-parse main^{tree})
             i=0; while [ $i -lt 3600 ]; do echo \"commit refs/heads/b$i\"; echo 'committer a <a@b> 1 +0000'; echo 'data <<E'; echo $i; echo E; echo \"from $tip\"; i=$((i+1)); done | git fast-import --quiet
             git pack-refs --all; git repack -a -d -q");
        for round in 1..=10 {
            site.sh("cd work; for i in 4 5 6; do echo $i >> file; git commit -q -a -m $i; done");
            let body = site.request("main");
            let start = Instant::now();
            let push = site.hold(body);
            let held = start.elapsed();
            let forwarded = site.forward(&push);
            let whole = start.elapsed();
            assert_eq!(forwarded.verdict, Verdict::Accepted);
            println!("{:?} round {round}: taken in {held:?}, forwarded {:?}", git.version(), whole - held);
            site.remove(&push);
        }
    }
}
