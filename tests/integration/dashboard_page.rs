//! The dashboard of a real cluster in a real browser: what it shows, what it does, how it looks.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_nats::Client;
use serde_json::json;

use crate::browser::Browser;
use crate::cluster::{Cluster, Options};
use crate::queue::Queue;
use crate::waiting::{Waiting, acquire};
use crate::{locks, wait, wire};

const TOKEN: &str = "0123456789abcdef-of-a-test";

/// How soon the page has to show that the leader is gone.
const SHOWN_MAX: Duration = Duration::from_secs(2);

/// What it says where.
fn says(place: &str, text: &str) -> String {
    format!(
        "document.querySelector('{place}')?.innerText.includes({})",
        json!(text)
    )
}

/// The button that does this to that; as pages write them.
fn button(key: &str) -> String {
    format!("document.querySelector('[data-key={}]')", json!(key))
}

async fn look(cluster: &Cluster, node: u64) -> Option<Browser> {
    let mut browser = Browser::start().await?;
    browser.resize(1400, 1000).await;
    let url = format!("http://127.0.0.1:{}/", cluster.http_port(node));
    browser.open(&url).await;
    browser
        .until("document.querySelectorAll('#nodes .card .tag').length === 3")
        .await;
    browser.until(&says("#connection", "live")).await;
    Some(browser)
}

/// A lock with a waiter, and two owners whose deadlock is found but not ended: one that waits for the other,
/// who was refused.
async fn entangle(nats: &Client) -> Vec<Waiting> {
    let token = locks::acquire(nats, "orders.42", "worker-7", 600_000).await;
    assert!(token > 0);
    let waiter = Waiting::start(nats, 1, acquire("orders.42", "worker-8", "exclusive")).await;
    locks::acquire(nats, "left", "anna", 600_000).await;
    locks::acquire(nats, "right", "bert", 600_000).await;
    let anna = Waiting::start(nats, 2, acquire("right", "anna", "exclusive")).await;
    let body = acquire("left", "bert", "exclusive");
    let refused = wire::request(nats, "mufakat.lock.acquire", &body, wait::LONG).await;
    assert_eq!(wire::code(&refused.expect("an answer")), "deadlock");
    vec![waiter, anna]
}

#[tokio::test]
async fn the_page_shows_the_cluster_and_acts_with_the_token() {
    let options = Options {
        redis: true,
        ..Options::flags(&["--admin-token", TOKEN])
    };
    let cluster = Cluster::start(options).await;
    let Some(mut page) = look(&cluster, 1).await else {
        return;
    };
    let nats = cluster.nats().await;
    let _waiting = entangle(&nats).await;
    let queue = Queue::of(&cluster).await;
    for number in 0..3 {
        queue.push("mails", json!({"number": number})).await;
    }

    for node in 1..=3 {
        page.until(&says("#nodes", &format!("Node {node}"))).await;
    }
    page.until("document.querySelectorAll('#nodes .card.leader').length === 1")
        .await;
    page.until("document.querySelectorAll('#nodes .card.follower').length === 2")
        .await;
    let token = locks::get(&nats, "orders.42").await.holders[0].token;
    let row = "[...document.querySelectorAll('#locks tbody tr')].find((tr) => tr.innerText.includes('orders.42'))";
    for text in ["worker-7", "worker-8", "exclusive", &token.to_string()] {
        page.until(&format!("{row}?.innerText.includes({})", json!(text)))
            .await;
    }
    page.until("document.querySelectorAll('#graph svg path.edge').length === 2")
        .await;
    page.until("document.querySelector('#graph svg').textContent.includes('worker-8')")
        .await;
    page.until("[...document.querySelectorAll('#graph title')].some((title) => title.textContent === 'worker-8')")
        .await;
    page.until("short('worker.of.a.long.name.62', 14) === 'work…g.name.62'")
        .await;
    page.until("document.querySelectorAll('#deadlocks svg path.edge').length === 2")
        .await;
    page.until(&says("#deadlocks", "bert")).await;
    page.until(&says("#queues", "mails")).await;
    page.until(&says("#requests", "lock.acquire")).await;
    page.until("document.querySelectorAll('#requests path.spark').length > 0")
        .await;

    is_accessible(&mut page).await;
    fits_and_can_be_read(&mut page).await;
    assert_eq!(page.complaints(), [""; 0]);
    begins_with_the_past(&mut page).await;
    the_past_may_come_late(&mut page).await;
    keeps_what_is_selected_and_focused(&mut page).await;
    a_slow_click_is_not_lost(&mut page).await;
    releases(&mut page).await;
    redrives(&mut page, &queue).await;
    purges(&mut page, &queue).await;
    assert_eq!(page.complaints(), [""; 0]);
}

