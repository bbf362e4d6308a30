//! Addresses of upstreams: what is taken, how it is written, and what is refused.

use super::*;
use proptest::prelude::*;

fn url(text: &str) -> UpstreamUrl {
    UpstreamUrl::parse(text).unwrap()
}

fn http(text: &str) -> HttpUrl {
    match url(text) {
        UpstreamUrl::Http(url) => url,
        UpstreamUrl::Directory(path) => panic!("{text} is {}", path.display()),
    }
}

#[test]
fn one_address_is_written_in_one_way() {
    for (written, meant) in [
        ("https://github.com", "https://github.com"),
        ("HTTPS://GitHub.com:443/", "https://github.com"),
        ("http://forge:80/Git//", "http://forge/Git"),
        ("http://forge:443/git", "http://forge:443/git"),
        ("https://127.0.0.1:3000/~team/c++", "https://127.0.0.1:3000/~team/c++"),
        ("https://[2001:DB8:0:0::1]:443/x", "https://[2001:db8::1]/x"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("http://my_forge-1:3000/a.b/c", "http://my_forge-1:3000/a.b/c"),
        ("/srv/git", "/srv/git"),
        ("/srv//git/", "/srv/git"),
        ("file:///srv/git/", "/srv/git"),
        ("/srv/100%", "/srv/100%"),
        ("/", "/"),
    ] {
        assert_eq!(url(written).as_text(), meant);
        assert_eq!(url(meant), url(written));
    }
}

#[test]
fn the_parts_are_what_a_client_needs() {
    let plain = http("https://[2001:db8::1]/git");
    assert_eq!((plain.scheme(), plain.host(), plain.port()), (Scheme::Https, "2001:db8::1", 443));
    assert_eq!((plain.authority().as_str(), plain.path()), ("[2001:db8::1]", "/git"));
    let other = http("http://Forge:3000/");
    assert_eq!((other.host(), other.port(), other.authority().as_str()), ("forge", 3000, "forge:3000"));
    assert_eq!(other.path(), "");
}

#[test]
fn what_is_no_address_is_refused_with_a_sentence() {
    use UpstreamUrlError as E;
    for (text, error) in [
        ("", E::Kind),
        ("ext::sh -c evil", E::Kind),
        ("git://github.com/a", E::Kind),
        ("ssh://git@github.com/a", E::Kind),
        ("git@github.com:a/b", E::Kind),
        ("github.com/a", E::Kind),
        ("srv/git", E::Kind),
        ("~/git", E::Kind),
        ("ftp://host/a", E::Kind),
        (" https://host", E::Kind),
        ("https:/host", E::Kind),
        ("https://user:hunter2@host/a", E::Userinfo),
        ("https://token@host", E::Userinfo),
        ("https://good.example\\@evil.example/", E::Userinfo),
        ("https://host/a?b=c", E::Query),
        ("https://host?b", E::Query),
        ("https://host/a#b", E::Query),
        ("https://host/a b", E::Character),
        ("https://host/a\n", E::Character),
        ("https://h\u{f6}st/", E::Character),
        ("/srv/g\0t", E::Character),
        ("/srv/g\u{ef}t", E::Character),
        ("https://", E::Host),
        ("https:///a", E::Host),
        ("https://:443/a", E::Host),
        ("https://-host", E::Host),
        ("https://a..b", E::Host),
        ("https://host.", E::Host),
        ("https://evil\\good", E::Host),
        ("https://127.1/", E::Host),
        ("https://2130706433/", E::Host),
        ("https://0x7f000001/", E::Host),
        ("https://127.0.0.01/", E::Host),
        ("https://[::1", E::Host),
        ("https://[::1]x", E::Host),
        ("https://[127.0.0.1]", E::Host),
        ("https://[fe80::1%25eth0]", E::Host),
        ("https://::1/", E::Port),
        ("https://host:", E::Port),
        ("https://host:0", E::Port),
        ("https://host:65536", E::Port),
        ("https://host:+80", E::Port),
        ("https://host:80:80", E::Port),
        ("https://host/a/../b", E::Path),
        ("https://host/./a", E::Path),
        ("https://host/..", E::Path),
        ("https://host//a", E::Path),
        ("https://host/%2e%2e/a", E::Path),
        ("https://host/a\\b", E::Path),
        ("https://host/a@b", E::Path),
        ("/srv/../etc", E::Path),
        ("/srv/.", E::Path),
        ("file://host/srv", E::FileUrl),
        ("file:///srv/%2e%2e", E::FileUrl),
        ("file://srv", E::FileUrl),
    ] {
        assert_eq!(UpstreamUrl::parse(text), Err(error), "{text:?}");
    }
    let long = "x".repeat(URL_BYTES_MAX);
    assert_eq!(UpstreamUrl::parse(&format!("https://host/{long}")), Err(E::TooLong));
    assert_eq!(UpstreamUrl::parse(&format!("/{long}")), Err(E::TooLong));
    assert_eq!(UpstreamUrl::parse(&format!("http://{}", "x".repeat(LABEL_BYTES_MAX + 1))), Err(E::Host));
    assert_eq!(UpstreamUrl::parse(&format!("http://{}x", "x.".repeat(HOST_BYTES_MAX / 2 + 1))), Err(E::Host));
}

#[test]
fn a_repository_lies_below_its_upstream_in_both_spellings() {
    let forge = url("https://forge:3000/git/");
    assert_eq!(forge.repository("org/app", true).as_text(), "https://forge:3000/git/org/app.git");
    assert_eq!(forge.repository("org/app", false).as_text(), "https://forge:3000/git/org/app");
    assert_eq!(url("https://forge").repository("app", true).as_text(), "https://forge/app.git");
    assert_eq!(url("/srv/git").repository("org/app", true).as_text(), "/srv/git/org/app.git");
    assert_eq!(url("/").repository("app", false).as_text(), "/app");
}

#[test]
fn a_credential_is_bound_to_scheme_host_and_port() {
    let origin = |text| url(text).origin();
    assert_eq!(origin("https://Forge/a"), origin("https://forge:443/b"));
    for other in ["http://forge", "https://forge:444", "https://forge.example", "/forge"] {
        assert_ne!(origin("https://forge"), origin(other), "{other}");
    }
    assert_eq!(origin("http://forge:80/a").to_string(), "http://forge");
    assert_eq!(origin("http://[::1]:81/a").to_string(), "http://[::1]:81");
    assert_eq!(origin("/a"), origin("/b"));
}

#[test]
fn a_name_is_one_segment() {
    assert_eq!(UpstreamName::parse("git-hub.1").unwrap().to_string(), "git-hub.1");
    for text in ["", "a/b", "-", "-a", ".a", "a.git", "a.lock", "a b", "a:b", &"x".repeat(101)] {
        assert!(UpstreamName::parse(text).is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn what_is_taken_is_written_so_that_it_is_read_back_the_same(
        text in "(https?://)?(([A-Za-z0-9._@\\[\\]:-]{1,12})|(/[a-z0-9./%~+ ?#\\\\-]{0,16})){1,3}|file://\\PC{0,20}|\\PC{0,30}"
    ) {
        if let Ok(url) = UpstreamUrl::parse(&text) {
            prop_assert_eq!(&UpstreamUrl::parse(&url.as_text()).unwrap(), &url);
            let written = url.as_text();
            prop_assert!(written.bytes().all(|byte| byte.is_ascii_graphic()));
            prop_assert!(!written.split('/').any(|segment| segment == ".."));
            let below = url.repository("org/app", true);
            prop_assert_eq!(below.origin(), url.origin());
            prop_assert_eq!(&UpstreamUrl::parse(&below.as_text()).unwrap(), &below);
        }
    }

    #[test]
    fn whatever_stands_before_an_at_is_neither_taken_nor_repeated(secret in "[a-z]{8,20}", user in "[a-z]{0,5}") {
        for text in [format!("https://{user}:{secret}@host/a"), format!("https://{secret}@host:8/?x"), format!("{secret}@host:a")] {
            let error = UpstreamUrl::parse(&text).unwrap_err();
            let told = format!("{error} {error:?}");
            prop_assert!(!told.contains(&secret), "{}", told);
        }
    }

    #[test]
    fn every_host_and_port_is_kept(host in "[a-z][a-z0-9]{0,10}(\\.[a-z]{1,5}){0,2}", port in 1u16.., path in "(/[a-z]{1,5}){0,3}") {
        let text = format!("https://{host}:{port}{path}");
        let taken = http(&text);
        prop_assert_eq!((taken.host(), taken.port(), taken.path()), (host.as_str(), port, path.as_str()));
    }
}
