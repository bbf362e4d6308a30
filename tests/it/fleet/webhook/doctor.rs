//! What the doctor says of webhooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::Scene;
use super::receiver::{Receiver, Reply};
use crate::support::port::Port;

#[test]
fn the_doctor_reaches_each_webhook_without_an_event_and_looks_at_its_secret() {
    let (scene, receiver) = (Scene::new(), Receiver::start());
    receiver.always(Reply::Status(404));
    fs::set_permissions(scene.secret(), fs::Permissions::from_mode(0o600)).unwrap();
    let look = |tables: &str| {
        let file = scene.gate().tables(tables).write().to_path_buf();
        scene.place.tidegate(&["doctor", "--config", file.to_str().unwrap()], b"")
    };
    let table = scene.table(&receiver.url("hook?key=k3y"), "name = \"chat\"\nallow_private = true");
    let run = look(&table).ok();
    let heard = run.heard();
    assert!(heard.contains("chat: http://127.0.0.1:") && heard.contains("with status 404"), "{heard}");
    assert!(heard.contains("chat: the secret_file") && !heard.contains("k3y"), "{heard}");
    let [letter] = receiver.letters().try_into().unwrap();
    assert_eq!((letter.line.as_str(), letter.body.as_str()), ("HEAD / HTTP/1.1", ""));
    assert!(!letter.fields.keys().any(|name| name.starts_with("tidegate-")), "{letter:?}");

    fs::set_permissions(scene.secret(), fs::Permissions::from_mode(0o644)).unwrap();
    look(&table).ok().says("chat: the secret_file").says("is open to other users (mode 644)");
    fs::remove_file(scene.secret()).unwrap();
    look(&table).fails().says("chat: reading the secret_file");

    let nobody = Port::reserve();
    let table = scene.table(&format!("http://localhost:{}/", nobody.address.port()), "name = \"chat\"");
    fs::write(scene.secret(), "x").unwrap();
    look(&table).fails().says("chat: http://localhost:").says("is a loopback address");
    let table = format!("{table}allow_private = true\n");
    look(&table).ok().says("cannot be reached").says("the gate goes on without, and tries again");
}
