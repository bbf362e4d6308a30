//! What is in the demo's repository, as streams for git-fast-import(1).

use std::fmt::Write as _;

/// Commits in the history.
pub(super) const COMMITS: usize = 40;

/// Who keeps the log in turn.
const KEEPERS: [&str; 3] =
    ["Ada <ada@example.com>", "Grace <grace@example.com>", "Linus <linus@example.com>"];

/// When the first night was, in seconds since 1970.
const BEGINNING: usize = 1_767_225_600;

/// What holds in every night; Ada changes the first line.
const RULES: &str =
    "1. Light the lamp at dusk.\n2. Put it out at dawn.\n3. Write every night into the LOG.\n";
const RULES_OF_ADA: &str = "1. Light the lamp at dusk, and in fog an hour before.\n2. Put it out at dawn.\n3. Write every night \
     into the LOG.\n";

/// [`COMMITS`] commits by three people on `main`, and a tag.
pub(super) fn everybodys() -> String {
    let mut stream = nights();
    let _ = writeln!(stream, "reset refs/tags/v1\nfrom :{}\n\ndone", COMMITS / 2);
    stream
}

/// The same on `main`, object for object, and a commit by Ada on top.
pub(super) fn adas() -> String {
    let mut stream = nights();
    commit(&mut stream, COMMITS + 1, KEEPERS[0], "Light the lamp early in fog\n");
    file(&mut stream, "RULES", RULES_OF_ADA);
    stream.push_str("done\n");
    stream
}

fn nights() -> String {
    let mut stream = String::from("feature done\n");
    let mut log = String::new();
    for number in 1..=COMMITS {
        let _ = writeln!(log, "night {number}: the lamp was lit at dusk and put out at dawn");
        let message = format!("Keep the log of night {number}\n");
        commit(&mut stream, number, KEEPERS[number % KEEPERS.len()], &message);
        file(&mut stream, "LOG", &log);
        if number == 1 {
            file(&mut stream, "RULES", RULES);
        }
        file(&mut stream, &format!("nights/{number:02}.txt"), &message);
    }
    stream
}

fn commit(stream: &mut String, number: usize, who: &str, message: &str) {
    let time = BEGINNING + number * 3_600;
    let _ = writeln!(stream, "commit refs/heads/main\nmark :{number}\ncommitter {who} {time} +0000");
    data(stream, message);
}

fn file(stream: &mut String, path: &str, text: &str) {
    let _ = writeln!(stream, "M 100644 inline {path}");
    data(stream, text);
}

fn data(stream: &mut String, text: &str) {
    let _ = writeln!(stream, "data {}\n{text}", text.len());
}
