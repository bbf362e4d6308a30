//! Symbolic refs, through which git moves a ref that nobody who checks or decides knows of.

use tidegate::model::push::PushState;

use super::Desk;
use crate::support::HANG;

#[test]
fn a_ref_that_stands_for_another_is_not_pushed_to() {
    let desk = Desk::new();
    let protected =
        "[[checks.refs.protected]]\nmatch = \"refs/heads/main\"\nforce = \"nobody\"\ndelete = \"nobody\"";
    let gate = desk.gate().tables(protected).start();
    let before = desk.served.oid("main");
    for (alias, other) in [("alias", "main"), ("far", "alias"), ("dangling", "absent")] {
        desk.served
            .git(&["symbolic-ref", &format!("refs/heads/{alias}"), &format!("refs/heads/{other}")])
            .ok();
    }
    desk.work.commit("file.txt", b"x", "past the rules");
    for (words, name, other) in [
        (&["main:alias"][..], "alias", "main"),
        (&["--force", "main~2:alias"], "alias", "main"),
        (&[":alias"], "alias", "main"),
        (&["main:far", "main:fresh"], "far", "main"),
        (&["main:dangling"], "dangling", "absent"),
    ] {
        let run = desk.push(&gate, words).finish(HANG);
        run.exits(1).says(&format!("refs/heads/{name} stands for refs/heads/{other}: push to that"));
        assert_eq!(desk.list(1)[0].state, PushState::Failed, "{words:?}");
    }
    assert_eq!(desk.served.oid("main"), before);
    assert!(
        desk.served.refs("refs/heads/absent").is_empty() && desk.served.refs("refs/heads/fresh").is_empty()
    );
    gate.stop();
}
