//! A peer behind a server that ends TLS for it, and collects what it passes on unless it is told not to.

use super::Member;
use crate::proxy::Nginx;
use crate::support::forge::Forge;
use crate::support::{HANG, eventually, repo};

#[test]
fn a_peer_behind_tls_is_known_by_the_authorities_that_are_named_and_its_events_are_not_held_back() {
    let host = Member::start(|place| {
        repo::history(place, "app.git");
        place.user("alice", "pusher");
        place.gate().set("trusted_proxies", "[\"127.0.0.0/8\"]")
    });
    // Its certificate, and who vouches for it.
    let (authority, gate) = (Forge::start(&host.place).authority(), host.gate.address());
    let directory = authority.parent().unwrap().display().to_string();
    // Buffering is on, as it is where nobody says otherwise.
    let nginx = Nginx::with(&host.place, |own, address| {
        format!(
            "daemon off; worker_processes 1; pid {own}/pid; error_log {own}/error.log;\n\
             events {{ worker_connections 256; }}\n\
             http {{ access_log off; proxy_temp_path {own}/proxy; client_body_temp_path {own}/body;\n\
             fastcgi_temp_path {own}/fastcgi; uwsgi_temp_path {own}/uwsgi; scgi_temp_path {own}/scgi;\n\
             server {{ listen {address} ssl; ssl_certificate {directory}/pem; ssl_certificate_key {directory}/key;\n\
             location / {{ proxy_pass http://{gate}; proxy_http_version 1.1; proxy_read_timeout 1h; }} }} }}\n"
        )
    });
    let edge = Member::start(|place| {
        place.gate().tables(&format!("[[upstream]]\nname = \"host\"\nurl = \"http://{gate}\"\n"))
    });
    let token = host.place.path().join("listener");
    let url = format!("https://{}", nginx.port.address);
    let peer =
        |keys: &str| format!("[[peer]]\nname = \"host\"\nurl = \"{url}\"\ntoken_file = {token:?}\n{keys}");
    edge.reload(&peer(""));
    let error = || edge.peer("host")["error"].as_str().unwrap_or_default().to_owned();
    eventually(HANG, "it is not trusted", || error().contains("has no connection that can be trusted"));
    edge.reload(&peer(&format!("ca_file = {authority:?}\n")));
    edge.await_listeners("listening", 1);
    let clone = host.place.client().cloned(&[], &host.gate.url_as("alice", "app"), &host.place.work("clone"));
    clone.commit("a", b"a", "a");
    clone.git(&["push", "origin", "HEAD:refs/heads/main"]).ok();
    eventually(HANG, "the event comes through", || edge.peer("host")["last_event"].is_string());
}
