//! The commits that a ref of a push brings, as git lists them, told to reviewers a line each.

use crate::git::inspect::NEW_COMMIT_FIELDS;
use crate::model::oid::Oid;
use crate::model::text::{clip, sanitize};

/// How many commits are told of one ref.
const SHOWN_MAX: usize = 200;

/// How much of one line of git's is looked at, in bytes: the ids, two people and a long subject.
const LINE_MAX: usize = 4 << 10;

/// Longest text of one field that is shown, in bytes.
const FIELD_MAX: usize = 200;

/// What git has said so far; however much that is, this stays small.
#[derive(Debug, Default)]
pub(super) struct NewCommits {
    /// The beginning of a line that has not ended.
    line: Vec<u8>,
    /// One for each of the first.
    shown: Vec<String>,
    count: usize,
    /// The first commit of the target that one of them was made upon.
    left_at: Option<Oid>,
}

impl NewCommits {
    /// Takes the next part of the answer to [`crate::git::command::Git::new_commits`].
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = LINE_MAX.saturating_sub(self.line.len()).min(part.len());
            self.line.extend_from_slice(&part[..room]);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                self.take(String::from_utf8_lossy(&line).trim_end_matches('\n'));
            }
        }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Where they left the target's history; `None` when they did not begin there.
    pub(super) fn left_at(&self) -> Option<&Oid> {
        self.left_at.as_ref()
    }

    /// A line for each, and how many are left out.
    pub(super) fn text(&self) -> String {
        let mut text = match self.count {
            0 => "no new commits\n".to_owned(),
            1 => "1 new commit:\n".to_owned(),
            count => format!("{count} new commits:\n"),
        };
        for line in &self.shown {
            text += line;
            text.push('\n');
        }
        if self.count > self.shown.len() {
            text += &format!("  … and {} more\n", self.count - self.shown.len());
        }
        text
    }

    fn take(&mut self, line: &str) {
        if let Some(boundary) = line.strip_prefix('-') {
            let oid = boundary.split('\0').next().and_then(|id| Oid::parse(id.as_bytes()));
            self.left_at = self.left_at.take().or(oid);
        } else if let Some(commit) = line.strip_prefix('>') {
            self.count += 1;
            if self.shown.len() < SHOWN_MAX {
                self.shown.push(describe(commit));
            }
        }
    }
}

fn describe(commit: &str) -> String {
    let mut fields = commit.splitn(NEW_COMMIT_FIELDS, '\0').map(|field| clip(&sanitize(field), FIELD_MAX));
    let mut next = || fields.next().unwrap_or_default();
    let (_, id, author, committer, subject) = (next(), next(), next(), next(), next());
    let by = if author == committer { author } else { format!("{author}, committed by {committer}") };
    format!("  {id} {by}: {subject}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[String], step: usize) -> NewCommits {
        let answer: Vec<u8> = lines.iter().flat_map(|line| format!("{line}\n").into_bytes()).collect();
        let mut news = NewCommits::default();
        answer.chunks(step).for_each(|part| news.feed(part));
        news
    }

    #[test]
    fn commits_are_told_in_one_line_each_however_their_answer_comes() {
        let (a, b) = ("a".repeat(40), "b".repeat(40));
        let lines = [
            format!("commit {a}"),
            format!(">{a}\0aaaa\0A <a@x>\0A <a@x>\0one\x1b[1m"),
            format!(">{b}\0bbbb\0A <a@x>\0B <b@x>\0{}", "é".repeat(9000)),
            format!("-{b}\0bbbb\0A <a@x>\0A <a@x>\0old"),
            format!("-{a}\0aaaa\0A <a@x>\0A <a@x>\0older"),
        ];
        for step in [1, 7, 100_000] {
            let news = told(&lines, step);
            let text = news.text();
            let lines: Vec<&str> = text.lines().collect();
            assert_eq!(lines[..2], ["2 new commits:", "  aaaa A <a@x>: one?[1m"]);
            assert!(lines[2].starts_with("  bbbb A <a@x>, committed by B <b@x>: éé"), "{text}");
            assert!(lines.len() == 3 && lines[2].len() < 300, "{text}");
            assert_eq!(news.left_at().unwrap().as_str(), b);
        }
    }

    #[test]
    fn of_many_the_first_are_told_and_the_others_counted() {
        let lines: Vec<String> = (0..1234).map(|number| format!(">{number}\0{number}\0A\0A\0s")).collect();
        let text = told(&lines, 4096).text();
        assert!(text.starts_with("1234 new commits:\n  0 A: s\n") && text.ends_with("… and 1034 more\n"));
        assert_eq!(text.lines().count(), 202);
        assert_eq!(told(&[], 1).text(), "no new commits\n");
    }
}