/// Everything that can be used, drawn or gone to has a name, in the page and in the dialog.
async fn is_accessible(page: &mut Browser) {
    page.click(&button("Purge… mails")).await;
    page.until("document.getElementById('act').open").await;
    let dialog = page.accessible().await;
    page.click("document.getElementById('act-cancel')").await;
    let whole = page.accessible().await;
    let count = |role: &str| {
        dialog
            .iter()
            .chain(&whole)
            .filter(|told| told.0 == role)
            .count()
    };
    for role in [
        "button", "textbox", "meter", "image", "region", "dialog", "heading", "table",
    ] {
        assert!(count(role) > 0, "no {role}: {dialog:?} {whole:?}");
    }
    for (role, name) in dialog.iter().chain(&whole) {
        let needs = [
            "button", "textbox", "meter", "image", "region", "dialog", "heading", "table", "link",
        ];
        assert!(
            !needs.contains(&role.as_str()) || !name.is_empty(),
            "a {role} without a name"
        );
    }
}

/// Texts whose contrast with what is behind them is below what WCAG asks for at level AA.
const PALE: &str = r#"(() => {
    const numbers = (color) => (color.match(/[\d.]+/g) || []).map(Number);
    const light = (color) => numbers(color).slice(0, 3).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = (element) => {
        for (let e = element; e; e = e.parentElement) {
            const color = getComputedStyle(e).backgroundColor;
            if (/^rgb\(/.test(color)) return color;
        }
        return "rgb(255, 255, 255)";
    };
    const pale = new Set();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        if (!walker.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("svg, .skip, noscript")) continue;
        const [a, b] = [light(getComputedStyle(element).color), light(behind(element))].sort((x, y) => y - x);
        const contrast = (a + 0.05) / (b + 0.05);
        if (contrast < 4.5) pale.add(`${element.className || element.id || element.tagName}: ${contrast.toFixed(2)}`);
    }
    return [...pale];
})()"#;

/// At each width, light and dark.
async fn fits_and_can_be_read(page: &mut Browser) {
    let mut papers = Vec::new();
    for scheme in ["light", "dark"] {
        page.prefer(scheme).await;
        for (name, width, height) in [
            ("desk", 1400, 1000),
            ("tablet", 820, 1100),
            ("phone", 360, 780),
        ] {
            page.resize(width, height).await;
            let beyond = page
                .evaluate("document.documentElement.scrollWidth - innerWidth")
                .await;
            assert!(
                beyond.as_i64() <= Some(0),
                "{name} scrolls sideways by {beyond}"
            );
            page.picture(&format!("dashboard-{name}-{scheme}")).await;
        }
        assert_eq!(page.evaluate(PALE).await, json!([]), "{scheme}");
        papers.push(
            page.evaluate("getComputedStyle(document.body).backgroundColor")
                .await,
        );
    }
    assert_ne!(papers[0], papers[1]);
    page.resize(1400, 1000).await;
    // Whoever wants it otherwise than the system has it switches, and it is kept.
    page.click("document.getElementById('theme')").await;
    let paper = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(page.evaluate(paper).await, papers[0]);
    assert_eq!(
        page.evaluate("localStorage.getItem('theme')").await,
        "light"
    );
}

