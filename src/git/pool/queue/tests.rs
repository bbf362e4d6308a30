//! The order of a queue, by examples and by properties.

use super::*;
use crate::git::pool::Kind;
use crate::model::upstream::UpstreamUrl;
use proptest::prelude::*;

/// Nobody is expected.
const NOBODY: Coming = Coming { own: 0, all: 0 };

fn queue(kind: Kind, workers: usize, queue: usize) -> Queue<u32> {
    Queue::new(Size { workers, queue }, Sharing::of(kind, workers))
}

fn client(last: u8) -> Claim {
    Claim::of_client((last > 0).then(|| [192, 0, 2, last].into()))
}

fn on(upstream: u8, class: Class) -> Claim {
    Claim::on(UpstreamUrl::parse(&format!("https://forge-{upstream}.example")).unwrap().origin(), class)
}

/// Lets the jobs wait and takes all that may run, each as its place in the list.
fn taken(queue: &mut Queue<u32>, claims: &[Claim]) -> Vec<u32> {
    let now = Instant::now();
    for (place, claim) in (0..).zip(claims) {
        queue.push(claim.clone(), place, now);
    }
    std::iter::from_fn(|| queue.take(now)).map(|job| job.job).collect()
}

#[test]
fn a_free_worker_takes_the_job_of_the_address_that_holds_the_fewest() {
    let mut queue = queue(Kind::Read, 8, 9);
    let claims = [1, 1, 1, 2, 2, 0, 3].map(client);
    assert_eq!(taken(&mut queue, &claims), [0, 3, 5, 6, 1, 4], "the third job leaves the kept workers free");
    queue.leave(&client(1));
    assert_eq!(queue.take(Instant::now()).map(|job| job.job), Some(2));
    claims[1..].iter().for_each(|claim| queue.leave(claim));
    assert!(queue.purses.is_empty() && queue.busy == 0);
}

#[test]
fn accounts_take_turns_however_much_one_of_them_wants() {
    let mut queue = queue(Kind::Upstream, 1, 99);
    let now = Instant::now();
    for upstream in [1, 1, 1, 1, 2, 2] {
        queue.push(on(upstream, Class::Demand), upstream.into(), now);
    }
    let mut served = Vec::new();
    while let Some(job) = queue.take(now) {
        served.push(job.job);
        if served.len() == 1 {
            queue.push(on(3, Class::Demand), 3, now);
        }
        queue.leave(&job.claim);
    }
    assert_eq!(served, [1, 2, 1, 3, 2, 1, 1]);
}

#[test]
fn no_more_are_before_a_job_than_have_their_turn_before_it() {
    let now = Instant::now();
    for (newcomer, expected) in [(1, 6), (2, 5), (3, 2)] {
        let mut queue = queue(Kind::Pack, 1, 99);
        for account in [1, 1, 1, 1, 2, 2] {
            queue.push(client(account), account.into(), now);
        }
        assert_eq!(queue.before(&client(newcomer), NOBODY), expected, "{newcomer}");
        queue.push(client(newcomer), 9, now);
        let mut served = std::iter::from_fn(|| {
            let job = queue.take(now)?;
            queue.leave(&job.claim);
            Some(job.job)
        });
        assert!(served.position(|job| job == 9).is_some_and(|place| place <= expected), "{newcomer}");
    }
}

#[test]
fn who_is_coming_takes_room_and_turns_of_his_account_while_some_of_its_jobs_wait() {
    let mut queue = queue(Kind::Pack, 1, 4);
    let coming = |own, all| Coming { own, all };
    assert!(!queue.is_full(&client(1), coming(3, 3)) && queue.is_full(&client(1), coming(4, 4)));
    assert!(!queue.is_full(&client(1), coming(0, 4)) && queue.is_full(&client(1), coming(0, 5)));
    queue.push(client(2), 0, Instant::now());
    assert_eq!(queue.before(&client(1), coming(9, 9)), 1);
    queue.push(client(1), 1, Instant::now());
    assert_eq!(queue.before(&client(1), coming(9, 9)), 11);
}

