use crate::crew::Place;
use crate::pacer::Plan;
use crate::recorder::Operation;
use crate::schedule::{Arrivals, OpenLoop};
use crate::timeline::Timeline;

use super::*;

#[test]
fn shares_add_up_to_the_total() {
    for total in 0..20 {
        for threads in 1..6 {
            assert_eq!(
                (0..threads)
                    .map(|index| share_of(total, index, threads))
                    .sum::<u64>(),
                total
            );
        }
    }
}

/// A server that answers in a millisecond, but stands still for the last second of every ten.
struct Stalling {
    start: Instant,
}

const PERIOD: Duration = Duration::from_secs(10);
const STALL: Duration = Duration::from_secs(1);
const SERVICE: Duration = Duration::from_millis(1);

impl Workload for Stalling {
    type User = ();

    fn name(&self) -> &'static str {
        "stalling"
    }

    fn operations(&self) -> &'static [&'static str] {
        &["ask"]
    }

    fn prepare(&self, _seat: Seat) {}

    async fn execute(&self, _user: &mut (), intended: Instant, turn: &Turn) {
        let request = async {
            let in_period = self.start.elapsed().as_nanos() % PERIOD.as_nanos();
            let left = PERIOD.as_nanos() - in_period;
            if left <= STALL.as_nanos() {
                tokio::time::sleep(Duration::from_nanos(left as u64)).await;
            }
            tokio::time::sleep(SERVICE).await;
            Ok::<(), crate::workload::RequestError>(())
        };
        turn.measure(Operation(0), intended, request).await;
    }
}

/// Runs the plan in virtual time, as a load thread does, and returns what was recorded.
async fn record(plan: Plan) -> (crate::recorder::Series, Option<Sends>) {
    let start = Instant::now();
    let (intervals, mut told) = mpsc::channel(1000);
    let setup = Setup {
        connect: Default::default(),
        spread: Vec::new(),
        chaos: None,
        threads: 1,
        place: Place::ALONE,
        connections: 1,
        keeps_histograms: false,
        plan,
    };
    let work = Work {
        index: 0,
        workload: Arc::new(Stalling { start }),
        intervals: intervals.clone(),
        stop: Arc::new(AtomicBool::new(false)),
        setup,
    };
    let turn = work.turn(start);
    let (end, ended) = oneshot::channel();
    let ticks = first_tick(&work.setup.plan, start);
    let teller = tell(turn.clone(), ticks, intervals, ended);
    let users: Vec<_> = (0..work.setup.plan.users)
        .map(|number| live(work.workload.clone(), number, (), turn.clone()))
        .collect();
    let users = async {
        futures_util::future::join_all(users).await;
        drop(work);
        let _ = end.send(());
    };
    tokio::join!(users, teller);
    let mut timeline = Timeline::new(1, false);
    while let Some(interval) = told.recv().await {
        timeline.add(&interval);
    }
    let (mut totals, seconds) = timeline.finish(Duration::from_secs(100));
    let by_second: u64 = seconds.iter().map(|second| second.moments[0].count).sum();
    assert_eq!((by_second, seconds.len()), (totals[0].count(), 100));
    (totals.remove(0), turn.pacer.sends().await)
}

fn plan(users: u32, open_loop: Option<OpenLoop>) -> Plan {
    Plan {
        users,
        spawn_rate: None,
        think: Duration::ZERO,
        open_loop,
        warm_up: Duration::from_millis(1500),
        duration: Duration::from_secs(100),
        requests: None,
        seed: 1,
    }
}

/// A request that arrives in a stall waits for its end: a tenth of all does, evenly from 0 to 1 s, so that one in a
/// hundred waits longer than 0.9 s and one in twenty longer than 0.5 s.
#[tokio::test(start_paused = true)]
async fn an_open_loop_reports_a_stall_as_arithmetic_gives_it() {
    for arrivals in [Arrivals::Constant, Arrivals::Poisson] {
        let open_loop = OpenLoop {
            rate: 200.0,
            arrivals,
            late_max: Duration::from_secs(5),
        };
        for users in [1000, 20] {
            let (series, sends) = record(plan(users, Some(open_loop.clone()))).await;
            let sends = sends.expect("an open loop has sends");
            assert_eq!((sends.sent, sends.dropped), (series.count(), 0));
            let expected_count = 20_000_u64;
            assert!(
                series.count().abs_diff(expected_count) < 500,
                "{}",
                series.count()
            );
            for (quantile, expected_ms) in [(0.99, 900.0), (0.95, 500.0)] {
                let ms = series.quantile_ms(quantile);
                let off = (ms - expected_ms).abs() / expected_ms;
                assert!(
                    off < 0.05,
                    "{arrivals:?}, {users} users, p{quantile}: {ms} ms"
                );
            }
            // With users for every request in a stall all of them are sent on time; with few, most are late,
            // and what was waited before the sending is missing where latency counts from there.
            if users == 1000 {
                assert_eq!(sends.late, 0);
            } else {
                assert!(sends.late > 1000, "{sends:?}");
                let since_send_ms = series.since_send_us().value_at_quantile(0.99) as f64 / 1000.0;
                assert!(since_send_ms < 450.0, "{since_send_ms}");
            }
        }
    }
}

/// What the open loop is for: the closed one asks once in a stall and sees it as one request of ten thousand.
#[tokio::test(start_paused = true)]
async fn a_closed_loop_hides_the_stall() {
    let (series, sends) = record(plan(1, None)).await;
    assert!(sends.is_none());
    assert!(
        series.quantile_ms(0.99) < 5.0,
        "{}",
        series.quantile_ms(0.99)
    );
    assert!(series.quantile_ms(1.0) > 990.0);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_late_is_dropped_and_counted() {
    let open_loop = OpenLoop {
        rate: 2000.0,
        arrivals: Arrivals::Constant,
        late_max: Duration::from_millis(100),
    };
    // One user does at most 900 rounds of a millisecond per second.
    let (series, sends) = record(plan(1, Some(open_loop))).await;
    let sends = sends.expect("an open loop has sends");
    assert_eq!(sends.sent, series.count());
    assert_eq!(sends.sent + sends.dropped, 200_000);
    assert!(
        sends.sent <= 90_000 && sends.late + 1000 > sends.sent,
        "{sends:?}"
    );
}
