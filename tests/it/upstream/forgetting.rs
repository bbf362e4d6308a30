//! Mirrors that an admin removes, and the pushes that are held for them.

use tidegate::model::push::PushState;

use super::stage::{KINDS, NAME, Plan};
use crate::support::http::basic;
use crate::support::{HANG, eventually};

const ONE: &str = "/-/api/v1/mirrors/forge/team/app";

#[test]
fn a_mirror_is_forgotten_when_no_push_is_held_for_it_and_the_next_clone_makes_it_anew() {
    for kind in KINDS {
        let stage = Plan::to(kind).required().start();
        let clone = stage.ahead("work");
        let mirror = stage.place.data().join("mirrors/forge/team/app.git");
        let data = stage.place.data();
        let forget = |name: &str| {
            let words = ["mirror", "forget", name, "--data-dir", data.to_str().unwrap()];
            stage.place.tidegate(&words, b"")
        };
        forget("forge/team/other").fails().says("there is no mirror of forge/team/other");
        let client = clone.begin(&["push", "origin", "main"]);
        let push = stage.until(PushState::Pending);
        forget(NAME).fails().says(&format!("push {} is held for it", push.id));
        assert!(mirror.is_dir());
        stage.approve(&push);
        client.finish(HANG).ok();
        stage.assert_arrived(&clone);
        let held = data.join(format!("held/{}.git", push.id));
        eventually(HANG, "the staging repository goes", || !held.exists());
        forget(NAME).ok().says("forge/team/app is forgotten");
        assert!(!mirror.exists() && data.join("tmp").read_dir().unwrap().next().is_none());
        assert_eq!(stage.gate.control(ONE).status, 404);
        assert!(stage.store.mirrors().all().unwrap().is_empty());
        assert_eq!(stage.clone("again").oid("HEAD"), stage.behind().oid("main"));
        assert!(mirror.is_dir() && stage.store.mirrors().all().unwrap().len() == 1);
    }
}

#[test]
fn only_an_admin_has_a_mirror_forgotten() {
    let stage = Plan::to(KINDS[1]).start();
    stage.place.user("ada", "admin");
    stage.clone("work");
    let delete = |user: Option<&str>, site: &str| {
        let credential = user.map(|user| ("Authorization", basic(user)));
        let fields = credential.into_iter().chain([("Sec-Fetch-Site", site.to_owned())]).collect::<Vec<_>>();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        stage.gate.wire().ask("DELETE", ONE, &fields, b"").status
    };
    assert_eq!(delete(None, "none"), 401);
    assert_eq!([delete(Some("alice"), "none"), delete(Some("rita"), "none")], [403, 403]);
    assert_eq!(delete(Some("ada"), "cross-site"), 403);
    assert_eq!(stage.gate.control(ONE).status, 200);
    assert_eq!([delete(Some("ada"), "none"), delete(Some("ada"), "none")], [200, 404]);
    assert_eq!(stage.gate.control(ONE).status, 404);
}
