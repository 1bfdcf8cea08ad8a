//! The console: one page, built into the binary, that asks this port and nobody else.

use bytes::Bytes;
use hyper::header::{self, HeaderValue};
use hyper::{Response, StatusCode};

use super::service::{Body, whole};

/// What the page may do: run its own script, in its own style, ask the port it came from, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One of the page's files.
pub fn file(path: &str) -> Option<Response<Body>> {
    let (kind, text) = match path {
        "/" => ("text/html; charset=utf-8", include_str!("console/index.html")),
        "/console.css" => ("text/css; charset=utf-8", include_str!("console/console.css")),
        "/console.js" => ("text/javascript; charset=utf-8", include_str!("console/console.js")),
        "/slow.js" => ("text/javascript; charset=utf-8", include_str!("console/slow.js")),
        _ => return None,
    };
    let mut answer = whole(StatusCode::OK, kind, Bytes::from_static(text.as_bytes()));
    answer.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    Some(answer)
}
