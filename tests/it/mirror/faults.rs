//! What an upstream or a stranger does to a mirror beyond being away: a history that is cut off, a right that is taken
//! back, another hash, files that go.

use super::{DOOR, Scene, advance, cloned_main, commit};
use crate::support::gate::Gate;
use crate::support::git::gits;
use crate::support::run::Run;
use crate::support::{HANG, eventually, pkt, repo};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// Every read asks.
const STALE: &str = "mirror.fresh_for = \"1ms\"";

/// No read asks that need not.
const FRESH: &str = "mirror.fresh_for = \"1h\"";

/// Where the upstream's borders of a history are that is cut off.
fn border(scene: &Scene) -> PathBuf {
    scene.place.repo("app.git").join("shallow")
}

/// Lets the upstream have nothing before `oid`.
fn cut_off(scene: &Scene, oid: &str) {
    fs::write(border(scene), format!("{oid}\n")).unwrap();
}

fn sync(scene: &Scene) -> Run {
    let data = scene.place.data();
    scene.place.tidegate(&["mirror", "sync", "forge/app", "--data-dir", data.to_str().unwrap()], b"")
}

#[test]
fn a_shallow_upstream_is_not_mirrored_in_part_and_says_why() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let (main, topic) = (served.oid("main"), served.oid("topic"));
    cut_off(&scene, &topic);
    let gate = scene.gate("open", STALE).start();
    gate.get(DOOR).expect(502).says("a shallow repository");
    assert!(!scene.mirror("app.git").exists(), "not even what is whole");
    fs::remove_file(border(&scene)).unwrap();
    assert_eq!(cloned_main(&scene, &gate, "whole"), main);
    let new = advance(&served, "new");
    let tree = served.oid("main^{tree}");
    let hidden = commit(&served, "hidden", None);
    let cut = served.git(&["commit-tree", &tree, "-p", &hidden, "-m", "cut"]).ok().text();
    served.git(&["update-ref", "refs/heads/cut", &cut]).ok();
    cut_off(&scene, &cut);
    let run = scene.place.client().try_clone(&[], &gate.url("forge/app"), &scene.place.work("cut")).ok();
    assert!(run.stderr.contains("the upstream does not answer as it should"), "{}", run.stderr);
    assert!(gate.get(DOOR).expect(200).header("tidegate-stale").is_some());
    sync(&scene).fails().says("a shallow repository");
    fs::remove_file(border(&scene)).unwrap();
    assert_eq!(cloned_main(&scene, &gate, "again"), new);
    assert_eq!(gate.get(DOOR).expect(200).says("refs/heads/cut").header("tidegate-stale"), None);
}

#[test]
fn a_no_to_the_gate_ends_the_freshness_of_a_mirror_and_an_upstream_that_is_down_then_unsays_none_of_it() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", FRESH).start();
    for status in [404, 403, 401] {
        cloned_main(&scene, &gate, &format!("before-{status}"));
        scene.origin.answer(Some(status));
        gate.get(DOOR).expect(200);
        sync(&scene).fails();
        let fetch = || gate.wire().post("forge/app", "git-upload-pack", &[], &pkt::clone_v0(&main));
        for answer in [gate.get(DOOR), fetch()] {
            assert!(answer.status >= 400 && !answer.text().contains(&main), "{status}: {}", answer.text());
        }
        scene.origin.stop();
        for answer in [gate.get(DOOR), fetch()] {
            assert!(answer.status >= 400 && !answer.text().contains(&main), "{status}: {}", answer.text());
        }
        scene.origin.answer(None);
        scene.origin.resume();
    }
    let asked = scene.questions();
    cloned_main(&scene, &gate, "after");
    cloned_main(&scene, &gate, "last");
    assert_eq!(scene.questions(), asked + 1, "it is as fresh as before");
}

