//! Clones and fetches of hosted repositories: every protocol version, every way of taking only a part.

use std::path::Path;

use crate::support::git::{Client, gits, version};
use crate::support::http::{self, basic};
use crate::support::place::Place;
use crate::support::{pkt, repo};

/// Refs of `clone` as the remote has them, beside those of `served`.
#[track_caller]
fn assert_same_branches(served: &Client, clone: &Client) {
    let remote = clone
        .git(&["for-each-ref", "--format=%(objectname) %(refname:lstrip=3)", "refs/remotes/origin/"])
        .ok();
    let mut remote: Vec<String> =
        remote.lines().into_iter().filter(|line| !line.ends_with(" HEAD")).collect();
    let local =
        served.git(&["for-each-ref", "--format=%(objectname) %(refname:lstrip=2)", "refs/heads/"]).ok();
    let mut local = local.lines();
    remote.sort();
    local.sort();
    assert_eq!(remote, local);
    clone.git(&["fsck", "--strict"]).ok();
}

fn count(clone: &Client, revision: &str) -> u64 {
    clone.git(&["rev-list", "--count", revision]).ok().text().parse().unwrap()
}

/// The first words by which each version shows in a packet trace of the client.
const MARKS: [&str; 3] = ["git< # service=git-upload-pack", "git< version 1", "git< version 2"];

#[test]
fn a_clone_is_the_same_in_every_version_of_git_and_of_the_protocol() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    for server in gits() {
        let gate = place.gate().text("git.program", server.to_str().unwrap()).start();
        for program in gits() {
            for protocol in 0..=2_u8 {
                let path = place.work(&format!("{}-{}-{protocol}", version(&server), version(&program)));
                let client = place.client().program(&program).protocol(protocol).env("GIT_TRACE_PACKET", "1");
                let run = client.try_clone(&[], &gate.url("demo"), &path).ok();
                assert!(
                    run.stderr.contains(MARKS[usize::from(protocol)]),
                    "v{protocol} was not spoken: {}",
                    run.stderr
                );
                assert_same_branches(&served, &client.at(&path));
                assert_eq!(client.at(&path).refs("refs/tags"), served.refs("refs/tags"));
            }
        }
        gate.stop();
    }
}

#[test]
fn a_shallow_clone_deepens_and_becomes_whole() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    for protocol in [0, 1, 2] {
        let path = place.work(&format!("shallow-{protocol}"));
        let clone = place.client().protocol(protocol).cloned(&["--depth=1"], &gate.url("demo"), &path);
        assert_eq!(count(&clone, "HEAD"), 1);
        clone.git(&["fetch", "--deepen=3"]).ok();
        assert_eq!(count(&clone, "HEAD"), 4);
        clone.git(&["fetch", "--depth=2"]).ok();
        assert_eq!(count(&clone, "HEAD"), 2);
        clone.git(&["fetch", "--unshallow"]).ok();
        assert_eq!(count(&clone, "HEAD"), 12);
        clone.git(&["fsck"]).ok();
    }
}

#[test]
fn a_clone_can_be_cut_by_date_and_by_ref() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let since = format!("--shallow-since={}", repo::FIRST_DAY + 9 * repo::DAY - repo::DAY / 2);
    for protocol in [0, 2] {
        let client = place.client().protocol(protocol);
        let by_date = client.cloned(&[&since], &gate.url("demo"), &place.work(&format!("since-{protocol}")));
        assert_eq!(count(&by_date, "origin/main"), 3, "days 9, 10 and 11");
        let by_ref = client.cloned(
            &["--shallow-exclude=v1"],
            &gate.url("demo"),
            &place.work(&format!("exclude-{protocol}")),
        );
        assert_eq!(count(&by_ref, "origin/main"), 7, "what came after the fifth");
    }
}

/// Objects that `clone` knows of but does not have.
fn missing(clone: &Client) -> usize {
    let listed = clone.git(&["rev-list", "--objects", "--all", "--missing=print"]).ok();
    listed.lines().iter().filter(|line| line.starts_with('?')).count()
}

