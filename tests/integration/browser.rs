//! Chromium without a window, driven by its DevTools protocol over a pair of pipes: no port, no other library.

use std::path::PathBuf;
use std::process::Stdio;
use std::{env, io::Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::{programs, wait};

/// Names of the program in Debian and elsewhere.
const NAMES: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// A browser with one page, ended when it is dropped.
pub struct Browser {
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    /// Of the page; null until there is one.
    session: Value,
    last_id: u64,
    complaints: Vec<String>,
    _process: Child,
    /// Dropped last: its files go when the browser is gone.
    _profile: TempDir,
}

impl Browser {
    /// A browser with an empty page. None where no Chromium is installed, which is said; in CI
    /// (`CI=true`) it has to be.
    pub async fn start() -> Option<Browser> {
        let Some(program) = programs::look_for(&NAMES, "MUFAKAT_CHROMIUM") else {
            let in_ci = env::var("CI").is_ok_and(|ci| ci == "true");
            assert!(
                !in_ci,
                "found no Chromium: run `make test`, or name it by MUFAKAT_CHROMIUM"
            );
            // Not by a macro: those are not shown of tests that pass.
            let said = writeln!(
                std::io::stderr(),
                "skipped: no Chromium here to look at pages with"
            );
            said.expect("stderr takes it");
            return None;
        };
        let profile = TempDir::new().expect("a temporary directory can be made");
        let mut process = command(program, &profile).spawn().expect("it starts");
        let mut browser = Browser {
            commands: process.stdin.take().expect("it is piped"),
            messages: BufReader::new(process.stdout.take().expect("it is piped")),
            session: Value::Null,
            last_id: 0,
            complaints: Vec::new(),
            _process: process,
            _profile: profile,
        };
        let made = browser
            .call("Target.createTarget", json!({"url": "about:blank"}))
            .await;
        let target = json!({"targetId": made["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", target).await;
        browser.session = attached["sessionId"].clone();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({})).await;
        }
        Some(browser)
    }

    /// One command of the protocol, to the page or, before there is one, to the browser.
    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.last_id += 1;
        let id = self.last_id;
        let mut command = json!({"id": id, "method": method, "params": params});
        if !self.session.is_null() {
            command["sessionId"] = self.session.clone();
        }
        let mut line = serde_json::to_vec(&command).expect("JSON encodes");
        line.push(0);
        self.commands.write_all(&line).await.expect("it runs");
        let answer = tokio::time::timeout(wait::LONG, async {
            loop {
                let message = self.next().await;
                if message["id"] == id {
                    return message;
                }
                self.complaints.extend(complaint(&message));
            }
        });
        let mut answer = answer
            .await
            .unwrap_or_else(|_| panic!("no answer to {method}"));
        assert!(answer["error"].is_null(), "{method} {params}: {answer}");
        answer["result"].take()
    }

    async fn next(&mut self) -> Value {
        let mut line = Vec::new();
        self.messages
            .read_until(0, &mut line)
            .await
            .expect("it runs");
        assert_eq!(line.pop(), Some(0), "the browser ended");
        serde_json::from_slice(&line).expect("it speaks JSON")
    }

    pub async fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url})).await;
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// What an expression is in the page; a promise is waited for.
    pub async fn evaluate(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let mut evaluated = self.call("Runtime.evaluate", params).await;
        let thrown = &evaluated["exceptionDetails"];
        assert!(thrown.is_null(), "{expression}: {thrown}");
        evaluated["result"]["value"].take()
    }

    /// Waits until an expression, or what it promises, is true in the page, for at most [`wait::LONG`].
    pub async fn until(&mut self, expression: &str) {
        let whether = format!("(async () => Boolean(await ({expression})))()");
        let looked =
            wait::look_until(async || (self.evaluate(&whether).await == true).then_some(()));
        if looked.await.is_none() {
            let text = self.evaluate("document.body.innerText").await;
            panic!("never: {expression}\n{}", text.as_str().unwrap_or_default());
        }
    }

    /// Presses the mouse on the middle of the first element that an expression finds, or releases it.
    pub async fn mouse(&mut self, kind: &str, element: &str) {
        let place = format!(
            "(() => {{ const e = {element}; e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let at = self.evaluate(&place).await;
        let params =
            json!({"type": kind, "x": at[0], "y": at[1], "button": "left", "clickCount": 1});
        self.call("Input.dispatchMouseEvent", params).await;
    }

    /// Clicks on the element that an expression finds.
    pub async fn click(&mut self, element: &str) {
        self.until(element).await;
        self.mouse("mousePressed", element).await;
        self.mouse("mouseReleased", element).await;
    }

    /// Types into the field with this id, in place of what it has.
    pub async fn fill(&mut self, id: &str, text: &str) {
        let select = format!("document.getElementById('{id}').select()");
        self.click(&format!("document.getElementById('{id}')"))
            .await;
        self.evaluate(&select).await;
        self.call("Input.insertText", json!({"text": text})).await;
    }

    /// A screen of this size from now on.
    pub async fn resize(&mut self, width: u32, height: u32) {
        let size =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await;
    }

    /// Whether who looks prefers `light` or `dark`; colours change at once.
    pub async fn prefer(&mut self, scheme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        let params = json!({"features": features});
        self.call("Emulation.setEmulatedMedia", params).await;
    }

    /// Role and name of all that assistive technology is told of.
    pub async fn accessible(&mut self) -> Vec<(String, String)> {
        let tree = self.call("Accessibility.getFullAXTree", json!({})).await;
        let nodes = tree["nodes"].as_array().expect("a list");
        let text = |value: &Value| value["value"].as_str().unwrap_or_default().to_owned();
        let told = nodes.iter().filter(|node| node["ignored"] != true);
        told.map(|node| (text(&node["role"]), text(&node["name"])))
            .collect()
    }

    /// Keeps a picture of the whole page for people, in `target/tmp`.
    pub async fn picture(&mut self, name: &str) {
        self.evaluate("scrollTo({ top: 0, behavior: 'instant' })")
            .await;
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let taken = self.call("Page.captureScreenshot", params).await;
        let image = STANDARD.decode(taken["data"].as_str().expect("base64"));
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(path, image.expect("base64")).expect("a picture can be written");
    }

    /// Errors and warnings of the page since they were last asked for.
    pub fn complaints(&mut self) -> Vec<String> {
        std::mem::take(&mut self.complaints)
    }
}