#[test]
fn a_no_outlives_the_gate_until_the_upstream_gives_something_again() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", FRESH).start();
    cloned_main(&scene, &gate, "before");
    scene.origin.answer(Some(404));
    sync(&scene).fails();
    // Killed, it has noted what it told.
    drop(gate);
    scene.origin.answer(Some(503));
    let gate = scene.gate("open", FRESH).start();
    let withheld = |gate: &Gate| {
        let fetch = gate.wire().post("forge/app", "git-upload-pack", &[], &pkt::clone_v0(&main));
        for answer in [gate.get(DOOR), fetch] {
            assert!(answer.status >= 400 && !answer.text().contains(&main), "{}", answer.text());
        }
    };
    withheld(&gate);
    gate.stop();
    scene.origin.stop();
    let gate = scene.gate("open", FRESH).start();
    withheld(&gate);
    scene.origin.answer(None);
    scene.origin.resume();
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
    gate.stop();
    scene.origin.stop();
    let gate = scene.gate("open", FRESH).start();
    assert_eq!(cloned_main(&scene, &gate, "stale"), main, "being down unsays no yes either");
}

#[test]
fn a_no_to_the_schedule_ends_the_freshness_of_a_mirror_and_one_to_a_push_asks_for_the_readers() {
    let mut scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let main = served.oid("main");
    let keys = "mirror = { fresh_for = \"1h\", sync_every = \"200ms\" }";
    let gate = scene.gate("open", keys).text("sweeper.sync_mirrors", "20ms").start();
    cloned_main(&scene, &gate, "before");
    scene.origin.answer(Some(403));
    eventually(HANG, "the schedule is told", || gate.log().has("mirror forge/app not synced cause=schedule"));
    scene.origin.stop();
    let down = gate.get(DOOR);
    assert!(down.status >= 400 && !down.text().contains(&main), "{}", down.text());
    gate.stop();
    scene.origin.answer(None);
    scene.origin.resume();
    let gate = scene.gate("open", FRESH).set("anonymous_push", true).start();
    cloned_main(&scene, &gate, "again");
    scene.origin.answer(Some(404));
    gate.get(DOOR).expect(200);
    served.git(&["push", &gate.url("forge/app"), "main:new"]).fails();
    let asked = gate.get(DOOR);
    assert!(asked.status == 404 && !asked.text().contains(&main), "{}", asked.text());
}

/// Puts `next.git` of the upstream into the place of `app.git`.
fn replace(scene: &Scene) {
    let place = scene.place.repo("app.git");
    fs::remove_dir_all(&place).unwrap();
    fs::rename(scene.place.repo("next.git"), place).unwrap();
}

#[test]
fn an_upstream_that_is_replaced_by_one_of_another_hash_is_mirrored_anew() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", STALE).start();
    cloned_main(&scene, &gate, "first");
    for (round, name) in ["other", "back"].into_iter().enumerate() {
        let made = if round == 0 {
            repo::sha256(&scene.place, "next.git")
        } else {
            repo::history(&scene.place, "next.git")
        };
        let main = made.oid("main");
        replace(&scene);
        assert_eq!(cloned_main(&scene, &gate, name), main);
        scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
        assert_eq!(gate.get(DOOR).expect(200).header("tidegate-stale"), None);
    }
}

#[test]
fn a_push_that_is_held_for_a_repository_of_another_hash_cannot_land_and_ends() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git").git(&["config", "http.receivepack", "true"]).ok();
    let keys = format!("{STALE}\ngate.approval = \"required\"\ngate.on_disconnect = \"keep\"");
    let gate = scene.gate("open", &keys).set("anonymous_push", true).start();
    let work = scene.place.client().cloned(&[], &gate.url("forge/app"), &scene.place.work("work"));
    work.commit("file", b"pushed", "pushed");
    let mut push = work.begin(&["push", "origin", "HEAD"]);
    eventually(HANG, "the push waits", || {
        assert!(push.is_running(), "it ended: {}", push.heard());
        push.heard().contains("waits for approval")
    });
    let next = repo::sha256(&scene.place, "next.git");
    next.git(&["config", "http.receivepack", "true"]).ok();
    let main = next.oid("main");
    replace(&scene);
    assert_eq!(cloned_main(&scene, &gate, "other"), main);
    let data = scene.place.data();
    let words = ["push", "approve", "1", "--data-dir", data.to_str().unwrap()];
    scene.place.tidegate(&words, b"");
    push.finish(HANG).fails();
    assert_eq!(gate.control("/-/api/v1/pushes/1").expect(200).json()["state"], "stale");
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
}

