//! Maintenance after pushes that were passed on.

use crate::support::Site;
use std::time::{Duration, Instant};
use tidegate::model::push::PushState;

/// A repository whose next maintenance has something to do, and adds a line to the file `maintained` when it begins.
fn due(site: &Site) {
    site.sh("git -C root/app.git config gc.auto 1");
    // `gc --auto` counts the loose objects of this one directory (gc.auto in git-config(1), builtin/gc.c).
    let loose = site.path("root/app.git/objects/17");
    std::fs::create_dir_all(&loose).unwrap();
    for number in 0..8 {
        std::fs::write(loose.join(format!("{number:038}")), "").unwrap();
    }
    let script = format!("echo >> {}\nexit 1", site.path("maintained").display());
    site.program("root/app.git/hooks/pre-auto-gc", &script);
}

fn push_approved(site: &Site, refs: &str) {
    let client = site.push(refs);
    let push = site.until(PushState::Pending);
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    site.until_removed(push.id);
}

#[test]
fn a_repository_is_maintained_after_a_forward_unless_its_owner_wants_none() {
    let site = Site::new("");
    due(&site);
    site.sh("git -C root/app.git config receive.autogc false");
    push_approved(&site, "main");
    site.sh("git -C root/app.git config receive.autogc true");
    push_approved(&site, "main:refs/heads/other");
    let since = Instant::now();
    while !site.path("maintained").exists() {
        assert!(since.elapsed() < Duration::from_secs(30), "nobody maintains it");
        std::thread::sleep(Duration::from_millis(20));
    }
    // One worker maintains, in the order of the pushes.
    assert_eq!(site.sh("wc -l < maintained"), "1", "its owner wanted none after the first push");
}
