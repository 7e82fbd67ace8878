//! What a connection is answered with. Knows names and texts; never sockets.

use std::str::FromStr;

/// The body of the connections that `reset-half` does not reset, in bytes.
const HALF_BODY: usize = 64;

/// What is done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    /// FIN as soon as it is accepted.
    Close,
    /// RST as soon as it is accepted.
    Reset,
    /// RST for every second connection as soon as it is accepted, FIN for the others.
    ResetHalfAtOnce,
    /// A response to every request; bytes of its body.
    Http(usize),
    /// RST for every second connection when it asks, a response for the others.
    ResetHalf(usize),
    /// An answer to every request that is no HTTP.
    Garbage,
    /// So many bytes as soon as it is accepted, then FIN.
    Source(usize),
    /// Everything back.
    Echo,
    /// Neither a word nor an end.
    Silent,
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let size =
            |text: &str| text.parse().map_err(|_| format!("{text:?} is not a size of a body, in bytes"));
        match text.split_once(':').map_or((text, None), |(name, rest)| (name, Some(rest))) {
            ("close", None) => Ok(Self::Close),
            ("reset", None) => Ok(Self::Reset),
            ("http", Some(body)) => size(body).map(Self::Http),
            ("source", Some(bytes)) => size(bytes).map(Self::Source),
            ("reset-half", None) => Ok(Self::ResetHalf(HALF_BODY)),
            ("reset-half", Some("close")) => Ok(Self::ResetHalfAtOnce),
            ("reset-half", Some(rest)) => match rest.split_once(':') {
                Some(("http", body)) => size(body).map(Self::ResetHalf),
                _ => Err("half of what? reset-half:close or reset-half:http:SIZE".into()),
            },
            ("garbage", None) => Ok(Self::Garbage),
            ("echo", None) => Ok(Self::Echo),
            ("silent", None) => Ok(Self::Silent),
            _ => {
                Err("it is one of close, http:SIZE, source:SIZE, echo, reset, reset-half, garbage, silent"
                    .into())
            }
        }
    }
}

/// What a request is answered with.
pub(crate) fn response(service: Service, closes: bool) -> Vec<u8> {
    let body_len = match service {
        Service::Http(body_len) | Service::ResetHalf(body_len) => body_len,
        Service::Garbage => return b"\x00\xff\r\n\r\nthis is no response\r\n\r\n".to_vec(),
        Service::Source(bytes) => return vec![b'x'; bytes],
        _ => return Vec::new(),
    };
    let field = if closes { "Connection: close\r\n" } else { "" };
    let mut text = format!("HTTP/1.1 200 OK\r\nContent-Length: {body_len}\r\n{field}\r\n").into_bytes();
    text.resize(text.len() + body_len, b'x');
    text
}
