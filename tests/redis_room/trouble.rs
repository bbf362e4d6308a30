//! Servers that say no, say nothing, or are not what they should be.

use crate::redis::{RedisServer, Relay};
use crate::support::{AT_ONCE, HANG, Kept, Listener, REPO, Teller, change, event, eventually, settings};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use tidegate::config::FleetSettings;
use tidegate::outbox::Limits;
use tidegate::outbox::redis::RedisError;
use tidegate::outbox::redis::sink::RedisSink;
use tidegate::sys::stop::{Level, Stop};

#[track_caller]
fn refusal(teller: &mut Teller) -> String {
    teller.try_tell(&change(1, 1)).unwrap_err().to_string()
}

#[test]
fn a_server_that_says_no_is_quoted_and_takes_the_change_when_it_can() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    server.ask(&["REPLICAOF", "127.0.0.1", "1"]);
    assert!(refusal(&mut teller).starts_with("publishing a version: the server answers READONLY "));
    server.ask(&["REPLICAOF", "NO", "ONE"]);
    server.ask(&["SET", &format!("tidegate:v:{REPO}"), "what?"]);
    assert!(refusal(&mut teller).contains("WRONGTYPE"));
    server.ask(&["DEL", &format!("tidegate:v:{REPO}")]);
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]);
    assert!(refusal(&mut teller).contains("OOM"));
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]);
    server.ask(&["SET", "tidegate:epoch", "mine"]);
    assert!(refusal(&mut teller).contains("written by no gate: remove the keys tidegate:*"));
    server.ask(&["DEL", "tidegate:epoch", &format!("tidegate:v:{REPO}")]);
    assert_eq!(teller.tell(&change(1, 1)), (1, true));
}

#[test]
fn a_server_that_loads_what_it_had_is_waited_for() {
    let mut server = RedisServer::start_with(&[
        "--save",
        "",
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--loading-process-events-interval-bytes",
        "1024",
        "--key-load-delay",
        "200",
        "--enable-debug-command",
        "yes",
    ]);
    server.ask(&["DEBUG", "POPULATE", "20000", "key", "100"]);
    server.ask(&["BGREWRITEAOF"]);
    eventually("it is on the disk", || {
        server.ask(&["INFO", "persistence"]).contains("aof_rewrite_in_progress:0")
    });
    server.crash();
    server.launch();
    let mut teller = Teller::to(&server.url());
    let mut told = String::new();
    eventually("it loads", || {
        told = teller.try_tell(&change(1, 1)).map_or_else(|error| error.to_string(), |_| "taken".to_owned());
        !told.contains("refused")
    });
    assert!(told.contains("LOADING"), "{told}");
    eventually("it takes it", || teller.try_tell(&change(1, 1)).is_ok());
    assert_eq!(server.version(REPO), 1);
}

#[test]
fn a_gate_logs_in_with_what_its_file_has_now() {
    let server = RedisServer::start();
    server.ask(&[
        "ACL",
        "SETUSER",
        "gate",
        "on",
        ">s3cret-41f7",
        "~tidegate:*",
        "resetchannels",
        "&tidegate:events*",
        "-@all",
        "+eval",
        "+get",
        "+set",
        "+hget",
        "+hset",
        "+hscan",
        "+publish",
        "+sadd",
        "+sscan",
        "+subscribe",
        "+ping",
        "+select",
    ]);
    server.ask(&["CONFIG", "SET", "requirepass", "another"]);
    let file = server.directory().join("password");
    let with = |user: &str| FleetSettings {
        redis_password_file: Some(file.clone()),
        ..settings(&server.url().replace("//", &format!("//{user}")))
    };
    let mut teller = Teller::of(&with("gate@"));
    assert!(refusal(&mut teller).starts_with("reading the redis_password_file "), "{}", refusal(&mut teller));
    fs::write(&file, "wrong-s3cret\n").unwrap();
    assert_eq!(refusal(&mut teller), "logging in: the server answers WRONGPASS");
    assert!(refusal(&mut Teller::to(&server.url())).starts_with("greeting: the server answers NOAUTH "));
    fs::write(&file, "s3cret-41f7\n").unwrap();
    let listener = Listener::of(&with("gate@"), &Kept::default());
    listener.await_connection();
    assert_eq!(teller.tell(&change(1, 1)), (1, true), "these commands are all that a gate needs");
    listener.await_version(&change(1, 1));
    fs::write(&file, "another\n").unwrap();
    assert_eq!(Teller::of(&with("")).tell(&change(1, 2)), (2, true), "the default user has a password alone");
    let shown = format!("{:?}", teller.sink);
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn a_server_without_users_does_not_get_to_repeat_the_password() {
    let says = |answer: &'static str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            assert!(client.read(&mut [0; 4096]).unwrap() > 0);
            client.write_all(answer.as_bytes()).unwrap();
            let _ = client.read(&mut [0; 4096]);
        });
        url
    };
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    fs::write(&file, "hunter2\n").unwrap();
    let url = says("-ERR unknown command 'AUTH', with args beginning with: 'hunter2'\r\n");
    let mut teller = Teller::of(&FleetSettings { redis_password_file: Some(file), ..settings(&url) });
    assert_eq!(refusal(&mut teller), "logging in: the server answers ERR");
}