#[test]
fn a_partial_clone_gets_what_it_left_out_when_it_checks_out() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    served.git(&["config", "uploadpack.allowFilter", "true"]).ok();
    let gate = place.gate().start();
    for filter in ["blob:none", "tree:0"] {
        for program in gits() {
            let path = place.work(&format!("partial-{}-{}", &filter[..4], version(&program)));
            let option = format!("--filter={filter}");
            let client = place.client().program(&program);
            let clone = client.cloned(&[&option, "--no-checkout"], &gate.url("demo"), &path);
            assert!(missing(&clone) > 0, "{filter} left nothing out");
            clone.git(&["checkout", "--quiet", "main"]).ok();
            assert_eq!(std::fs::read_to_string(path.join("file.txt")).unwrap(), "content 12 of file.txt\n");
            clone.git(&["checkout", "--quiet", "v1"]).ok();
            clone.git(&["fsck"]).ok();
        }
    }
}

#[test]
fn a_repository_that_does_not_allow_filters_is_cloned_whole() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let path = place.work("clone");
    let client = place.client();
    client.try_clone(&["--filter=blob:none"], &gate.url("demo"), &path).ok().says("filtering not recognized");
    assert_eq!(missing(&client.at(&path)), 0);
}

#[test]
fn a_clone_takes_one_branch_or_one_tag() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let options = ["--single-branch", "--no-tags", "--branch=topic"];
    let branch = place.client().cloned(&options, &gate.url("demo"), &place.work("branch"));
    assert_eq!(branch.refs("refs/remotes"), [format!("{} refs/remotes/origin/topic", served.oid("topic"))]);
    assert_eq!(count(&branch, "--all"), 9);
    let tag = place.client().cloned(&["--branch=v1", "--depth=1"], &gate.url("demo"), &place.work("tag"));
    assert_eq!(tag.oid("HEAD"), served.oid("v1^{commit}"));
}

#[test]
fn a_repository_that_names_objects_by_sha256_is_cloned_and_pushed_to() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::sha256(&place, "wide.git");
    let gate = place.gate().start();
    for protocol in [0, 2] {
        let client = place.client().protocol(protocol);
        let clone =
            client.cloned(&[], &gate.url_as("alice", "wide"), &place.work(&format!("wide-{protocol}")));
        assert_eq!(clone.git(&["rev-parse", "--show-object-format"]).ok().text(), "sha256");
        assert_same_branches(&served, &clone);
        let pushed = clone.commit("new.txt", &[b'0' + protocol], "from the clone");
        clone.git(&["push", "origin", "HEAD"]).ok();
        assert_eq!(served.oid("main"), pushed);
    }
    served.git(&["fsck", "--strict"]).ok();
}

#[test]
fn an_empty_repository_is_cloned_with_the_branch_it_will_have() {
    let place = Place::new();
    let served = repo::empty(&place, "new.git");
    served.git(&["symbolic-ref", "HEAD", "refs/heads/trunk"]).ok();
    let gate = place.gate().start();
    for protocol in [0, 2] {
        let path = place.work(&format!("new-{protocol}"));
        let client = place.client().protocol(protocol);
        client.try_clone(&[], &gate.url("new"), &path).ok().says("empty repository");
        // Only v2 can tell an unborn HEAD (`ls-refs` with `unborn`).
        let branch = if protocol == 2 { "refs/heads/trunk" } else { "refs/heads/main" };
        assert_eq!(client.at(&path).git(&["symbolic-ref", "HEAD"]).ok().text(), branch);
    }
}

#[test]
fn a_hundred_thousand_refs_are_listed_and_one_of_them_is_cloned() {
    let place = Place::new();
    repo::many_refs(&place, "many.git", 100_000);
    let gate = place.gate().start();
    for protocol in [0, 2] {
        let client = place.client().protocol(protocol);
        let listed = client.git(&["ls-remote", "--heads", &gate.url("many")]).ok().lines();
        assert_eq!(listed.iter().filter(|line| line.contains("refs/heads/many/")).count(), 100_000);
        let options = ["--single-branch", "--branch=many/077777"];
        let clone = client.cloned(&options, &gate.url("many"), &place.work(&format!("one-{protocol}")));
        assert_eq!(clone.refs("refs/remotes").len(), 1);
    }
}