#[test]
fn an_upstream_holds_a_quarter_and_its_forwards_leave_one_of_the_reserved() {
    let mut queue = queue(Kind::Upstream, 8, 99);
    let of = |upstream, class, count| std::iter::repeat_n(on(upstream, class), count);
    let fetches = (1..=4).flat_map(|upstream| of(upstream, Class::Demand, 3));
    let fetches: Vec<Claim> = fetches.collect();
    assert_eq!(taken(&mut queue, &fetches), [0, 3, 6, 9, 1], "three workers are for forwards");
    let forwards: Vec<Claim> = of(1, Class::Forward, 3).chain(of(2, Class::Forward, 1)).collect();
    assert_eq!(taken(&mut queue, &forwards), [0, 3, 1], "each has a share beside that of its fetches");
    queue.leave(&on(2, Class::Forward));
    assert!(
        queue.take(Instant::now()).is_none(),
        "no fetch takes a reserved worker, nor one too many forwards"
    );
}

#[test]
fn forwards_beyond_the_reserved_take_turns_with_the_rest() {
    let mut queue = queue(Kind::Upstream, 4, 99);
    let forwards: Vec<Claim> = (1..=4).map(|upstream| on(upstream, Class::Forward)).collect();
    assert_eq!(taken(&mut queue, &forwards), [0, 1, 2, 3]);
    assert_eq!(taken(&mut queue, &[on(5, Class::Demand), on(6, Class::Forward)]), [0; 0]);
    queue.leave(&on(1, Class::Forward));
    assert_eq!(queue.take(Instant::now()).map(|job| job.job), Some(0), "who came first");
}

#[test]
fn what_a_client_waits_for_goes_before_the_schedule_but_not_for_ever() {
    let mut queue = queue(Kind::Upstream, 1, 99);
    let now = Instant::now();
    queue.push(on(1, Class::Schedule), 1, now);
    queue.push(on(2, Class::Demand), 2, now);
    let first = queue.take(now).unwrap();
    assert_eq!(first.job, 2);
    queue.leave(&first.claim);
    queue.push(on(3, Class::Demand), 3, now);
    assert_eq!(queue.take(now + PATIENCE).unwrap().job, 1);
}

#[test]
fn the_schedule_leaves_half_of_the_queue_and_forwards_have_their_own() {
    let mut queue = queue(Kind::Upstream, 1, 4);
    let now = Instant::now();
    taken(&mut queue, &[on(9, Class::Demand)]);
    for upstream in 1..=2 {
        assert!(!queue.is_full(&on(upstream, Class::Schedule), NOBODY));
        queue.push(on(upstream, Class::Schedule), 0, now);
    }
    assert!(queue.is_full(&on(3, Class::Schedule), NOBODY) && !queue.is_full(&on(3, Class::Demand), NOBODY));
    for upstream in 3..=4 {
        queue.push(on(upstream, Class::Demand), 0, now);
    }
    assert!(queue.is_full(&on(5, Class::Demand), NOBODY) && !queue.is_full(&on(5, Class::Forward), NOBODY));
    assert_eq!(Class::ALL.map(|class| queue.waiting(class)), [0, 2, 2]);
}

/// What may happen to a queue.
#[derive(Clone, Debug)]
enum Step {
    Push(u8, Class),
    Take,
    /// The job at this place of those that run ends.
    Leave(usize),
    /// The job at this place of those that were ever pushed is given up.
    Forget(usize),
    /// So many seconds pass.
    Pass(u64),
}

fn class() -> impl Strategy<Value = Class> {
    proptest::sample::select(Class::ALL.to_vec())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0u8..6, class()).prop_map(|(upstream, class)| Step::Push(upstream, class)),
        4 => Just(Step::Take),
        3 => any::<usize>().prop_map(Step::Leave),
        1 => any::<usize>().prop_map(Step::Forget),
        1 => (0u64..40).prop_map(Step::Pass),
    ]
}

fn kind() -> impl Strategy<Value = Kind> {
    proptest::sample::select(Kind::ALL.to_vec())
}