/// What it is called that is done to a mirror, and how.
type Harm = (&'static str, fn(&Path));

/// How files of a mirror go or change.
const HARMS: [Harm; 14] = [
    ("HEAD is gone", |mirror| fs::remove_file(mirror.join("HEAD")).unwrap()),
    ("HEAD is empty", |mirror| fs::write(mirror.join("HEAD"), "").unwrap()),
    ("the configuration is gone", |mirror| fs::remove_file(mirror.join("config")).unwrap()),
    ("refs are gone", |mirror| fs::remove_dir_all(mirror.join("refs")).unwrap()),
    ("objects are gone", |mirror| fs::remove_dir_all(mirror.join("objects")).unwrap()),
    ("the packs are gone", empty_packs),
    ("garbage stands in the list of refs", |mirror| {
        fs::write(mirror.join("packed-refs"), "x y z\n").unwrap()
    }),
    ("the list of refs is empty", |mirror| fs::write(mirror.join("packed-refs"), "").unwrap()),
    ("the list of refs is gone", |mirror| fs::remove_file(mirror.join("packed-refs")).unwrap()),
    ("its history is cut off", |mirror| {
        let refs = fs::read_to_string(mirror.join("packed-refs")).unwrap();
        let main = refs.lines().find_map(|line| line.strip_suffix(" refs/heads/main")).unwrap();
        fs::write(mirror.join("shallow"), format!("{main}\n")).unwrap();
    }),
    ("it borrows from nowhere", |mirror| {
        fs::write(mirror.join("objects/info/alternates"), "/nowhere/objects\n").unwrap();
    }),
    ("its packs are half as long", |mirror| {
        packs(mirror).iter().for_each(|pack| cut(pack));
    }),
    ("a file has its place", |mirror| {
        fs::remove_dir_all(mirror).unwrap();
        fs::write(mirror, "this is no mirror").unwrap();
    }),
    ("a link that leads nowhere has its place", |mirror| {
        fs::remove_dir_all(mirror).unwrap();
        symlink("/nowhere/app.git", mirror).unwrap();
    }),
];

/// The packs of a mirror.
fn packs(mirror: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(mirror.join("objects/pack")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.extension().is_some_and(|it| it == "pack")).collect()
}

/// Cuts off half of a file that nobody may write.
fn cut(path: &Path) {
    let content = fs::read(path).unwrap();
    rewrite(path, &content[..content.len() / 2]);
}

/// Gives a file that nobody may write another content: the same file, in the same place.
fn rewrite(path: &Path, content: &[u8]) {
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    fs::write(path, content).unwrap();
}

fn empty_packs(mirror: &Path) {
    for entry in fs::read_dir(mirror.join("objects/pack")).unwrap().flatten() {
        fs::remove_file(entry.path()).unwrap();
    }
}

/// Spoils the head of each pack of a mirror, or the fan-out of its index: no git gets past either.
fn spoil(mirror: &Path, suffix: &str) {
    for pack in packs(mirror) {
        let file = pack.with_extension(suffix);
        let mut content = fs::read(&file).unwrap();
        content[..64].fill(0xff);
        rewrite(&file, &content);
    }
}

/// A new mirror is tended about now, and a repack is no stranger.
#[track_caller]
fn await_tended(gate: &Gate, times: f64) {
    eventually(HANG, "it is tended", || gate.metric("tidegate_mirror_upkeep_total", &["ok"]) >= times);
}

#[test]
fn a_mirror_that_a_stranger_has_broken_is_made_anew_by_the_next_read_however_fresh_it_was() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    for (number, (what, harm)) in HARMS.into_iter().enumerate() {
        harm(&scene.mirror("app.git"));
        let clone = scene.place.work(&format!("clone-{number}"));
        let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &clone);
        assert_eq!(
            (clone.oid("HEAD"), clone.oid("origin/topic")),
            (main.clone(), served.oid("topic")),
            "{what}"
        );
        clone.git(&["fsck", "--full", "--strict"]).ok();
        sync(&scene).ok();
        scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
    }
}

