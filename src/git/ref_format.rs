//! What git takes for the name of a ref (git-check-ref-format(1)).

/// Whether git takes `name` for the name of a ref; others it ignores in a fetch.
pub(crate) fn is_fetchable(name: &str) -> bool {
    let is_bad =
        |c: char| c.is_ascii_control() || matches!(c, ' ' | '~' | '^' | ':' | '?' | '*' | '[' | '\\');
    let is_segment =
        |segment: &str| !segment.is_empty() && !segment.starts_with('.') && !segment.ends_with(".lock");
    name.starts_with("refs/")
        && !name.ends_with('.')
        && !name.contains("..")
        && !name.contains("@{")
        && !name.contains(is_bad)
        && name.split('/').all(is_segment)
}
