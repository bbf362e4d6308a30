//! What a newcomer reads and pastes. Every line to paste works in any directory, and each block in a terminal of its own.

use super::{ADA, GRACE, Guest, REPOSITORY, UPSTREAM, YOU};
use crate::model::push::PushId;
use std::path::Path;

/// What the guide is about.
#[derive(Debug)]
pub(super) struct Guide<'a> {
    /// The demo's directory; absolute.
    pub(super) dir: &'a Path,
    /// The upstream's repository; absolute.
    pub(super) upstream: &'a Path,
    /// Where the gate is.
    pub(super) url: &'a str,
    /// What starts this program.
    pub(super) program: &'a str,
    /// The push that waits.
    pub(super) push: PushId,
}

impl Guide<'_> {
    /// All of it.
    pub(super) fn text(&self) -> String {
        let Self { url, push, program, .. } = self;
        let next = push.get() + 1;
        let (as_grace, grace) = (self.environment(&GRACE), GRACE.name);
        let Guest { name: you, token: yours, .. } = YOU;
        let as_you = url.replacen("http://", &format!("http://{you}:{yours}@"), 1);
        let (upstream, work) = (word(self.upstream), word(&self.dir.join(you)));
        format!(
            "Ada has pushed to {UPSTREAM}/{REPOSITORY}, and her `git push` waits: the gate before {UPSTREAM} passes on what a \
             reviewer\nhas approved. Paste the lines below into other terminals, in any directory.\n\
             \n\
             1. Decide as Grace, the reviewer:\n\
             \n\
             \x20 export {as_grace}\n\
             \x20 {program} push show {push}\n\
             \x20 {program} push diff {push}\n\
             \x20 {program} push approve {push} --reason 'fog is no joke'\n\
             \n\
             2. Ada's `git push` ends with success, which is told here, and the upstream has her commit:\n\
             \n\
             \x20 git -C {upstream} log --oneline -3\n\
             \n\
             3. Push yourself, in a third terminal; it waits, and says for what:\n\
             \n\
             \x20 git clone {as_you}/{UPSTREAM}/{REPOSITORY} {work} && cd {work}\n\
             \x20 echo 'all is well' >> LOG && git -c user.name=You -c user.email=you@example.com commit -qam \
             'Say that all is well' && git push\n\
             \n\
             4. Approve that, in Grace's terminal or in a browser, where the user is {grace} and the token {}.\n\
             Your own would not do: reviewers decide, and nobody on his own push.\n\
             \n\
             \x20 {program} push approve {next}\n\
             \x20 {url}/-/pushes/{next}\n\
             \n\
             The gate's configuration is in {}.\n\
             Ctrl-C ends the demo and removes everything that was made here, your clone as well.\n\n",
            GRACE.token,
            word(&self.dir.join(super::CONFIGURATION)),
        )
    }

    fn environment(&self, guest: &Guest) -> String {
        format!("TIDEGATE_URL={} TIDEGATE_TOKEN={}", self.url, guest.token)
    }
}

/// What Ada saw of the end of her push.
pub(super) fn end_of_push(end: &str, stderr: &str) -> String {
    let lines: String = stderr.lines().map(|line| format!("  {}\n", line.trim_end())).collect();
    format!("The `git push` of {} has ended ({end}), and this is what it said:\n\n{lines}\n", ADA.name)
}

/// A path as a word of a shell's line.
pub(super) fn word(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_of_a_line() {
        assert_eq!(word(Path::new("/tmp/tidegate-demo-7/forge")), "/tmp/tidegate-demo-7/forge");
        assert_eq!(word(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }

    #[test]
    fn every_line_to_paste_names_its_places_in_full() {
        let push = PushId::new(1).unwrap();
        let (dir, upstream) = (Path::new("/tmp/d"), Path::new("/tmp/d/forge/lighthouse.git"));
        let guide = Guide { dir, upstream, url: "http://127.0.0.1:1", program: "/opt/tidegate", push };
        let text = guide.text();
        let pasted: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("  ")).collect();
        assert_eq!(pasted.len(), 9, "{text}");
        assert_eq!(pasted[0], "export TIDEGATE_URL=http://127.0.0.1:1 TIDEGATE_TOKEN=grace-grace");
        assert_eq!(pasted[3], "/opt/tidegate push approve 1 --reason 'fog is no joke'");
        assert_eq!(pasted[4], "git -C /tmp/d/forge/lighthouse.git log --oneline -3");
        assert!(
            pasted[5].starts_with("git clone http://you:you-and-me@127.0.0.1:1/forge/lighthouse /tmp/d/you ")
        );
        assert_eq!(pasted[7..], ["/opt/tidegate push approve 2", "http://127.0.0.1:1/-/pushes/2"]);
    }
}