#[test]
fn whatever_is_no_server_of_this_kind_is_told_from_one() {
    let odd = "greeting: the server's answer is not understood: is it Redis or Valkey?";
    let nested = "*1\r\n".repeat(100_000);
    let long = format!("$2000000\r\n{}", "x".repeat(1_500_000));
    for (answer, told) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", odd),
        (nested.as_str(), odd),
        (long.as_str(), "greeting: the answer is longer than any should be"),
        ("", "greeting: the server closed the connection"),
        ("+PONG\r\n$-1\r\n", "publishing a version: what the server has there was written by no gate"),
        ("+PONG\r\n*3\r\n$1\r\nx\r\n$1\r\n1\r\n:1\r\n", "written by no gate"),
        ("+PONG\r\n*3\r\n", "publishing a version: the server closed the connection"),
        ("-OOPS \u{1b}[31mred\r\n", "greeting: the server answers OOPS ?[31mred"),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        let server = thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            assert!(client.read(&mut [0; 64 << 10]).unwrap() > 0);
            let _ = client.write_all(answer.as_bytes());
            let _ = client.shutdown(std::net::Shutdown::Write);
            while client.read(&mut [0; 4096]).is_ok_and(|more| more > 0) {}
        });
        let error = refusal(&mut Teller::to(&url));
        assert!(error.contains(told), "{error}");
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_hangs_is_given_up_and_the_end_of_the_gate_is_not_kept_waiting() {
    let server = RedisServer::start();
    let mut teller = Teller::to(&server.url());
    teller.tell(&change(1, 1));
    server.signal(Signal::SIGSTOP);
    let begun = Instant::now();
    let error = teller.try_tell(&change(1, 2)).unwrap_err();
    assert!(matches!(error, RedisError::Late { .. }), "{error}");
    assert!(error.to_string().starts_with("publishing a version: no answer within "), "{error}");
    assert!(begun.elapsed() < HANG);
    let stop = Stop::new().unwrap();
    let (theirs, url) = (stop.clone(), server.url());
    let hanging = thread::spawn(move || {
        let mut sink = RedisSink::new(crate::support::reach(&settings(&url)));
        let limits = Limits { until: Instant::now() + HANG, stop: &theirs };
        sink.publish(&change(1, 2), &event(&change(1, 2)), &limits).unwrap_err().is_stopping()
    });
    thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    stop.raise(Level::Killing);
    assert!(hanging.join().unwrap() && begun.elapsed() < AT_ONCE);
    server.signal(Signal::SIGCONT);
    assert_eq!(teller.tell(&change(1, 2)).0, 2);
}

#[test]
fn an_answer_that_comes_in_pieces_is_one() {
    let server = RedisServer::start();
    let relay = Relay::start(server.address());
    let mut teller = Teller::to(&relay.url());
    relay.set_deaf(true);
    let slow = thread::spawn(move || (teller.try_tell(&change(1, 1)).unwrap().version, teller));
    eventually("it is asked", || relay.made() == 1);
    thread::sleep(Duration::from_millis(200));
    relay.set_deaf(false);
    assert_eq!(slow.join().unwrap().0, 1);
}

#[test]
fn within_tls_the_server_is_believed_if_an_authority_of_ours_vouches_for_it() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name).to_str().unwrap().to_owned();
    for authority in ["ours", "another"] {
        let (key, pem) = (at(&format!("{authority}.key")), at(&format!("{authority}.pem")));
        openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={authority} -days 2 -keyout {key} -out {pem}"
        ));
    }
    fs::write(at("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let (key, request, names, pem) = (at("key"), at("request"), at("names"), at("pem"));
    openssl(&format!(
        "req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=redis -keyout {key} -out {request}"
    ));
    openssl(&format!(
        "x509 -req -in {request} -CA {} -CAkey {} -CAcreateserial -days 2 -extfile {names} -out {pem}",
        at("ours.pem"),
        at("ours.key")
    ));
    let mut server = RedisServer::absent(&[]);
    let port = server.address().port().to_string();
    let tls =
        ["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--save", "", "--appendonly", "no"];
    let files = ["--tls-cert-file", &pem, "--tls-key-file", &key, "--tls-ca-cert-file", &at("ours.pem")];
    server.set_options(&[&tls[..], &files[..]].concat());
    server.restart();
    let url = server.url().replace("redis://", "rediss://");
    let trusting = |file: &str| FleetSettings { redis_ca_file: Some(at(file).into()), ..settings(&url) };
    let error = refusal(&mut Teller::of(&trusting("another.pem")));
    assert!(error.starts_with("connecting: ") && error.contains("certificate"), "{error}");
    let listener = Listener::of(&trusting("ours.pem"), &Kept::default());
    listener.await_connection();
    let mut teller = Teller::of(&trusting("ours.pem"));
    assert_eq!(teller.tell(&change(1, 1)), (1, true));
    listener.await_version(&change(1, 1));
    assert!(listener.end() < AT_ONCE);
    let error = refusal(&mut Teller::to(&server.url()));
    assert!(error.starts_with("greeting: "), "{error}");
    // One certificate for both, as they are made by hand, and then as they are to be.
    let (pem, key) = (at("ours.pem"), at("ours.key"));
    let files = ["--tls-cert-file", &pem, "--tls-key-file", &key, "--tls-ca-cert-file", &pem];
    server.crash();
    server.set_options(&[&tls[..], &files[..]].concat());
    server.restart();
    let error = refusal(&mut Teller::of(&trusting("ours.pem")));
    assert!(error.starts_with("connecting: its certificate is one of an authority (CA:TRUE)"), "{error}");
    openssl(&format!(
        "req -x509 -key {key} -subj /CN=redis -days 2 -addext basicConstraints=critical,CA:FALSE \
         -addext subjectAltName=IP:127.0.0.1 -out {pem}"
    ));
    server.crash();
    server.restart();
    assert!(Teller::of(&trusting("ours.pem")).tell(&change(1, 2)).1);
}

#[track_caller]
fn openssl(words: &str) {
    let output = Command::new("openssl").args(words.split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
