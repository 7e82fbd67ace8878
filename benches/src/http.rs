//! HTTP for the peers that are no endpoints: the ends of request heads, and responses.

/// A request without a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Bytes of its head with the empty line.
    pub len: usize,
    /// Whether the client asks the server to close the connection after the response (RFC 9112 section 9.3).
    pub closes: bool,
}

/// Returns the first request in `bytes`, if its head is whole.
#[must_use]
pub fn first(bytes: &[u8]) -> Option<Request> {
    let mut len = 0;
    let mut closes = false;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let line_len = line.len();
        let line = line.strip_suffix(b"\n")?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if len == 0 {
            closes = line.ends_with(b"HTTP/1.0");
        } else if line.is_empty() {
            return Some(Request { len: len + line_len, closes });
        } else if let Some(value) = connection(line) {
            closes =
                value.eq_ignore_ascii_case(b"close") || closes && !value.eq_ignore_ascii_case(b"keep-alive");
        }
        len += line_len;
    }
    None
}

/// Returns the value of a header line if its field is `Connection`. The first letter rules out most lines.
#[inline]
fn connection(line: &[u8]) -> Option<&[u8]> {
    const NAME: &[u8] = b"connection:";
    if !matches!(line.first(), Some(b'c' | b'C')) {
        return None;
    }
    let (name, value) = line.split_at_checked(NAME.len())?;
    name.eq_ignore_ascii_case(NAME).then(|| value.trim_ascii())
}

/// Returns an HTTP/1.1 response with a body of `body_len` bytes; `closes` says that it is the last one on its connection.
#[must_use]
pub fn response(body_len: usize, closes: bool) -> Vec<u8> {
    let field = if closes { "Connection: close\r\n" } else { "" };
    let mut text = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_len}\r\n{field}\r\n").into_bytes();
    text.resize(text.len() + body_len, b'x');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads() {
        let whole = |len, closes| Some(Request { len, closes });
        let table: &[(&[u8], Option<Request>)] = &[
            (b"", None),
            (b"GET / HTTP/1.1\r\n", None),
            (b"GET / HTTP/1.1\r\n\r", None),
            (b"GET / HTTP/1.1\r\n\r\n", whole(18, false)),
            (b"GET / HTTP/1.1\n\n", whole(16, false)),
            (b"GET / HTTP/1.0\r\n\r\n", whole(18, true)),
            (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", whole(42, false)),
            (b"GET / HTTP/1.1\r\nCONNECTION:Close\r\n\r\n", whole(36, true)),
            (b"GET / HTTP/1.1\r\nConnection: close\r\n", None),
            (b"GET / HTTP/1.1\r\nCookie: close\r\nHost: h\r\n\r\nGET", whole(42, false)),
        ];
        for (bytes, expected) in table {
            assert_eq!(first(bytes), *expected, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