/// Commands come in at descriptor 3 and answers go out at 4, each ended by a zero.
fn command(program: PathBuf, profile: &TempDir) -> Command {
    let mut command = Command::new("sh");
    command
        .args([
            "-c",
            "exec \"$0\" \"$@\" 3<&0 4>&1 0</dev/null >/dev/null 2>&1",
        ])
        .arg(program)
        .args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-first-run",
        ])
        .args([
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-proxy-server",
        ])
        .args(["--disable-background-networking", "--hide-scrollbars"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if rustix::process::geteuid().is_root() {
        command.arg("--no-sandbox");
    }
    command
}

/// What an event says that the page does wrong, if it does.
fn complaint(event: &Value) -> Option<String> {
    let params = &event["params"];
    match event["method"].as_str()? {
        "Runtime.exceptionThrown" => Some(params["exceptionDetails"].to_string()),
        "Runtime.consoleAPICalled" => {
            let kind = params["type"].as_str()?;
            ["error", "warning", "assert"]
                .contains(&kind)
                .then(|| params["args"].to_string())
        }
        "Log.entryAdded" => {
            let (level, text) = (params["entry"]["level"].as_str()?, &params["entry"]["text"]);
            ["error", "warning"]
                .contains(&level)
                .then(|| text.to_string())
        }
        _ => None,
    }
}
