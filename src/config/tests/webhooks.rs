//! What `[[webhook]]` may say.

use super::*;
use crate::model::fleet::EventPattern;
use crate::model::route::Reach;

/// Every key, each with a value that is not its default, and webhooks that say little.
const WEBHOOKS: &str = r#"
[[webhook]]
name = "chat"
url = "https://chat.example.com/hook?token=a%20b"
secret_file = "/etc/tidegate/hook \"secret\""
events = ["push.*", "repo.removed"]
give_up_after = "2h"
timeout = "3s"
allow_private = true
ca_file = "/etc/ssl/corp.pem"

[[webhook]]
url = "https://chat.example.com"
secret_file = "hook.secret"

[[webhook]]
url = "http://[2606:4700::1]:8080/a"
secret_file = "hook.secret"

[[webhook]]
url = "https://chat.example.com/other"
secret_file = "hook.secret"
"#;

/// A webhook with these keys beside the two that it needs.
fn with(keys: &str) -> String {
    format!("[[webhook]]\nurl = \"https://a.example\"\nsecret_file = \"/s\"\n{keys}")
}

#[test]
fn webhooks_are_printed_as_they_read_back_but_for_what_may_be_secret() {
    let settings = read(WEBHOOKS, &[]).unwrap();
    let printed = settings.to_toml();
    let paths = ["hook?token=a%20b", "a", "other"];
    assert_eq!(printed.matches("/…\"\n").count(), paths.len(), "{printed}");
    assert!(!printed.contains("token=") && read(&printed, &[]).is_err(), "{printed}");
    let whole = paths.iter().fold(printed, |printed, path| printed.replacen('…', path, 1));
    assert_eq!(read(&whole, &[]).unwrap(), settings, "{whole}");
    let [chat, plain, address, other] = settings.webhooks.as_slice() else { panic!("{settings:?}") };
    assert_eq!(chat.url.reveal(), "https://chat.example.com/hook?token=a%20b");
    assert_eq!((chat.give_up_after, chat.timeout), (Duration::from_secs(7200), Duration::from_secs(3)));
    assert_eq!((chat.route.reach, chat.route.ca_file.is_some()), (Reach::Anywhere, true));
    assert_eq!((plain.give_up_after, plain.timeout), (Duration::from_secs(86400), Duration::from_secs(10)));
    assert_eq!((plain.route.reach, &plain.events), (Reach::Internet, &vec![EventPattern::every()]));
    assert!(plain.secret_file.is_absolute());
    let names = [chat, plain, address, other].map(|webhook| webhook.name.as_str());
    assert_eq!(names, ["chat", "chat.example.com-1", "2606-4700--1-1", "chat.example.com-2"]);
    assert!(settings.changes_needing_restart(&read("", &[]).unwrap()).contains(&"webhook"));
}

#[test]
fn what_a_webhook_may_not_say_is_told_by_its_key() {
    let near =
        "webhook.url: is an address of this machine, of a network near it, or of none: write allow_private";
    let cases = [
        ("[[webhook]]\nsecret_file = \"/s\"".to_owned(), "t.toml:1: webhook.url: is missing"),
        ("[[webhook]]\nurl = \"https://a.example\"".to_owned(), "webhook.secret_file: is missing"),
        (
            "[webhook]\nurl = \"https://a.example\"".to_owned(),
            "webhook: is a list of tables: write [[webhook]]",
        ),
        (with("evnets = []"), "webhook.evnets: is no key of a webhook: the keys are name, url,"),
        (with("events = []"), "webhook.events: is empty"),
        (
            with("events = [\"push.landed\"]"),
            "webhook.events: \"push.landed\" is no event: those are push.STATE",
        ),
        (with("events = [\"pull.*\"]"), "webhook.events: \"pull.*\" is no event"),
        (with("timeout = \"61s\""), "webhook.timeout: \"61s\" is more than the 1m that"),
        (with("timeout = \"0s\""), "webhook.timeout: \"0s\" is zero"),
        (with("give_up_after = 5"), "webhook.give_up_after: must be a duration"),
        (with("allow_private = \"yes\""), "webhook.allow_private: must be true or false"),
        (with("name = \"redis\""), "webhook.name: \"redis\" is what the gate calls another"),
        (with("name = \"a b\""), "webhook.name: a name has 1 to 64 letters"),
        (with("name = \"a\"\n") + &with("name = \"a\""), "webhook.name: \"a\" stands there twice"),
        (with("").replace("https", "http") + "ca_file = \"/ca\"", "webhook.ca_file: is for the certificates"),
        (with("").replace("a.example", "127.0.0.1"), near),
        (with("").replace("a.example", "[::ffff:10.0.0.1]:8443"), near),
        (with("").replace("a.example", "169.254.169.254"), near),
    ];
    for (text, want) in cases {
        let found = problems(&text, &[]);
        assert!(found.len() == 1 && found[0].contains(want), "{text:?}: {found:#?} does not say {want:?}");
    }
    let secret = problems(&with("").replace("a.example", "u:s3cret@a.example"), &[]);
    assert!(secret.len() == 1 && !secret[0].contains("s3cret"), "{secret:?}");
    assert!(read(&(with("allow_private = true").replace("a.example", "127.0.0.1")), &[]).is_ok());
}

#[test]
fn there_may_be_a_hundred_webhooks_and_no_more() {
    assert_eq!(read(&with("").repeat(100), &[]).unwrap().webhooks.len(), 100);
    let found = problems(&with("").repeat(101), &[]);
    assert!(found.len() == 1 && found[0].contains("is the one after 100"), "{found:?}");
}

#[test]
fn authorities_that_cannot_be_read_are_told_before_a_start() {
    let settings = read(&with("ca_file = \"/nowhere/ca.pem\""), &[]).unwrap();
    let error = settings.check_places().unwrap_err().to_string();
    assert!(error.starts_with("webhook.ca_file: the certificates in /nowhere/ca.pem: "), "{error}");
}
