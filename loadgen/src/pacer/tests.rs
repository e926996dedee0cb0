use super::*;

fn plan() -> Plan {
    Plan {
        users: 100,
        spawn_rate: Some(10.0),
        think: Duration::ZERO,
        open_loop: None,
        warm_up: Duration::ZERO,
        duration: Duration::from_secs(60),
        requests: None,
        seed: 0,
    }
}

fn pacer(plan: Plan, requests: Option<u64>) -> Pacer {
    let stop = Arc::new(AtomicBool::new(false));
    Pacer::new(plan, Instant::now(), requests, None, stop)
}

#[tokio::test(start_paused = true)]
async fn ten_users_join_each_second() {
    let pacer = std::rc::Rc::new(pacer(plan(), None));
    let start = Instant::now();
    let joins = (0..100).map(|user| {
        let pacer = pacer.clone();
        async move { pacer.join(user).await.map(|_| start.elapsed()) }
    });
    let at: Vec<Duration> = futures_util::future::join_all(joins)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(at.len(), 100);
    for second in 0..10 {
        let from = Duration::from_secs(second);
        let joined = at
            .iter()
            .filter(|at| **at >= from && **at < from + Duration::from_secs(1))
            .count();
        assert_eq!(joined, 10, "users that joined in second {second}");
    }
    assert_eq!(at[99], Duration::from_millis(9900));
}

#[tokio::test(start_paused = true)]
async fn users_whose_turn_comes_after_the_end_do_not_join() {
    let pacer = pacer(
        Plan {
            duration: Duration::from_secs(2),
            ..plan()
        },
        None,
    );
    assert!(pacer.join(19).await.is_some());
    assert!(pacer.join(20).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_user_thinks_between_rounds() {
    let pacer = pacer(
        Plan {
            think: Duration::from_secs(25),
            ..plan()
        },
        None,
    );
    let start = Instant::now();
    assert_eq!(pacer.join(0).await, Some(start));
    for after in [25, 50] {
        let next = pacer.next_round().await;
        assert_eq!(next, Some(start + Duration::from_secs(after)));
    }
    // The next would begin after the end, which is not waited for.
    assert_eq!(pacer.next_round().await, None);
    assert_eq!(start.elapsed(), Duration::from_secs(50));
}

#[tokio::test(start_paused = true)]
async fn a_late_wake_up_counts_from_the_intended_instant() {
    let pacer = pacer(plan(), None);
    let since = Instant::now();
    let hold = Duration::from_millis(300);
    assert_eq!(pacer.pause(since, hold).await, since + hold);

    // The generator stalls for a second: the hold ended long ago.
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(pacer.pause(since, hold).await, since + hold);
}

#[tokio::test(start_paused = true)]
async fn a_run_closes_by_time_by_count_and_by_stop() {
    let by_time = pacer(
        Plan {
            warm_up: Duration::from_secs(1),
            ..plan()
        },
        None,
    );
    tokio::time::advance(Duration::from_millis(60_999)).await;
    assert!(
        by_time.is_open(),
        "the warm-up comes on top of the duration"
    );
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(!by_time.is_open());

    let by_count = pacer(plan(), Some(2));
    by_count.count_request();
    assert!(by_count.is_open());
    by_count.count_request();
    assert!(!by_count.is_open());

    let stop = Arc::new(AtomicBool::new(false));
    let by_stop = Pacer::new(plan(), Instant::now(), None, None, stop.clone());
    assert!(by_stop.is_open());
    stop.store(true, Ordering::Relaxed);
    assert!(!by_stop.is_open());
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_each_wait() {
    let long = Duration::from_secs(50);
    let plan = Plan {
        think: long,
        ..plan()
    };
    let stop = Arc::new(AtomicBool::new(false));
    let pacer = Pacer::new(plan, Instant::now(), None, None, stop.clone());
    let (joined, thought, held, stopped_at) = tokio::join!(
        async { (pacer.join(500).await, Instant::now()) },
        async { (pacer.next_round().await, Instant::now()) },
        async { (pacer.pause(Instant::now(), long).await, Instant::now()) },
        async {
            tokio::time::sleep(Duration::from_millis(1250)).await;
            stop.store(true, Ordering::Relaxed);
            Instant::now()
        },
    );
    assert_eq!((joined.0, thought.0), (None, None));
    // What follows a hold counts from when it is sent.
    assert_eq!(held.0, held.1);
    for ended_at in [joined.1, thought.1, held.1] {
        assert!(ended_at > stopped_at);
        assert!(ended_at <= stopped_at + LOOK_EVERY);
    }
}

#[tokio::test(start_paused = true)]
async fn a_round_under_way_is_finished_as_planned_when_the_run_closes() {
    let pacer = pacer(plan(), Some(1));
    let since = Instant::now();
    pacer.count_request();
    assert!(!pacer.is_open());
    let beyond_the_end = Duration::from_secs(70);
    let held = pacer.pause(since, beyond_the_end).await;
    assert_eq!(held, since + beyond_the_end);
}
