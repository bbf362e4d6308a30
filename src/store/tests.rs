//! The store on a real disk.

use super::lock::{DataLock, LockError};
use super::users::{NewToken, User};
use super::*;
use crate::model::name::UserName;
use crate::model::role::Role;
use crate::model::secret::Secret;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Instant;
use tempfile::TempDir;

fn name(text: &str) -> UserName {
    UserName::parse(text).unwrap()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn given(token: &str) -> NewToken {
    NewToken { given: Some(Secret::new(token.to_owned())), ..NewToken::default() }
}

pub(super) fn fresh() -> (TempDir, Store) {
    let home = tempfile::tempdir().unwrap();
    let store = Store::open(&home.path().join("data")).unwrap();
    (home, store)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_token_logs_its_user_in_until_it_is_removed() {
    let (_home, store) = fresh();
    let alice = name("alice@example.com");
    let first = store.users().add(&alice, Role::Pusher, &NewToken::default(), at(0)).unwrap();
    let second = store.users().add_token(&alice, &given("hunter2hunter2"), at(0)).unwrap();
    let login = |user, token: &str| store.users().authenticate(user, token, at(1)).unwrap();
    let account = login(Some("alice@example.com"), first.token.reveal()).unwrap();
    assert_eq!(
        (account.name.as_str(), account.role, account.token_id),
        ("alice@example.com", Role::Pusher, first.id)
    );
    assert_eq!(login(None, "hunter2hunter2").unwrap().token_id, second.id);
    assert_eq!(login(Some("Alice@Example.com"), "hunter2hunter2").unwrap().name, alice);
    for (user, token) in
        [(Some("bob"), "hunter2hunter2"), (Some(""), "hunter2hunter2"), (None, "hunter2hunter"), (None, "")]
    {
        assert_eq!(login(user, token), None, "{user:?} {token:?}");
    }
    store.users().remove_token(&alice, second.id).unwrap();
    assert_eq!(login(None, "hunter2hunter2"), None);
    store.users().remove(&alice).unwrap();
    assert_eq!(login(None, first.token.reveal()), None);
}

#[test]
fn a_removal_by_another_process_holds_at_the_next_request() {
    let (home, gate) = fresh();
    let command = Store::open_existing(&home.path().join("data")).unwrap();
    let alice = name("alice");
    let issued = command.users().add(&alice, Role::Reader, &NewToken::default(), at(0)).unwrap();
    assert!(gate.users().authenticate(None, issued.token.reveal(), at(1)).unwrap().is_some());
    command.users().remove_token(&alice, issued.id).unwrap();
    assert!(gate.users().authenticate(None, issued.token.reveal(), at(2)).unwrap().is_none());
}

#[test]
fn a_token_fails_from_its_expiry_on_and_is_forgotten() {
    let (_home, store) = fresh();
    let new = NewToken { expires: Some(at(10)), ..given("password") };
    store.users().add(&name("a"), Role::Reader, &new, at(0)).unwrap();
    assert!(store.users().authenticate(None, "password", at(9)).unwrap().is_some());
    assert!(store.users().authenticate(None, "password", at(10)).unwrap().is_none());
    assert_eq!(store.users().forget_expired(at(9)).unwrap(), 0);
    assert_eq!(store.users().forget_expired(at(10)).unwrap(), 1);
    assert!(store.users().list().unwrap()[0].tokens.is_empty());
}

#[test]
fn the_last_use_is_written_once_a_minute() {
    let (_home, store) = fresh();
    store.users().add(&name("a"), Role::Reader, &given("password"), at(0)).unwrap();
    let used = |second| {
        store.users().authenticate(None, "password", at(second)).unwrap().unwrap();
        store.users().list().unwrap()[0].tokens[0].last_used
    };
    assert_eq!(used(5), Some(at(5)));
    assert_eq!(used(64), Some(at(5)));
    assert_eq!(used(65), Some(at(65)));
}

#[test]
fn a_login_waits_for_no_writer() {
    let (_home, store) = fresh();
    store.users().add(&name("a"), Role::Reader, &given("password"), at(0)).unwrap();
    let mut writer = store.writer();
    let _transaction = begin(&mut writer).unwrap();
    let start = Instant::now();
    assert!(store.users().authenticate(None, "password", at(1)).unwrap().is_some());
    assert!(start.elapsed() < BUSY_WAIT / 2, "{:?}", start.elapsed());
}

#[test]
fn names_tokens_and_labels_that_cannot_be_are_refused() {
    let (_home, store) = fresh();
    let users = store.users();
    users.add(&name("alice"), Role::Reader, &given("password"), at(0)).unwrap();
    assert!(matches!(
        users.add(&name("ALICE"), Role::Reader, &NewToken::default(), at(0)),
        Err(StoreError::NameTaken(_))
    ));
    assert!(matches!(
        users.add(&name("bob"), Role::Reader, &given("password"), at(0)),
        Err(StoreError::TokenTaken)
    ));
    for token in ["1234567", "", "long enough\n", &"x".repeat(1025)] {
        let error = users.add(&name("bob"), Role::Reader, &given(token), at(0)).unwrap_err();
        assert!(matches!(error, StoreError::BadToken { .. }) && error.is_misuse(), "{token:?}: {error}");
    }
    let label = NewToken { label: "a\nb".into(), ..NewToken::default() };
    assert!(matches!(users.add(&name("bob"), Role::Reader, &label, at(0)), Err(StoreError::BadLabel(_))));
    assert!(matches!(users.remove(&name("bob")), Err(StoreError::UnknownUser(_))));
    assert!(matches!(users.remove_token(&name("alice"), 99), Err(StoreError::UnknownToken { .. })));
    let names: Vec<User> = users.list().unwrap();
    assert_eq!(names.len(), 1, "what failed must leave nothing: {names:?}");
}

#[test]
fn the_first_start_makes_one_admin_and_no_later_one_does() {
    let (home, store) = fresh();
    let path = store.users().ensure_admin(at(0)).unwrap().unwrap();
    assert_eq!(path, home.path().join("data/admin-token"));
    assert_eq!(mode(&path), 0o600);
    let token = fs::read_to_string(&path).unwrap();
    let account = store.users().authenticate(Some("admin"), token.trim_end(), at(1)).unwrap().unwrap();
    assert_eq!(account.role, Role::Admin);
    assert_eq!(store.users().ensure_admin(at(2)).unwrap(), None);
}

#[test]
fn neither_token_nor_plain_hash_is_on_the_disk() {
    let (home, store) = fresh();
    store.users().add(&name("a"), Role::Reader, &given("correct horse"), at(0)).unwrap();
    store.checkpoint().unwrap();
    let database = fs::read(home.path().join("data/tidegate.db")).unwrap();
    let key = Key::read(&home.path().join("data")).unwrap();
    let plain: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(b"correct horse").into();
    let contains = |needle: &[u8]| database.windows(needle.len()).any(|window| window == needle);
    assert!(!contains(b"correct horse") && !contains(&plain));
    assert!(contains(&key.hash(b"correct horse")));
}

#[test]
fn files_and_directory_are_for_their_owner_alone() {
    let (home, store) = fresh();
    store.users().add(&name("a"), Role::Reader, &NewToken::default(), at(0)).unwrap();
    let data = home.path().join("data");
    assert_eq!(mode(&data), 0o700);
    for entry in fs::read_dir(&data).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}

#[test]
fn a_directory_that_is_open_to_others_is_closed_or_refused() {
    let home = tempfile::tempdir().unwrap();
    let (empty, full) = (home.path().join("empty"), home.path().join("full"));
    for directory in [&empty, &full] {
        fs::create_dir(directory).unwrap();
        set_mode(directory, 0o755);
    }
    fs::write(full.join("thesis.tex"), "").unwrap();
    DataLock::take(&empty).unwrap();
    Store::open(&empty).unwrap();
    assert_eq!(mode(&empty), 0o700);
    assert!(matches!(Store::open(&full), Err(StoreError::Exposed { mode: 0o755, .. })));
    assert_eq!(mode(&full), 0o755);
    set_mode(&empty, 0o755);
    set_mode(&empty.join("tidegate.db"), 0o644);
    Store::open(&empty).unwrap();
    assert_eq!((mode(&empty), mode(&empty.join("tidegate.db"))), (0o700, 0o600));
    set_mode(&empty.join("secret.key"), 0o640);
    assert!(matches!(Store::open(&empty), Err(StoreError::Exposed { mode: 0o640, .. })));
}

#[test]
fn a_directory_whose_files_we_would_remove_is_not_taken_for_ours() {
    for name in ["tmp", "held", "mirrors"] {
        let home = tempfile::tempdir().unwrap();
        fs::create_dir(home.path().join(name)).unwrap();
        let file = home.path().join(name).join("thesis.tex");
        fs::write(&file, "").unwrap();
        set_mode(home.path(), 0o700);
        assert!(matches!(DataLock::take(home.path()), Err(LockError::Store(StoreError::Occupied(_)))));
        assert!(matches!(Store::open(home.path()), Err(StoreError::Occupied(_))));
        fs::remove_file(&file).unwrap();
        Store::open(home.path()).unwrap();
        fs::write(&file, "").unwrap();
        Store::open(home.path()).unwrap();
    }
}

#[test]
fn a_lost_or_foreign_key_is_told_and_not_replaced() {
    let (home, store) = fresh();
    drop(store);
    let data = home.path().join("data");
    let key = data.join("secret.key");
    let kept = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(matches!(Store::open(&data), Err(StoreError::KeyMissing(_))));
    assert!(!key.exists());
    private::write_new(&key, &[7; 32]).unwrap();
    assert!(matches!(Store::open(&data), Err(StoreError::KeyForeign(_))));
    private::replace(&key, &kept).unwrap();
    Store::open(&data).unwrap();
}

#[test]
fn a_newer_database_is_refused() {
    let (home, store) = fresh();
    store.writer().pragma_update(None, "user_version", 99).unwrap();
    let error = Store::open(&home.path().join("data")).unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
}

#[test]
fn without_a_database_nothing_is_opened_or_made() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    assert!(matches!(Store::open_existing(&data), Err(StoreError::Absent(_))));
    assert!(!data.exists());
}

#[test]
fn the_incarnation_stays_and_the_boot_does_not() {
    let (home, store) = fresh();
    let again = Store::open(&home.path().join("data")).unwrap();
    assert_eq!(store.publisher(), again.publisher());
    assert_ne!(store.boot(), again.boot());
    assert_eq!((store.publisher().as_str().len(), store.boot().len()), (32, 32));
}

#[test]
fn several_openings_of_nothing_agree_on_one_database() {
    for _ in 0..5 {
        let home = tempfile::tempdir().unwrap();
        let openers: Vec<_> = (0..8)
            .map(|number| {
                let data = home.path().join("data");
                crate::sys::thread::spawn(format!("opener-{number}"), move || Store::open(&data).unwrap())
                    .unwrap()
            })
            .collect();
        let stores: Vec<_> = openers.into_iter().map(|opener| opener.join().unwrap()).collect();
        assert!(stores.iter().all(|store| store.publisher() == stores[0].publisher()));
        let issued = stores[0].users().add(&name("a"), Role::Reader, &NewToken::default(), at(0)).unwrap();
        for store in &stores {
            assert!(store.users().authenticate(None, issued.token.reveal(), at(1)).unwrap().is_some());
        }
    }
}

#[test]
fn a_write_is_noted_on_disk_until_it_ends() {
    let (home, store) = fresh();
    let refs = ["refs/heads/main".to_owned(), "refs/tags/\"v1\"".to_owned()];
    let repo = Path::new(std::ffi::OsStr::new("/srv/git/app.git"));
    let first = store.writes().begin(repo, store.boot(), &refs, at(0)).unwrap();
    let second = store.writes().begin(repo, store.boot(), &[], at(1)).unwrap();
    let later = Store::open(&home.path().join("data")).unwrap();
    let open = later.writes().open().unwrap();
    assert_eq!(open.iter().map(|write| write.id).collect::<Vec<_>>(), [first, second]);
    assert_eq!((open[0].repo.as_path(), open[0].boot.as_str(), open[0].started), (repo, store.boot(), at(0)));
    assert_eq!(open[0].refs, refs);
    store.writes().end(first).unwrap();
    store.writes().end(first).unwrap();
    assert_eq!(later.writes().open().unwrap().len(), 1);
}

#[test]
fn many_threads_log_in_and_note_writes_at_once() {
    let (_home, store) = fresh();
    store.users().add(&name("a"), Role::Reader, &given("password"), at(0)).unwrap();
    let workers: Vec<_> = (0..8)
        .map(|number| {
            let store = store.clone();
            let work = move || {
                for second in 0..20 {
                    store.users().authenticate(None, "password", at(second * 61)).unwrap().unwrap();
                    let note = store.writes().begin(Path::new("/r"), "boot", &[], at(second)).unwrap();
                    store.writes().end(note).unwrap();
                }
            };
            crate::sys::thread::spawn(format!("worker-{number}"), work).unwrap()
        })
        .collect();
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    assert!(store.writes().open().unwrap().is_empty());
    store.ping().unwrap();
    store.checkpoint().unwrap();
}
