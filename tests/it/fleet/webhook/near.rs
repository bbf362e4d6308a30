//! Addresses near the gate: reached only where that is allowed, whatever a name says.

use super::Scene;
use super::receiver::Receiver;
use crate::support::{HANG, eventually};

#[test]
fn a_name_that_leads_to_this_machine_is_reached_only_where_that_is_allowed() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    let url = format!("http://localhost:{}/hook", receiver.port());
    let gate = scene.gate().tables(&scene.table(&url, "")).start();
    scene.push(&gate, "a");
    eventually(HANG, "it is refused", || {
        gate.log().has("is a loopback address, and allow_private = true is not")
    });
    assert!(gate.log().has("cannot be reached: "), "{}", gate.log().text());
    assert_eq!(receiver.connections(), 0);
    gate.stop();
    assert_eq!(receiver.connections(), 0, "not at the end either");
    let gate = scene.gate().tables(&scene.table(&url, "allow_private = true")).start();
    scene.expect_all_told(&receiver);
    gate.stop();
}

#[test]
fn an_address_that_is_near_is_refused_where_it_is_written() {
    let scene = Scene::new();
    for host in [
        "127.0.0.1",
        "[::1]",
        "10.1.2.3",
        "169.254.169.254",
        "[::ffff:127.0.0.1]",
        "[64:ff9b::a00:1]",
        "0.0.0.0",
    ] {
        let file = scene.gate().tables(&scene.table(&format!("http://{host}:1/"), "")).write().to_path_buf();
        let run = scene.place.tidegate(&["check-config", file.to_str().unwrap()], b"").exits(2);
        assert!(
            run.heard().contains("webhook.url: is an address of this machine"),
            "{host}: {}",
            run.heard()
        );
    }
}