#[test]
fn a_history_that_a_stranger_has_cut_off_is_not_served_while_the_upstream_is_away() {
    let mut scene = Scene::new();
    let main = repo::history(&scene.place, "app.git").oid("main");
    let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
    cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    let shallow = scene.mirror("app.git").join("shallow");
    fs::write(&shallow, format!("{main}\n")).unwrap();
    scene.origin.stop();
    gate.get(DOOR).expect(502).says("cannot be reached");
    scene.origin.resume();
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
    assert!(!shallow.exists());
}

#[test]
fn a_mirror_that_was_broken_while_no_gate_ran_is_made_anew_by_the_next_one() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", STALE).text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    gate.stop();
    for (number, (what, harm)) in HARMS.into_iter().enumerate() {
        harm(&scene.mirror("app.git"));
        let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
        assert_eq!(cloned_main(&scene, &gate, &format!("clone-{number}")), main, "{what}");
        scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
        gate.stop();
    }
}

#[test]
fn a_mirror_whose_bytes_are_damaged_is_made_anew_once_a_clone_has_failed_of_it() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    let state = || gate.control("/-/api/v1/mirrors/forge/app").expect(200).json()["state"].clone();
    for (round, suffix) in ["pack", "idx"].into_iter().enumerate() {
        let mended = || gate.log().lines("mirror forge/app synced cause=repair").len();
        assert_eq!(mended(), round);
        spoil(&scene.mirror("app.git"), suffix);
        // The pack that the others get is remembered.
        scene
            .place
            .client()
            .git(&["clone", "-q", "--single-branch", &gate.url("forge/app"), "failed"])
            .fails();
        eventually(HANG, "nobody asks, and it is mended", || mended() > round);
        assert_eq!(state(), "fresh");
        let work = scene.place.work(&format!("mended-{suffix}"));
        let clone = scene.place.client().cloned(&["-q"], &gate.url("forge/app"), &work);
        assert_eq!((clone.oid("HEAD"), clone.oid("origin/topic")), (main.clone(), served.oid("topic")));
        scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
    }
}

#[test]
fn a_sync_that_meets_damage_makes_the_mirror_anew() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", STALE).text("sweeper.mirror_upkeep", "366d").start();
    cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    for suffix in ["pack", "idx"] {
        spoil(&scene.mirror("app.git"), suffix);
        let new = commit(&served, suffix, Some("refs/heads/main"));
        assert_eq!(cloned_main(&scene, &gate, suffix), new);
        assert_eq!(gate.get(DOOR).expect(200).header("tidegate-stale"), None);
        scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
    }
}

#[test]
fn refs_that_a_hand_has_put_into_a_mirror_go_with_the_next_sync() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).start();
    let main = cloned_main(&scene, &gate, "first");
    let old = served.oid("main~1");
    let mirror = scene.place.client().at(&scene.mirror("app.git"));
    let listed = |protocol: u8| {
        let client = scene.place.client().protocol(protocol);
        client.git(&["ls-remote", &gate.url("forge/app")]).ok().text()
    };
    let right = listed(0);
    for change in [
        ["update-ref", "refs/heads/main", &old],
        ["update-ref", "refs/heads/deep/own", &old],
        ["symbolic-ref", "HEAD", "refs/heads/topic"],
    ] {
        mirror.git(&change).ok();
        sync(&scene).ok();
        assert_eq!((listed(0), listed(2)), (right.clone(), right.clone()), "{change:?}");
    }
    assert_eq!(cloned_main(&scene, &gate, "after"), main);
}

