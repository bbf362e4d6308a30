//! A gate before an upstream that has the repository `team/app`.

use std::fs;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use tidegate::model::push::{Push, PushId, PushState};
use tidegate::store::Store;
use tidegate::store::pushes::Filter;

use crate::support::forge::Forge;
use crate::support::forward_proxy::HOST;
use crate::support::gate::{Gate, Setup};
use crate::support::git::{Client, gits};
use crate::support::place::{Place, token_of};
use crate::support::run::{Run, Running};
use crate::support::{HANG, eventually, obtain, repo};

/// What kind of upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A server, below this path of [`Forge`].
    Server(&'static str),
    /// A directory of this machine.
    Directory,
}

/// Both.
pub(super) const KINDS: [Kind; 2] = [Kind::Server("open"), Kind::Directory];

/// The repository's name at the gate.
pub(super) const NAME: &str = "forge/team/app";

/// Where it is in the upstream.
pub(super) const BEHIND: &str = "team/app.git";

/// A stage that is not set yet.
pub(super) struct Plan {
    kind: Kind,
    keys: String,
    gate: String,
    tables: String,
    git: Option<PathBuf>,
    spy: bool,
    traced: bool,
    is_tls: bool,
    is_unknown: bool,
    env: Vec<(&'static str, String)>,
    top: Vec<(&'static str, &'static str)>,
    /// What only the first gate has in its environment.
    first: Option<(&'static str, String)>,
}

impl Plan {
    pub(super) fn to(kind: Kind) -> Plan {
        let [keys, gate, tables] = [const { String::new() }; 3];
        Plan {
            kind,
            keys,
            gate,
            tables,
            git: None,
            spy: false,
            traced: false,
            is_tls: false,
            is_unknown: false,
            env: Vec::new(),
            top: Vec::new(),
            first: None,
        }
    }

    /// Adds a line to `[[upstream]]`.
    pub(super) fn key(mut self, line: &str) -> Plan {
        self.keys += &format!("{line}\n");
        self
    }

    /// Adds a line to `[upstream.gate]`.
    pub(super) fn gate(mut self, line: &str) -> Plan {
        self.gate += &format!("{line}\n");
        self
    }

    /// The upstream is behind TLS. `CA_FILE` in keys is its authority.
    pub(super) fn tls(mut self) -> Plan {
        self.is_tls = true;
        self
    }

    /// The upstream has a name that a proxy knows and nobody else.
    pub(super) fn unknown(mut self) -> Plan {
        self.is_unknown = true;
        self
    }

    /// Adds a variable to the environment of the gate.
    pub(super) fn env(mut self, name: &'static str, value: &str) -> Plan {
        self.env.push((name, value.to_owned()));
        self
    }

    /// Requires approval.
    pub(super) fn required(self) -> Plan {
        self.gate("approval = \"required\"")
    }

    /// The first life of the gate ends there (`TIDEGATE_FAULT_POINT`).
    #[cfg(feature = "fault-points")]
    pub(super) fn dies(mut self, point: tidegate::sys::fault::Point) -> Plan {
        let name = format!("{:?}-{}", point.side, point.state).to_lowercase();
        self.first = Some(("TIDEGATE_FAULT_POINT", name));
        self
    }

    /// Sets a key of the gate itself.
    pub(super) fn top(mut self, key: &'static str, value: &'static str) -> Plan {
        self.top.push((key, value));
        self
    }

    /// Adds tables after the upstream.
    pub(super) fn tables(mut self, text: &str) -> Plan {
        self.tables += text;
        self
    }

    /// The git of the gate and of its clients.
    pub(super) fn git(mut self, program: &Path) -> Plan {
        self.git = Some(program.to_path_buf());
        self
    }

    /// Gives the gate a git that counts the fetches from the upstream, and may be made to wait before one.
    pub(super) fn spied(mut self) -> Plan {
        self.spy = true;
        self
    }

    /// Gives the gate a git that writes down which commands it runs, see [`Stage::trace`].
    pub(super) fn traced(mut self) -> Plan {
        self.traced = true;
        self
    }

    /// Everything runs.
    #[track_caller]
    pub(super) fn start(self) -> Stage {
        let place = Place::new();
        place.user("alice", "pusher");
        place.user("rita", "reviewer");
        allow_pushes(&repo::history(&place, BEHIND));
        let (forge, url) = match self.kind {
            Kind::Server(path) => {
                let forge = Forge::start(&place);
                let url = if self.is_tls { forge.tls_url(path) } else { forge.url(path) };
                let url = if self.is_unknown { url.replace("127.0.0.1", HOST) } else { url };
                (Some(forge), url)
            }
            Kind::Directory => (None, place.root().to_str().unwrap().to_owned()),
        };
        fs::write(place.work("token"), format!("{}\n", token_of("bot"))).unwrap();
        let Plan { keys, gate, tables, .. } = &self;
        let keys = keys.replace("TOKEN_FILE", place.work("token").to_str().unwrap());
        let authority = forge.as_ref().map(|forge| forge.authority().display().to_string());
        let keys = keys.replace("CA_FILE", &authority.unwrap_or_default());
        // Most tests look at what the upstream has now.
        let fresh = if keys.contains("fresh_for") { "" } else { "mirror.fresh_for = \"1ms\"" };
        let text = format!(
            "[[upstream]]\nname = \"forge\"\nurl = {url:?}\n{fresh}\n{keys}[upstream.gate]\n{gate}\n{tables}\n"
        );
        let mut setup = place.gate().rootless().set("limits.drain", "\"3s\"").tables(&text);
        for (key, value) in &self.top {
            setup = setup.set(key, value);
        }
        for (name, value) in &self.env {
            setup = setup.env(name, value);
        }
        let mut client = place.client();
        if let Some(program) = &self.git {
            setup = setup.text("git.program", program.to_str().unwrap());
            client = client.program(program);
        }
        let fetches = self.spy.then(|| {
            let (fetches, program) = (Barrier::new(&place, "fetch"), place.work("spy"));
            let git = gits().remove(0);
            let spying = format!(
                "case \" $* \" in *' fetch '*)\n{};;\nesac\nexec {} \"$@\"",
                fetches.script(),
                git.display()
            );
            repo::script(&program, &spying);
            setup = setup.clone().text("git.program", program.to_str().unwrap());
            fetches
        });
        if self.traced {
            let (program, trace) = (place.work("tracing-git"), place.work("trace"));
            let git = gits().remove(0);
            let text =
                format!("GIT_TRACE2_BRIEF=1 GIT_TRACE2={} exec {} \"$@\"", trace.display(), git.display());
            repo::script(&program, &text);
            setup = setup.text("git.program", program.to_str().unwrap());
        }
        let first = self.first.iter().fold(setup.clone(), |setup, (key, value)| setup.env(key, value));
        let gate = first.start();
        let store = Store::open(&place.data()).unwrap();
        Stage { gate, store, client, forge, fetches, setup, place }
    }
}

/// A gate, its upstream, and a client.
pub(super) struct Stage {
    pub(super) gate: Gate,
    pub(super) store: Store,
    pub(super) client: Client,
    forge: Option<Forge>,
    /// Fetches from the upstream, if a git spies on them. They wait until [`Barrier::open`].
    pub(super) fetches: Option<Barrier>,
    setup: Setup,
    pub(super) place: Place,
}

impl Stage {
    /// The upstream's server.
    pub(super) fn forge(&mut self) -> &mut Forge {
        self.forge.as_mut().unwrap()
    }

    /// The upstream's repository.
    pub(super) fn behind(&self) -> Client {
        self.client.at(&self.place.repo(BEHIND))
    }

    /// A clone by alice, through the gate.
    #[track_caller]
    pub(super) fn clone(&self, name: &str) -> Client {
        self.clone_of(NAME, name, &[])
    }

    /// The same of another repository, with more options.
    #[track_caller]
    pub(super) fn clone_of(&self, repository: &str, name: &str, options: &[&str]) -> Client {
        self.client.cloned(options, &self.gate.url_as("alice", repository), &self.place.work(name))
    }

    /// A clone with one more commit on `main`.
    #[track_caller]
    pub(super) fn ahead(&self, name: &str) -> Client {
        let clone = self.clone(name);
        clone.commit("new.txt", name.as_bytes(), name);
        clone
    }

    /// The newest push, as soon as it stands there.
    #[track_caller]
    pub(super) fn until(&self, state: PushState) -> Push {
        let mut seen = None;
        eventually(HANG, &format!("the newest push is {state}"), || {
            seen = self.newest();
            seen.as_ref().is_some_and(|push| push.state == state)
        });
        seen.unwrap()
    }

    /// What the gate's gits have run since this was asked, if they are traced, in the order of their starts.
    pub(super) fn trace(&self) -> Vec<String> {
        let trace = self.place.work("trace");
        let text = fs::read_to_string(&trace).unwrap_or_default();
        fs::write(trace, "").unwrap();
        let name = |line: &str| Some(line.strip_prefix("cmd_name ")?.split(' ').next()?.to_owned());
        text.lines().filter_map(name).collect()
    }

    /// This push, as soon as `is_so`.
    #[track_caller]
    pub(super) fn await_push(&self, id: PushId, is_so: impl Fn(&Push) -> bool) -> Push {
        obtain(HANG, "the push gets there", || self.push(id).filter(|push| is_so(push)))
    }

    pub(super) fn push(&self, id: PushId) -> Option<Push> {
        self.store.pushes().get(id).unwrap()
    }

    pub(super) fn newest(&self) -> Option<Push> {
        let filter = Filter { limit: 1, ..Filter::default() };
        self.store.pushes().list(&filter).unwrap().pushes.pop()
    }

    /// `tidegate push` by the operator.
    #[track_caller]
    pub(super) fn operate(&self, words: &[&str]) -> Run {
        let data = self.place.data();
        let words = [&["push"], words, &["--data-dir", data.to_str().unwrap()]].concat();
        self.place.tidegate(&words, b"")
    }

    #[track_caller]
    pub(super) fn approve(&self, push: &Push) {
        self.operate(&["approve", &push.id.to_string()]).ok();
    }

    /// Begins a push that has to be approved, and approves it.
    #[track_caller]
    pub(super) fn begin_approved(&self, clone: &Client, words: &[&str]) -> (Running, Push) {
        let client = clone.begin(&[&["push", "origin"], words].concat());
        let push = self.until(PushState::Pending);
        self.approve(&push);
        (client, push)
    }

    /// The upstream has what the client's `main` is.
    #[track_caller]
    pub(super) fn assert_arrived(&self, clone: &Client) {
        assert_eq!(self.behind().oid("main"), clone.oid("main"));
    }

    /// Makes `script` a hook of the upstream's repository.
    pub(super) fn hook(&self, name: &str, script: &str) {
        repo::hook(&self.place, BEHIND, name, script);
    }

    pub(super) fn unhook(&self, name: &str) {
        fs::remove_file(self.place.repo(BEHIND).join("hooks").join(name)).unwrap();
    }

    /// Makes the next run of a hook of the upstream wait; further ones do not. All are counted.
    pub(super) fn barrier(&self, hook: &str) -> Barrier {
        let barrier = Barrier::new(&self.place, hook);
        self.hook(hook, &barrier.script());
        barrier
    }

    /// kill -9 of the gate, unless it has died by itself, and a new one on the same data.
    #[track_caller]
    pub(super) fn revive(mut self) -> Stage {
        if self.gate.is_alive() {
            self.gate.crash();
        }
        let Stage { gate, store, client, forge, fetches, setup, place } = self;
        // Dropped before, the dead gate would take its gits along.
        let next = setup.clone().start();
        gate.forget();
        Stage { gate: next, store, client, forge, fetches, setup, place }
    }
}

/// Pushes to a repository are taken without a credential.
pub(super) fn allow_pushes(repository: &Client) {
    repository.git(&["config", "http.receivepack", "true"]).ok();
}

/// A script that waits when it runs for the first time, and counts its runs.
pub(super) struct Barrier(PathBuf);

impl Barrier {
    pub(super) fn new(place: &Place, name: &str) -> Barrier {
        let pipe = place.work(&format!("{name}.pipe"));
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        Barrier(pipe)
    }

    /// What the script does; whoever has taken the pipe waits.
    pub(super) fn script(&self) -> String {
        let pipe = self.0.display();
        format!(
            "echo run >> {pipe}.runs\nif mv {pipe} {pipe}.taken 2>/dev/null; then read line < {pipe}.taken; fi\n"
        )
    }

    /// Makes no run wait that has not begun.
    pub(super) fn open(&self) {
        fs::remove_file(&self.0).unwrap();
    }

    /// Waits until the script waits, and answers the end by which it is let go.
    #[track_caller]
    pub(super) fn reached(&self) -> fs::File {
        use std::os::unix::fs::OpenOptionsExt;
        let taken = self.0.with_extension("pipe.taken");
        obtain(HANG, "the script that is to wait runs", || {
            OpenOptions::new().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&taken).ok()
        })
    }

    /// How often the script has run.
    pub(super) fn runs(&self) -> usize {
        fs::read_to_string(self.0.with_extension("pipe.runs")).unwrap_or_default().lines().count()
    }
}

/// Lets a script go on that waits.
pub(super) fn let_go(mut end: fs::File) {
    end.write_all(b"go\n").unwrap();
}
