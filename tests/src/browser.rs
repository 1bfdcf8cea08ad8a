//! A real browser without a screen, driven by its DevTools protocol: a page is opened, clicked, typed into and looked at.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tungstenite::{Message, WebSocket};

use crate::http;

/// Browsers that render without a screen.
pub const BROWSERS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chrome"];
/// How long a test waits for a page.
const PATIENCE: Duration = Duration::from_secs(60);

/// The first of them that is installed.
pub fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let places = || std::env::split_paths(&path);
    BROWSERS.iter().find_map(|name| places().map(|place| place.join(name)).find(|path| path.exists()))
}

/// A browser with one page; ended when dropped.
pub struct Browser {
    child: Child,
    socket: WebSocket<TcpStream>,
    next: u64,
    /// What the page has complained of, and where it has asked.
    events: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser with an empty page.
    pub fn start(program: &Path) -> Browser {
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let mut command = Command::new(program);
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--disable-dev-shm-usage",
        ]);
        command.args(["--remote-debugging-port=0", "--no-first-run", "--window-size=1300,900"]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the browser can be run");
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let said =
            lines.find_map(|line| line.ok()?.strip_prefix("DevTools listening on ws://").map(str::to_owned));
        let said = said.expect("the browser says where it listens");
        let addr: SocketAddr = said.split('/').next().and_then(|addr| addr.parse().ok()).expect("an address");
        // What else it says is read and forgotten, or it would wait for a reader.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        let page = Browser::page(addr);
        let stream = TcpStream::connect(addr).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        let (socket, _) = tungstenite::client(page.as_str(), stream).expect("a websocket");
        let mut browser = Browser { child, socket, next: 0, events: Vec::new(), _profile: profile };
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// The address of its page's own socket.
    fn page(addr: SocketAddr) -> String {
        let from = Instant::now();
        loop {
            let targets = http::get_of_browser(addr, "/json/list").json();
            let page = targets.as_array().and_then(|all| all.iter().find(|target| target["type"] == "page"));
            if let Some(url) = page.and_then(|page| page["webSocketDebuggerUrl"].as_str()) {
                return url.to_owned();
            }
            assert!(from.elapsed() < PATIENCE, "a page: {targets}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Asks for something, and waits for what comes of it.
    #[track_caller]
    pub fn call(&mut self, method: &str, params: Value) -> Value {
        self.try_call(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// The same, where the browser may refuse it.
    #[track_caller]
    fn try_call(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let asked = json!({ "id": self.next, "method": method, "params": params }).to_string();
        self.socket.send(Message::text(asked)).expect("the browser listens");
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let mut told: Value = serde_json::from_str(&text).expect("JSON");
            if told["id"] == self.next {
                let error = told["error"].take();
                return if error.is_null() { Ok(told["result"].take()) } else { Err(error) };
            }
            self.events.push(told);
        }
    }

    /// Opens an address.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What an expression of the page is.
    #[track_caller]
    pub fn value(&mut self, expression: &str) -> Value {
        self.try_value(expression).unwrap_or_else(|error| panic!("{expression}: {error}"))
    }

    /// The same; an error where the page went away meanwhile.
    #[track_caller]
    fn try_value(&mut self, expression: &str) -> Result<Value, Value> {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut told = self.try_call("Runtime.evaluate", asked)?;
        assert!(told["exceptionDetails"].is_null(), "{expression}: {}", told["exceptionDetails"]);
        Ok(told["result"]["value"].take())
    }

    /// The text of an element.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({})?.innerText ?? ''", json!(selector)));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression of the page is true; one that is loaded again meanwhile is asked again.
    #[track_caller]
    pub fn until(&mut self, expression: &str) {
        let from = Instant::now();
        while self.try_value(&format!("Boolean({expression})")) != Ok(json!(true)) {
            assert!(from.elapsed() < PATIENCE, "{expression} within {PATIENCE:?}; {:#?}", self.complaints());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Clicks an element, so far from its left and upper edge; in its middle where nothing is said.
    #[track_caller]
    pub fn click(&mut self, selector: &str, at: Option<(f64, f64)>) {
        let found = format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{ block: 'center', behavior: 'instant' }}); \
             const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; }})()",
            json!(selector)
        );
        let found = self.value(&found);
        let number = |n: usize| found[n].as_f64().unwrap_or_else(|| panic!("{selector}: {found}"));
        let (right, down) = at.unwrap_or((number(2) / 2.0, number(3) / 2.0));
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let clicks = if kind == "mouseMoved" { 0 } else { 1 };
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let event = json!({
                "type": kind, "x": number(0) + right, "y": number(1) + down, "button": button, "clickCount": clicks
            });
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Types a text into whatever has the focus.
    #[track_caller]
    pub fn type_text(&mut self, text: &str) {
        self.call("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key, with its number as Windows has it.
    #[track_caller]
    pub fn press(&mut self, key: &str, number: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": number });
            if key == "Enter" && kind == "keyDown" {
                event["text"] = json!("\r");
            }
            self.call("Input.dispatchKeyEvent", event);
        }
    }

    /// As on a screen of this size, in device-independent pixels.
    #[track_caller]
    pub fn resize(&mut self, width: u32, height: u32, mobile: bool) {
        let metrics = json!({
            "width": width, "height": height, "deviceScaleFactor": if mobile { 2 } else { 1 }, "mobile": mobile
        });
        self.call("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// As where people prefer light or dark.
    #[track_caller]
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// What the page has thrown, and what the browser has said against it.
    pub fn complaints(&self) -> Vec<String> {
        let bad = |event: &&Value| match event["method"].as_str() {
            Some("Runtime.exceptionThrown") => true,
            Some("Log.entryAdded") => event["params"]["entry"]["source"] == "security",
            Some("Runtime.consoleAPICalled") => event["params"]["type"] == "error",
            _ => false,
        };
        self.events.iter().filter(bad).map(Value::to_string).collect()
    }

    /// Every address that the page has asked.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent");
        asked.filter_map(|event| Some(event["params"]["request"]["url"].as_str()?.to_owned())).collect()
    }

    /// Writes a picture of the page where `LODE_SCREENSHOTS` names a directory.
    pub fn picture(&mut self, name: &str) {
        let Some(directory) = std::env::var_os("LODE_SCREENSHOTS") else { return };
        let expression = "document.documentElement.scrollHeight";
        let (height, width) = (self.value(expression), self.value("innerWidth"));
        let clip = json!({ "x": 0, "y": 0, "width": width, "height": height, "scale": 1 });
        let asked = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let told = self.call("Page.captureScreenshot", asked);
        let bytes = decoded(told["data"].as_str().expect("a picture"));
        let path = Path::new(&directory).join(format!("{name}.png"));
        std::fs::File::create(path).and_then(|mut file| file.write_all(&bytes)).expect("written");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bytes of base64 with padding.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::new();
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = four.iter().fold(0u32, |bits, byte| bits << 6 | u32::from(digit(*byte)));
        let bits = bits << (6 * (4 - four.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..four.len()]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        assert_eq!(decoded("bG9kZQ=="), b"lode");
        assert_eq!((decoded("AP/+"), decoded("")), (vec![0, 255, 254], Vec::new()));
    }
}