/// Who opens the page now sees what was before.
async fn begins_with_the_past(page: &mut Browser) {
    let pushed = "fetch('dashboard/history').then((told) => told.json()) \
        .then((told) => told.points.some((point) => point.requests.queue_push > 0))";
    page.until(pushed).await;
    let here = page.evaluate("location.href").await;
    page.open(here.as_str().expect("a URL")).await;
    page.until("Array.isArray(history) && history.some((one) => one.at < performance.timeOrigin && one.operations.get('queue_push')?.requests > 0)").await;
    page.until("document.querySelector('[aria-label=\"queue_push per second\"] path.spark')")
        .await;
}

/// What was before the page's own first sample is drawn, however late the nodes tell it; what they tell of
/// times that the page has seen is not.
async fn the_past_may_come_late(page: &mut Browser) {
    let recalled = "(async () => { \
        const [seen, fetched, start] = [history, fetch, Date.now() - 60000]; \
        const told = { at_ms: start, every_ms: 5000, bounds_ns: [], \
            points: [6000, 1000, -4000, -9000].map((age_ms) => ({ age_ms, requests: {}, durations: [] })) }; \
        window.fetch = async () => new Response(JSON.stringify(told)); \
        history = [0, 1000, 2000].map((after) => ({ at: start + after, requests: 1, operations: new Map() })); \
        await recall(); \
        const recalled = history.filter((one) => one.leader === undefined && one.p99 !== undefined).map((one) => one.at - start); \
        [history, window.fetch] = [seen, fetched]; \
        return recalled; })()";
    assert_eq!(page.evaluate(recalled).await, json!([-6000, -1000, 9000]));
}

/// Done when the page has had two more documents.
const TWO_DOCUMENTS: &str = "new Promise((done) => { const stream = new EventSource('dashboard/events'); \
    let seen = 0; stream.onmessage = () => { seen += 1; if (seen === 3) { stream.close(); done(true); } }; })";

/// The page changes each second what has changed, and nothing else.
async fn keeps_what_is_selected_and_focused(page: &mut Browser) {
    let begin = "(() => { \
        const row = [...document.querySelectorAll('#locks tbody tr')].find((tr) => tr.innerText.includes('orders.42')); \
        getSelection().selectAllChildren(row.cells[1]); \
        document.querySelector('#locks .table').focus(); \
        window.kept = { row, lease: row.cells[4].innerText, summary: document.getElementById('foot').textContent }; \
        return getSelection().toString(); })()";
    assert_eq!(page.evaluate(begin).await, "worker-7");
    page.evaluate(TWO_DOCUMENTS).await;
    page.until("document.getElementById('foot').textContent !== kept.summary")
        .await;
    page.until("kept.row.cells[4].innerText !== kept.lease")
        .await;
    assert_eq!(page.evaluate("getSelection().toString()").await, "worker-7");
    let focused = "document.activeElement === document.querySelector('#locks .table')";
    assert_eq!(page.evaluate(focused).await, true);
    page.evaluate("getSelection().removeAllRanges()").await;
}

/// The page is not drawn anew under a button that is being pressed.
async fn a_slow_click_is_not_lost(page: &mut Browser) {
    let release = button("release orders.42");
    page.mouse("mousePressed", &release).await;
    page.evaluate(TWO_DOCUMENTS).await;
    page.mouse("mouseReleased", &release).await;
    page.until("document.getElementById('act').open").await;
    page.click("document.getElementById('act-cancel')").await;
}

