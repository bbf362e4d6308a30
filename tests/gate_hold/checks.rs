//! What the checks of a gate let pass and what they block, and what everybody is told of it.

use crate::support::Site;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tidegate::model::check::Verdict;
use tidegate::model::push::PushState;

/// What a repository of strict owners asks for.
const STRICT: &str = "[checks]\nsecrets = true\nemail.domains = [\"example.com\"]\nmessage.block = [\"WIP\"]\npaths.block = [\"*.pem\"]";

/// Pushes `refs`, which must be blocked; what the client was told.
fn blocked(site: &Site, refs: &str) -> String {
    let (is_success, said) = site.push(refs).finish();
    assert!(!is_success && said.contains("[remote rejected]"), "{said}");
    let push = site.until(PushState::Blocked);
    assert!(said.contains(&format!("remote: push {} is blocked: ", push.id)), "{said}");
    site.until_removed(push.id);
    said
}

/// Whether the target has an object.
fn has(site: &Site, name: &str) -> bool {
    let oid = site.sh(&format!("git -C work rev-parse {name}"));
    site.sh(&format!("git -C root/app.git cat-file -e {oid} 2> /dev/null && echo yes || echo no")) == "yes"
}

#[test]
fn a_push_that_passes_is_forwarded_at_once_where_nobody_decides() {
    let site = Site::with(STRICT);
    let (is_success, said) = site.push("main").finish();
    assert!(is_success, "{said}");
    assert!(said.contains("remote: objects received") && said.contains("remote: checks: 7 passed"), "{said}");
    assert!(!said.contains("approv"), "{said}");
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
    let push = site.until(PushState::Forwarded);
    assert!(push.decision.is_none() && push.attempts == 1, "{push:?}");
    let results = site.store.pushes().checks(push.id).unwrap();
    assert!(results.len() == 7 && results.iter().all(|it| it.verdict == Verdict::Pass), "{results:?}");
    site.until_removed(push.id);
}

#[test]
fn with_nothing_to_check_and_nobody_to_ask_a_push_is_served_straight() {
    let site = Site::with("");
    let (is_success, said) = site.push("main").finish();
    assert!(is_success && !said.contains("remote:"), "{said}");
    assert!(site.store.pushes().list(&Default::default()).unwrap().pushes.is_empty());
}

#[test]
fn a_push_that_passes_waits_where_somebody_decides() {
    let site = Site::with(&format!("[gate]\napproval = \"required\"\n{STRICT}"));
    let client = site.push("main");
    let push = site.until(PushState::Pending);
    assert!(!site.target_has_it());
    client.until_told("waits for approval");
    assert!(site.decide(&["approve", &push.id.to_string()]).status.success());
    let (is_success, said) = client.finish();
    assert!(is_success, "{said}");
    let steps = ["objects received", "checks: 7 passed", "waits for approval", "is approved"];
    let at = steps.map(|step| said.find(step).unwrap_or_else(|| panic!("no {step}: {said}")));
    assert!(at.is_sorted(), "{said}");
}