#[test]
fn wrong_bytes_that_git_sends_on_as_they_are_show_at_the_next_full_repack() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    gate.stop();
    for pack in packs(&scene.mirror("app.git")) {
        let mut content = fs::read(&pack).unwrap();
        let middle = content.len() / 2;
        content[middle..middle + 8].fill(0xff);
        rewrite(&pack, &content);
    }
    let keys = "mirror = { fresh_for = \"1h\", prune_after = \"1ms\" }";
    let gate = scene.gate("open", keys).text("sweeper.mirror_upkeep", "50ms").start();
    eventually(HANG, "it is mended", || gate.log().has("mirror forge/app synced cause=repair"));
    assert_eq!(cloned_main(&scene, &gate, "mended"), main);
    scene.place.client().at(&scene.mirror("app.git")).git(&["fsck", "--full", "--strict"]).ok();
}

#[test]
fn a_mirror_that_an_operator_has_repacked_is_the_same_as_before_and_is_not_made_anew() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).text("sweeper.mirror_upkeep", "366d").start();
    let main = cloned_main(&scene, &gate, "first");
    await_tended(&gate, 1.0);
    let place = scene.mirror("app.git");
    let mirror = scene.place.client().at(&place);
    let made = || fs::metadata(scene.mirror("app.git").join("config")).unwrap();
    let inode = |meta: fs::Metadata| std::os::unix::fs::MetadataExt::ino(&meta);
    let before = inode(made());
    mirror.git(&["repack", "-q", "-a", "-d", "-F"]).ok();
    let asked = scene.origin.count("POST /open/app.git/git-upload-pack");
    assert_eq!(cloned_main(&scene, &gate, "second"), main);
    assert_eq!(cloned_main(&scene, &gate, "third"), main);
    assert_eq!(inode(made()), before);
    assert_eq!(scene.origin.count("POST /open/app.git/git-upload-pack"), asked);
}

#[test]
fn a_fetch_by_id_needs_no_disk() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", FRESH).start();
    cloned_main(&scene, &gate, "first");
    let old = served.oid("main~3");
    let tmp = scene.place.data().join("tmp");
    fs::remove_dir_all(&tmp).unwrap();
    let fields = [("Git-Protocol", "version=2")];
    let answer = gate.wire().post("forge/app", "git-upload-pack", &fields, &pkt::fetch(&old)).expect(200);
    assert!(answer.text().contains("PACK"), "{}", answer.text());
    fs::create_dir(&tmp).unwrap();
}

#[test]
fn a_clone_through_a_mirror_may_leave_blobs_out_and_fetches_them_as_it_needs_them() {
    let scene = Scene::new();
    let served = repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", STALE).start();
    let files = served.git(&["ls-tree", "-r", "--name-only", "main"]).ok().text();
    for (number, program) in gits().iter().enumerate() {
        let client = scene.place.client().program(program);
        let clone = |options: &[&str], name: &str| {
            client.cloned(options, &gate.url("forge/app"), &scene.place.work(&format!("{name}-{number}")))
        };
        let bare = clone(&["-q", "--bare", "--filter=blob:none"], "bare");
        let missing = bare.git(&["rev-list", "--objects", "--missing=print", "main"]).ok().text();
        assert!(missing.lines().any(|line| line.starts_with('?')), "{missing}");
        let work = clone(&["-q", "--filter=blob:none"], "work");
        assert_eq!(work.git(&["ls-files"]).ok().text(), files);
        work.git(&["checkout", "-q", "HEAD~3"]).ok();
        work.git(&["status", "--porcelain"]).ok();
        clone(&["-q", "--bare", "--filter=tree:0"], "trees");
    }
    let url = gate.url("forge/app");
    let work = scene.place.work("sparse");
    let words = ["clone", "-q", "--bare", "--filter=sparse:oid=main:file", &url, work.to_str().unwrap()];
    scene.place.client().git(&words).fails().says("not supported");
}

#[test]
fn what_an_upstream_says_in_place_of_its_refs_is_handed_on() {
    let scene = Scene::new();
    repo::history(&scene.place, "app.git");
    let gate = scene.gate("open", STALE).start();
    scene.origin.refuse_in_words(true);
    gate.get(DOOR).expect(502).says("says: come again in 5 s");
    scene.origin.refuse_in_words(false);
    cloned_main(&scene, &gate, "clone");
}