#[test]
fn a_name_is_found_as_git_http_backend_finds_it() {
    let place = Place::new();
    repo::history(&place, "suffixed.git");
    repo::history(&place, "plain");
    repo::history(&place, "team/group/app.git");
    let worktree =
        place.client().cloned(&[], place.repo("plain").to_str().unwrap(), &place.repo("worked-on"));
    let gate = place.gate().start();
    let tip = worktree.oid("origin/main");
    for name in ["suffixed", "suffixed.git", "plain", "team/group/app", "team/group/app.git", "worked-on"] {
        let listed = place.client().git(&["ls-remote", &gate.url(name), "refs/heads/main"]).ok().text();
        assert!(listed.starts_with(&tip), "{name}: {listed}");
    }
    for name in ["missing", "missing.git", "team", "team/group", "worked-on/.git", "plain/objects"] {
        place.client().git(&["ls-remote", &gate.url(name)]).fails();
    }
}

#[test]
fn a_symbolic_link_out_of_the_root_is_followed_only_when_the_operator_says_so() {
    let place = Place::new();
    repo::history(&place, "inside.git");
    std::fs::rename(place.repo("inside.git"), place.work("outside.git")).unwrap();
    std::os::unix::fs::symlink(place.work("outside.git"), place.repo("linked.git")).unwrap();
    let strict = place.gate().start();
    strict.get("/linked/info/refs?service=git-upload-pack").expect(404);
    strict.stop();
    let lenient = place.gate().set("follow_symlinks", true).start();
    lenient.get("/linked/info/refs?service=git-upload-pack").expect(200);
}

#[test]
fn a_connection_serves_one_request_after_the_other() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let client = place.client().env("GIT_CURL_VERBOSE", "1");
    let run = client.try_clone(&[], &gate.url("demo"), &place.work("clone")).ok();
    assert!(run.stderr.contains("Re-using existing connection"), "{}", run.stderr);
    let mut wire = gate.wire();
    for _ in 0..5 {
        wire.get("/demo/info/refs?service=git-upload-pack", &[])
            .expect(200)
            .says("# service=git-upload-pack");
    }
}

/// A clone with `commits` commits that the server has not, while the server has one that the clone has not.
fn diverged(place: &Place, client: &Client, url: &str, commits: u32) -> Client {
    let clone = client.cloned(&[], url, &place.work("diverged"));
    let mut text = String::new();
    for number in 1..=commits {
        let parent = if number == 1 { "from refs/heads/main^0\n" } else { "" };
        let message = format!("local {number}");
        text.push_str(&format!(
            "commit refs/heads/local\nmark :{number}\ncommitter Ada <ada@example.org> {} +0000\n",
            1_800_000_000 + number
        ));
        text.push_str(&format!("data {}\n{message}\n{parent}M 100644 inline l\ndata 1\nx\n", message.len()));
    }
    clone.git_with(&["fast-import", "--quiet", "--done"], format!("{text}done\n").as_bytes()).ok();
    clone
}

#[test]
fn a_fetch_that_offers_many_commits_sends_its_request_compressed() {
    let place = Place::new();
    place.user("alice", "pusher");
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let other = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("other"));
    let client = place.client().env("GIT_TRACE_CURL", "1");
    let clone = diverged(&place, &client, &gate.url("demo"), 600);
    for protocol in [0, 2] {
        other.commit("news.txt", &[b'0' + protocol], "news");
        other.git(&["push", "origin", "HEAD"]).ok();
        let run = clone.clone().protocol(protocol).git(&["fetch", "origin"]).ok();
        let trace = run.stderr.to_ascii_lowercase();
        assert!(trace.contains("content-encoding: gzip"), "no request was compressed in v{protocol}");
        assert_eq!(clone.oid("origin/main"), served.oid("main"));
    }
}

#[test]
fn a_request_larger_than_the_post_buffer_comes_in_chunks() {
    let place = Place::new();
    let served = repo::branchy(&place, "branchy.git", 2_500);
    let gate = place.gate().start();
    for protocol in [0, 2] {
        // 2,500 wants are 125,000 bytes. (At exactly 65,520, the least that git allows, its v2 client dies of a BUG.)
        let client =
            place.client().protocol(protocol).config("http.postBuffer", "70000").env("GIT_TRACE_CURL", "1");
        let path = place.work(&format!("clone-{protocol}"));
        let run = client.try_clone(&["--no-checkout"], &gate.url("branchy"), &path).ok();
        let trace = run.stderr.to_ascii_lowercase();
        assert!(trace.contains("transfer-encoding: chunked"), "no request came in chunks in v{protocol}");
        assert_eq!(client.at(&path).refs("refs/remotes/origin/b").len(), served.refs("refs/heads/b").len());
    }
}

