//! Replies into bytes, as either version of the protocol has them.

use bytes::Bytes;

/// The protocol's version, which each connection chooses for itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// What a connection begins with.
    #[default]
    Resp2,
    /// With types of its own for maps, numbers, truth and nothing.
    Resp3,
}

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A short text, such as `OK`.
    Simple(&'static str),
    /// An error; its first word tells clients which.
    Error(String),
    /// A whole number.
    Integer(i64),
    /// Bytes.
    Bulk(Bytes),
    /// Nothing, where bytes could be.
    Null,
    /// Nothing, where a list could be.
    NullArray,
    /// A list.
    Array(Vec<Reply>),
    /// Keys and values; in version 2 a list of both by turns.
    Map(Vec<(Reply, Reply)>),
    /// A number with a fraction; in version 2 its text.
    Double(f64),
    /// Yes or no; in version 2 one or zero.
    Boolean(bool),
    /// A text for people; in version 2 bytes.
    Text(String),
}

impl Reply {
    /// The reply of most commands that have nothing to say.
    pub const OK: Reply = Reply::Simple("OK");

    /// An error that is none of those with a word of their own.
    pub fn error(text: impl std::fmt::Display) -> Reply {
        Reply::Error(format!("ERR {text}"))
    }

    /// A text, as bytes.
    pub fn text(text: impl Into<String>) -> Reply {
        Reply::Bulk(Bytes::from(text.into()))
    }

    /// Bytes, or nothing.
    pub fn bulk_or_null(bytes: Option<Bytes>) -> Reply {
        bytes.map_or(Reply::Null, Reply::Bulk)
    }

    /// Whether it is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Error(_))
    }

    /// About how many bytes it takes on the wire.
    pub fn size_bytes(&self) -> usize {
        const HEAD_BYTES: usize = 16;
        HEAD_BYTES
            + match self {
                Reply::Bulk(bytes) => bytes.len(),
                Reply::Error(text) | Reply::Text(text) => text.len(),
                Reply::Array(items) => items.iter().map(Reply::size_bytes).sum(),
                Reply::Map(pairs) => {
                    pairs.iter().map(|(key, value)| key.size_bytes() + value.size_bytes()).sum()
                }
                _ => 0,
            }
    }

    /// Appends it as it travels.
    pub fn encode(&self, protocol: Protocol, out: &mut Vec<u8>) {
        let is_new = protocol == Protocol::Resp3;
        match self {
            Reply::Simple(text) => line(out, b'+', text.as_bytes()),
            // A line's end within would be taken for the reply's.
            Reply::Error(text) => line(out, b'-', text.replace(['\r', '\n'], " ").as_bytes()),
            Reply::Integer(number) => head(out, b':', *number),
            Reply::Bulk(bytes) => bulk(out, bytes),
            Reply::Null if is_new => out.extend_from_slice(b"_\r\n"),
            Reply::Null => out.extend_from_slice(b"$-1\r\n"),
            Reply::NullArray if is_new => out.extend_from_slice(b"_\r\n"),
            Reply::NullArray => out.extend_from_slice(b"*-1\r\n"),
            Reply::Array(items) => {
                head(out, b'*', items.len() as i64);
                items.iter().for_each(|item| item.encode(protocol, out));
            }
            Reply::Map(pairs) => {
                match is_new {
                    true => head(out, b'%', pairs.len() as i64),
                    false => head(out, b'*', 2 * pairs.len() as i64),
                }
                for (key, value) in pairs {
                    key.encode(protocol, out);
                    value.encode(protocol, out);
                }
            }
            Reply::Double(number) if is_new => line(out, b',', double(*number).as_bytes()),
            Reply::Double(number) => bulk(out, double(*number).as_bytes()),
            Reply::Boolean(yes) if is_new => line(out, b'#', if *yes { b"t" } else { b"f" }),
            Reply::Boolean(yes) => head(out, b':', i64::from(*yes)),
            Reply::Text(text) if is_new => {
                head(out, b'=', text.len() as i64 + 4);
                out.extend_from_slice(b"txt:");
                out.extend_from_slice(text.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
            Reply::Text(text) => bulk(out, text.as_bytes()),
        }
    }
}

fn line(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    out.push(kind);
    out.extend_from_slice(text);
    out.extend_from_slice(b"\r\n");
}

fn head(out: &mut Vec<u8>, kind: u8, number: i64) {
    // Room for the least of them: 20 characters.
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        at -= 1;
        digits[at] = b'-';
    }
    line(out, kind, &digits[at..]);
}

fn bulk(out: &mut Vec<u8>, bytes: &[u8]) {
    head(out, b'$', bytes.len() as i64);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

fn double(number: f64) -> String {
    match number {
        _ if number.is_nan() => "nan".to_owned(),
        f64::INFINITY => "inf".to_owned(),
        f64::NEG_INFINITY => "-inf".to_owned(),
        _ => number.to_string(),
    }
}
