//! Builds the git that misbehaves (`fake_git.rs` beside this file), once per version of its source.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The source, so that a change of it is built anew.
const SOURCE: &str = include_str!("fake_git.rs");

/// The fake git. Call it before anything in this process waits for children.
pub(crate) fn fake_git() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(build)
}

/// A directory entry `DIRECTORY/git` that is the fake git and always behaves as `behaviour` says.
#[allow(dead_code, reason = "not every test binary that builds the fake needs one of its own")]
pub(crate) fn fake_git_in(directory: &Path, behaviour: &str) -> PathBuf {
    let program = directory.join("git");
    // A copy is open for writing for a moment, in every process too that another test starts then; and nobody can run a
    // program that somebody may write to. A link is never open. Only another file system has none.
    let linked = fs::hard_link(fake_git(), &program);
    linked
        .or_else(|_| fs::copy(fake_git(), &program).map(drop))
        .expect("the test's own directory can be written to");
    fs::write(directory.join("git.behaviour"), behaviour)
        .expect("the test's own directory can be written to");
    program
}

fn build() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    SOURCE.hash(&mut hasher);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let program = directory.join(format!("fake-git-{:016x}", hasher.finish()));
    if !program.exists() {
        let unfinished = directory.join(format!("fake-git-{}.new", std::process::id()));
        compile(&unfinished);
        // Test binaries run side by side: each builds its own and the last name wins, all are the same.
        fs::rename(&unfinished, &program).expect("one directory of one file system");
    }
    program
}

#[expect(clippy::disallowed_methods, reason = "the compiler is no child of a gate, and no reaper runs yet")]
fn compile(output: &Path) {
    let rustc = Path::new(env!("CARGO")).with_file_name("rustc");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/fake_git.rs");
    let mut command = std::process::Command::new(if rustc.exists() { rustc } else { "rustc".into() });
    let command = command.args(["-O", "-Cstrip=symbols", "--edition=2024", "-o"]).arg(output).arg(source);
    assert!(command.status().expect("rustc is where cargo is").success(), "the fake git does not compile");
}