#[test]
fn one_request_may_be_plain_chunked_compressed_or_both() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let body = pkt::fetch(&served.oid("main"));
    let packed = http::gzip(&body);
    let version = ("Git-Protocol", "version=2");
    let gzip = ("Content-Encoding", "gzip");
    let chunks = ("Transfer-Encoding", "chunked");
    let forms = [
        (vec![version], body.clone()),
        (vec![version, chunks], http::chunked(&body, 7)),
        (vec![version, gzip], packed.clone()),
        (vec![version, gzip, chunks], http::chunked(&packed, 1)),
    ];
    let mut wire = gate.wire();
    for (headers, body) in forms {
        let answer = wire.post("demo", "git-upload-pack", &headers, &body).expect(200);
        let pack = pkt::band(&answer.body, 1);
        assert!(pack.starts_with(b"PACK"), "{headers:?}: {}", answer.text());
    }
}

#[test]
fn a_fetch_brings_what_is_new_and_drops_what_is_gone() {
    let place = Place::new();
    place.user("alice", "pusher");
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let reader = place.client().cloned(&[], &gate.url("demo"), &place.work("reader"));
    assert_eq!(reader.git(&["fetch", "--prune"]).ok().heard(), "", "nothing is new");
    let writer = place.client().cloned(&[], &gate.url_as("alice", "demo"), &place.work("writer"));
    let tip = writer.commit("more.txt", b"more", "more");
    writer.git(&["push", "origin", "HEAD", ":topic"]).ok();
    reader.git(&["fetch", "--prune"]).ok();
    assert_eq!(reader.oid("origin/main"), tip);
    assert!(reader.refs("refs/remotes/origin/topic").is_empty());
}

#[test]
fn refs_that_the_repository_hides_stay_hidden() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    served.git(&["update-ref", "refs/secret/one", "main"]).ok();
    served.git(&["config", "uploadpack.hideRefs", "refs/secret"]).ok();
    let gate = place.gate().start();
    for protocol in [0, 2] {
        let listed = place.client().protocol(protocol).git(&["ls-remote", &gate.url("demo")]).ok().text();
        assert!(listed.contains("refs/heads/main") && !listed.contains("refs/secret"), "{listed}");
    }
}

#[test]
fn services_that_are_off_are_not_offered_even_when_the_repository_asks_for_them() {
    let place = Place::new();
    let served = repo::history(&place, "demo.git");
    for key in ["transfer.advertiseObjectInfo", "uploadpack.advertiseBundleURIs", "transfer.advertiseSID"] {
        served.git(&["config", key, "true"]).ok();
    }
    let gate = place.gate().start();
    let version = [("Git-Protocol", "version=2")];
    let offered =
        gate.wire().get("/demo/info/refs?service=git-upload-pack", &version).expect(200).says("ls-refs");
    for name in ["object-info", "bundle-uri", "packfile-uris", "session-id"] {
        assert!(!offered.text().contains(name), "{name} is offered: {}", offered.text());
    }
    let archive = gate.wire().post("demo", "git-upload-archive", &[], b"0000");
    assert!((400..=501).contains(&archive.status), "{archive:?}");
}

#[test]
fn the_files_of_a_repository_are_not_handed_out() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    assert!(Path::new(&place.repo("demo.git")).join("HEAD").exists());
    place.user("alice", "admin");
    let gate = place.gate().start();
    let user = basic("alice");
    for path in [
        "info/refs",
        "HEAD",
        "config",
        "objects/info/packs",
        "objects/info/alternates",
        "description",
        "hooks/",
    ] {
        let answer = gate.wire().get(&format!("/demo.git/{path}"), &[("Authorization", &user)]);
        assert!((400..500).contains(&answer.status), "{path}: {answer:?}");
    }
    gate.get("/demo.git/info/refs").says("dumb HTTP is not served");
    place.client().env("GIT_SMART_HTTP", "0").git(&["ls-remote", &gate.url("demo")]).fails();
}

#[test]
fn large_file_storage_is_refused_with_the_setting_that_helps() {
    let place = Place::new();
    repo::history(&place, "demo.git");
    let gate = place.gate().start();
    let headers = [("Content-Type", "application/vnd.git-lfs+json")];
    let answer = gate.wire().ask("POST", "/demo.git/info/lfs/objects/batch", &headers, b"{}").expect(501);
    assert!(
        answer.json()["message"].as_str().is_some_and(|text| text.contains("lfs.url")),
        "{}",
        answer.text()
    );
}