proptest! {
    #[test]
    fn the_bounds_hold_whatever_happens(
        kind in kind(), workers in 1usize..20, steps in proptest::collection::vec(step(), 1..200),
    ) {
        let sharing = Sharing::of(kind, workers);
        let mut queue = queue(kind, workers, 50);
        let (mut running, mut ids, mut now) = (Vec::<Claim>::new(), Vec::new(), Instant::now());
        for step in steps {
            match step {
                Step::Push(upstream, class) => {
                    let claim = on(upstream, class);
                    if !queue.is_full(&claim, NOBODY) {
                        ids.push(queue.push(claim, 0, now));
                    }
                }
                Step::Take => running.extend(queue.take(now).map(|job| job.claim)),
                Step::Leave(at) if !running.is_empty() => {
                    let claim = running.swap_remove(at % running.len());
                    queue.leave(&claim);
                }
                Step::Forget(at) if !ids.is_empty() => queue.forget(ids[at % ids.len()]),
                Step::Leave(_) | Step::Forget(_) => {}
                Step::Pass(seconds) => now += Duration::from_secs(seconds),
            }
            let is_forward = |claim: &Claim| claim.class == Class::Forward;
            let (forwards, others): (Vec<_>, Vec<_>) = running.iter().cloned().partition(is_forward);
            prop_assert!(running.len() <= workers && queue.busy() == running.len());
            prop_assert!(others.len() <= workers - sharing.reserved);
            let scheduled = others.iter().filter(|claim| claim.class == Class::Schedule).count();
            prop_assert!(scheduled <= sharing.scheduled);
            let of_same = |some: &[Claim], it: &Claim| {
                some.iter().filter(|other| other.account == it.account).count()
            };
            for some in [&forwards, &others] {
                let most = some.iter().map(|it| of_same(some, it)).max();
                prop_assert!(most.unwrap_or(0) <= sharing.most.max(1));
            }
            let accounts = queue.purses.values();
            prop_assert!(accounts.clone().all(|it| it.held + it.waiting > 0));
            prop_assert_eq!(accounts.map(|it| it.held).sum::<usize>(), running.len());
        }
    }

    /// Whoever else comes, and however often: one worker serves nobody twice whom it had served since a job came, nor
    /// anybody who came later, before it serves that job.
    #[test]
    fn a_job_waits_for_no_more_than_was_there_when_it_came(
        before in proptest::collection::vec((0u8..9, prop_oneof![Just(Class::Demand), Just(Class::Forward)]), 0..20),
        after in proptest::collection::vec((0u8..20, prop_oneof![Just(Class::Demand), Just(Class::Schedule)]), 60),
    ) {
        let (mut queue, now) = (queue(Kind::Upstream, 1, 1000), Instant::now());
        for (upstream, class) in &before {
            queue.push(on(*upstream, *class), 0, now);
        }
        queue.push(on(99, Class::Demand), 1, now);
        let mut turns = 0;
        for (upstream, class) in after {
            queue.push(on(upstream, class), 0, now);
            let job = queue.take(now).unwrap();
            queue.leave(&job.claim);
            if job.job == 1 {
                break;
            }
            turns += 1;
        }
        prop_assert!(turns <= before.len(), "{turns} others went before");
    }

    /// Every worker that may be used is used, and in the end everything has run.
    #[test]
    fn nothing_waits_for_ever(
        kind in kind(), workers in 1usize..9, jobs in proptest::collection::vec((0u8..6, class()), 1..80),
    ) {
        let (mut queue, now) = (queue(kind, workers, 1000), Instant::now());
        for (upstream, class) in &jobs {
            queue.push(on(*upstream, *class), 0, now);
        }
        let (mut running, mut count) = (VecDeque::new(), 0);
        loop {
            running.extend(std::iter::from_fn(|| queue.take(now)).map(|job| job.claim));
            let Some(claim) = running.pop_front() else { break };
            queue.leave(&claim);
            count += 1;
        }
        prop_assert_eq!(count, jobs.len());
        prop_assert!(queue.purses.is_empty() && queue.waiting.is_empty());
    }
}