#[test]
fn three_violations_in_two_commits_are_told_at_once_to_everybody() {
    let site = Site::with(STRICT);
    site.sh("cd work; echo 3 > file; GIT_AUTHOR_EMAIL=me@laptop.local git commit -q -a -m three
             echo key > site.pem; git add site.pem; git commit -q -m 'WIP four'");
    let said = blocked(&site, "main");
    let [four, three] = ["main", "main~1"].map(|name| site.sh(&format!("git -C work rev-parse {name}")));
    let lines = [
        format!("remote: identity-email: {}: the author's address <me@laptop.local> is not", &three[..12]),
        "remote:   checks.email.domains: set user.email".to_owned(),
        format!("remote: message: {}: the message holds \"WIP\"", &four[..12]),
        format!("remote: paths: {} site.pem: the path is blocked by \"*.pem\"", &four[..12]),
        "remote:   checks.paths.block: take the file out".to_owned(),
        "main -> main (push 1 is blocked: 3 checks failed: identity-email, message, paths)".to_owned(),
    ];
    lines.iter().for_each(|line| assert!(said.contains(line), "no {line}: {said}"));
    assert!(!site.target_has_it());

    let shown = String::from_utf8(site.decide(&["show", "1"]).stdout).unwrap();
    for line in
        ["check empty: pass (", "check paths: fail (", &format!("{four} site.pem the path is blocked")]
    {
        assert!(shown.contains(line), "no {line}: {shown}");
    }
    let json = String::from_utf8(site.ask("GET /-/api/v1/pushes/1", b"")).unwrap();
    assert!(json.contains("\"path\": \"site.pem\"") && json.contains("\"verdict\": \"fail\""), "{json}");
    let page = String::from_utf8(site.ask("GET /-/pushes/1", b"")).unwrap();
    assert!(page.contains("<code>site.pem</code> the path is blocked by &quot;*.pem&quot;<br>"), "{page}");
}

#[test]
fn no_commit_comes_in_unseen() {
    let site = Site::with(STRICT);
    site.sh("cd work; git push -q ../root/app.git main; git checkout -q -b topic
             GIT_COMMITTER_EMAIL=me@laptop.local git commit -q --allow-empty -m first
             git commit -q --allow-empty -m second; git commit -q --allow-empty -m third
             git tag light; git tag -a -m annotated heavy
             git tag -a -m old old main; git tag -a -m 'WIP tag' bad main");
    let first = site.sh("git -C work rev-parse topic~2");
    // The first commit of a new branch, or of a tag of either kind that brings its history along.
    for name in ["topic", "light", "heavy", "main topic"] {
        let said = blocked(&site, name);
        assert!(
            said.contains(&format!("identity-email: {}: the committer's address", &first[..12])),
            "{said}"
        );
        assert!(said.contains("the check identity-email failed"), "{said}");
        assert!(!has(&site, "topic"), "{name}");
    }
    assert!(blocked(&site, "bad").contains("message: refs/tags/bad: the message"));
    let (is_success, said) = site.push("old").finish();
    assert!(is_success, "{said}");
}

#[test]
fn a_secret_that_was_added_and_removed_again_is_blocked_and_kept_nowhere() {
    let site = Site::with(STRICT);
    let secret = ["gh", "p_", "Zx81kQ0aLw7Rt5Yb2Nc9Vd4Mf6Hs3JpEgU1o"].concat();
    site.sh(&format!(
        "cd work; echo 'token = {secret}' > config; git add config; git commit -q -m two
         git rm -q config; git commit -q -m three"
    ));
    let said = blocked(&site, "main");
    assert!(said.contains("config: line 1 holds what looks like a GitHub token: ghp_…"), "{said}");
    let shown = String::from_utf8(site.decide(&["show", "1"]).stdout).unwrap();
    assert!(shown.contains("ghp_…"), "{shown}");
    let mut sinks = vec![said.into_bytes(), shown.into_bytes(), site.log().into_bytes()];
    for entry in fs::read_dir(site.path("data")).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_file() {
            sinks.push(fs::read(entry.path()).unwrap());
        }
    }
    assert!(
        sinks.iter().any(|sink| sink.windows(7).any(|part| part == "ghp_…".as_bytes())),
        "what is stored is read"
    );
    let needle = secret.as_bytes();
    assert!(sinks.iter().all(|sink| !sink.windows(needle.len()).any(|part| part == needle)));
}

#[test]
fn a_protected_branch_is_moved_as_its_rules_say() {
    let rules = "[[checks.refs.protected]]\nmatch = \"refs/heads/main\"\ncreate = \"users\"\nupdate = \"users\"\nforce = [\"role:reviewer\"]\ndelete = \"nobody\"
                 [[checks.refs.protected]]\nmatch = \"refs/heads/release/*\"\ncreate = [\"rita\"]\nupdate = [\"rita\"]";
    let site = Site::with(rules);
    site.sh("git -C root/app.git config receive.denyDeleteCurrent ignore");
    assert!(site.push("main").finish().0, "forward is free");
    site.sh("cd work; git commit -q --amend -m rewritten");
    assert!(
        blocked(&site, "+main")
            .contains("refs/heads/main is protected by \"refs/heads/main\" and may only be moved forward")
    );
    assert!(blocked(&site, ":main").contains("may not be deleted by you"));
    assert!(blocked(&site, "main:release/1").contains("refs/heads/release/1 is protected by"));
    assert!(site.push("main:topic").finish().0, "what no rule names is free");
    let (is_success, said) = site.push_as("rita", "+main main:release/1").finish();
    assert!(is_success, "{said}");
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
}

#[test]
fn a_reload_replaces_the_checks_and_a_bad_file_keeps_them() {
    let site = Site::with("");
    assert!(site.push("main~1:refs/heads/straight").finish().0);
    assert!(
        site.reload("[checks]\nmessage.block = [\"two\"]").contains("the rules and the checks are replaced")
    );
    blocked(&site, "main");
    assert!(site.reload("[checks]\nmessage.block = [\"\"]").contains("everything stays as it was"));
    blocked(&site, "main");
    site.reload("");
    let (is_success, said) = site.push("main").finish();
    assert!(is_success && !said.contains("remote:"), "{said}");
}

/// A push by hand of `main` with the pack that `script` writes; what the gate answered.
fn push_by_hand(site: &Site, script: &str) -> String {
    let (old, new) = (site.main_of("root/app.git"), site.main_of("work"));
    site.sh(&format!("cd work; {script} > ../pack"));
    let line = format!("{old} {new} refs/heads/main\0 report-status side-band-64k object-format=sha1");
    let mut body = format!("{:04x}{line}0000", line.len() + 4).into_bytes();
    body.extend(fs::read(site.path("pack")).unwrap());
    String::from_utf8_lossy(&site.ask("POST /app.git/git-receive-pack", &body)).into_owned()
}

#[test]
fn an_object_that_no_ref_names_is_refused_and_the_bases_of_a_thin_pack_are_not() {
    let site = Site::with(STRICT);
    let unseen = site.sh("cd work; echo unseen | git hash-object -w --stdin");
    let all = "git rev-list --objects main --not main~1 | cut -c-40";
    let said = push_by_hand(&site, &format!("{{ {all}; echo {unseen}; }} | git pack-objects -q --stdout"));
    assert!(
        said.contains(&format!("hidden: the pack holds {unseen}, which no pushed ref reaches")),
        "{said}"
    );
    assert!(said.contains("ng refs/heads/main push 1 is blocked: the check hidden failed"), "{said}");
    assert_eq!(site.until(PushState::Blocked).id.get(), 1);

    // A large file with a small change is sent as a delta to the one that the target has.
    site.sh("cd work; seq 1 20000 > large; git add large; git commit -q -m three; git push -q ../root/app.git main
             sed -i '10000s/.*/changed/' large; git commit -q -a -m four");
    let thin = "printf 'main\\n^main~1\\n' | git pack-objects -q --thin --revs --stdout";
    let said = push_by_hand(&site, thin);
    assert!(fs::metadata(site.path("pack")).unwrap().len() < 2000, "the pack is not thin");
    assert!(said.contains("checks: 7 passed") && said.contains("ok refs/heads/main"), "{said}");
    assert_eq!(site.main_of("root/app.git"), site.main_of("work"));
}

#[test]
fn an_unmodified_hook_sees_the_same_commits_as_behind_git_itself() {
    let script = "echo \"$GIT_PUSH_OPTION_COUNT $GIT_PUSH_OPTION_1\" >> $0.seen; while read old new ref; do
            case $new in *[!0]*) git rev-list $new --not --all;; esac
        done >> $0.seen";
    let site = Site::with("");
    let program = site.program("check", script);
    site.reload(&format!("[[checks.command]]\nname = \"seen\"\nargv = [\"{program}\"]"));
    site.sh("git clone -q --bare root/app.git plain.git; cp check plain.git/hooks/pre-receive
             cd work; for i in 3 4; do git commit -q --allow-empty -m $i; done; git checkout -q -b topic main~2
             git commit -q --allow-empty -m topic; git tag -a -m t v1; git checkout -q main");
    site.sh("for repository in plain.git root/app.git; do git -C $repository config receive.advertisePushOptions true; done");
    for refs in ["-o one -o two main topic v1", "main:again", ":again", "+main~1:main"] {
        site.sh(&format!("cd work; git push -q ../plain.git {refs}"));
        let (is_success, said) = site.push(refs).finish();
        assert!(is_success, "{said}");
    }
    let seen = site.sh("cat check.seen");
    assert_eq!(seen.lines().count(), 4 + 3 + 2 + 2, "{seen}");
    assert_eq!(seen, site.sh("cat plain.git/hooks/pre-receive.seen"));
    let mode = fs::metadata(site.path("plain.git/hooks/pre-receive")).unwrap().permissions().mode();
    assert_ne!(mode & 0o111, 0, "git runs it");
}
