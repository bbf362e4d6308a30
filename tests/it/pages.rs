//! The pages of held pushes in a real browser, headless Chromium: what people see, and that hostile text is only text.

use std::fs;
use std::io::{Read, Write};
use std::thread;

use crate::support::browser::Chromium;
use crate::support::gate::Gate;
use crate::support::http::basic;
use crate::support::place::Place;
use crate::support::run::{Running, run};
use crate::support::{HANG, eventually, repo};

/// Markup that would change the page's title if a browser took it for markup.
const HOSTILE: &str = "<script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">";

/// What Chromium makes of the page at `url`: its document, after all that ran in it.
#[track_caller]
fn document(chromium: &Chromium, place: &Place, url: &str) -> String {
    let mut command = chromium.command(place);
    command.args(["--dump-dom", url]);
    run(command, b"", HANG).ok().text()
}

/// A push that waits, and all of whose words are hostile.
fn hostile_push(place: &Place, gate: &Gate) -> Running {
    let clone = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("clone"));
    fs::write(place.work("clone").join("<b>file"), format!("{HOSTILE}\n")).unwrap();
    clone.git(&["add", "."]).ok();
    clone.git(&["-c", "user.name=A <b>", "-c", "user.email=a@example.org", "commit", "-qm", HOSTILE]).ok();
    let push = clone.begin(&["push", "origin", "HEAD:refs/heads/x<b>y</b>\"'&"]);
    eventually(HANG, "the push waits", || push.heard().contains("waits for approval"));
    push
}

fn waiting_gate(place: &Place) -> Gate {
    for (name, role) in [("alice", "pusher"), ("rita", "reviewer")] {
        place.user(name, role);
    }
    repo::history(place, "demo.git");
    let command = "[[checks.command]]\nname = \"words\"\nargv = [\"/bin/sh\", \"-c\", \"read old new ref; case $ref in *bad) echo '<i>no</i>'; exit 1; esac\"]";
    place.gate().text("gate.approval", "required").set("checks.secrets", true).tables(command).start()
}

#[test]
fn a_browser_shows_a_push_with_everything_and_runs_nothing_of_it() {
    let place = Place::new();
    let gate = waiting_gate(&place);
    let push = hostile_push(&place, &gate);
    let chromium = Chromium::new();
    chromium.reaches(gate.address());
    let list = document(&chromium, &place, &gate.url_as("rita", "-/"));
    assert!(
        list.contains("<a href=\"/-/pushes/1\">1</a>") && list.contains("class=\"badge pending\""),
        "{list}"
    );
    let page = document(&chromium, &place, &gate.url_as("rita", "-/pushes/1"));
    for part in [
        "<title>Push 1: pending · Tidegate</title>",
        "<span>rita</span>",
        "<th>Repository</th><td>demo</td>",
        "refs/heads/x&lt;b&gt;y&lt;/b&gt;\"'&amp;",
        "<th>secrets</th><td><b class=\"badge pass\">pass</b>",
        "<th>command:words</th>",
        "git took the objects in",
        "<span class=\"add\">+&lt;script&gt;document.title='taken'&lt;/script&gt;&lt;img src=x",
        "action=\"/-/pushes/1/approve\"",
        "action=\"/-/pushes/1/reject\"",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    for document in [&list, &page] {
        let is_markup =
            ["<script", "<img", "<b>", "<i>", "javascript:"].iter().any(|tag| document.contains(tag));
        assert!(!is_markup, "{document}");
    }
    let own = document(&chromium, &place, &gate.url_as("alice", "-/pushes/1"));
    assert!(own.contains("/-/pushes/1/cancel") && !own.contains("/-/pushes/1/approve"), "{own}");
    drop(push);
}

#[test]
fn a_browser_would_not_run_a_script_that_stood_in_a_page() {
    let place = Place::new();
    let gate = waiting_gate(&place);
    let answer = gate.wire().get("/-/", &[("Authorization", &basic("rita"))]).expect(200);
    let policy =
        format!("Content-Security-Policy: {}\r\n", answer.header("content-security-policy").unwrap());
    let chromium = Chromium::new();
    let title = |fields: &str| {
        let listener = chromium.listener("127.0.0.1:0");
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{fields}Connection: close\r\n\r\n");
        let page = "<!DOCTYPE html><title>calm</title><script>document.title='taken'</script>";
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(format!("{head}{page}").as_bytes());
            }
        });
        let document = document(&chromium, &place, &url);
        document.split("<title>").nth(1).unwrap().split('<').next().unwrap().to_owned()
    };
    assert_eq!(title(""), "taken", "without the policy it runs: this test would see it");
    assert_eq!(title(&policy), "calm");
}

#[test]
fn a_browser_s_form_decides_once_and_from_our_page_only() {
    let place = Place::new();
    let gate = waiting_gate(&place);
    let push = hostile_push(&place, &gate);
    let login = basic("rita");
    let page = gate.wire().get("/-/pushes/1", &[("Authorization", &login)]).expect(200).text();
    let token = page.split("name=\"token\" value=\"").nth(1).unwrap().split('"').next().unwrap();
    let form = format!("token={token}&reason=fine");
    let send = |user: &str, form: &str, fields: &[(&str, &str)]| {
        let login = basic(user);
        let kind = ("Content-Type", "application/x-www-form-urlencoded");
        let fields = [&[("Authorization", login.as_str()), kind], fields].concat();
        gate.wire().ask("POST", "/-/pushes/1/approve", &fields, form.as_bytes()).status
    };
    let own = [("Sec-Fetch-Site", "same-origin")];
    assert_eq!(send("rita", &form, &[]), 403, "nobody says where it comes from");
    assert_eq!(send("rita", &form, &[("Sec-Fetch-Site", "cross-site")]), 403);
    assert_eq!(send("rita", &form, &[("Origin", "https://evil.example")]), 403);
    assert_eq!(send("rita", "reason=fine", &own), 403, "no token");
    assert_eq!(send("alice", &form, &own), 403, "a token of another's page");
    assert!(push.heard().contains("waits for approval") && !push.heard().contains("is approved"));
    assert_eq!(send("rita", &form, &own), 303);
    push.finish(HANG).ok().says("push 1 is approved");
    assert_eq!(send("rita", &form, &own), 409);
}
