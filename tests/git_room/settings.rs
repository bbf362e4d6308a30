//! Settings of real repositories, read by the real git.

use crate::support::{Site, asker, gits};
use std::fs;
use tidegate::git::ask::AskError;
use tidegate::git::command::{Git, Surroundings};
use tidegate::git::service::Service;
use tidegate::git::settings::SettingsCache;

#[test]
fn the_owner_switches_services_with_effect_on_the_next_request() {
    for git in gits() {
        let site = Site::new(&git);
        let cache = SettingsCache::default();
        let serves = |service| cache.of(&git, &site.repository(), &asker()).unwrap().serves(service);
        assert!(serves(Service::UploadPack) && serves(Service::ReceivePack));
        site.sh("git -C srv.git config http.receivepack false; git -C srv.git config http.uploadpack false");
        assert!(!serves(Service::ReceivePack) && !serves(Service::UploadPack));
        site.sh("printf '[http]\\n\\tuploadpack\\n' > srv.git/more; git -C srv.git config include.path more");
        assert!(serves(Service::UploadPack));
        site.sh("printf '[http]\\n\\tuploadpack = no\\n' > srv.git/more");
        assert!(!serves(Service::UploadPack));
    }
}

#[test]
fn an_old_configuration_is_read_once() {
    for git in gits() {
        let site = Site::new(&git);
        let cache = SettingsCache::default();
        let answer = format!("git version {}", git.version());
        let surroundings = Surroundings { path: "/".into(), home: "/".into(), timezone: None };
        let none = Git::new("/no/such/git".into(), &answer, surroundings).unwrap();
        // Ctime cannot be set back: only waiting makes a file old.
        let is_remembered = || {
            cache.of(&git, &site.repository(), &asker()).unwrap();
            cache.of(&none, &site.repository(), &asker()).is_ok()
        };
        assert!(
            (0..60).any(|_| is_remembered() || {
                site.sh("sleep 0.5");
                false
            }),
            "a git is needed for ever"
        );
        assert!(cache.of(&none, &site.repository(), &asker()).is_ok(), "no git was needed");
        site.sh("git -C srv.git config http.receivepack true");
        assert!(cache.of(&none, &site.repository(), &asker()).is_err(), "a git was needed");
    }
}

#[test]
fn a_configuration_that_git_refuses_is_an_error_with_gits_words() {
    for git in gits() {
        let site = Site::new(&git);
        let config = site.path("srv.git/config");
        let good = fs::read_to_string(&config).unwrap();
        fs::write(&config, format!("{good}[broken\n")).unwrap();
        let error = SettingsCache::default().of(&git, &site.repository(), &asker()).unwrap_err();
        assert!(
            matches!(error, AskError::Failed { .. }) && error.to_string().contains("bad config line"),
            "{error}"
        );
        fs::write(&config, format!("{good}[http]\n\treceivepack = perhaps\n")).unwrap();
        let error = SettingsCache::default().of(&git, &site.repository(), &asker()).unwrap_err();
        assert!(matches!(error, AskError::Answer { .. }) && error.to_string().contains("perhaps"), "{error}");
    }
}