/// Only with a reason and the right token.
async fn releases(page: &mut Browser) {
    let act = "document.getElementById('act-do')";
    page.click(&button("release orders.42")).await;
    page.picture("dashboard-dialog").await;
    page.click(act).await;
    page.until(&says("#act-answer", "A reason is needed."))
        .await;
    page.fill("act-reason", "its holder hangs").await;
    page.click(act).await;
    page.until(&says("#act-answer", "The admin token is needed."))
        .await;
    page.fill("act-token", "0123456789abcdef-of-another").await;
    page.click(act).await;
    page.until(&says("#act-answer", "the admin token is missing or wrong"))
        .await;
    let complaints = page.complaints();
    assert!(
        matches!(&complaints[..], [one] if one.contains("403")),
        "{complaints:?}"
    );
    page.fill("act-token", TOKEN).await;
    page.click(act).await;
    page.until("!document.getElementById('act').open").await;
    let next = "[...document.querySelectorAll('#locks tbody tr')].find((tr) => tr.innerText.includes('orders.42')).cells[1].innerText === 'worker-8'";
    page.until(next).await;
}

/// First it is counted what would become ready.
async fn redrives(page: &mut Browser, queue: &Queue) {
    let act = "document.getElementById('act-do')";
    for message in queue.pop("mails", 2).await {
        let body = json!({"topic": "mails", "receipt": message["receipt"], "dead": true});
        queue.ok("queue.nack", body).await;
    }
    let redrive = button("Redrive… mails");
    page.until(&redrive).await;
    page.click(&redrive).await;
    page.click(act).await;
    page.until(&says("#act-what", "2 dead messages of mails will be ready"))
        .await;
    assert_eq!(queue.counts("mails").await, [1, 0, 0, 2]);
    page.until(&says("#act-do", "Redrive 2")).await;
    page.click(act).await;
    page.until("!document.getElementById('act').open").await;
    assert_eq!(queue.counts("mails").await, [3, 0, 0, 0]);
}

/// Only what is named; the token is known by now.
async fn purges(page: &mut Browser, queue: &Queue) {
    let act = "document.getElementById('act-do')";
    page.click(&button("Purge… mails")).await;
    page.until("document.getElementById('act-token-row').hidden")
        .await;
    page.fill("act-confirm", "mail").await;
    page.click(act).await;
    page.until(&says("#act-answer", "That is not the name."))
        .await;
    assert_eq!(queue.counts("mails").await, [3, 0, 0, 0]);
    page.fill("act-confirm", "mails").await;
    page.click(act).await;
    page.until("!document.getElementById('act').open").await;
    assert_eq!(queue.counts("mails").await, [0, 0, 0, 0]);
}

#[tokio::test]
async fn the_page_shows_within_two_seconds_that_the_leader_is_gone() {
    let mut cluster = Cluster::start(Options::default()).await;
    let leader = cluster.leader().await;
    let witness = cluster.follower().await;
    let Some(mut page) = look(&cluster, witness).await else {
        return;
    };
    let watch = format!(
        "new MutationObserver(() => {{ for (const card of document.querySelectorAll('#nodes .card')) {{ \
         if (card.innerText.includes('Node {leader}')) {{ \
         if (card.classList.contains('gone')) window.gone ??= Date.now(); }} \
         else if (card.classList.contains('leader')) window.led ??= Date.now(); \
         }} }}).observe(document.getElementById('nodes'), {{ attributes: true, childList: true, subtree: true }})"
    );
    page.evaluate(&watch).await;
    let killed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    cluster.kill(leader);
    page.until("window.gone && window.led").await;
    let mut after = async |moment: &str| {
        let shown = page.evaluate(moment).await.as_f64().expect("a number");
        Duration::from_millis(shown as u64).saturating_sub(killed)
    };
    let (gone, led) = (after("window.gone").await, after("window.led").await);
    println!("after the kill the page shows: gone after {gone:?}, another leads after {led:?}");
    assert!(gone < SHOWN_MAX, "the leader's end is shown after {gone:?}");
    page.until("document.title.startsWith('⚠')").await;
    assert_eq!(page.complaints(), [""; 0]);
}
