//! What a client is told of the checks of its push: that all passed, or everything that they object to, at once; and where
//! nobody knows what became of it.

use crate::model::check::{CheckResult, Finding};
use crate::model::push::PushId;

/// Objections that are shown: as many as anybody reads at a terminal. The record has all that are kept.
const SHOWN_MAX: usize = 50;

/// Bytes of lines about objections: a screen or two of long ones.
const BYTES_MAX: usize = 16 << 10;

/// How much of a commit's id people are shown: enough to find it in a large repository.
const OID_LEN: usize = 12;

/// One line about checks that all passed.
pub(super) fn passed(results: &[CheckResult]) -> String {
    format!("checks: {} passed", results.len())
}

/// What is said of a push of which the gate could not write down what became of it.
pub(super) fn not_known(id: PushId) -> String {
    format!(
        "push {id} was passed on, and what came of it cannot be written down yet: fetch before you push again, or see \
         tidegate push show {id}"
    )
}

/// Lines with every objection, in the order of the checks: where it is and what is wrong, and what to do once for all
/// that call for the same.
pub(super) fn objections(id: PushId, results: &[CheckResult]) -> Vec<String> {
    let all: Vec<(&CheckResult, &Finding)> = results
        .iter()
        .flat_map(|result| result.findings.iter().map(move |finding| (result, finding)))
        .collect();
    let mut lines = Vec::new();
    let mut bytes = 0;
    for (at, (result, finding)) in all.iter().enumerate() {
        let next = all.get(at + 1);
        let goes_on = next.is_some_and(|(other, next)| {
            other.name == result.name && (&next.key, &next.hint) == (&finding.key, &finding.hint)
        });
        let advice = (!goes_on || at + 1 == SHOWN_MAX).then(|| format!("  {}", finding.advice()));
        let some: Vec<String> = [objection(result, finding)].into_iter().chain(advice).collect();
        bytes += some.iter().map(String::len).sum::<usize>();
        if at == SHOWN_MAX || bytes > BYTES_MAX {
            lines.push(format!("… and {} more: tidegate push show {id}", all.len() - at));
            break;
        }
        lines.extend(some);
    }
    lines
}

/// The check, where it found something, and what.
fn objection(result: &CheckResult, finding: &Finding) -> String {
    let commit = finding.commit.as_ref().map(|commit| commit.chars().take(OID_LEN).collect::<String>());
    let place = match (commit, &finding.path, &finding.ref_name) {
        (Some(commit), Some(path), _) => format!("{commit} {path}: "),
        (Some(commit), None, _) => format!("{commit}: "),
        (None, Some(path), _) => format!("{path}: "),
        (None, None, Some(name)) => format!("{name}: "),
        (None, None, None) => String::new(),
    };
    format!("{}: {place}{}", result.name, finding.message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::check::Verdict;

    fn finding(commit: &str, path: Option<&str>, message: &str, hint: &str) -> Finding {
        Finding {
            ref_name: Some("refs/heads/main".to_owned()),
            commit: (!commit.is_empty()).then(|| commit.repeat(40)),
            path: path.map(str::to_owned),
            message: message.to_owned(),
            key: "checks.x".to_owned(),
            hint: hint.to_owned(),
        }
    }

    fn result(name: &str, findings: Vec<Finding>) -> CheckResult {
        CheckResult { name: name.to_owned(), verdict: Verdict::Fail, findings, ms: 0 }
    }

    fn id() -> PushId {
        PushId::new(7).unwrap()
    }

    #[test]
    fn every_objection_has_its_place_and_equal_advice_stands_once() {
        let results = [
            result("empty", Vec::new()),
            result(
                "paths",
                vec![
                    finding("a", Some("x.pem"), "no keys", "drop it"),
                    finding("b", Some("y.pem"), "no keys", "drop it"),
                ],
            ),
            result("message", vec![finding("b", None, "no", "amend")]),
            result("refs", vec![Finding { key: String::new(), ..finding("", None, "stays", "leave it") }]),
        ];
        let expected = [
            "paths: aaaaaaaaaaaa x.pem: no keys",
            "paths: bbbbbbbbbbbb y.pem: no keys",
            "  checks.x: drop it",
            "message: bbbbbbbbbbbb: no",
            "  checks.x: amend",
            "refs: refs/heads/main: stays",
            "  leave it",
        ];
        assert_eq!(objections(id(), &results), expected);
        assert_eq!(passed(&results), "checks: 4 passed");
    }

    #[test]
    fn neither_many_nor_long_objections_fill_a_terminal() {
        let many = |message: &str| result("content", vec![finding("a", None, message, "drop it"); 70]);
        let lines = objections(id(), &[many("no")]);
        assert_eq!(lines.len(), SHOWN_MAX + 2, "{lines:?}");
        assert_eq!(lines[SHOWN_MAX..], ["  checks.x: drop it", "… and 20 more: tidegate push show 7"]);
        let lines = objections(id(), &[many(&"no".repeat(400))]);
        let bytes: usize = lines.iter().map(String::len).sum();
        assert!(bytes <= BYTES_MAX + 100, "{bytes}");
        assert!(lines.last().unwrap().ends_with("more: tidegate push show 7"), "{lines:?}");
    }
}
